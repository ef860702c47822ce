"""The warm pool: sandboxes that are ready before anyone asks.

Declarative: whoever knows the templates says how many of each should be ready, and says it again whenever they like.
Each sandbox is given to one session, once, and never comes back.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace

from proxy_service.backends.base import Sandbox, SandboxSpec
from proxy_service.errors import ProxyError
from proxy_service.teardown import Teardown

log = logging.getLogger(__name__)

CHECK_S = 1.0
QUIET_S = 0.15
LONGEST_HOLD_S = 1.5
FIRST_BACKOFF_S = 1.0
LONGEST_BACKOFF_S = 60.0


@dataclass
class Shelf:
    """The sandboxes of one template."""

    spec: SandboxSpec
    target: int
    ready: deque[Sandbox] = field(default_factory=deque)
    starting: int = 0
    error: str = ""
    backoff_s: float = 0.0
    not_before: float = 0.0
    content: str = field(init=False)

    def __post_init__(self) -> None:
        self.content = content_of(self.spec)

    @property
    def missing(self) -> int:
        """Return how many more should be started."""
        return self.target - len(self.ready) - self.starting

    def prune(self) -> list[Sandbox]:
        """Drop those that died while they waited, and return them."""
        dead = [sandbox for sandbox in self.ready if sandbox.broken.is_set()]
        for sandbox in dead:
            self.ready.remove(sandbox)
        return dead


Make = Callable[[SandboxSpec], Awaitable[Sandbox]]


class Pool:
    """Keep what was asked for ready, with a bounded number of starts at the same time."""

    def __init__(self, make: Make, teardown: Teardown, *, parallel_starts: int) -> None:
        self._make = make
        self._teardown = teardown
        self._parallel_starts = parallel_starts
        self._shelves: dict[str, Shelf] = {}
        self._refused: dict[str, tuple[int, str]] = {}
        self._wake = asyncio.Event()
        self._starts: set[asyncio.Task[None]] = set()
        self._keeper: asyncio.Task[None] | None = None
        self._last_take = 0.0
        self._held_since: float | None = None

    def set_targets(
        self, targets: Iterable[tuple[str, SandboxSpec, int]], refused: Mapping[str, tuple[int, str]] | None = None
    ) -> None:
        """Make (template, spec, size) the whole wish; what is not named any more is removed.

        `refused` tells of templates that cannot be had here: {template: (size, why)}. They show in `state`.
        """
        for template, (_, why) in (refused or {}).items():
            if template not in self._refused:
                log.warning("no sandboxes of the template %s are kept ready: %s", template, why)
        self._refused = dict(refused or {})
        wished = {template: (spec, size) for template, spec, size in targets}
        for template in [name for name in self._shelves if name not in wished]:
            self._clear(self._shelves.pop(template))
        for template, (spec, size) in wished.items():
            shelf = self._shelves.get(template)
            if shelf is None or shelf.content != content_of(spec):
                if shelf is not None:
                    self._clear(shelf)
                shelf = self._shelves[template] = Shelf(spec, size)
            shelf.target = size
            while len(shelf.ready) > size:
                self._teardown.begin(shelf.ready.pop())
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._keep())
        self._wake.set()

    def take(self, spec: SandboxSpec) -> Sandbox | None:
        """Give away a ready sandbox of that content, the oldest first; None when there is none."""
        content = content_of(spec)
        for shelf in self._shelves.values():
            if shelf.content != content:
                continue
            self._prune(shelf)
            if shelf.ready:
                self._last_take = time.monotonic()
                self._wake.set()
                return shelf.ready.popleft()
        return None

    def evict(self) -> bool:
        """Give up one ready sandbox, because a session needs its place; False when there is none."""
        shelf = max(self._shelves.values(), key=lambda shelf: len(shelf.ready), default=None)
        if shelf is None or not shelf.ready:
            return False
        self._teardown.begin(shelf.ready.pop())
        shelf.not_before = time.monotonic() + LONGEST_BACKOFF_S
        return True

    @property
    def ready(self) -> int:
        """Return how many sandboxes are ready, of all templates."""
        return sum(len(shelf.ready) for shelf in self._shelves.values())

    def state(self) -> dict[str, dict[str, object]]:
        """Return {template: {"ready", "target", "starting"}}, with the last `error` where starting fails."""
        state: dict[str, dict[str, object]] = {}
        for template, shelf in self._shelves.items():
            self._prune(shelf)
            state[template] = {"ready": len(shelf.ready), "target": shelf.target, "starting": shelf.starting}
            if shelf.error:
                state[template]["error"] = shelf.error
        for template, (size, why) in self._refused.items():
            state[template] = {"ready": 0, "target": size, "starting": 0, "error": why}
        return state

    async def drain(self) -> None:
        """Stop refilling and remove all that is ready."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
            self._keeper = None
        for task in self._starts:
            task.cancel()
        await asyncio.gather(*self._starts, return_exceptions=True)
        for shelf in self._shelves.values():
            self._clear(shelf)
        self._shelves.clear()

    def _clear(self, shelf: Shelf) -> None:
        shelf.target = 0
        while shelf.ready:
            self._teardown.begin(shelf.ready.pop())

    def _prune(self, shelf: Shelf) -> None:
        for sandbox in shelf.prune():
            self._teardown.begin(sandbox)

    # --- refilling

    async def _keep(self) -> None:
        while True:
            self._wake.clear()
            for shelf in self._shelves.values():
                self._prune(shelf)
            pause_s = self._hold_s()
            if pause_s <= 0:
                self._start_missing()
                pause_s = CHECK_S
            with suppress(TimeoutError):
                # Not `wait_for`, which swallows a cancellation that comes together with a waking.
                async with asyncio.timeout(pause_s):
                    await self._wake.wait()

    def _hold_s(self) -> float:
        """Return how long refilling should wait: while sandboxes are being taken, their users need the processors."""
        now = time.monotonic()
        if not any(shelf.missing > 0 for shelf in self._shelves.values()):
            self._held_since = None
            return 0.0
        self._held_since = self._held_since or now
        if now - self._held_since > LONGEST_HOLD_S or not self._last_take:
            return 0.0
        return self._last_take + QUIET_S - now

    def _start_missing(self) -> None:
        now = time.monotonic()
        while len(self._starts) < self._parallel_starts:
            needy = [shelf for shelf in self._shelves.values() if shelf.missing > 0 and shelf.not_before <= now]
            if not needy:
                return
            shelf = max(needy, key=lambda shelf: shelf.missing / shelf.target)
            shelf.starting += 1
            task = asyncio.create_task(self._start(shelf))
            self._starts.add(task)
            task.add_done_callback(self._started)

    def _started(self, task: asyncio.Task[None]) -> None:
        self._starts.discard(task)
        self._wake.set()

    async def _start(self, shelf: Shelf) -> None:
        try:
            sandbox = await self._make(shelf.spec)
        except Exception as error:
            shelf.backoff_s = min(2 * shelf.backoff_s or FIRST_BACKOFF_S, LONGEST_BACKOFF_S)
            shelf.not_before = time.monotonic() + shelf.backoff_s
            shelf.error = error.detail if isinstance(error, ProxyError) else "The proxy failed to start a sandbox."
            level = logging.WARNING if isinstance(error, ProxyError) else logging.ERROR
            log.log(level, "the pool could not start a sandbox: %r", error, extra={"template": shelf.spec.template})
            return
        finally:
            shelf.starting -= 1
        shelf.backoff_s, shelf.error = 0.0, ""
        if len(shelf.ready) < shelf.target:
            shelf.ready.append(sandbox)
        else:
            self._teardown.begin(sandbox)


def content_of(spec: SandboxSpec) -> str:
    """Return what makes sandboxes interchangeable: all but the template's name."""
    return replace(spec, template=None).digest()
