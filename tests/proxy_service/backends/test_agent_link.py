"""The link to an agent: what an honest one says arrives, and a hostile one can only end it."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy_service.agent_events import QUEUE_BYTES, AgentBroken, AgentError, AgentGone, EventStream
from proxy_service.agent_link import (
    MAX_BODY_BYTES,
    MAX_HEADER_BYTES,
    MAX_RESULT_BODY_BYTES,
    PREFIX,
    AgentLink,
    FrameParser,
    encode_frame,
)
from tests.proxy_service.backends.fake_agent import FakeAgent, attach, pair

MIB = 1024 * 1024

Linked = tuple[AgentLink, FakeAgent]


Ends = tuple[FakeAgent, asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
async def ends() -> AsyncIterator[Ends]:
    agent, reader, writer = await pair()
    yield agent, reader, writer
    for side in (writer, agent.writer):
        side.transport.abort()
        with suppress(OSError):
            await side.wait_closed()


@pytest.fixture
async def linked(ends: Ends) -> AsyncIterator[Linked]:
    agent, reader, writer = ends
    link, _ = await asyncio.gather(attach(reader, writer), agent.hello())
    yield link, agent
    link.close()


async def started(link: AgentLink, agent: FakeAgent, *, max_bytes: int = MIB) -> EventStream:
    stream, _ = await asyncio.gather(
        link.execute("e", b"code", max_bytes=max_bytes, kind="python"), agent.expect("exec", state="running")
    )
    return stream


async def collect(stream: EventStream) -> list[int]:
    return [event.seq async for event in stream]


async def test_hello_is_answered_after_whatever_a_former_proxy_left_in_the_stream(ends: Ends) -> None:
    agent, reader, writer = ends
    agent.writer.write(b"half a frame \xf5S\x00\x00" + b"\xf5R" + bytes(16))
    link, _ = await asyncio.gather(attach(reader, writer), agent.hello(pid=1))
    assert link.hello["pid"] == 1
    link.close()


async def test_an_agent_that_never_says_hello_is_broken_in_time(ends: Ends) -> None:
    _agent, reader, writer = ends
    with pytest.raises(AgentBroken, match="hello"):
        await attach(reader, writer, timeout_s=0.1)


async def test_an_agent_that_floods_before_hello_is_broken_in_time(ends: Ends) -> None:
    agent, reader, writer = ends

    async def flood() -> None:
        with suppress(OSError):
            while True:
                agent.writer.write(b"x" * 65536)
                await agent.writer.drain()

    flooding = asyncio.create_task(flood())
    with pytest.raises(AgentBroken, match="hello"):
        await attach(reader, writer, timeout_s=0.3)
    await asyncio.wait_for(flooding, 5)


async def test_events_arrive_in_order_and_end_with_exit(linked: Linked) -> None:
    link, agent = linked
    stream = await started(link, agent)
    agent.event("started", 1)
    agent.output(2, 4)
    agent.event("exit", 5, reason="exited", exit_code=0)
    events = [event async for event in stream]
    assert [event.type for event in events] == ["started", "stdout", "stdout", "stdout", "exit"]
    assert events[1].body == b"2\n"
    assert events[-1].fields == {"reason": "exited", "exit_code": 0}


async def test_a_refusal_keeps_its_code_and_the_link_lives_on(linked: Linked) -> None:
    link, agent = linked
    asking = asyncio.create_task(link.request("cancel", execution_id="e"))
    header, _ = await agent.receive()
    agent.send({"re": header["id"], "ok": False, "error": "unknown_execution", "message": "no such"})
    with pytest.raises(AgentError) as caught:
        await asking
    assert caught.value.code == "unknown_execution"
    assert link.broken is None


async def test_an_execution_that_is_joined_is_replayed_from_its_first_event(linked: Linked) -> None:
    link, agent = linked
    joining = asyncio.create_task(link.execute("e", b"code", max_bytes=MIB))
    await agent.expect("exec", state="finished", joined=True)
    assert (await agent.expect("resume"))["after"] == 0
    agent.output(1, 3)
    agent.event("exit", 4)
    stream = await joining
    assert stream.joined
    assert await collect(stream) == [1, 2, 3, 4]


async def test_two_readers_of_one_execution_do_not_disturb_each_other(linked: Linked) -> None:
    link, agent = linked
    first = await started(link, agent)
    agent.output(1, 3)
    second_coming = asyncio.create_task(link.resume("e", 0, max_bytes=MIB))
    await agent.expect("resume")
    agent.output(1, 5)
    agent.event("exit", 6)
    second = await second_coming
    assert await collect(first) == [1, 2, 3, 4, 5, 6]
    assert await collect(second) == [1, 2, 3, 4, 5, 6]


async def test_a_slow_reader_costs_bounded_memory_and_misses_nothing(linked: Linked) -> None:
    link, agent = linked
    stream = await started(link, agent, max_bytes=64 * MIB)
    count, body = 3 * QUEUE_BYTES // 65536, b"x" * 65536

    async def journal() -> None:
        while True:
            request = await agent.expect("resume")
            for seq in range(request["after"] + 1, count + 1):
                agent.event("stdout", seq, body)
            agent.event("exit", count + 1)

    for seq in range(1, count + 1):
        agent.event("stdout", seq, body)
    agent.event("exit", count + 1)
    await agent.writer.drain()
    honest = asyncio.create_task(journal())
    assert await asyncio.wait_for(collect(stream), 20) == list(range(1, count + 2))
    honest.cancel()


async def test_a_cancelled_request_does_not_make_its_late_answer_a_lie(linked: Linked) -> None:
    link, agent = linked
    asking = asyncio.create_task(link.request("stats"))
    header, _ = await agent.receive()
    asking.cancel()
    with suppress(asyncio.CancelledError):
        await asking
    agent.send({"re": header["id"], "ok": True})
    answer, _ = await asyncio.gather(link.request("stats"), agent.expect("stats", processes=1))
    assert answer[0] == {"processes": 1}


async def test_a_stream_that_ends_is_gone_rather_than_broken(linked: Linked) -> None:
    link, agent = linked
    stream = await started(link, agent)
    agent.event("started", 1)
    await agent.writer.drain()
    agent.writer.close()
    assert (await anext(stream)).seq == 1
    with pytest.raises(AgentGone):
        await anext(stream)
    assert isinstance(await link.wait_broken(), AgentGone)


async def test_silence_breaks_the_link(ends: Ends) -> None:
    agent, reader, writer = ends
    link, _ = await asyncio.gather(attach(reader, writer, ping_interval_s=0.05, silence_s=0.15), agent.hello())
    with pytest.raises(AgentBroken, match="silent"):
        raise await asyncio.wait_for(link.wait_broken(), 5)


async def test_an_agent_that_answers_pings_is_alive_however_little_it_says(ends: Ends) -> None:
    agent, reader, writer = ends
    link, _ = await asyncio.gather(attach(reader, writer, ping_interval_s=0.02, silence_s=0.06), agent.hello())
    answering = asyncio.create_task(agent.receive())
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(link.wait_broken(), 0.4)
    assert link.broken is None
    answering.cancel()
    link.close()


async def test_an_agent_that_does_not_answer_a_request_is_broken(linked: Linked) -> None:
    link, _agent = linked
    with pytest.raises(AgentBroken, match="did not answer stats"):
        await link.request("stats", wait_s=0.05)
    assert link.broken is not None


async def test_an_agent_that_does_not_read_is_broken(linked: Linked) -> None:
    link, _agent = linked
    with pytest.raises(AgentBroken, match="did not answer untar"):
        for _ in range(64):
            await link.request("untar", bytes(MAX_BODY_BYTES), wait_s=0.2, path="", more=True)


def raw(header: Any, body: bytes = b"") -> bytes:
    packed = header if isinstance(header, bytes) else json.dumps(header).encode()
    return PREFIX.pack(b"\xf5S", len(packed), len(body)) + packed + body


def an_event(**changes: Any) -> dict[str, Any]:
    return {"ev": "stdout", "execution_id": "e", "seq": 1, "at": 1.0, **changes}


LIES: dict[str, bytes] = {
    "garbage": b"GET / HTTP/1.1\r\n\r\n",
    "wrong magic": b"\xf5X" + bytes(8),
    "huge header": PREFIX.pack(b"\xf5S", MAX_HEADER_BYTES + 1, 0),
    "huge body": PREFIX.pack(b"\xf5S", 2, MAX_RESULT_BODY_BYTES + 1),
    "the largest lengths": PREFIX.pack(b"\xf5S", 2**32 - 1, 2**32 - 1),
    "no JSON": raw(b"{"),
    "deep JSON": raw(b"[" * 60_000),
    "a deep object": raw(b'{"ev":' * 9_000 + b"1" + b"}" * 9_000),
    "no UTF-8": raw(b'{"ev":"\xff"}'),
    "a list": raw([1]),
    "a number": raw(b"1"),
    "NaN": raw(b'{"ev":"stdout","execution_id":"e","seq":1,"at":NaN}'),
    "an infinite time": raw(b'{"ev":"stdout","execution_id":"e","seq":1,"at":1e999}', b"x"),
    "a number too long for a float": raw(b'{"ev":"stdout","execution_id":"e","seq":1,"at":' + b"9" * 400 + b"}", b"x"),
    "a number too long for an int": raw(b'{"ev":"stdout","execution_id":"e","seq":' + b"9" * 9000 + b',"at":1}', b"x"),
    "neither answer nor event": raw({"op": "exec"}),
    "an unknown type": raw(an_event(ev="teapot"), b"x"),
    "a type that is no text": raw(an_event(ev=["stdout"]), b"x"),
    "a number that is no number": raw(an_event(seq="1"), b"x"),
    "a number that is a boolean": raw(an_event(seq=True), b"x"),
    "a negative number": raw(an_event(seq=-1), b"x"),
    "no time": raw({"ev": "stdout", "execution_id": "e", "seq": 1}, b"x"),
    "a gap": raw(an_event(seq=3), b"x"),
    "output without a byte": raw(an_event()),
    "another's execution": raw(an_event(execution_id="other"), b"x"),
    "an execution that is no text": raw(an_event(execution_id={"a": 1}), b"x"),
    "an answer to nothing": raw({"re": 4711, "ok": True}),
    "an answer to a text": raw({"re": "1", "ok": True}),
    "an answer to a list": raw({"re": [1], "ok": True}),
    "a second answer": raw({"re": 0, "ok": True}),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
async def test_a_lie_ends_the_link(linked: Linked, lie: bytes) -> None:
    link, agent = linked
    stream = await started(link, agent)
    agent.writer.write(lie)
    error = await asyncio.wait_for(link.wait_broken(), 5)
    assert not isinstance(error, AgentGone)
    with pytest.raises(AgentBroken):
        await anext(stream)
    with pytest.raises(AgentBroken):
        await link.request("ping")


@pytest.mark.parametrize("answer", [{}, {"ok": 1}, {"ok": "yes"}, {"ok": False}, {"ok": False, "error": 5}])
async def test_an_answer_that_is_neither_yes_nor_no_ends_the_link(linked: Linked, answer: dict[str, Any]) -> None:
    link, agent = linked
    asking = asyncio.create_task(link.request("stats"))
    header, _ = await agent.receive()
    agent.writer.write(raw({"re": header["id"], **answer}))
    with pytest.raises(AgentBroken, match="neither yes nor no"):
        await asking


async def test_more_output_than_allowed_ends_the_link_even_when_nobody_reads(linked: Linked) -> None:
    link, agent = linked
    stream = await started(link, agent, max_bytes=MIB)
    stream.close()

    async def flood() -> None:
        with suppress(OSError):
            for seq in range(1, 10_000):
                agent.event("stdout", seq, bytes(65536))
                await agent.writer.drain()

    flooding = asyncio.create_task(flood())
    with pytest.raises(AgentBroken, match="more output"):
        raise await asyncio.wait_for(link.wait_broken(), 10)
    await flooding


async def test_a_flood_of_empty_events_ends_the_link(linked: Linked) -> None:
    link, agent = linked
    await started(link, agent, max_bytes=1024)

    async def flood() -> None:
        with suppress(OSError):
            for seq in range(1, 100_000):
                agent.event("result", seq)
                if not seq % 100:
                    await agent.writer.drain()

    flooding = asyncio.create_task(flood())
    with pytest.raises(AgentBroken, match="more output"):
        raise await asyncio.wait_for(link.wait_broken(), 20)
    await flooding


async def test_a_reader_that_is_ahead_does_not_move_the_agent_past_another(linked: Linked) -> None:
    link, agent = linked
    await started(link, agent)
    agent.output(1, 2)
    coming = asyncio.create_task(link.resume("e", 40, max_bytes=MIB))
    assert (await agent.expect("resume"))["after"] <= 2
    await coming


async def test_an_agent_that_does_not_replay_what_it_owes_is_broken(linked: Linked) -> None:
    link, agent = linked
    stream = await started(link, agent, max_bytes=64 * MIB)
    for seq in range(1, 2 + QUEUE_BYTES // 65536 + 10):
        agent.event("stdout", seq, bytes(65536))
    while stream.live:
        await asyncio.sleep(0)
    reading = asyncio.create_task(collect(stream))
    after = (await agent.expect("resume"))["after"]
    agent.event("stdout", after + 2, b"x")
    with pytest.raises(AgentBroken, match="left out"):
        await asyncio.wait_for(reading, 10)


@pytest.mark.parametrize("seed", range(20))
async def test_noise_between_frames_never_hangs_and_never_raises_anything_else(linked: Linked, seed: int) -> None:
    link, agent = linked
    stream = await started(link, agent)
    rng = random.Random(seed)
    honest = [encode_frame(an_event(seq=seq), b"x" * rng.randrange(1, 500)) for seq in range(1, 30)]
    wire = bytearray(b"".join(honest))
    for _ in range(rng.randrange(1, 6)):
        wire[rng.randrange(len(wire))] = rng.randrange(256)
    agent.writer.write(bytes(wire))
    agent.writer.write_eof()
    seen = []
    with pytest.raises(AgentBroken):
        async for event in stream:
            seen.append(event.seq)
    assert seen == list(range(1, len(seen) + 1))


@given(st.binary(max_size=4096), st.integers(1, 64))
@settings(deadline=None, max_examples=200)
def test_the_parser_takes_any_bytes_in_any_pieces(data: bytes, size: int) -> None:
    parser = FrameParser()
    with suppress(AgentBroken):
        for start in range(0, len(data), size):
            parser.feed(data[start : start + size])


@given(
    st.lists(
        st.tuples(
            st.dictionaries(st.text(max_size=8), st.integers() | st.text(max_size=8) | st.none(), max_size=4),
            st.binary(max_size=200),
        ),
        max_size=8,
    ),
    st.integers(1, 50),
)
@settings(deadline=None, max_examples=100)
def test_the_parser_gives_back_what_was_framed(frames: list[tuple[dict[str, Any], bytes]], size: int) -> None:
    wire = b"".join(encode_frame(header, body) for header, body in frames)
    parser, found = FrameParser(), []
    for start in range(0, len(wire), size):
        found += parser.feed(wire[start : start + size])
    assert found == frames
