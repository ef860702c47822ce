"""The kept-alive connections to the proxy, against a real server."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from sessions_app.exceptions import ProxyUnavailable, ProxyUnreachable
from sessions_app.http_pool import ConnectFailed, HttpPool
from sessions_app.proxy_client import ProxyClient
from tests.postgres import free_port


class Handler(BaseHTTPRequestHandler):
    """Answer with what was asked, and do on some paths what servers do to connections."""

    protocol_version = "HTTP/1.1"
    connections: set[object]
    requests: list[str]
    silence: threading.Event

    def do_POST(self) -> None:
        """Answer."""
        self.connections.add(self.client_address)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.requests.append(self.path)
        if self.path == "/broken":
            self.close_connection = True
            return
        if self.path == "/broken-once" and self.requests.count(self.path) == 1:
            self.close_connection = True
            return
        if self.path == "/silent":
            self.silence.wait(20)
        said = b'{"auth": "%s", "body": %s}' % (self.headers["Authorization"].encode(), body or b"null")
        self.send_response(200)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)
        if self.path == "/then-closes":
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """Have room for many who connect at once."""

    request_queue_size = 64
    daemon_threads = True


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    """Run a server on a free port."""
    Handler.connections, Handler.requests, Handler.silence = set(), [], threading.Event()
    running = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True).start()
    yield running
    Handler.silence.set()
    running.shutdown()
    running.server_close()


@pytest.fixture
def pool(server: ThreadingHTTPServer) -> Iterator[HttpPool]:
    """Return a pool of connections to the server."""
    url = f"http://127.0.0.1:{server.server_address[1]}"
    made = HttpPool(url, {"Authorization": "Bearer t"}, connect_timeout_s=1)
    yield made
    made.close()


@pytest.fixture
def client(server: ThreadingHTTPServer) -> Iterator[ProxyClient]:
    """Return the app's client of the server."""
    made = ProxyClient(f"http://127.0.0.1:{server.server_address[1]}", "t")
    yield made
    made.close()


def test_requests_one_after_another_share_a_connection(pool: HttpPool) -> None:
    for _ in range(5):
        answer = pool.request("POST", "/", b"[1]", timeout_s=5)
        assert (answer.status, answer.content) == (200, b'{"auth": "Bearer t", "body": [1]}')
    assert len(Handler.connections) == 1


def test_requests_at_once_each_have_one_to_themselves_and_get_their_own_answer(pool: HttpPool) -> None:
    def ask(number: int) -> bytes:
        return pool.request("POST", "/", b"%d" % number, timeout_s=5).content

    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(ask, range(200)))
    assert answers == [b'{"auth": "Bearer t", "body": %d}' % number for number in range(200)]
    assert len(Handler.connections) <= 16


def test_a_connection_that_the_server_closed_meanwhile_is_replaced(pool: HttpPool) -> None:
    for _ in range(3):
        assert pool.request("POST", "/then-closes", None, timeout_s=5).status == 200
        assert select.select([pool._idle[-1].sock], [], [], 5)[0], "the server closes it"
    assert Handler.requests == ["/then-closes"] * 3


def test_nobody_there_is_told_apart_from_silence(pool: HttpPool) -> None:
    absent = HttpPool(f"http://127.0.0.1:{free_port()}", {}, connect_timeout_s=1)
    with pytest.raises(ConnectFailed):
        absent.request("POST", "/", None, timeout_s=1)
    with pytest.raises(TimeoutError):
        pool.request("POST", "/silent", None, timeout_s=0.05)


def test_a_server_that_does_not_even_accept_is_given_up(client: ProxyClient) -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        waiting = [socket.socket() for _ in range(3)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(address)
        away = ProxyClient(f"http://127.0.0.1:{address[1]}", "t")
        with pytest.raises(ProxyUnreachable):
            away.create_session({})
        away.close()
        for one in waiting:
            one.close()


def test_a_request_whose_connection_broke_is_sent_once_more(client: ProxyClient) -> None:
    assert client._json("POST", "/broken-once", body={"a": "ö"})["body"] == {"a": "ö"}
    assert Handler.requests == ["/broken-once"] * 2
    with pytest.raises(ProxyUnavailable):
        client._json("POST", "/broken")
    assert Handler.requests.count("/broken") == 2


def test_silence_is_not_asked_again(client: ProxyClient) -> None:
    with pytest.raises(ProxyUnavailable, match="in time"):
        client._json("POST", "/silent", timeout_s=0.05)
    assert Handler.requests == ["/silent"]
