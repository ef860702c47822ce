"""Directories packed as they are read, files put in their place whole, and the files that an execution changed."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from typing import Any

import pytest

from tests.proxy_service.agent.client import AgentProcess, Refused

MIB = 1024 * 1024


def packed(agent: AgentProcess, path: str = "", kind: str = "tar") -> bytes:
    """Read an archive to its end."""
    handle = agent.ask("pack", path=path, kind=kind)["handle"]
    data = b""
    while True:
        header, part = agent.answer(agent.send("pack_read", handle=handle))
        if header["eof"]:
            return data
        assert part
        data += part


def fill(agent: AgentProcess) -> dict[str, bytes]:
    """Put into the workspace what an archive may meet; return what it must hold of files."""
    files = {"a.txt": b"a", "deep/er/b.bin": os.urandom(3 * MIB), "empty": b"", "with\nnewline": b"n"}
    for name, content in files.items():
        path = agent.workdir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    os.mkfifo(agent.workdir / "pipe")
    os.symlink("/etc/passwd", agent.workdir / "link")
    os.symlink("/etc", agent.workdir / "links-to-directory")
    (agent.workdir / ".sandboxweb").mkdir()
    (agent.workdir / ".sandboxweb/own").write_text("not the user's")
    return files


def test_a_tar_holds_files_directories_and_links_and_nothing_that_could_hang(agent: AgentProcess) -> None:
    files = fill(agent)
    with tarfile.open(fileobj=io.BytesIO(packed(agent))) as archive:
        members = {member.name: member for member in archive}
        found = {name: archive.extractfile(member).read() for name, member in members.items() if member.isreg()}  # type: ignore[union-attr]
    assert found == files
    assert {name for name, member in members.items() if member.isdir()} == {"deep", "deep/er"}
    assert members["link"].linkname == "/etc/passwd"
    assert members["links-to-directory"].issym()


def test_a_zip_holds_files_and_directories(agent: AgentProcess) -> None:
    files = fill(agent)
    with zipfile.ZipFile(io.BytesIO(packed(agent, kind="zip"))) as archive:
        assert archive.testzip() is None
        found = {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}
    assert found == files


def test_names_that_are_no_text_can_be_packed(agent: AgentProcess) -> None:
    (agent.workdir / os.fsdecode(b"\xff\xfe")).write_bytes(b"odd")
    with tarfile.open(fileobj=io.BytesIO(packed(agent))) as archive:
        assert [os.fsencode(name) for name in archive.getnames()] == [b"\xff\xfe"]
    with zipfile.ZipFile(io.BytesIO(packed(agent, kind="zip"))) as archive:
        assert archive.namelist() == ["��"]


@pytest.mark.parametrize("path", ["a.txt", "missing", "..", "/etc", "link"])
def test_what_is_no_directory_of_the_workspace_is_not_packed(agent: AgentProcess, path: str) -> None:
    fill(agent)
    with pytest.raises(Refused) as refused:
        packed(agent, path)
    assert refused.value.code in ("not_a_directory", "bad_path")


def test_an_archive_waits_for_its_reader_and_ends_when_told_to(agent: AgentProcess) -> None:
    (agent.workdir / "large").write_bytes(os.urandom(8 * MIB))
    handle = agent.ask("pack", path="", kind="tar")["handle"]
    header, part = agent.answer(agent.send("pack_read", handle=handle))
    assert not header["eof"]
    assert 0 < len(part) <= MIB
    assert agent.run("print(1)").text == "1\n"
    agent.ask("pack_close", handle=handle)
    with pytest.raises(Refused) as refused:
        agent.ask("pack_read", handle=handle)
    assert refused.value.code == "unknown_archive"


def test_only_a_few_archives_are_packed_at_once_and_a_new_proxy_finds_room(agent: AgentProcess) -> None:
    (agent.workdir / "large").write_bytes(bytes(8 * MIB))
    for _ in range(4):
        agent.ask("pack", path="", kind="tar")
    with pytest.raises(Refused) as refused:
        agent.ask("pack", path="", kind="tar")
    assert refused.value.code == "busy"
    agent.attach()
    assert packed(agent)


def test_a_file_is_put_in_its_place_whole(agent: AgentProcess) -> None:
    agent.ask("file_write", b"new", path="aside", more=False)
    answer = agent.ask("file_commit", src="aside", dst="made/here.sh", mode=0o755)
    assert answer["created"] is True
    assert answer["entry"]["size"] == 3
    assert (agent.workdir / "made/here.sh").stat().st_mode & 0o777 == 0o755
    agent.ask("file_write", b"newer", path="aside", more=False)
    os.symlink("made/here.sh", agent.workdir / "link")
    assert agent.ask("file_commit", src="aside", dst="link")["created"] is False
    assert (agent.workdir / "link").is_symlink()
    assert (agent.workdir / "made/here.sh").read_bytes() == b"newer"


def test_a_move_that_keeps_what_is_there_replaces_nothing(agent: AgentProcess) -> None:
    (agent.workdir / "a").write_text("a")
    (agent.workdir / "b").write_text("b")
    with pytest.raises(Refused) as refused:
        agent.ask("file_move", src="a", dst="b", keep=True)
    assert refused.value.code == "exists"
    agent.ask("file_move", src="a", dst="c/d", keep=True, parents=True)
    assert (agent.workdir / "c/d").read_text() == "a"


def test_a_sparse_member_is_refused(agent: AgentProcess) -> None:
    member = tarfile.TarInfo("sparse")
    member.type = tarfile.GNUTYPE_SPARSE
    data = member.tobuf(tarfile.GNU_FORMAT) + bytes(1024)
    with pytest.raises(Refused) as refused:
        agent.ask("untar", data, path="", more=False)
    assert refused.value.code == "bad_archive"


# --- what executions change


def changes(agent: AgentProcess, code: str) -> dict[str, str]:
    """Run code and return what its `exit` says of files."""
    end = agent.run(code).exit
    assert end["exit_code"] == 0
    return {entry["path"]: entry["change"] for entry in end.get("files", [])}


def test_an_execution_tells_which_files_it_made_and_changed(agent: AgentProcess) -> None:
    assert changes(agent, "print(1)") == {}
    code = "import os; os.mkdir('d'); open('d/x.csv', 'w').write('1,2'); open('y', 'w')"
    assert changes(agent, code) == {"d/x.csv": "created", "y": "created"}
    assert changes(agent, "open('d/x.csv').read()") == {}
    assert changes(agent, "open('d/x.csv', 'a').write('3')") == {"d/x.csv": "modified"}
    assert changes(agent, "import os; os.utime('y', (0, 0))") == {"y": "modified"}


def test_size_and_mode_are_told(agent: AgentProcess) -> None:
    end = agent.run("import os; open('x', 'w').write('12345'); os.chmod('x', 0o640)").exit
    assert end["files"] == [{"path": "x", "size": 5, "mode": 0o640, "change": "created"}]


def test_a_file_that_was_uploaded_is_modified_and_not_created(agent: AgentProcess) -> None:
    assert changes(agent, "pass") == {}
    agent.ask("file_write", b"1,2", path="data.csv", more=False)
    assert changes(agent, "pass") == {}
    agent.ask("file_write", b"1,2", path="data.csv", more=False)
    assert changes(agent, "open('data.csv', 'a').write('3')") == {"data.csv": "modified"}


def test_hidden_files_caches_links_and_directories_are_not_told(agent: AgentProcess) -> None:
    code = """
