"""The workspace's files over the proxy's HTTP, in real sandboxes."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import tarfile
import time
import zipfile
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from proxy_service.app import create_app
from proxy_service.backends.bubblewrap import BubblewrapBackend
from tests.proxy_service.conftest import TOKEN, Proxy, make_settings

MIB = 1024 * 1024

pytestmark = [pytest.mark.bubblewrap, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def http(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a proxy in this process, on bubblewrap."""
    settings = make_settings(tmp_path_factory.mktemp("data"), sandbox_backend="bubblewrap", max_upload_size=48 * MIB)
    app = create_app(settings, BubblewrapBackend(settings))
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://proxy", headers=headers, timeout=60) as client,
    ):
        yield client


@pytest_asyncio.fixture(loop_scope="module")
async def files(http: httpx.AsyncClient) -> AsyncIterator[str]:
    """The address of the files of a fresh session."""
    answer = await http.post("/sessions", json={"lang": "python", "limits": {"disk_bytes": 32 * MIB}})
    path = f"/sessions/{answer.json()['session_id']}"
    yield f"{path}/files"
    await http.delete(path)


async def run(http: httpx.AsyncClient, files: str, code: str) -> dict[str, Any]:
    """Run code in the session and return its result."""
    answer = await http.post(files.replace("/files", "/execute"), json={"code": code})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def names(http: httpx.AsyncClient, files: str, path: str = "") -> list[str]:
    answer = await http.get(files, params={"path": path})
    assert answer.status_code == 200, answer.text
    return [entry["name"] for entry in answer.json()["entries"]]


async def nothing_beside(http: httpx.AsyncClient, files: str) -> None:
    """Wait until what an upload was written to has gone."""
    deadline = time.monotonic() + 10
    while ".sandboxweb" in (await run(http, files, "import os; print(os.listdir('.'))"))["stdout"]:
        assert time.monotonic() < deadline


async def test_a_file_goes_up_is_seen_by_code_and_comes_down(http: httpx.AsyncClient, files: str) -> None:
    data = os.urandom(5 * MIB + 7)
    answer = await http.put(f"{files}/in/data.bin?mode=640", content=data)
    assert answer.status_code == 201, answer.text
    assert {name: answer.json()[name] for name in ("name", "path", "type", "size", "mode")} == {
        "name": "data.bin",
        "path": "in/data.bin",
        "type": "file",
        "size": len(data),
        "mode": "0640",
    }
    code = "import hashlib; print(hashlib.sha256(open('in/data.bin', 'rb').read()).hexdigest())"
    assert (await run(http, files, code))["stdout"].strip() == hashlib.sha256(data).hexdigest()
    answer = await http.get(f"{files}/in/data.bin")
    assert answer.content == data
    assert answer.headers["content-length"] == str(len(data))
    assert (await http.put(f"{files}/in/data.bin", content=b"")).status_code == 200
    assert (await http.get(f"{files}/in/data.bin")).content == b""


async def test_an_upload_leaves_nothing_beside_its_file(http: httpx.AsyncClient, files: str) -> None:
    await http.put(f"{files}/x", content=b"x")
    await nothing_beside(http, files)
    assert await names(http, files) == ["x"]


async def test_ranges(http: httpx.AsyncClient, files: str) -> None:
    await http.put(f"{files}/x", content=b"0123456789")

    async def part(value: str, **headers: str) -> tuple[int, bytes, str | None]:
        answer = await http.get(f"{files}/x", headers={"Range": value, **headers})
        return answer.status_code, answer.content, answer.headers.get("content-range")

    assert await part("bytes=2-4") == (206, b"234", "bytes 2-4/10")
    assert await part("bytes=7-") == (206, b"789", "bytes 7-9/10")
    assert await part("bytes=-3") == (206, b"789", "bytes 7-9/10")
    assert await part("bytes=8-99") == (206, b"89", "bytes 8-9/10")
    assert await part("bytes=0-0,5-6") == (200, b"0123456789", None)
    assert await part("lines=1-2") == (200, b"0123456789", None)
    status, _, content_range = await part("bytes=10-")
    assert (status, content_range) == (416, "bytes */10")
    tag = (await http.head(f"{files}/x")).headers["etag"]
    assert (await part("bytes=2-4", **{"If-Range": tag}))[0] == 206
    await http.put(f"{files}/x", content=b"abcdefghij")
    assert await part("bytes=2-4", **{"If-Range": tag}) == (200, b"abcdefghij", None)


