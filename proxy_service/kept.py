"""How executions ended that nobody has read, kept for a while: their sandbox may be gone when somebody asks."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from proxy_service.execution import Execution

KEEP_S = 15 * 60.0
MAX_BYTES = 64 * 1024 * 1024
ENTRY_BYTES = 3072
"""What an execution without output takes, about."""


class KeptExecutions:
    """Ended executions by session and id, the oldest given up first; what is kept is bounded in time and memory."""

    def __init__(
        self, *, keep_s: float = KEEP_S, max_bytes: int = MAX_BYTES, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._keep_s = keep_s
        self._max_bytes = max_bytes
        self._clock = clock
        self._kept: OrderedDict[tuple[str, str], tuple[float, int, Execution]] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def put(self, session_id: str, execution: Execution) -> None:
        """Keep how an execution ended, with the output that it has."""
        self.drop(session_id, execution.id)
        # Only what came out is asked for later: code and input may be as large again.
        execution.request = execution.prepare = None
        size = execution.transcript.size_bytes + ENTRY_BYTES
        self._kept[session_id, execution.id] = self._clock() + self._keep_s, size, execution
        self._bytes += size
        self._give_up_old()

    def get(self, session_id: str, execution_id: str) -> Execution | None:
        """Return an execution that is still kept."""
        self._give_up_old()
        found = self._kept.get((session_id, execution_id))
        return None if found is None else found[2]

    def drop(self, session_id: str, execution_id: str) -> None:
        """Let go of one that somebody has read."""
        found = self._kept.pop((session_id, execution_id), None)
        if found is not None:
            self._bytes -= found[1]

    def _give_up_old(self) -> None:
        now = self._clock()
        while self._kept:
            key, (until, _, _) = next(iter(self._kept.items()))
            if until > now and self._bytes <= self._max_bytes:
                return
            self.drop(*key)
