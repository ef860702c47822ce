"""Files through both servers: bytes up and down, parts and archives of them, and what breaks off on the way."""

from __future__ import annotations

import hashlib
import io
import os
import socket
import tarfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.integration.servers import Servers
from tests.waiting import wait_until

MIB = 1024 * 1024
GIB = 1024 * MIB
MAX_GROWTH_BYTES = 50 * MIB


def run(api: httpx.Client, session_id: str, code: str) -> str:
    answer = api.post(f"/sessions/{session_id}/execute", json={"code": code})
    assert answer.json()["status"] == "succeeded", answer.text
    return str(answer.json()["stdout"])


def names(api: httpx.Client, session_id: str, path: str = "") -> list[str]:
    answer = api.get(f"/sessions/{session_id}/files", params={"path": path})
    assert answer.status_code == 200, answer.text
    return [entry["name"] for entry in answer.json()["entries"]]


def test_a_file_goes_up_is_used_by_code_and_comes_down(api: httpx.Client, session_id: str) -> None:
    files = f"/sessions/{session_id}/files"
    data = os.urandom(5 * MIB + 3)
    answer = api.put(f"{files}/in/data.bin", content=data)
    assert (answer.status_code, answer.json()["size"]) == (201, len(data))
    code = "import hashlib; print(hashlib.sha256(open('in/data.bin', 'rb').read()).hexdigest())"
    assert run(api, session_id, code).strip() == hashlib.sha256(data).hexdigest()
    whole = api.get(f"{files}/in/data.bin")
    assert whole.content == data
    assert whole.headers["content-length"] == str(len(data))
    assert whole.headers["content-type"] == "application/octet-stream"
    assert whole.headers["x-content-type-options"] == "nosniff"
    part = api.get(f"{files}/in/data.bin", headers={"Range": "bytes=1000-1999"})
    assert (part.status_code, part.content) == (206, data[1000:2000])
    behind = api.get(f"{files}/in/data.bin", headers={"Range": f"bytes={len(data)}-"})
    assert (behind.status_code, behind.headers["content-range"]) == (416, f"bytes */{len(data)}")
    assert behind.json()["errors"][0]["code"] == "range_not_satisfiable"
    same = api.get(f"{files}/in/data.bin", headers={"If-None-Match": whole.headers["etag"]})
    assert (same.status_code, same.content) == (304, b"")
    assert api.head(f"{files}/in/data.bin").headers["content-length"] == str(len(data))
    assert api.put(f"{files}/in/data.bin", content=b"short").status_code == 200
    assert api.get(f"{files}/in/data.bin", headers={"Accept": "image/png"}).content == b"short"


def test_a_body_without_a_length_goes_up(api: httpx.Client, session_id: str) -> None:
    files = f"/sessions/{session_id}/files"
    answer = api.put(f"{files}/x", content=iter([b"a" * MIB, b"b" * MIB, b"c"]))
    assert (answer.status_code, answer.json()["size"]) == (201, 2 * MIB + 1)


def test_directories_and_archives(api: httpx.Client, session_id: str) -> None:
    files = f"/sessions/{session_id}/files"
    assert api.post(f"{files}/d/e", json={"type": "directory"}).status_code == 201
    assert api.post(f"{files}/d/e", json={"type": "link"}).json()["errors"][0]["attr"] == "type"
    api.put(f"{files}/d/e/x.txt", content=b"x")
    assert api.patch(f"{files}/d/e/x.txt", json={"path": "d/y.txt"}).json()["path"] == "d/y.txt"
    assert names(api, session_id, "d") == ["e", "y.txt"]
    with zipfile.ZipFile(io.BytesIO(api.get(f"{files}/d?archive=zip").content)) as packed:
        assert sorted(packed.namelist()) == ["e/", "y.txt"]
    tar = api.get(f"{files}?archive=tar")
    assert tar.headers["content-disposition"] == "attachment; filename*=UTF-8''sandbox.tar"
    with tarfile.open(fileobj=io.BytesIO(tar.content)) as archive:
        assert sorted(archive.getnames()) == ["d", "d/e", "d/y.txt"]
    assert api.put(f"{files}/copy?archive=tar", content=tar.content).json()["members"] == 3
    assert names(api, session_id, "copy/d") == ["e", "y.txt"]
    full = api.delete(f"{files}/d")
    assert (full.status_code, full.json()["errors"][0]["code"]) == (409, "not_empty")
    assert api.delete(f"{files}/d?recursive=true").status_code == 204
    assert names(api, session_id) == ["copy"]
    assert api.head(f"{files}/d").status_code == 404
    missing = api.get(f"{files}/d")
    assert (missing.status_code, missing.json()["errors"][0]["attr"]) == (404, "path")