async def test_head_and_stat_describe_a_file(http: httpx.AsyncClient, files: str) -> None:
    await http.put(f"{files}/x", content=b"12345")
    head = await http.head(f"{files}/x")
    assert head.status_code == 200
    assert (head.headers["content-length"], head.headers["x-file-type"]) == ("5", "file")
    assert head.headers["accept-ranges"] == "bytes"
    stat = (await http.get(f"{files}/x?stat=true")).json()
    assert (stat["size"], stat["type"], stat["mode"]) == (5, "file", "0644")
    tag = head.headers["etag"]
    assert (await http.get(f"{files}/x", headers={"If-None-Match": tag})).status_code == 304
    assert (await http.head(f"{files}/missing")).status_code == 404


async def test_directories_are_made_listed_moved_and_removed(http: httpx.AsyncClient, files: str) -> None:
    assert (await http.post(f"{files}/a/b", json={"type": "directory"})).status_code == 201
    assert (await http.post(f"{files}/a/b", json={"type": "directory"})).status_code == 200
    await http.put(f"{files}/a/b/c.txt", content=b"c")
    assert (await http.put(f"{files}/a", content=b"x")).json()["error"] == "is_a_directory"
    assert (await http.get(f"{files}/a")).status_code == 409
    assert await names(http, files, "a/b") == ["c.txt"]
    moved = await http.patch(f"{files}/a/b/c.txt", json={"path": "d/e.txt"})
    assert moved.json()["path"] == "d/e.txt"
    await http.put(f"{files}/f", content=b"f")
    taken = await http.patch(f"{files}/f", json={"path": "d/e.txt"})
    assert (taken.status_code, taken.json()["error"]) == (409, "exists")
    assert (await http.patch(f"{files}/f", json={"path": "d/e.txt", "overwrite": True})).status_code == 200
    full = await http.delete(f"{files}/d")
    assert (full.status_code, full.json()["error"]) == (409, "not_empty")
    assert (await http.delete(f"{files}/d?recursive=true")).status_code == 204
    assert (await http.delete(f"{files}/d")).status_code == 404
    assert await names(http, files) == ["a"]


async def test_a_long_listing_says_that_it_was_cut(http: httpx.AsyncClient, files: str) -> None:
    await run(http, files, "for i in range(25): open(f'{i:02}', 'w')")
    first = (await http.get(files, params={"limit": 10})).json()
    assert (first["count"], first["truncated"], len(first["entries"])) == (25, True, 10)
    rest = (await http.get(files, params={"limit": 100, "offset": first["next_offset"]})).json()
    assert rest["truncated"] is False
    assert [entry["name"] for entry in first["entries"] + rest["entries"]] == [f"{i:02}" for i in range(25)]


@pytest.mark.parametrize("kind", ["tar", "zip"])
async def test_a_directory_comes_down_as_an_archive(http: httpx.AsyncClient, files: str, kind: str) -> None:
    content = os.urandom(3 * MIB)
    await http.put(f"{files}/d/x.bin", content=content)
    await http.put(f"{files}/d/e/y", content=b"y")
    for address in (f"{files}/d?archive={kind}", f"{files}?path=d&archive={kind}"):
        data = io.BytesIO((await http.get(address)).content)
        if kind == "zip":
            with zipfile.ZipFile(data) as packed:
                assert {name: packed.read(name) for name in packed.namelist() if name[-1] != "/"} == {
                    "x.bin": content,
                    "e/y": b"y",
                }
        else:
            with tarfile.open(fileobj=data) as archive:
                found = {member.name: archive.extractfile(member) for member in archive if member.isreg()}
                assert {name: file.read() for name, file in found.items() if file} == {"x.bin": content, "e/y": b"y"}
    assert (await http.get(f"{files}/d/e/y?archive={kind}")).status_code == 409
    assert (await http.get(f"{files}/d?archive=rar")).json()["field"] == "archive"


def tar_of(**members: bytes) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return data.getvalue()


async def test_a_tar_goes_up_into_a_directory(http: httpx.AsyncClient, files: str) -> None:
    content = os.urandom(3 * MIB)
    answer = await http.put(f"{files}/into?archive=tar", content=tar_of(a=b"a", b=content))
    assert (answer.status_code, answer.json()["members"]) == (200, 2)
    assert (await http.get(f"{files}/into/b")).content == content
    assert (await http.put(f"{files}?archive=tar", content=tar_of(c=b"c"))).status_code == 200
    assert await names(http, files) == ["c", "into"]
    broken = await http.put(f"{files}/into?archive=tar", content=b"no archive" * 200)
    assert (broken.status_code, broken.json()["field"]) == (400, "body")
    assert (await http.put(f"{files}/into?archive=tar", content=tar_of(d=b"d"))).status_code == 200


