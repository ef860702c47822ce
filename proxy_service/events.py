"""The events of one execution, kept while it is live, and their text form for any number of followers."""

from __future__ import annotations

import asyncio
import codecs
from array import array
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic_core import PydanticSerializationError, to_json

from proxy_service.backends.base import SandboxEvent
from proxy_service.errors import SandboxBroken
from proxy_service.file_entries import changed_files
from proxy_service.phases import phase_of

STREAMS = ("stdout", "stderr")
_OTHER = len(STREAMS)

_STATUS_BY_REASON = {
    "timed_out": "timed_out",
    "cancelled": "cancelled",
    "out_of_memory": "out_of_memory",
    "lost": "lost",
    "error": "error",
    "not_started": "failed",
}


def status_of(end: Mapping[str, Any]) -> str:
    """Return the status of the execution whose `exit` event carries `end`."""
    by_reason = _STATUS_BY_REASON.get(str(end.get("reason")))
    if by_reason is not None:
        return by_reason
    return "succeeded" if end.get("exit_code") == 0 else "failed"


def omitted(count: object) -> str:
    """Return what stands in an output where its middle was cut out."""
    return f"\n[… {count if isinstance(count, int) else 0} bytes omitted …]\n"


class Transcript:
    """Hold an execution's events compactly: a hostile program can print a million single bytes.

    Output lives in one buffer a stream; per event there are a byte for its kind, where its output ends, and its time.
    """

    def __init__(self, lang: str = "") -> None:
        self._lang = lang
        self._kinds = bytearray()
        self._ends = array("Q")
        self._times = array("d")
        self._others: dict[int, SandboxEvent] = {}
        self._others_bytes = 0
        self._buffers = (bytearray(), bytearray())
        self._changed: asyncio.Future[None] | None = None
        self.end: Mapping[str, Any] | None = None
        """The data of the `exit` event, once there is one; its `status` and `phase` are in it."""

    @property
    def last_seq(self) -> int:
        """Return the number of the newest event; 0 while there is none."""
        return len(self._kinds)

    @property
    def size_bytes(self) -> int:
        """Return about how much memory this takes."""
        return sum(map(len, self._buffers)) + 17 * len(self._kinds) + self._others_bytes

    @property
    def started_at(self) -> float | None:
        """Return when the code began to run, in unix seconds."""
        first = self._others.get(1)
        return first.at if first is not None and first.type == "started" else None

    @property
    def finished_at(self) -> float | None:
        """Return when the execution ended, in unix seconds."""
        return self._times[-1] if self.end is not None else None

    def append(self, event: SandboxEvent) -> None:
        """Add the next event. Raises SandboxBroken for one that is out of order."""
        if event.seq != len(self._kinds) + 1 or self.end is not None:
            raise SandboxBroken("The sandbox told the events of an execution out of order.")
        kind = STREAMS.index(event.type) if event.type in STREAMS else _OTHER
        if kind == _OTHER:
            if event.type == "exit":
                self.end = self._completed(event.data)
                event = SandboxEvent(event.seq, "exit", event.at, self.end)
            self._others[event.seq] = event
            self._others_bytes += 500 + (len(dump(event.data)) if event.type in ("result", "error") else 0)
            self._ends.append(0)
        else:
            self._buffers[kind].extend(event.body)
            self._ends.append(len(self._buffers[kind]))
        self._kinds.append(kind)
        self._times.append(event.at)
        self.notify()

    def _completed(self, end: Mapping[str, Any]) -> Mapping[str, Any]:
        status = end.get("status") or status_of(end)
        phase = "run" if status == "succeeded" else phase_of(self._lang, end, self.text("stderr"))
        files = {"files": changed_files(end)} if "files" in end else {}
        return {**end, **files, "status": status, "phase": phase}

    def add(self, kind: str, at: float, data: Mapping[str, Any] | None = None, body: bytes = b"") -> None:
        """Add an event of the proxy's own after what the sandbox told."""
        self.append(SandboxEvent(self.last_seq + 1, kind, at, data or {}, body))

    def notify(self) -> None:
        """Wake those who wait for something new."""
        if self._changed is not None:
            self._changed.set_result(None)
            self._changed = None

    async def changed(self) -> None:
        """Wait until there is something new."""
        if self._changed is None:
            self._changed = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._changed)

    def text(self, stream: str) -> str:
        """Return what a stream gave so far, with a mark where its middle was cut out."""
        kind = STREAMS.index(stream)
        buffer = self._buffers[kind]
        cuts = [event for event in self._others.values() if event.type == "truncated" and _stream(event) == stream]
        if not cuts:
            return buffer.decode("utf-8", "replace")
        parts: list[str] = []
        start = 0
        for cut in cuts:
            end = self._end_before(kind, cut.seq)
            parts += (buffer[start:end].decode("utf-8", "replace"), omitted(cut.data.get("omitted_bytes")))
            start = end
        parts.append(buffer[start:].decode("utf-8", "replace"))
        return "".join(parts)

    @property
    def truncated(self) -> bool:
        """Tell whether a part of the output was cut out."""
        return any(event.type == "truncated" for event in self._others.values())

    @property
    def results(self) -> list[Mapping[str, Any]]:
        """Return the rich results so far."""
        return [event.data for event in self._others.values() if event.type == "result"]

    @property
    def exception(self) -> Mapping[str, Any] | None:
        """Return what code in a context raised and nothing caught."""
        return next((event.data for event in self._others.values() if event.type == "error"), None)

    def _end_before(self, kind: int, seq: int) -> int:
        index = self._kinds.rfind(kind, 0, seq - 1)
        return self._ends[index] if index >= 0 else 0

    def event(self, seq: int) -> SandboxEvent:
        """Return one event."""
        kind = self._kinds[seq - 1]
        if kind == _OTHER:
            return self._others[seq]
        end = self._ends[seq - 1]
        body = bytes(self._buffers[kind][self._end_before(kind, seq) : end])
        return SandboxEvent(seq, STREAMS[kind], self._times[seq - 1], {}, body)


