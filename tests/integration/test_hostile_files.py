"""None of two hundred hostile paths, archive members and file names reaches outside the workspace; none is a 500."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import closing

import httpx
import pytest

from tests.integration import hostile
from tests.integration.servers import Servers

# Hundreds of requests each.
pytestmark = pytest.mark.timeout(300)

SECRETS = (b"the canary sings", b"root:x:0:0", b"PATH=")
REPORT = """
import os
print(open("/tmp/canary").read(), sorted(name for name in os.listdir("/tmp") if not name.startswith(".")))
"""


def some(servers: Servers, items: list[str]) -> list[str]:
    """Return all of them on the first installation, every sixth on the others: the agent is the same."""
    return items if servers.backend == "bubblewrap" else items[::6]


class Enemy:
    """Send requests as they are, without a client's tidying of addresses."""

    def __init__(self, servers: Servers, session_id: str) -> None:
        self.session_id = session_id
        self._connection = http.client.HTTPConnection("127.0.0.1", servers.app_port, timeout=60)
        self._headers = {"Authorization": f"Bearer {servers.key}"}

    def send(
        self, method: str, url: str, body: bytes | None = None, kind: str = "application/json"
    ) -> tuple[int, bytes]:
        """Return status and body, after a look whether anything leaked."""
        self._connection.request(method, url, body=body, headers={**self._headers, "Content-Type": kind})
        answer = self._connection.getresponse()
        content = answer.read()
        assert answer.status < 500, (method, url[:200], answer.status, content[:500])
        assert not any(secret in content for secret in SECRETS), (method, url[:200])
        if answer.status >= 400 and method != "HEAD":
            assert json.loads(content)["errors"][0]["detail"], (method, url[:200], content[:500])
        return answer.status, content

    def close(self) -> None:
        self._connection.close()


@pytest.fixture
def enemy(servers: Servers, api: httpx.Client, session_id: str) -> Iterator[Enemy]:
    """An enemy with a key and a session, whose workspace is full of links that lead out."""
    run(api, session_id, hostile.LINKS)
    with closing(Enemy(servers, session_id)) as found:
        before = run(api, session_id, REPORT)
        yield found
        assert run(api, session_id, REPORT) == before


def run(api: httpx.Client, session_id: str, code: str) -> str:
    answer = api.post(f"/sessions/{session_id}/execute", json={"code": code})
    assert answer.json().get("status") == "succeeded", answer.text
    return str(answer.json()["stdout"])


def test_the_tables_have_two_hundred_entries() -> None:
    counts = [len(set(hostile.OUTSIDE)), len(set(hostile.INSIDE)), len(set(hostile.NAMES)), len(hostile.ARCHIVES)]
    assert sum(counts) >= 200, counts


def test_paths_that_lead_outside_are_refused(servers: Servers, enemy: Enemy) -> None:
    move = json.dumps({"path": "moved", "overwrite": True}).encode()
    enemy.send("PUT", hostile.address(enemy.session_id, "source"), b"x")
    for path in some(servers, hostile.OUTSIDE):
        url = hostile.address(enemy.session_id, path)
        for method, body in (("GET", None), ("HEAD", None), ("PUT", b"evil"), ("POST", b'{"type": "directory"}')):
            status, content = enemy.send(method, url, body)
            assert 400 <= status < 500, (method, path[:100], status, content[:300])
        for query in ("stat=true", "list=true", "archive=tar", "archive=zip"):
            assert enemy.send("GET", f"{url}?{query}")[0] >= 400, (query, path[:100])
        listing = f"/sessions/{enemy.session_id}/files?path={path}"
        assert enemy.send("GET", listing)[0] >= 400 or path in ("/", "//"), path[:100]
        assert enemy.send("PUT", f"{url}?archive=tar", hostile.ARCHIVES["set-id bits"]())[0] >= 400, path[:100]
        decoded = (
            path.replace("%2e", ".").replace("%2E", ".").replace("%2f", "/").replace("%2F", "/").replace("%00", "\0")
        )
        aim = json.dumps({"path": decoded, "overwrite": True}).encode()
        enemy.send("PATCH", hostile.address(enemy.session_id, "source"), aim)
    # Links themselves may be moved and removed: what they lead to stays.
    for path in some(servers, hostile.OUTSIDE):
        url = hostile.address(enemy.session_id, path)
        enemy.send("PATCH", url, move)
        enemy.send("DELETE", f"{url}?recursive=true")


