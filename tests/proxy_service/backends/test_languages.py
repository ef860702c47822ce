"""Every language that a backend offers runs: input, exit codes, compile errors, and nothing left behind."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio

from proxy_service.backends.base import Backend, Limits, Sandbox
from tests.proxy_service.backends.conftest import BUBBLEWRAP, DOCKER, MIB, SPEC, fresh_name, run

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.parametrize("backend", [BUBBLEWRAP, DOCKER], indirect=True, scope="module"),
]

ROOM = Limits(memory_bytes=1024 * MIB, cpus=2.0, pids=128, disk_bytes=256 * MIB)

HELLO = {
    "bash": "read -r name; echo hello $name",
    "cpp": "#include <iostream>\n#include <string>\n"
    'int main() { std::string name; std::getline(std::cin, name); std::cout << "hello " << name << std::endl; }',
    "go": 'package main\nimport ("bufio"; "fmt"; "os")\n'
    'func main() { in := bufio.NewScanner(os.Stdin); in.Scan(); fmt.Println("hello", in.Text()) }',
    "java": "import java.util.Scanner;\npublic class Main { public static void main(String[] a) "
    '{ System.out.println("hello " + new Scanner(System.in).nextLine()); } }',
    "javascript": "console.log('hello', require('fs').readFileSync(0, 'utf8').trim())",
    "python": "print('hello', input())",
    "r": "name <- readLines(file('stdin'), n = 1); cat('hello ', name, '\\n', sep = '')",
    "ruby": 'puts "hello #{gets}"',
}
EXIT_FIVE = {
    "bash": "exit 5",
    "cpp": "int main() { return 5; }",
    "go": 'package main\nimport "os"\nfunc main() { os.Exit(5) }',
    "java": "public class Main { public static void main(String[] a) { System.exit(5); } }",
    "javascript": "process.exit(5)",
    "python": "raise SystemExit(5)",
    "r": "quit(status = 5)",
    "ruby": "exit 5",
}
NO_PROGRAM = {
    "bash": "if then",
    "cpp": "int main() { return nothing; }",
    "go": "package main\nfunc main() { nothing }",
    "java": "public class Main { int }",
    "javascript": "let = ;",
    "python": "def :",
    "r": "x <- (",
    "ruby": "def",
}


@pytest_asyncio.fixture(params=sorted(HELLO), loop_scope="module")
async def spoken(request: pytest.FixtureRequest, backend: Backend) -> AsyncIterator[tuple[str, Sandbox] | None]:
    """A language and a sandbox for it; nothing when this machine has not got it."""
    lang = request.param
    if lang not in {item["lang"] for item in backend.languages()}:
        yield None
        return
    sandbox = await backend.create(replace(SPEC, lang=lang, limits=ROOM), fresh_name())
    yield lang, sandbox
    await sandbox.destroy()


async def test_a_language_reads_writes_and_fails_as_its_programs_do(spoken: tuple[str, Sandbox] | None) -> None:
    if spoken is None:
        return
    lang, sandbox = spoken
    hello = await run(sandbox, HELLO[lang], lang=lang, stdin=b"world\n", timeout_s=60)
    assert (hello.stdout, hello.exit["exit_code"]) == ("hello world\n", 0)
    assert (await run(sandbox, EXIT_FIVE[lang], lang=lang, timeout_s=60)).exit["exit_code"] == 5
    broken = await run(sandbox, NO_PROGRAM[lang], lang=lang, timeout_s=60)
    assert broken.exit["reason"] == "exited"
    assert broken.exit["exit_code"] not in (0, None)
    assert broken.stderr
    left = await run(sandbox, "find /sandbox -maxdepth 1 -type f -name 'main-*' | wc -l", lang="bash")
    assert left.stdout.strip() == "1"
