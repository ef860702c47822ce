"""Streams through real servers: cut and taken up again, watched by many, fed while they run."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.integration.conftest import BUBBLEWRAP
from tests.integration.servers import Servers
from tests.postgres import free_port
from tests.waiting import wait_until

LINES = 100_000
# Some lines at once and then a breath, so that there is a middle to cut the stream in.
MANY_LINES = f"""
import sys, time
for number in range({LINES}):
    print("line", number)
    if number % 1000 == 999:
        sys.stdout.flush()
        time.sleep(0.03)
"""
WATCHERS, EVENTS = 50, 10_000
# What is printed is told piece by piece as long as it comes with pauses.
PIECES = """
import time
for number in range(300):
    print(number, "." * 60, flush=True)
    time.sleep(0.002)
"""
SSE = {"Accept": "text/event-stream"}


def messages(response: httpx.Response) -> Iterator[dict[str, Any]]:
    """Yield the messages of a stream of server-sent events."""
    assert response.status_code == 200, response.read()
    for line in response.iter_lines():
        if line.startswith("data: "):
            yield json.loads(line.removeprefix("data: "))


class Reader:
    """A client that takes a stream up again where it broke, as a browser does."""

    def __init__(self) -> None:
        self.execution_id = ""
        self.last = 0
        self.seen: list[int] = []
        self.text = ""
        self.end: dict[str, Any] | None = None

    def take(self, stream: Iterator[dict[str, Any]], until: int | None = None) -> None:
        """Read on, to the end or until so many lines were read."""
        for message in stream:
            if message["seq"]:
                self.last = message["seq"]
                self.seen.append(message["seq"])
            if message["type"] == "accepted":
                self.execution_id = message["data"]["execution_id"]
            elif message["type"] == "stdout":
                self.text += message["data"]
            elif message["type"] == "finished":
                self.end = message["data"]
            if until is not None and self.text.count("\n") >= until:
                return

    def take_up(self, api: httpx.Client) -> None:
        """Read the rest."""
        path, headers = f"/executions/{self.execution_id}/events", {**SSE, "Last-Event-ID": str(self.last)}
        with api.stream("GET", path, headers=headers) as response:
            self.take(messages(response))

    def has_everything(self) -> bool:
        """Tell whether every line came once, and every event."""
        assert self.seen == list(range(1, len(self.seen) + 1))
        assert self.text.split("\n") == [*(f"line {number}" for number in range(LINES)), ""]
        return self.end is not None and self.end["status"] == "succeeded"


@pytest.mark.timeout(300)
def test_a_stream_cut_by_the_death_of_the_web_server_is_taken_up_without_a_line_lost_or_twice(
    servers: Servers, api: httpx.Client, session_id: str
) -> None:
    reader = Reader()
    path = f"/sessions/{session_id}/execute"
    try:
        with api.stream("POST", path, json={"code": MANY_LINES}, headers=SSE) as response:
            stream = messages(response)
            reader.take(stream, until=LINES // 3)
            servers.kill("app")
            with pytest.raises(httpx.TransportError):
                reader.take(stream)
    finally:
        if "app" not in servers.processes:
            servers.start("app")
    assert LINES // 3 <= reader.text.count("\n") < LINES
    reader.take_up(api)
    assert reader.has_everything()
    kept = api.get(f"/executions/{reader.execution_id}").json()
    assert (kept["status"], kept["stdout"]) == ("succeeded", reader.text)


@pytest.mark.timeout(300)
def test_a_stream_outlasts_a_proxy_that_dies_where_the_sandbox_does(
    servers: Servers, api: httpx.Client, session_id: str
) -> None:
    reader = Reader()
    path = f"/sessions/{session_id}/execute"
    with api.stream("POST", path, json={"code": MANY_LINES}, headers=SSE) as response:
        stream = messages(response)
        reader.take(stream, until=LINES // 3)
        servers.kill("proxy")
        servers.start("proxy")
        reader.take(stream)
    assert reader.end is not None
    if servers.backend == "docker":
        assert reader.has_everything()
    else:
        # Its sandbox died with it; what the reader has is what there is.
        assert reader.end["status"] == "lost"
        assert reader.text.startswith("line 0\nline 1\n")


def test_noise_progress_bars_colours_and_half_characters_arrive_unharmed(api: httpx.Client, session_id: str) -> None:
    code = r"""
import os, time
bar, colour = (b"\r 10%", b"\r 99%\n"), (b"\x1b[31mred\x1b[0m\n",)
halves = (b"\xe2\x82", b"\xac\xf0\x9f", b"\x98\x80")
for piece in (*bar, *colour, *halves, b"\n\xff\xfe\x00 \xc3"):
    os.write(1, piece)
    time.sleep(0.05)
