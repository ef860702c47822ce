from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from deploy.supervisor import client
from deploy.supervisor.client import HttpError


class App(BaseHTTPRequestHandler):
    """An app server that knows one key."""

    def do_GET(self) -> None:
        if self.path == "/unable":
            self.answer(503, {"error": "unavailable", "detail": "No engine.", "mend": "Start it."})
        else:
            self.answer(200, {"status": "ok"})

    def do_POST(self) -> None:
        code = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["code"]
        if self.headers["Authorization"] != "Bearer known":
            self.answer(401, {"detail": "wrong key"})
        else:
            self.answer(200, {"status": "succeeded", "exit_code": 0, "stdout": f"{eval(code[6:-1])}\n"})  # noqa: S307

    def answer(self, status: int, body: dict[str, Any]) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *arguments: object) -> None:
        """Stay silent."""


@pytest.fixture
def app_url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), App) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_first_execution_gives_its_output_and_time(app_url: str) -> None:
    output, elapsed_ms = client.first_execution(app_url, "known")
    assert output == "2"
    assert elapsed_ms > 0


def test_a_key_that_nobody_knows_is_told_by_its_status(app_url: str) -> None:
    with pytest.raises(HttpError) as caught:
        client.first_execution(app_url, "unknown")
    assert caught.value.status == 401


async def test_waiting_for_health_ends_with_the_answer(app_url: str) -> None:
    assert await client.wait_until_healthy(app_url, 5) == {"status": "ok"}


async def test_waiting_for_health_is_bounded() -> None:
    with pytest.raises(TimeoutError):
        await client.wait_until_healthy("http://127.0.0.1:9", 0.2)


async def test_a_server_that_lacks_something_is_waited_for_a_shorter_while_and_its_words_are_told_once(
    app_url: str,
) -> None:
    told: list[str] = []
    with pytest.raises(TimeoutError):
        await client.wait_until_healthy(f"{app_url}/unable", 60, 0.4, told.append)
    assert told == ["No engine. Start it."]
