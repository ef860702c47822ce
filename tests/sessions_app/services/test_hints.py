"""Hints from the words that real programs have died with."""

# A table of programs' last words is read by its lines.
# ruff: noqa: E501

from __future__ import annotations

from typing import Any

import pytest

from sessions_app.models import Execution, Session
from sessions_app.services.executions import complete_execution, submit_execution
from sessions_app.services.hints import MAX_HINT_CHARS, TAIL_CHARS, Facts, hint_for
from sessions_app.services.hints.library_names import PYTHON, npm_package, python_library
from sessions_app.services.hints.rules import size
from tests.sessions_app.fake_proxy import FakeProxy

LIMITS: dict[str, Any] = {"memory_bytes": 512 * 2**20, "disk_bytes": 256 * 2**20, "pids": 64, "template": "plain"}
BEGIN = "Traceback (most recent call last):\n"


def failed(stderr: str, **values: Any) -> str:
    """Return the hint for code that failed with these words."""
    return hint_for(Facts(status="failed", stderr=stderr, **{"exit_code": 1, **LIMITS, **values}))


def traceback(last: str) -> str:
    """Return a traceback as Python prints it."""
    return f'{BEGIN}  File "/sandbox/.main-01234567.py", line 1, in <module>\n    …\n{last}\n'


PYTHON_WORDS = {
    "ModuleNotFoundError: No module named 'cv2'": '"libraries": ["opencv-python-headless"]',
    "ModuleNotFoundError: No module named 'PIL'": '"libraries": ["pillow"]',
    "ModuleNotFoundError: No module named 'sklearn'": '"libraries": ["scikit-learn"]',
    "ModuleNotFoundError: No module named 'yaml'": '"libraries": ["pyyaml"]',
    "ModuleNotFoundError: No module named 'bs4'": '"libraries": ["beautifulsoup4"]',
    "ModuleNotFoundError: No module named 'numpy'": '"libraries": ["numpy"]',
    "ModuleNotFoundError: No module named 'google.protobuf'": '"libraries": ["protobuf"]',
    "ModuleNotFoundError: No module named 'distutils'": '"libraries": ["setuptools"]',
    "ModuleNotFoundError: No module named 'tkinter'": "cannot be added",
    "ModuleNotFoundError: No module named 'numpy.fft2'": "has no module `numpy.fft2`",
    "ModuleNotFoundError: No module named 'pip'": "Name them in the request",
    "ModuleNotFoundError: No module named 'helpers'": "must lie in /sandbox",
    "ImportError: Missing optional dependency 'openpyxl'.  Use pip or conda to install openpyxl.": '"libraries": ["openpyxl"]',
    "ImportError: lxml not found, please run pip install -U 'lxml'": '"libraries": ["lxml"]',
    "ImportError: libquadmath.so.0: cannot open shared object file: No such file or directory": "libquadmath.so.0",
    "socket.gaierror: [Errno -3] Temporary failure in name resolution": "template `plain` allows none",
    "urllib.error.URLError: <urlopen error [Errno -2] Name or service not known>": "no network",
    "OSError: [Errno 101] Network is unreachable": "no network",
    "ConnectionRefusedError: [Errno 111] Connection refused": "Nothing listens",
    "OSError: [Errno 28] No space left on device": "256 MiB",
    "OSError: [Errno 27] File too large": "256 MiB",
    "OSError: [Errno 30] Read-only file system: '/usr/x'": "`/usr/x` is on a read-only file system. Only /sandbox and /tmp",
    "PermissionError: [Errno 13] Permission denied: '/etc/passwd'": "`/etc/passwd` belongs to the system",
    "MemoryError": "512 MiB",
    "numpy.core._exceptions._ArrayMemoryError: Unable to allocate 745. GiB for an array": "512 MiB",
    "RuntimeError: can't start new thread": "64 processes and threads",
    "EOFError: EOF when reading a line": "Give its input in `stdin`",
    "_tkinter.TclError: no display name and no $DISPLAY environment variable": "no screen",
    "FileNotFoundError: [Errno 2] No such file or directory: 'data.csv'": "no `data.csv`",
}


