"""What an engine wraps a container's streams into comes off again, however it is cut."""

from __future__ import annotations

import asyncio
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy_service.agent_events import AgentGone
from proxy_service.backends.engine_stream import DemuxReader, attach
from proxy_service.backends.fifo_channel import make_pipes, open_pipes, remove_pipes


def wrapped(kind: int, data: bytes) -> bytes:
    return struct.pack(">BxxxI", kind, len(data)) + data


@given(st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=300)), max_size=12), st.integers(1, 40))
@settings(deadline=None, max_examples=100)
def test_stdout_comes_through_whole_and_stderr_not_at_all(chunks: list[tuple[int, bytes]], size: int) -> None:
    wire = b"".join(wrapped(kind, data) for kind, data in chunks)

    async def read_all() -> bytes:
        source = asyncio.StreamReader()
        reader = DemuxReader(source)
        source.feed_data(wire)
        source.feed_eof()
        found = b""
        while data := await reader.read(size):
            found += data
        return found

    assert asyncio.run(read_all()) == b"".join(data for kind, data in chunks if kind == 1)


async def serve(answer: bytes, path: Path) -> asyncio.Server:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    return await asyncio.start_unix_server(speak, path)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 404 Not Found\r\n\r\nno such container",
        b"HTTP/1.1 101",
        b"nonsense\r\n\r\n",
        b"x" * 200_000,
        b"",
    ],
)
async def test_an_engine_that_does_not_attach_is_away(answer: bytes, tmp_path: Path) -> None:
    server = await serve(answer, tmp_path / "engine.sock")
    with pytest.raises(AgentGone):
        await attach(f"unix://{tmp_path}/engine.sock", "container")
    server.close()
    await server.wait_closed()


async def test_what_follows_the_answer_at_once_is_not_lost(tmp_path: Path) -> None:
    server = await serve(b"HTTP/1.1 101 UPGRADED\r\n\r\n" + wrapped(1, b"early"), tmp_path / "engine.sock")
    reader, writer = await attach(f"unix://{tmp_path}/engine.sock", "container")
    assert await reader.read(100) == b"early"
    writer.close()
    await writer.wait_closed()
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize("url", ["unix:///no/such/socket", "ssh://elsewhere", "tcp://127.0.0.1:1"])
async def test_an_engine_that_cannot_be_reached_is_away(url: str) -> None:
    with pytest.raises(AgentGone):
        await attach(url, "container")


async def test_pipes_carry_both_ways_and_end_with_the_agent(tmp_path: Path) -> None:
    directory = tmp_path / "pipes"
    make_pipes(directory)
    agent = await asyncio.create_subprocess_exec("sh", "-c", f"exec cat 1<>{directory}/out 0<>{directory}/in")
    reader, writer = await open_pipes(directory)
    writer.write(b"there and back")
    assert await reader.readexactly(14) == b"there and back"
    writer.close()
    reader, writer = await open_pipes(directory)
    writer.write(b"again")
    assert await reader.readexactly(5) == b"again"
    agent.kill()
    await agent.wait()
    assert await reader.read(5) == b""
    writer.close()
    remove_pipes(directory)
    assert not directory.exists()