def test_an_upload_that_breaks_off_changes_nothing(servers: Servers, api: httpx.Client, session_id: str) -> None:
    path = f"/sessions/{session_id}/files"
    api.put(f"{path}/x", content=b"old")
    with socket.create_connection(("127.0.0.1", servers.app_port)) as connection:
        head = f"PUT {path}/x HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {servers.key}\r\n"
        connection.sendall(f"{head}Content-Length: {8 * MIB}\r\n\r\n".encode() + bytes(3 * MIB))
    assert api.get(f"{path}/x").content == b"old"
    assert names(api, session_id) == ["x"]
    # The same against the proxy alone, which takes a body as it comes.
    with socket.create_connection(("127.0.0.1", servers.proxy_port)) as connection:
        head = f"PUT {path}/x HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {servers.environment['PROXY_TOKEN']}"
        connection.sendall(f"{head}\r\nContent-Length: {8 * MIB}\r\n\r\n".encode() + bytes(3 * MIB))
    wait_until(
        lambda: ".sandboxweb" not in run(api, session_id, "import os; print(os.listdir('.'))"),
        timeout_s=20,
        what="the rest of an upload to go",
    )
    assert api.get(f"{path}/x").content == b"old"


def test_a_full_disk_is_said_in_plain_words(servers: Servers, api: httpx.Client) -> None:
    with disk_of(servers, 32 * MIB):
        session_id = api.post("/sessions", json={"lang": "python"}).json()["session_id"]
        files = f"/sessions/{session_id}/files"
        for headers in ({"Content-Length": str(40 * MIB)}, {}):
            answer = api.put(f"{files}/x", content=(bytes(MIB) for _ in range(40)), headers=headers)
            assert (answer.status_code, answer.json()["errors"][0]["code"]) == (413, "no_space"), answer.text
            assert "disk" in answer.json()["errors"][0]["detail"]
        assert names(api, session_id) == []
        assert api.put(f"{files}/x", content=bytes(MIB)).status_code == 201


def test_what_code_drew_outlives_its_session(servers: Servers, api: httpx.Client, session_id: str) -> None:
    code = "open('plot.png', 'wb').write(b'png' * 1000); open('t.csv', 'w').write('1,2'); open('x.txt', 'w')"
    result = api.post(f"/sessions/{session_id}/execute", json={"code": code}).json()
    assert {item["path"]: item["change"] for item in result["files"]} == dict.fromkeys(
        ("plot.png", "t.csv", "x.txt"), "created"
    )
    assert {item["name"]: item["size"] for item in result["artifacts"]} == {"plot.png": 3000, "t.csv": 3}
    api.delete(f"/sessions/{session_id}")
    plot = next(item for item in result["artifacts"] if item["name"] == "plot.png")
    assert api.get(plot["url"]).content == b"png" * 1000
    assert api.head(plot["url"]).headers["content-length"] == "3000"
    shot = api.post("/sandbox/execute", json={"lang": "python", "code": code}).json()
    assert api.get(shot["artifacts"][0]["url"]).status_code == 200
    with servers.client(servers.make_user("other-artifacts")) as other:
        assert other.get(plot["url"]).status_code == 404
    # Nobody waits for this one: the reaper settles it, and keeps what it left.
    session_id = api.post("/sessions", json={"lang": "python"}).json()["session_id"]
    started = api.post(f"/sessions/{session_id}/execute", json={"code": code, "wait": False}).json()
    listed = f"/sessions/{session_id}/artifacts"
    wait_until(lambda: api.get(listed).json()["count"] == 2, timeout_s=30, what="the reaper")
    assert len(api.get(f"/executions/{started['execution_id']}").json()["artifacts"]) == 2


