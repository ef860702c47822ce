"""Threads for requests: started as they are needed, kept, and never waited for when the process ends.

The standard library's pool joins its threads at the end of the process, so that one request that waits for code which
runs for an hour would keep a stopped server alive for an hour. Nothing is lost with such a thread: the code goes on,
and its result is settled from the sandbox's journal.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

Work = tuple[Future[Any], Callable[[], Any]]


class DaemonThreads(Executor):
    """Run work on at most `max_workers` daemon threads; what comes beyond waits in a queue."""

    def __init__(self, max_workers: int, name: str) -> None:
        self._max_workers = max_workers
        self._name = name
        self._queue: queue.SimpleQueue[Work] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._free = 0

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run `fn` on a free thread, or on a new one while there may be more."""
        future: Future[T] = Future()
        with self._lock:
            # A free thread is promised to one piece of work at a time.
            start = self._free == 0 and self._threads < self._max_workers
            if start:
                self._threads += 1
            else:
                self._free -= 1
            number = self._threads
        self._queue.put((future, lambda: fn(*args, **kwargs)))
        if start:
            threading.Thread(target=self._serve, name=f"{self._name}-{number}", daemon=True).start()
        return future

    def _serve(self) -> None:
        while True:
            future, work = self._queue.get()
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(work())
                except BaseException as error:
                    future.set_exception(error)
            del future, work
            with self._lock:
                self._free += 1
