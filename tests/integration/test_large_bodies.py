"""The app server's own part: bodies that are too large are refused at once, and no answer is cut off silently."""

from __future__ import annotations

import json
import socket
import time

import httpx

from tests.integration.servers import Servers

MIB = 1024 * 1024


def exchange(servers: Servers, head: str, body: bytes = b"") -> bytes:
    """Send a request as it is and return all that comes until the server hangs up."""
    with socket.create_connection(("127.0.0.1", servers.app_port), timeout=20) as connection:
        connection.sendall(head.replace("\n", "\r\n").encode() + b"\r\n\r\n")
        answer = b""
        try:
            connection.sendall(body)
            while data := connection.recv(65536):
                answer += data
        except ConnectionError:
            pass
        return answer


def test_a_body_that_is_announced_too_large_is_refused_before_it_comes(servers: Servers) -> None:
    most = {("POST", "/sessions"): 32 * MIB, ("PUT", "/sessions/x/files/y"): 4 * 1024 * MIB}
    for (method, path), limit in most.items():
        began = time.monotonic()
        head = f"{method} {path} HTTP/1.1\nHost: localhost\nContent-Length: {limit + 1}\nExpect: 100-continue"
        answer = exchange(servers, head)
        assert answer.startswith(b"HTTP/1.1 413 "), answer[:200]
        error = json.loads(answer.split(b"\r\n\r\n")[1])["errors"][0]
        detail = f"The body is too large: at most {limit} bytes are taken."
        assert error == {"code": "too_large", "detail": detail, "attr": None}
        assert time.monotonic() - began < 5


def test_a_body_that_grows_too_large_is_refused_on_the_way(servers: Servers) -> None:
    head = "POST /sessions HTTP/1.1\nHost: localhost\nTransfer-Encoding: chunked"
    chunk = b"100000\r\n" + bytes(MIB) + b"\r\n"
    # The connection may be reset before the answer is read; what counts is that the server takes no more.
    answer = exchange(servers, head, chunk * 40)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 413 ")
    assert httpx.get(servers.app_url, trust_env=False).status_code == 200


def test_a_download_whose_sandbox_dies_breaks_off(servers: Servers, api: httpx.Client, session_id: str) -> None:
    path = f"/sessions/{session_id}/files/x"
    api.put(path, content=bytes(48 * MIB))
    failed = False
    try:
        with api.stream("GET", path) as answer:
            assert answer.status_code == 200
            for number, _ in enumerate(answer.iter_bytes(MIB)):
                if number == 1:
                    api.delete(f"/sessions/{session_id}")
    except httpx.TransportError:
        failed = True
    assert failed