@pytest.mark.parametrize("last", PYTHON_WORDS)
def test_the_last_words_of_python_lead_to_a_hint(last: str) -> None:
    assert PYTHON_WORDS[last] in failed(traceback(last))


OTHER_WORDS = [
    ("javascript", "Error: Cannot find module 'lodash'\nRequire stack:\n- /sandbox/main.js\n", '"libraries": ["lodash"]'),
    ("javascript", "Error [ERR_MODULE_NOT_FOUND]: Cannot find package '@scope/it' imported from /x", '"libraries": ["@scope/it"]'),
    ("javascript", "Error: Cannot find module './util'\n", "no file `./util`"),
    ("javascript", "Error: getaddrinfo EAI_AGAIN example.com\n", "no network"),
    ("javascript", "FATAL ERROR: Reached heap limit Allocation failed - JavaScript heap out of memory\n", "512 MiB"),
    ("r", "Error in library(dplyr) : there is no package called \u2018dplyr\u2019\n", "no `dplyr` in this sandbox"),
    ("ruby", "main.rb:1:in `require': cannot load such file -- nokogiri (LoadError)\n", "no `nokogiri` in this sandbox"),
    ("go", 'main.go:3:8: no required module provides package github.com/a/b: go.mod file not found\n', "github.com/a/b"),
    ("go", 'main.go:2:8: cannot find package "github.com/a/b" in any of:\n\t/usr/lib/go-1.19/src/github.com/a/b', "`github.com/a/b`"),
    ("go", "main.go:3:8: package nosuch is not in std (/usr/lib/go/src/nosuch)\n", "nosuch"),
    ("java", "main.java:1: error: package org.json does not exist\n", "org.json"),
    ("java", "Exception in thread \"main\" java.lang.OutOfMemoryError: Java heap space\n", "512 MiB"),
    ("cpp", "main.cpp:1:10: fatal error: boost/any.hpp: No such file or directory\n", "boost/any.hpp"),
    ("cpp", "terminate called after throwing an instance of 'std::bad_alloc'\n", "512 MiB"),
    ("bash", "main.sh: line 1: nmap: command not found\n", "no program `nmap`"),
    ("bash", "main.sh: line 1: pip: command not found\n", "a session of Python with libraries"),
    ("bash", "sh: 1: jq: not found\n", "no program `jq`"),
    ("bash", "curl: (6) Could not resolve host: example.com\n", "no network"),
    ("bash", "touch: cannot touch '/usr/x': Read-only file system\n", "read-only"),
]  # fmt: skip


@pytest.mark.parametrize(("lang", "stderr", "expected"), OTHER_WORDS)
def test_the_words_of_other_languages_lead_to_a_hint(lang: str, stderr: str, expected: str) -> None:
    assert expected in failed(stderr, lang=lang)


def test_a_program_that_python_code_wants_to_start_is_told_from_a_file_that_it_wants_to_read() -> None:
    started = f"{BEGIN}  File \"/usr/lib/python3.11/subprocess.py\", line 1, in _execute_child\nFileNotFoundError: [Errno 2] No such file or directory: 'ffmpeg'\n"
    assert "no program `ffmpeg`" in failed(started)


def test_what_went_wrong_before_the_last_traceback_is_not_taken_for_the_reason() -> None:
    handled = traceback("ModuleNotFoundError: No module named 'yaml'")
    assert failed(f"{handled}\nfalling back to json\n{traceback('KeyError: 1')}") == ""
    assert failed("warning: No module named 'yaml'\n" + traceback("ValueError: 3")) == ""


def test_a_library_that_was_asked_for_is_not_asked_for_again() -> None:
    said = traceback("ModuleNotFoundError: No module named 'sklearn.nothing'")
    assert "is installed, but has no module" in failed(said, libraries=["Scikit_Learn[x]==1.5"])
    assert "is installed, but has no" in failed(
        "Error: Cannot find module 'lodash/x'\n", lang="javascript", libraries=["lodash@4"]
    )


def test_with_a_network_nothing_is_said_of_its_absence() -> None:
    assert failed(traceback("socket.gaierror: [Errno -2] Name or service not known"), network="host") == ""
    assert (
        failed("pip: command not found\n", lang="bash", network="host") == "There is no program `pip` in this sandbox."
    )


