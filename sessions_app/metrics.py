"""What Prometheus is told: read from the database when it asks, so that every process tells the same."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from sessions_app.overview import overview

CONTENT_TYPE = CONTENT_TYPE_LATEST


class DatabaseCollector(Collector):
    """Counts of live rows, and the reaper's last sweep."""

    def collect(self) -> Iterator[Metric]:
        """Yield each metric."""
        now = overview()
        sessions = GaugeMetricFamily("sandboxweb_sessions", "Live sessions by status.", labels=["status"])
        for status in ("active", "pending", "terminating"):
            sessions.add_metric([status], getattr(now, status))
        yield sessions
        executions = GaugeMetricFamily("sandboxweb_executions", "Live executions by status.", labels=["status"])
        for status in ("running", "queued"):
            executions.add_metric([status], getattr(now, status))
        yield executions
        due, overdue = "Active sessions whose deadline has come.", "Those whose deadline came 30 s ago or earlier."
        yield GaugeMetricFamily("sandboxweb_sessions_due", due, value=now.due)
        yield GaugeMetricFamily("sandboxweb_sessions_overdue", overdue, value=now.overdue)
        if now.sweep is None:
            return
        age = (now.now - now.sweep.finished_at).total_seconds()
        yield GaugeMetricFamily("sandboxweb_reaper_sweep_age_seconds", "Time since the reaper's last sweep.", value=age)
        took = (now.sweep.finished_at - now.sweep.started_at).total_seconds()
        yield GaugeMetricFamily("sandboxweb_reaper_sweep_duration_seconds", "How long that sweep took.", value=took)
        yield CounterMetricFamily("sandboxweb_reaper_sweeps", "Sweeps so far.", value=now.sweep.total_sweeps)
        last = GaugeMetricFamily("sandboxweb_reaper_last_sweep", "What that sweep's steps handled.", labels=["step"])
        total = CounterMetricFamily("sandboxweb_reaper_handled", "What steps handled so far.", labels=["step"])
        failing = GaugeMetricFamily("sandboxweb_reaper_step_failed", "Steps that failed then.", labels=["step"])
        for family, values in ((last, now.sweep.counts), (total, now.sweep.totals)):
            for step, count in values.items():
                family.add_metric([step], count)
        for step in now.sweep.failures:
            failing.add_metric([step], 1)
        yield from (last, total, failing)


registry = CollectorRegistry(auto_describe=False)
registry.register(DatabaseCollector())
ProcessCollector(registry=registry)


def exposition() -> bytes:
    """Return the metrics in Prometheus' text format."""
    return generate_latest(registry)