def test_files_are_the_owners_alone_and_end_with_the_session(
    servers: Servers, api: httpx.Client, session_id: str
) -> None:
    path = f"/sessions/{session_id}/files/x"
    api.put(path, content=b"mine")
    with servers.client(servers.make_user("other-files")) as other:
        for method in ("GET", "HEAD", "PUT", "POST", "PATCH", "DELETE"):
            assert other.request(method, path).status_code == 404
    assert httpx.get(servers.app_url + path, trust_env=False).status_code == 401
    api.delete(f"/sessions/{session_id}")
    gone = api.get(path)
    assert (gone.status_code, gone.json()["termination_reason"]) == (410, "user")


def test_a_transfer_keeps_its_session_from_being_idle(servers: Servers, api: httpx.Client) -> None:
    session_id = api.post("/sessions", json={"lang": "python", "idle_timeout": 3}).json()["session_id"]
    data = os.urandom(24 * MIB)
    assert api.put(f"/sessions/{session_id}/files/x", content=data).status_code == 201
    found, began = b"", time.monotonic()
    with api.stream("GET", f"/sessions/{session_id}/files/x") as answer:
        for piece in answer.iter_bytes(MIB):
            found += piece
            # Slower than the idle time-out as a whole.
            while time.monotonic() - began < 6 * len(found) / len(data):
                time.sleep(0.02)
    assert found == data
    assert api.get(f"/sessions/{session_id}").json()["status"] == "active"


def resident_bytes(servers: Servers, marker: str) -> int:
    """Return the memory of the server process of an installation whose command line has `marker`."""
    port = f"APP_PORT={servers.app_port}".encode()
    for process in Path("/proc").iterdir():
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            if marker in command and "tether" not in command and port in (process / "environ").read_bytes():
                return int((process / "status").read_text().split("VmRSS:")[1].split()[0]) * 1024
        except OSError:
            continue
    raise AssertionError(f"{marker} does not run")


@contextmanager
def disk_of(servers: Servers, size_bytes: int) -> Iterator[None]:
    """Give sandboxes a disk of another size for a while."""
    rows = "from sessions_app.models import SandboxTemplate as T; rows = T.objects.filter(name='python'); "
    before = int(servers.manage("shell", "-c", rows + "print(rows.get().disk_bytes)").split()[-1])
    servers.manage("shell", "-c", rows + f"rows.update(disk_bytes={size_bytes})")
    try:
        yield
    finally:
        servers.manage("shell", "-c", rows + f"rows.update(disk_bytes={before})")


@pytest.mark.timeout(300)
def test_a_gigabyte_goes_up_and_down_without_either_server_growing(servers: Servers, api: httpx.Client) -> None:
    # On Docker a gigabyte of files would be a gigabyte of memory; to the servers the backend makes no difference.
    size = GIB if servers.backend == "bubblewrap" else 256 * MIB
    with disk_of(servers, size + 64 * MIB):
        session_id = api.post("/sessions", json={"lang": "python"}).json()["session_id"]
    files = f"/sessions/{session_id}/files"
    api.put(f"{files}/warm", content=bytes(2 * MIB))
    api.get(f"{files}/warm")
    markers = ("sandboxweb.server", "proxy_service")
    before = {name: resident_bytes(servers, name) for name in markers}
    most = dict(before)

    def look() -> None:
        for name in markers:
            most[name] = max(most[name], resident_bytes(servers, name))

    block = os.urandom(MIB)
    sent, came = hashlib.sha256(), hashlib.sha256()

    def pieces() -> Iterator[bytes]:
        for number in range(size // MIB):
            piece = block[number:] + block[:number]
            sent.update(piece)
            if number % 100 == 0:
                look()
            yield piece

    answer = api.put(f"{files}/big", content=pieces(), headers={"Content-Length": str(size)}, timeout=300)
    assert answer.status_code == 201, answer.text
    look()
    with api.stream("GET", f"{files}/big", timeout=300) as down:
        for number, piece in enumerate(down.iter_bytes(MIB)):
            came.update(piece)
            if number % 100 == 0:
                look()
    look()
    assert came.hexdigest() == sent.hexdigest()
    growth = {name: most[name] - before[name] for name in markers}
    assert all(grown < MAX_GROWTH_BYTES for grown in growth.values()), growth
    print({name: f"{grown / MIB:.1f} MiB" for name, grown in growth.items()})  # noqa: T201