"""
    reader = Reader()
    with api.stream("POST", f"/sessions/{session_id}/execute", json={"code": code}, headers=SSE) as response:
        reader.take(messages(response))
    assert reader.text == "\r 10%\r 99%\n\x1b[31mred\x1b[0m\n\u20ac\U0001f600\n\ufffd\ufffd\0 \ufffd"


def test_input_is_read_as_it_comes(api: httpx.Client, session_id: str) -> None:
    code = "import sys\nfor line in sys.stdin:\n    print('got', line.strip(), flush=True)\nprint('end')"
    body = {"code": code, "stdin": "zero\n", "stdin_stream": True}
    text = ""
    with api.stream("POST", f"/sessions/{session_id}/execute", json=body, headers=SSE) as response:
        stream = messages(response)
        address = f"/executions/{next(stream)['data']['execution_id']}/stdin"
        answers = {"got zero\n": {"data": "one\n"}, "got zero\ngot one\n": {"data": "two", "eof": True}}
        for message in stream:
            if message["type"] == "stdout":
                text += message["data"]
                if more := answers.pop(text, None):
                    assert api.post(address, json=more).status_code == 200
    assert text == "got zero\ngot one\ngot two\nend\n"
    assert api.post(address, json={"data": "late"}).status_code == 409


def test_executions_wait_their_turn_up_to_a_bound_and_are_cancelled_while_they_wait(
    api: httpx.Client, session_id: str
) -> None:
    def begin(code: str) -> httpx.Response:
        return api.post(f"/sessions/{session_id}/execute", json={"code": code, "wait": False})

    first = begin("import time\ntime.sleep(30)").json()["execution_id"]
    path = "/sandbox/order"
    waiting = [begin(f"open({path!r}, 'a').write('{number} ')").json()["execution_id"] for number in range(16)]
    refused = begin("1")
    assert (refused.status_code, refused.json()["errors"][0]["code"]) == (429, "queue_full")
    assert int(refused.headers["Retry-After"]) > 0
    assert api.post(f"/executions/{waiting[3]}/cancel").json()["status"] == "cancelled"
    assert api.post(f"/executions/{first}/cancel").json()["status"] == "cancelled"
    last = api.post(f"/sessions/{session_id}/execute", json={"code": f"print(open({path!r}).read())"}).json()
    assert last["stdout"].split() == [str(number) for number in range(16) if number != 3]


def test_a_service_goes_on_between_executions_and_ends_with_its_session(
    servers: Servers, api: httpx.Client, session_id: str
) -> None:
    port = str(free_port())
    serve = f"import subprocess, sys\nsubprocess.Popen([sys.executable, '-m', 'http.server', '{port}'])"
    ask = f"""
import time, urllib.request
for _ in range(100):
    try:
        print(urllib.request.urlopen("http://127.0.0.1:{port}/").status)
        break
    except OSError:
        time.sleep(0.1)
"""
    path = f"/sessions/{session_id}/execute"
    assert api.post(path, json={"code": serve}).json()["status"] == "succeeded"
    for _ in range(2):
        assert api.post(path, json={"code": ask}).json()["stdout"] == "200\n"
    assert services(port) > 0
    api.delete(f"/sessions/{session_id}")
    wait_until(lambda: services(port) == 0, timeout_s=20, what="the service's end")


def services(port: str) -> int:
    """Return how many processes of this machine serve at a port as the test's service does."""
    found = 0
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found += f"http.server\0{port}".encode() in command.read_bytes()
        except OSError:
            continue
    return found


# --- Watchers --------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def watcher(servers: Servers, session_id: str) -> AsyncIterator[ClientConnection]:
    """Open a socket on a session, ready to watch."""
    url = f"ws://127.0.0.1:{servers.app_port}/ws/sessions/{session_id}"
    headers = {"Authorization": f"Bearer {servers.key}"}
    async with connect(url, additional_headers=headers, open_timeout=60, close_timeout=1, ping_interval=None) as socket:
        assert json.loads(await socket.recv())["type"] == "ready"
        yield socket


async def hear(socket: ClientConnection, counts: list[int], place: int, last: asyncio.Event) -> list[str]:
    """Read until nothing more comes, counting; return all messages."""
    heard: list[str] = []
    while True:
        try:
            heard.append(str(await asyncio.wait_for(socket.recv(), 1 if last.is_set() else 60)))
        except TimeoutError:
            return heard
        counts[place] = len(heard)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("servers", [BUBBLEWRAP], indirect=True)