def test_input_that_was_too_short_is_told_from_none_at_all() -> None:
    said = traceback("EOFError: EOF when reading a line")
    assert "more lines than `stdin` has" in failed(said, has_stdin=True)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"signal": 11, "exit_code": None}, "SIGSEGV: native code"),
        ({"signal": 15, "exit_code": None}, "the signal SIGTERM."),
        ({"signal": 25, "exit_code": None}, "256 MiB"),
        ({"signal": 40, "exit_code": None}, ""),
        ({"lang": "bash", "exit_code": 139}, "SIGSEGV"),
        ({"exit_code": 139}, ""),
        ({"signal": 9, "exit_code": None, "message": "The sandbox's disk is full: its limit is 5 bytes."}, "256 MiB together"),
        ({"exit_code": None, "message": "The interpreter was killed."}, "The interpreter was killed."),
        ({"exit_code": 3}, ""),
    ],
)  # fmt: skip
def test_an_end_without_words_is_judged_by_how_it_came(values: dict[str, Any], expected: str) -> None:
    hint = failed("", **values)
    assert expected in hint if expected else hint == ""


def test_running_out_of_memory_names_the_limit_and_the_peak() -> None:
    hint = hint_for(Facts(status="out_of_memory", max_rss_bytes=500 * 2**20, **LIMITS))
    assert "limit is 512 MiB; its peak was 500 MiB." in hint
    hint = hint_for(Facts(status="out_of_memory", max_rss_bytes=700 * 2**20, **LIMITS))
    assert "limit is 512 MiB, 768 MiB with its files; its peak was 700 MiB." in hint


def test_a_time_out_names_the_limit_and_the_place() -> None:
    def said(**where: Any) -> str:
        return hint_for(Facts(status="timed_out", timeout_s=2.5, where=where, **LIMITS))

    assert (
        said() == "The code was stopped at its time-out of 2.5 s. Make it do less, or give it more time with `timeout`."
    )
    assert "It was at line 7, in `crunch`." in said(line=7, function="crunch")
    assert "It was at line 7." in said(line=7, function="<module>")
    assert "It was at line 7 of util.py, in `f`." in said(line=7, function="f", file="util.py")
    assert "line" not in said(line="7")


@pytest.mark.parametrize("status", ["succeeded", "cancelled", "error", "running"])
def test_what_needs_no_mending_gets_no_hint(status: str) -> None:
    assert hint_for(Facts(status=status, stderr=traceback("MemoryError"), **LIMITS)) == ""


def test_a_hint_is_short_whatever_the_code_said() -> None:
    long = traceback("FileNotFoundError: [Errno 2] No such file or directory: '" + "a b`" * 45 + "'")
    assert 100 < len(failed(long)) < 400
    assert failed("x" * 10 * TAIL_CHARS + "\n" + traceback("KeyError: 1")) == ""
    assert len(failed("", message="m" * 10_000)) == MAX_HINT_CHARS


def test_sizes_are_written_as_people_do() -> None:
    assert [size(n) for n in (100, 2048, 512 * 2**20, 3 * 2**29)] == ["100 bytes", "2 KiB", "512 MiB", "1.5 GiB"]


def test_no_library_of_the_table_has_its_module_s_own_name() -> None:
    assert [module for module, library in PYTHON.items() if module == library] == []
    assert python_library("ruamel.yaml") == "ruamel.yaml"
    assert python_library("numpy.random") is None
    assert [npm_package(name) for name in ("a/b", "@a/b/c", "./a", "node:fs")] == ["a", "@a/b", None, None]


def test_the_hint_of_a_failure_is_in_its_row_and_a_success_has_none(session: Session, proxy: FakeProxy) -> None:
    proxy.says = {"import yaml": (traceback("ModuleNotFoundError: No module named 'yaml'"), 1)}
    bad = complete_execution(submit_execution(session=session, code="import yaml", actor="api"), actor="api")
    good = complete_execution(submit_execution(session=session, code="1", actor="api"), actor="api")
    assert "pyyaml" in Execution.objects.get(pk=bad.pk).hint
    assert good.hint == ""
