"""Patience with things that keep failing: the longer they do, the less often they are tried."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from time import monotonic

FIRST_S = 5.0
LONGEST_S = 300.0
# Things that fail are few, and what vanished without ever working is forgotten a while after its last pause.
FORGET_AFTER_S = 2 * LONGEST_S


@dataclass
class _Trouble:
    failures: int
    until: float


class Backoff:
    """Know what failed, how often in a row, and until when it is left alone; for many threads at once.

    Time is this process's own, so a clock that somebody sets neither hurries nor stops it.
    """

    def __init__(self, time: Callable[[], float] = monotonic) -> None:
        """Begin with nothing that failed; `time` in seconds."""
        self._time = time
        self._troubles: dict[Hashable, _Trouble] = {}
        self._lock = threading.Lock()

    def failed(self, key: Hashable) -> float:
        """Note a failure; return for how many seconds the thing is left alone: 5, 10, 20 … 300."""
        with self._lock:
            failures = self._troubles[key].failures + 1 if key in self._troubles else 1
            pause_s: float = min(LONGEST_S, FIRST_S * 2 ** min(failures - 1, 16))
            self._troubles[key] = _Trouble(failures, self._time() + pause_s)
        return pause_s

    def worked(self, key: Hashable) -> None:
        """Forget that it ever failed."""
        with self._lock:
            self._troubles.pop(key, None)

    def held(self) -> set[Hashable]:
        """Return what is to be left alone now."""
        now = self._time()
        with self._lock:
            for key in [key for key, trouble in self._troubles.items() if now - trouble.until > FORGET_AFTER_S]:
                del self._troubles[key]
            return {key for key, trouble in self._troubles.items() if trouble.until > now}