import os
for name in (".cache", "__pycache__", "node_modules", "real"):
    os.mkdir(name); open(name + "/x", "w")
open(".hidden", "w")
os.symlink("/etc/passwd", "link")
os.mkfifo("pipe")
"""
    assert changes(agent, code) == {"real/x": "created"}


def test_a_source_file_of_its_own_is_not_told(agent: AgentProcess) -> None:
    end = agent.finish(
        agent.start("echo hello > out.txt", kind="commands", commands=["sh main.sh"], filename="main.sh")
    ).exit
    assert [entry["path"] for entry in end["files"]] == ["out.txt"]


def test_thousands_of_files_cost_a_bounded_time_and_are_told_as_cut_off(agent: AgentProcess) -> None:
    end = agent.run("for i in range(5000): open(f'f{i}', 'w')").exit
    assert end["files_truncated"] is True
    assert 0 < len(end["files"]) <= 100
    after = agent.run("pass").exit
    assert ("files" in after, after["files_truncated"]) == (False, True)


def test_long_names_fit_into_the_event(agent: AgentProcess) -> None:
    code = "import os\nfor i in range(90): open('é' * 120 + str(i), 'w')"
    end: dict[str, Any] = agent.run(code).exit
    assert end["files_truncated"] is True
    assert end["files"]


def test_a_link_beneath_a_link_is_judged_from_where_it_really_lies(agent: AgentProcess) -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for name, target in (("d", ""), ("d/up", ".."), ("d/up/out", "../..")):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = (tarfile.SYMTYPE, target) if target else (tarfile.DIRTYPE, "")
            archive.addfile(member)
    with pytest.raises(Refused) as refused:
        agent.ask("untar", data.getvalue(), path="here", more=False)
    assert refused.value.code == "bad_archive"
    assert not os.path.lexists(agent.workdir / "here/out")
