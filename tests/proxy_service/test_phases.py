"""Telling a program that its language refused from one that ran and failed."""

from __future__ import annotations

import pytest

from proxy_service.phases import phase_of

REFUSED = {
    "bash": "main-0123abcd.sh: line 2: syntax error near unexpected token `then'\n",
    "java": "main-0123abcd.java:1: error: <identifier> expected\n1 error\nerror: compilation failed\n",
    "javascript": "/sandbox/main-0123abcd.js:2\nlet = ;\n      ^\n\nSyntaxError: Unexpected token ';'\n",
    "python": '  File "/sandbox/.main-0123abcd.py", line 2\n    def :\n        ^\nSyntaxError: invalid syntax\n',
    "r": "Error: unexpected end of input\nExecution halted\n",
    "ruby": "main-0123abcd.rb:2: syntax error, unexpected end-of-input\n",
}
FAILED = {
    "bash": "main-0123abcd.sh: eval: line 1: syntax error near unexpected token `then'\n",
    "java": 'Exception in thread "main" java.lang.RuntimeException: x\n\tat Main.main(main-0123abcd.java:1)\n',
    "javascript": "undefined:1\nlet = ;\n      ^\n\nSyntaxError: Unexpected token ';'\n    at main-0123abcd.js:1:1\n",
    "python": "Traceback (most recent call last):\n"
    '  File "/sandbox/.main-0123abcd.py", line 1, in <module>\n    eval("1 +")\n'
    '  File "<string>", line 1\n    1 +\nSyntaxError: invalid syntax\n',
    "r": 'Error in parse(text = "x <- (") : <text>:2:0: unexpected end of input\nExecution halted\n',
    "ruby": "main-0123abcd.rb:1:in `eval': (eval):1: syntax error, unexpected end-of-input (SyntaxError)\n",
}


@pytest.mark.parametrize("lang", sorted(REFUSED))
def test_what_a_language_cannot_read_did_not_run(lang: str) -> None:
    assert phase_of(lang, {"exit_code": 1}, REFUSED[lang]) == "compile"


@pytest.mark.parametrize("lang", sorted(FAILED))
def test_an_error_that_only_looks_like_it_came_while_running(lang: str) -> None:
    assert phase_of(lang, {"exit_code": 1}, FAILED[lang]) == "run"


def test_a_compiler_that_failed_left_the_program_unrun() -> None:
    assert phase_of("cpp", {"exit_code": 1, "programs_left": 1}, "") == "compile"
    assert phase_of("cpp", {"exit_code": None, "reason": "timed_out", "programs_left": 1}, "") == "compile"
    assert phase_of("cpp", {"exit_code": 1, "programs_left": 0}, "error: compilation failed") == "run"


@pytest.mark.parametrize("lang", sorted(REFUSED))
def test_a_program_that_succeeds_ran_whatever_it_says(lang: str) -> None:
    assert phase_of(lang, {"exit_code": 0}, REFUSED[lang]) == "run"