async def test_fifty_watchers_see_the_same_ten_thousand_events_and_one_that_never_reads_is_dropped(
    servers: Servers, session_id: str
) -> None:
    counts, last = [0] * WATCHERS, asyncio.Event()
    async with AsyncExitStack() as stack:
        sockets = [await stack.enter_async_context(watcher(servers, session_id)) for _ in range(WATCHERS)]
        asleep = await stack.enter_async_context(watcher(servers, session_id))
        readers = [asyncio.create_task(hear(socket, counts, place, last)) for place, socket in enumerate(sockets)]
        async with httpx.AsyncClient(
            base_url=servers.app_url, headers={"X-API-Key": servers.key}, timeout=120, trust_env=False
        ) as api:
            while max(counts) < EVENTS:
                answer = await api.post(f"/sessions/{session_id}/execute", json={"code": PIECES})
                assert answer.json()["status"] == "succeeded", answer.text
        last.set()
        heard = await asyncio.gather(*readers)
        assert len(heard[0]) >= EVENTS
        assert all(one == heard[0] for one in heard)
        numbers: dict[str, int] = {}
        for message in map(json.loads, heard[0]):
            assert message["seq"] == numbers.get(message["execution_id"], 0) + 1
            numbers[message["execution_id"]] = message["seq"]
        port = asleep.local_address[1]
        await asyncio.to_thread(
            wait_until, lambda: not is_served(servers.app_port, port), timeout_s=90, what="the end of the one asleep"
        )
        taken = 0
        with pytest.raises(ConnectionClosed):
            while taken < len(heard[0]):
                await asyncio.wait_for(asleep.recv(), 60)
                taken += 1
        assert taken < len(heard[0])


def is_served(app_port: int, client_port: int) -> bool:
    """Tell whether the app still has its side of a connection, as the kernel sees it."""
    ends = [f"0100007F:{port:04X}" for port in (app_port, client_port)]
    return any(line.split()[1:4] == [*ends, "01"] for line in Path("/proc/net/tcp").read_text().splitlines())


async def test_watchers_on_two_web_servers_see_the_same(servers: Servers, session_id: str) -> None:
    second = replace(servers, app_port=free_port(), processes={})
    second.start("app")
    try:
        async with watcher(servers, session_id) as one, watcher(second, session_id) as other:
            run = {"type": "execute", "code": "import time\nfor n in range(5): print(n, flush=True); time.sleep(0.05)"}
            await one.send(json.dumps(run))
            accepted = json.loads(await one.recv())
            heard = [await until_finished(socket) for socket in (one, other)]
        assert heard[0] == heard[1]
        assert {message["execution_id"] for message in heard[0]} == {accepted["execution_id"]}
        assert "".join(message["data"] for message in heard[0] if message["type"] == "stdout") == "0\n1\n2\n3\n4\n"
    finally:
        second.stop("app")


async def until_finished(socket: ClientConnection) -> list[dict[str, Any]]:
    """Return the messages up to the end of an execution."""
    heard: list[dict[str, Any]] = []
    while not heard or heard[-1]["type"] != "finished":
        heard.append(json.loads(await asyncio.wait_for(socket.recv(), 60)))
    return heard


# --- Threads ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", [pytest.param("bubblewrap", marks=BUBBLEWRAP.marks)])
@pytest.mark.timeout(300)
def test_two_hundred_streams_leave_the_threads_to_others(backend: str, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'db.sqlite3'}"
    servers = Servers(backend=backend, database_url=url, data_dir=tmp_path, settings={"APP_THREADS": "4"})
    try:
        servers.set_up()
        with servers.client() as api:
            session_id = api.post("/sessions", json={}).json()["session_id"]
            body = {"code": "print('begun', flush=True)\nprint('got', input())", "stdin_stream": True, "wait": False}
            execution_id = api.post(f"/sessions/{session_id}/execute", json=body).json()["execution_id"]
            texts = asyncio.run(_follow_all(servers, execution_id, 200))
        assert texts == ["begun\ngot it\n"] * 200
    finally:
        servers.tear_down()


async def _follow_all(servers: Servers, execution_id: str, count: int) -> list[str]:
    """Follow an execution that often at once; when all have begun, let it end by requests of their own."""
    begun = [asyncio.Event() for _ in range(count)]
    limits = httpx.Limits(max_connections=None)
    headers = {"X-API-Key": servers.key}
    async with httpx.AsyncClient(
        base_url=servers.app_url, headers=headers, timeout=60, limits=limits, trust_env=False
    ) as api:

        async def follow(is_begun: asyncio.Event) -> str:
            text = ""
            async with api.stream("GET", f"/executions/{execution_id}/events", headers=SSE) as response:
                async for line in response.aiter_lines():
                    message = json.loads(line[6:]) if line.startswith("data: ") else {}
                    if message.get("type") == "stdout":
                        text += message["data"]
                        is_begun.set()
            return text

        followers = [asyncio.create_task(follow(is_begun)) for is_begun in begun]
        await asyncio.gather(*(is_begun.wait() for is_begun in begun))
        began = time.monotonic()
        assert (await api.get("/sessions")).status_code == 200
        answer = await api.post(f"/executions/{execution_id}/stdin", json={"data": "it\n"})
        assert answer.status_code == 200, answer.text
        assert time.monotonic() - began < 10
        return list(await asyncio.gather(*followers))