async def test_an_upload_that_is_aborted_leaves_nothing(http: httpx.AsyncClient, files: str) -> None:
    messages = [
        {"type": "http.request", "body": bytes(3 * MIB), "more_body": True},
        {"type": "http.disconnect"},
    ]
    sent: list[Any] = []

    async def receive() -> Any:
        return messages.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    path = f"{files}/new/x"
    scope = {"type": "http", "method": "PUT", "path": path, "raw_path": path.encode(), "query_string": b""}
    headers = [(b"authorization", f"Bearer {TOKEN}".encode()), (b"content-length", b"9000000")]
    transport: Any = http._transport
    await transport.app({**scope, "headers": headers, "http_version": "1.1"}, receive, send)
    assert not messages
    assert await names(http, files) == []
    await nothing_beside(http, files)


async def test_a_body_that_is_too_large_is_a_413(http: httpx.AsyncClient, files: str) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(MIB)

    over_limit = await http.put(f"{files}/x", content=b"", headers={"Content-Length": str(49 * MIB)})
    assert (over_limit.status_code, over_limit.json()["error"]) == (413, "too_large")
    announced = await http.put(f"{files}/x", content=bytes(33 * MIB))
    assert (announced.status_code, announced.json()["error"]) == (413, "no_space")
    streamed = await http.put(f"{files}/x", content=endless())
    assert (streamed.status_code, streamed.json()["error"]) == (413, "no_space")
    archive = await http.put(f"{files}?archive=tar", content=tar_of(x=bytes(33 * MIB)))
    assert (archive.status_code, archive.json()["error"]) == (413, "no_space")
    assert await names(http, files) == []


async def test_what_is_the_servers_own_is_left_alone(http: httpx.AsyncClient, files: str) -> None:
    for method, path in (
        ("PUT", ".sandboxweb/lib/x.py"),
        ("DELETE", ".sandboxweb"),
        ("GET", "./.sandboxweb?list=true"),
    ):
        answer = await http.request(method, f"{files}/{path}")
        assert (answer.status_code, answer.json()["error"]) == (409, "forbidden")


async def test_special_files_never_hang(http: httpx.AsyncClient, files: str) -> None:
    code = "import os, socket; os.mkfifo('pipe'); s = socket.socket(socket.AF_UNIX); s.bind('socket')"
    await run(http, files, code)
    for name in ("pipe", "socket"):
        answer = await http.get(f"{files}/{name}")
        assert (answer.status_code, answer.json()["error"]) == (409, "not_a_file")
    assert (await http.put(f"{files}/pipe", content=b"now a file")).status_code == 200
    assert (await http.get(f"{files}/pipe")).content == b"now a file"
    for kind in ("tar", "zip"):
        assert (await http.get(f"{files}?archive={kind}")).status_code == 200


async def test_files_work_while_code_runs(http: httpx.AsyncClient, files: str) -> None:
    code = "import os, time\nwhile not os.path.exists('go'): time.sleep(0.01)\nprint(open('go').read())"
    running = asyncio.create_task(run(http, files, code))
    await asyncio.sleep(0)
    assert (await http.put(f"{files}/other", content=bytes(2 * MIB))).status_code == 201
    assert len((await http.get(f"{files}/other")).content) == 2 * MIB
    await http.put(f"{files}/go", content=b"went")
    assert (await running)["stdout"] == "went\n"


async def test_an_answer_lists_the_files_that_the_code_made(http: httpx.AsyncClient, files: str) -> None:
    result = await run(http, files, "open('out.csv', 'w').write('1,2')")
    assert result["files"] == [{"path": "out.csv", "size": 3, "mode": "0644", "change": "created"}]
    after = await run(http, files, "print(1)")
    assert (after["files"], after["files_truncated"]) == ([], False)


async def test_an_answer_says_that_there_are_more_files_than_it_lists(http: httpx.AsyncClient, files: str) -> None:
    result = await run(http, files, "for i in range(150): open(f'f{i}', 'w')")
    # A hundred, or fewer if the look at them had to be cut off.
    assert 0 < len(result["files"]) <= 100
    assert result["files_truncated"] is True


@pytest.mark.asyncio(loop_scope="function")
async def test_a_sandbox_without_an_agent_says_that_it_cannot(proxy: Proxy) -> None:
    session = await proxy.session()
    for method, path in (("GET", ""), ("GET", "/x"), ("PUT", "/x"), ("DELETE", "/x")):
        answer = await proxy.http.request(method, f"/sessions/{session}/files{path}")
        assert (answer.status_code, answer.json()["field"]) == (422, "path")
