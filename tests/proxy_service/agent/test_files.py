"""Files of the workspace: written, read, listed, moved, removed and unpacked, and never outside of it."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.proxy_service.agent.client import AgentProcess, Refused

MIB = 1024 * 1024


def refusal(agent: AgentProcess, op: str, body: bytes = b"", **fields: Any) -> str:
    """Return the code with which the agent refuses."""
    with pytest.raises(Refused) as refused:
        agent.ask(op, body, **fields)
    return str(refused.value.code)


def listing(agent: AgentProcess, path: str = "", **fields: Any) -> list[dict[str, Any]]:
    header, body = agent.answer(agent.send("file_list", path=path, **fields))
    assert header["count"] >= 0
    entries: list[dict[str, Any]] = json.loads(body)
    return entries


def test_a_file_is_written_and_read_in_chunks(agent: AgentProcess) -> None:
    data = os.urandom(2 * MIB + 5)
    for start in range(0, len(data), MIB):
        more = start + MIB < len(data)
        answer = agent.ask(
            "file_write", data[start : start + MIB], path="a/b/c.bin", offset=start, more=more, mode=0o600
        )
    assert answer["size"] == len(data)
    path = agent.workdir / "a/b/c.bin"
    assert path.read_bytes() == data
    assert path.stat().st_mode & 0o777 == 0o600
    read = b""
    while True:
        header, body = agent.answer(agent.send("file_read", path="a/b/c.bin", offset=len(read), length=700_000))
        read += body
        if header["eof"]:
            break
    assert read == data
    assert header["size"] == len(data)


def test_a_shorter_file_replaces_a_longer_one(agent: AgentProcess) -> None:
    agent.ask("file_write", b"long content", path="x", more=False)
    agent.ask("file_write", b"short", path="x", more=False)
    assert (agent.workdir / "x").read_bytes() == b"short"


def test_paths_may_be_absolute_beneath_the_workspace(agent: AgentProcess) -> None:
    agent.ask("file_write", b"x", path=f"{agent.workdir}/y", more=False)
    assert (agent.workdir / "y").exists()


def test_directories_are_made_listed_moved_and_removed(agent: AgentProcess) -> None:
    agent.ask("file_mkdir", path="d")
    assert refusal(agent, "file_mkdir", path="d") == "exists"
    assert refusal(agent, "file_mkdir", path="e/f") == "not_found"
    agent.ask("file_mkdir", path="e/f", parents=True)
    agent.ask("file_write", b"123", path="d/é.txt", more=False)
    os.symlink("é.txt", agent.workdir / "d/link")
    os.mkfifo(agent.workdir / "d/pipe")
    entries = {entry["name"]: entry for entry in listing(agent, "d")}
    assert {name: entry["type"] for name, entry in entries.items()} == {
        "é.txt": "file",
        "link": "link",
        "pipe": "other",
    }
    assert entries["é.txt"]["size"] == 3
    assert entries["link"]["target"] == "é.txt"
    assert agent.ask("file_stat", path="d/link")["entry"]["type"] == "link"
    agent.ask("file_move", src="d/link", dst="e/moved")
    assert os.readlink(agent.workdir / "e/moved") == "é.txt"
    assert refusal(agent, "file_remove", path="d") == "not_empty"
    agent.ask("file_remove", path="d", recursive=True)
    agent.ask("file_remove", path="e/moved")
    assert sorted(entry["name"] for entry in listing(agent)) == ["e"]


def test_a_large_directory_is_listed_in_parts(agent: AgentProcess) -> None:
    for number in range(25):
        (agent.workdir / f"{number:03}").touch()
    seen: list[str] = []
    offset: int | None = 0
    while offset is not None:
        header, body = agent.answer(agent.send("file_list", path="", offset=offset, limit=10))
        seen += [entry["name"] for entry in json.loads(body)]
        offset = header["next"]
    assert seen == [f"{number:03}" for number in range(25)]


def test_names_that_are_no_text_survive(agent: AgentProcess) -> None:
    (agent.workdir / os.fsdecode(b"\xff\xfe")).write_bytes(b"odd")
    name = listing(agent)[0]["name"]
    assert agent.answer(agent.send("file_read", path=name))[1] == b"odd"


HOSTILE_PATHS = [
    "..",
    "../x",
    "a/../../x",
    "/etc/passwd",
    "/",
    "//etc/passwd",
    "out/x",
    "out",
    "a\0b",
    "deep/out/x",
    "x" * 5000,
    7,
    None,
    [],
]


@pytest.mark.parametrize("path", HOSTILE_PATHS, ids=lambda path: repr(path)[:20])
@pytest.mark.parametrize("op", ["file_write", "file_read", "file_list", "file_mkdir", "untar"])
def test_no_path_leads_out(agent: AgentProcess, tmp_path: Path, op: str, path: Any) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    os.symlink(outside, agent.workdir / "out")
    (agent.workdir / "deep").mkdir()
    os.symlink(outside, agent.workdir / "deep/out")
    assert refusal(agent, op, b"data", path=path) in ("bad_path", "not_found", "not_a_directory", "bad_request")
    assert list(outside.iterdir()) == []
    assert agent.ask("ping")["ok"]


@pytest.mark.parametrize("op", ["file_remove", "file_move", "file_stat"])
def test_a_link_that_leads_out_stands_for_itself(agent: AgentProcess, tmp_path: Path, op: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    os.symlink(outside, agent.workdir / "out")
    agent.ask(op, **({"src": "out", "dst": "in"} if op == "file_move" else {"path": "out", "recursive": True}))
    assert (outside / "kept").exists()


def test_special_files_are_neither_read_nor_written(agent: AgentProcess) -> None:
    os.mkfifo(agent.workdir / "pipe")
    assert refusal(agent, "file_read", path="pipe") == "not_a_file"
    assert refusal(agent, "file_write", b"x", path="pipe") in ("not_a_file", "os_error")
    (agent.workdir / "d").mkdir()
    assert refusal(agent, "file_read", path="d") == "is_a_directory"
    assert refusal(agent, "file_write", b"x", path="d") == "is_a_directory"
    assert refusal(agent, "file_read", path="missing") == "not_found"


def test_the_workspace_itself_stays(agent: AgentProcess) -> None:
    assert refusal(agent, "file_remove", path="", recursive=True) == "forbidden"
    assert refusal(agent, "file_remove", path=str(agent.workdir), recursive=True) == "forbidden"


def test_files_are_handled_while_code_runs(agent: AgentProcess) -> None:
    agent.start("import time\ntime.sleep(60)", execution_id="a")
    agent.ask("file_write", b"x", path="x", more=False)
    agent.ask("cancel", execution_id="a")
    assert agent.finish("a").exit["reason"] == "cancelled"


def test_a_time_out_does_not_hit_file_operations(agent: AgentProcess) -> None:
    agent.start("while True: pass", timeout_s=0.2, execution_id="a")
    numbers = [agent.send("file_write", b"x" * 1000, path=f"f{n}", more=False) for n in range(100)]
    written = 0
    for number in numbers:
        try:
            agent.answer(number)
            written += 1
        except Refused as refused:
            assert refused.code == "busy"
    assert len(list(agent.workdir.glob("f*"))) == written
    assert agent.finish("a").exit["reason"] == "timed_out"


def archive(*members: tuple[str, Any]) -> bytes:
    """Return a tar of (name, content or changes of its header)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
                continue
            for key, value in content.items():
                setattr(info, key, value)
            tar.addfile(info)
    return buffer.getvalue()


