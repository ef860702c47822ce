"""What Prometheus is told."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

_REGISTRY = CollectorRegistry()

_EXECUTIONS = Counter("sandboxweb_proxy_executions", "Executions that ended", ["status"], registry=_REGISTRY)
_EXECUTION_SECONDS = Histogram(
    "sandboxweb_proxy_execution_seconds",
    "How long code ran",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 600),
    registry=_REGISTRY,
)
_SESSIONS = Counter("sandboxweb_proxy_sessions", "Sessions that got a sandbox", ["source"], registry=_REGISTRY)
_START_SECONDS = Histogram(
    "sandboxweb_proxy_sandbox_start_seconds",
    "How long making a sandbox took",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
    registry=_REGISTRY,
)
_START_FAILURES = Counter("sandboxweb_proxy_sandbox_start_failures", "Sandboxes not made", registry=_REGISTRY)
_LOST = Counter("sandboxweb_proxy_sandboxes_lost", "Sandboxes that died by themselves", registry=_REGISTRY)
_LIBRARY_SECONDS = Histogram(
    "sandboxweb_proxy_library_seconds",
    "How long providing libraries took",
    ["cached"],
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
    registry=_REGISTRY,
)

_EXECUTIONS_BY_STATUS = {
    status: _EXECUTIONS.labels(status)
    for status in ("succeeded", "failed", "timed_out", "out_of_memory", "cancelled", "lost", "error")
}
_SESSIONS_BY_SOURCE = {source: _SESSIONS.labels(source) for source in ("pool", "cold", "found")}


def count_execution(status: str, duration_ms: object) -> None:
    """Count an execution that ended."""
    _EXECUTIONS_BY_STATUS.get(status, _EXECUTIONS_BY_STATUS["error"]).inc()
    if isinstance(duration_ms, int | float):
        _EXECUTION_SECONDS.observe(duration_ms / 1000)


def count_session(source: str) -> None:
    """Count a session that got its sandbox: from the `pool`, `cold`, or `found` again."""
    _SESSIONS_BY_SOURCE[source].inc()


def count_start(seconds: float | None) -> None:
    """Count a sandbox that was made in so many seconds, or could not be made (None)."""
    if seconds is None:
        _START_FAILURES.inc()
    else:
        _START_SECONDS.observe(seconds)


def count_lost() -> None:
    """Count a sandbox that died by itself."""
    _LOST.inc()


def count_libraries(seconds: float, *, cached: bool) -> None:
    """Count libraries that were provided."""
    _LIBRARY_SECONDS.labels("yes" if cached else "no").observe(seconds)


class Gauges(Protocol):
    """Whoever can tell the present state: name to value, and per template (ready, target)."""

    def gauges(self) -> dict[str, float]: ...
    def pool(self) -> dict[str, dict[str, object]]: ...


class _State(Collector):
    def __init__(self, source: Gauges) -> None:
        self._source = source

    def collect(self) -> Iterator[GaugeMetricFamily]:
        for name, value in self._source.gauges().items():
            yield GaugeMetricFamily(f"sandboxweb_proxy_{name}", name.replace("_", " ").capitalize(), value=value)
        for key in ("ready", "target", "starting"):
            family = GaugeMetricFamily(
                f"sandboxweb_proxy_pool_{key}", f"Sandboxes of the warm pool: {key}", labels=["template"]
            )
            for template, numbers in self._source.pool().items():
                number = numbers.get(key)
                family.add_metric([template], float(number) if isinstance(number, int) else 0.0)
            yield family


def render(source: Gauges) -> bytes:
    """Return all metrics as Prometheus reads them."""
    now = CollectorRegistry()
    now.register(_State(source))
    return b"".join(_texts((_REGISTRY, now)))


def _texts(registries: Iterable[CollectorRegistry]) -> Iterator[bytes]:
    return (generate_latest(registry) for registry in registries)