def test_odd_paths_that_stay_inside_are_no_fault_of_ours(servers: Servers, enemy: Enemy) -> None:
    for path in some(servers, hostile.INSIDE):
        url = hostile.address(enemy.session_id, path)
        enemy.send("PUT", url, b"content")
        enemy.send("GET", url)
        enemy.send("HEAD", url)
        enemy.send("GET", f"{url}{'&' if '?' in url else '?'}stat=true")
        enemy.send("GET", f"/sessions/{enemy.session_id}/files?path={path}")
        enemy.send("POST", url, b'{"type": "directory"}')
        enemy.send("PATCH", url, b'{"path": "moved/here"}')
        enemy.send("DELETE", url)


def test_every_name_that_a_file_can_have_goes_up_and_comes_down(servers: Servers, enemy: Enemy) -> None:
    names = hostile.NAMES if servers.backend == "bubblewrap" else hostile.NAMES[::6]
    for name in names:
        url = hostile.address(enemy.session_id, f"names/{hostile.encoded(name)}")
        assert enemy.send("PUT", url, b"content of " + name)[0] == 201, name
        assert enemy.send("GET", url) == (200, b"content of " + name)
    listed = json.loads(enemy.send("GET", f"/sessions/{enemy.session_id}/files?path=names&limit=1000")[1])
    assert listed["count"] == len(names)
    for entry in listed["entries"]:
        path = entry.get("encoded_path") or hostile.quote(entry["path"])
        status, content = enemy.send("GET", hostile.address(enemy.session_id, path))
        assert content.startswith(b"content of "), (entry, status)
    for kind in ("tar", "zip"):
        status, _ = enemy.send("GET", f"/sessions/{enemy.session_id}/files?path=names&archive={kind}")
        assert status == 200
    assert enemy.send("DELETE", hostile.address(enemy.session_id, "names?recursive=true"))[0] == 204


def test_no_archive_reaches_outside(servers: Servers, api: httpx.Client, enemy: Enemy) -> None:
    for number, label in enumerate(some(servers, list(hostile.ARCHIVES))):
        url = hostile.address(enemy.session_id, f"unpacked/{number}")
        enemy.send("PUT", f"{url}?archive=tar", hostile.ARCHIVES[label](), "application/x-tar")
    code = """
import os
for above, folders, files in os.walk("unpacked"):
    for name in folders + files:
        path = os.path.join(above, name)
        real = os.path.realpath(path)
        assert real.startswith("/sandbox/unpacked"), (path, real)
        assert os.path.islink(path) or not os.lstat(path).st_mode & 0o7000, path
"""
    run(api, enemy.session_id, code)


@pytest.mark.parametrize(
    "line", [b"GET %b/\xff HTTP/1.1", b"GET %b/a b HTTP/1.1", b"PUT %b/\x00 HTTP/1.1", b"GET %b/\xe2\x80\xae HTTP/1.1"]
)
def test_addresses_that_are_no_addresses(servers: Servers, session_id: str, line: bytes) -> None:
    with socket.create_connection(("127.0.0.1", servers.app_port), timeout=10) as connection:
        first = line % f"/sessions/{session_id}/files".encode()
        rest = f"\r\nHost: localhost\r\nAuthorization: Bearer {servers.key}\r\nConnection: close\r\n\r\n"
        connection.sendall(first + rest.encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert b" 500 " not in answer.split(b"\r\n")[0]