def unpack(agent: AgentProcess, data: bytes, path: str = "lib", size: int = MIB) -> dict[str, Any]:
    chunks = [data[start : start + size] for start in range(0, len(data), size)] or [b""]
    answer: dict[str, Any] = {}
    for number, chunk in enumerate(chunks, 1):
        answer = agent.ask("untar", chunk, path=path, more=number < len(chunks))
    return answer


@pytest.mark.parametrize("size", [333, 4096, MIB])
def test_an_archive_is_unpacked(agent: AgentProcess, size: int) -> None:
    data = archive(
        ("dir", {"type": tarfile.DIRTYPE, "mode": 0o755}),
        ("dir/a.py", b"x = 1\n"),
        ("./dir/" + "long" * 60 + "/é.txt", b"text"),
        ("dir/tool", {"mode": 0o4777, "uid": 0}),
        ("dir/link", {"type": tarfile.SYMTYPE, "linkname": "a.py"}),
        ("dir/hard", {"type": tarfile.LNKTYPE, "linkname": "dir/a.py"}),
        ("/abs/b", b"beneath"),
    )
    assert unpack(agent, data, size=size)["members"] == 7
    lib = agent.workdir / "lib"
    assert (lib / "dir/a.py").read_bytes() == b"x = 1\n"
    assert (lib / ("dir/" + "long" * 60) / "é.txt").read_text() == "text"
    assert (lib / "dir/tool").stat().st_mode & 0o7777 == 0o755
    assert (lib / "dir/link").read_bytes() == b"x = 1\n"
    assert (lib / "dir/hard").samefile(lib / "dir/a.py")
    assert (lib / "abs/b").read_bytes() == b"beneath"
    assert agent.run("import a; print(a.x)", python_path=[str(lib / "dir")]).text == "1\n"


