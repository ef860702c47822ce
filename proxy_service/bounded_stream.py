"""Answers that are streamed to readers who may be slow."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterable

from starlette.responses import StreamingResponse
from starlette.types import Message, Send

log = logging.getLogger(__name__)


class BoundedStream(StreamingResponse):
    """A stream that is cut off when its reader takes nothing for a while.

    The connection then closes without the stream's proper end, so nobody takes what came for the whole.
    """

    def __init__(self, content: AsyncIterable[bytes], *, media_type: str, patience_s: float) -> None:
        super().__init__(content, media_type=media_type)
        self._patience_s = patience_s

    async def stream_response(self, send: Send) -> None:
        """Send all, each part within the patience."""

        async def bounded(message: Message) -> None:
            async with asyncio.timeout(self._patience_s):
                await send(message)

        try:
            await super().stream_response(bounded)
        except TimeoutError:
            log.info("a stream was cut off: its reader took nothing for %g s", self._patience_s)