class Follower:
    """Turn a transcript into lines of NDJSON for one reader, from any number on.

    Text is decoded from the beginning even when the reader has it already, so that a character which is split
    between two events comes out the same for everybody.
    """

    def __init__(self, transcript: Transcript, after: int = 0) -> None:
        self._transcript = transcript
        self._after = after
        self._seq = 0
        self._decoders = tuple(codecs.getincrementaldecoder("utf-8")("replace") for _ in STREAMS)

    @property
    def done(self) -> bool:
        """Tell whether the `exit` event has been given."""
        return self._transcript.end is not None and self._seq == self._transcript.last_seq

    def lines(self) -> Iterator[bytes]:
        """Yield the lines that are there and were not given yet."""
        while self._seq < self._transcript.last_seq:
            self._seq += 1
            event = self._transcript.event(self._seq)
            wanted = self._seq > self._after
            if event.type in STREAMS:
                text = self._decoders[STREAMS.index(event.type)].decode(event.body)
                if wanted:
                    yield _line(event.seq, event.type, text, event.at)
                continue
            if event.type == "truncated" or event.type == "exit":
                yield from self._rests(event, wanted)
            if wanted:
                yield _line(event.seq, event.type, event.data, event.at)

    def _rests(self, event: SandboxEvent, wanted: bool) -> Iterator[bytes]:
        """Give out the half characters that nothing will complete any more."""
        for stream, decoder in zip(STREAMS, self._decoders, strict=True):
            if event.type == "exit" or _stream(event) == stream:
                text = decoder.decode(b"", True)
                if text and wanted:
                    # The number of the event before: the `exit` must not look like one that was seen already.
                    yield _line(event.seq - 1, stream, text, event.at)


def queued_line() -> bytes:
    """Return the line that a reader gets while the execution has not begun."""
    return b'{"seq":0,"type":"queued"}\n'


def _stream(event: SandboxEvent) -> str:
    return str(event.data.get("stream"))


def _line(seq: int, kind: str, data: object, at: float) -> bytes:
    return dump({"seq": seq, "type": kind, "data": data, "at": at}) + b"\n"


def dump(value: object) -> bytes:
    """Return compact JSON; a sandbox's infinities become null, its half surrogate pairs question marks."""
    try:
        return to_json(value, inf_nan_mode="null")
    except (PydanticSerializationError, UnicodeEncodeError):
        return to_json(_whole(value), inf_nan_mode="null")


def _whole(value: object) -> object:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, Mapping):
        return {_whole(key): _whole(item) for key, item in value.items()}
    return [_whole(item) for item in value] if isinstance(value, list | tuple) else value