def test_a_second_archive_overwrites_the_first(agent: AgentProcess) -> None:
    unpack(agent, archive(("a", b"1"), ("b", {"type": tarfile.SYMTYPE, "linkname": "a"})))
    unpack(agent, archive(("a", b"2"), ("b", b"3")))
    assert (agent.workdir / "lib/a").read_bytes() == b"2"
    assert (agent.workdir / "lib/b").read_bytes() == b"3"


HOSTILE_ARCHIVES = {
    "parent": [("../x", b"out")],
    "parent within": [("a/../../../x", b"out")],
    "link out": [("l", {"type": tarfile.SYMTYPE, "linkname": "../.."})],
    "absolute link": [("l", {"type": tarfile.SYMTYPE, "linkname": "/etc"})],
    "through a link that was there": [("out/x", b"out")],
    "chain of links": [
        ("a", {"type": tarfile.SYMTYPE, "linkname": "b"}),
        ("b", {"type": tarfile.SYMTYPE, "linkname": "../../outside"}),
        ("a/x", b"out"),
    ],
    "hard link out": [("h", {"type": tarfile.LNKTYPE, "linkname": "../../outside/secret"})],
    "hard link through a link": [("h", {"type": tarfile.LNKTYPE, "linkname": "out/secret"})],
    "device": [("d", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3})],
    "pipe": [("p", {"type": tarfile.FIFOTYPE})],
}


@pytest.mark.parametrize("name", HOSTILE_ARCHIVES)
def test_no_archive_leads_out(agent: AgentProcess, tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("s")
    (agent.workdir / "lib").mkdir()
    os.symlink(outside, agent.workdir / "lib/out")
    with pytest.raises(Refused) as refused:
        unpack(agent, archive(*HOSTILE_ARCHIVES[name]))
    assert refused.value.code == "bad_archive"
    assert [path.name for path in outside.iterdir()] == ["secret"]
    assert not (agent.workdir / "lib/h").exists()
    assert not (agent.workdir / "x").exists()
    assert unpack(agent, archive(("fine", b"1")))["members"] == 1


@pytest.mark.parametrize("data", [b"", b"no tar", b"\xff" * 5000, archive(("a", b"x" * 9000))[:5000]])
def test_what_is_no_archive_is_refused_or_empty(agent: AgentProcess, data: bytes) -> None:
    if data:
        with pytest.raises(Refused) as refused:
            unpack(agent, data)
        assert refused.value.code == "bad_archive"
    else:
        with pytest.raises(Refused):
            unpack(agent, data)
    assert unpack(agent, archive(("fine", b"1")))["members"] == 1


def test_an_archive_left_half_way_does_not_spoil_the_next(agent: AgentProcess) -> None:
    data = archive(("a", b"x" * 3 * MIB))
    agent.ask("untar", data[:MIB], path="lib", more=True)
    agent.attach()
    assert unpack(agent, archive(("b", b"1")))["members"] == 1
    agent.ask("untar", data[:MIB], path="lib", more=True, offset=0)
    answer = agent.ask("untar", archive(("c", b"1")), path="lib", more=False, offset=0)
    assert answer["members"] == 1


def test_two_archives_at_once_are_one_too_many(agent: AgentProcess) -> None:
    agent.ask("untar", archive(("a", b"x" * MIB))[:1000], path="one", more=True)
    assert refusal(agent, "untar", b"", path="two", more=True) == "busy"


def test_a_full_disk_is_told_as_such(start_agent: Callable[..., AgentProcess]) -> None:
    agent = start_agent()
    data = archive(("a", b"x" * 100))
    os.mkdir(agent.workdir / "lib")
    os.mkdir(agent.workdir / "lib/a")
    with pytest.raises(Refused) as refused:
        unpack(agent, data)
    assert refused.value.code in ("exists", "is_a_directory")
