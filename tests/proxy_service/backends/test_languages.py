"""Every language that a server offers, through the proxy: the table of what its programs do there."""

from __future__ import annotations

import asyncio
import platform
import shutil
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from proxy_service.backends.bwrap import SYSTEM_PATH
from proxy_service.backends.languages import LANGUAGES, VERSION_COMMANDS
from tests.proxy_service.backends.conftest import BUBBLEWRAP, DOCKER, MIB, Server, Show
from tests.proxy_service.backends.programs import OUTPUT_BYTES, PROGRAMS, Programs

LIMITS = {"memory_bytes": 1024 * MIB, "cpus": 2.0, "pids": 256, "disk_bytes": 512 * MIB}
AT_ONCE = 2
Run = Callable[..., Awaitable[dict[str, Any]]]


async def says_hello(run: Run, programs: Programs) -> None:
    answer = await run(programs.hello)
    assert (answer["status"], answer["stdout"], answer["exit_code"]) == ("succeeded", "hello\n", 0)


async def reads_its_input(run: Run, programs: Programs) -> None:
    answer = await run(programs.greet, stdin="world\n")
    assert (answer["stdout"], answer["exit_code"], answer["phase"]) == ("hello world\n", 0, "run")


async def is_refused(run: Run, programs: Programs) -> None:
    answer = await run(programs.refused)
    assert (answer["status"], answer["phase"], answer["stdout"]) == ("failed", "compile", "")
    assert answer["exit_code"] not in (0, None)
    assert answer["stderr"]


async def fails(run: Run, programs: Programs) -> None:
    answer = await run(programs.fails)
    assert (answer["status"], answer["phase"]) == ("failed", "run")
    assert answer["exit_code"] not in (0, None) or answer["signal"] == 6
    assert "wrong" in answer["stderr"]


async def leaves(run: Run, programs: Programs) -> None:
    answer = await run(programs.leaves)
    assert (answer["status"], answer["exit_code"], answer["phase"]) == ("failed", 5, "run")


async def is_cut_off(run: Run, programs: Programs) -> None:
    answer = await run(programs.loops, timeout=3)
    assert (answer["status"], answer["phase"]) == ("timed_out", "run")
    assert 3000 <= answer["duration_ms"] < 15_000


async def writes_much(run: Run, programs: Programs) -> None:
    answer = await run(programs.output, output_limit_bytes=8 * MIB)
    assert (answer["status"], len(answer["stdout"]), answer["truncated"]) == ("succeeded", OUTPUT_BYTES, False)


async def keeps_files(run: Run, programs: Programs) -> None:
    assert (await run(programs.writes))["exit_code"] == 0
    assert (await run(programs.reads))["stdout"] == "kept\n"


CELLS = {
    "hello": says_hello,
    "input": reads_its_input,
    "compile error": is_refused,
    "run-time error": fails,
    "exit code": leaves,
    "time-out": is_cut_off,
    "5 MB": writes_much,
    "file": keeps_files,
}


async def row(server: Server, lang: str) -> dict[str, str]:
    """Fill a language's cells: how long each took, or what was wrong."""
    session_id = await server.session(lang=lang, limits=LIMITS)

    async def run(code: str, **body: Any) -> dict[str, Any]:
        return await server.run(session_id, code, **body)

    cells = {}
    for name, check in CELLS.items():
        began = time.monotonic()
        try:
            await check(run, PROGRAMS[lang])
            cells[name] = f"{time.monotonic() - began:.2f} s"
        except AssertionError as error:
            cells[name] = f"WRONG: {error}"
    await server.http.delete(f"/sessions/{session_id}")
    return cells


@pytest.mark.timeout(400)
@pytest.mark.parametrize("server", [BUBBLEWRAP, DOCKER], indirect=True)
async def test_every_language_does_what_its_programs_say(server: Server, show: Show) -> None:
    versions = await server.languages()
    assert set(versions) <= set(PROGRAMS)
    if server.backend == "docker":
        assert sorted(versions) == sorted(LANGUAGES)
    slots = asyncio.Semaphore(AT_ONCE)

    async def filled(lang: str) -> dict[str, str]:
        async with slots:
            return await row(server, lang)

    table = dict(zip(versions, await asyncio.gather(*map(filled, versions)), strict=True))
    show(f"\n{server.backend:12}" + "".join(f"{name:>15}" for name in ("version", *CELLS)))
    for lang, cells in table.items():
        known = {**cells, "version": str(versions[lang])}
        show(f"{lang:12}" + "".join(f"{known[name][:14]:>15}" for name in ("version", *CELLS)))
    assert {(lang, name): cell for lang in table for name, cell in table[lang].items() if "WRONG" in cell} == {}


@pytest.mark.bubblewrap
@pytest.mark.parametrize("server", ["bubblewrap"], indirect=True)
async def test_the_languages_of_a_machine_are_those_that_its_programs_run(server: Server) -> None:
    versions = await server.languages()
    assert versions["python"] == platform.python_version()
    for lang, (program, *_) in VERSION_COMMANDS.items():
        if lang != "python":
            assert (lang in versions) == (shutil.which(program, path=SYSTEM_PATH) is not None)
    assert all(versions.values())
    for lang in set(LANGUAGES) - set(versions) | {"cobol"}:
        answer = await server.http.post("/sessions", json={"lang": lang})
        assert (answer.status_code, answer.json()["field"]) == (422, "lang")
        assert all(known in answer.json()["detail"] for known in (lang, *versions))
