"""Measure sides in turn, so that a noisy machine disturbs all of them alike."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

Operation = Callable[[], float | None]
"""Do the work once. A returned float (seconds) replaces the measured wall time."""


@dataclass
class Samples:
    """Hold the seconds that one side took, one number a round."""

    side: str
    seconds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Return the median in seconds."""
        return statistics.median(self.seconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        """Return the first and third quartile in seconds."""
        if len(self.seconds) < 2:
            return self.median, self.median
        low, _, high = statistics.quantiles(self.seconds, n=4)
        return low, high


@dataclass(frozen=True)
class Ratio:
    """Relate the medians of two sides; `low` and `high` bound 90 % of 2,000 bootstrap resamples."""

    value: float
    low: float
    high: float


def in_turn(sides: dict[str, Operation], *, rounds: int, warm_up: int = 2) -> dict[str, Samples]:
    """Run every side once a round, in an order that rotates, and drop the first `warm_up` rounds."""
    samples = {name: Samples(name) for name in sides}
    names = list(sides)
    for turn in range(rounds + warm_up):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            began = time.perf_counter()
            own = sides[name]()
            took = time.perf_counter() - began if own is None else own
            if turn >= warm_up:
                samples[name].seconds.append(took)
    return samples


def ratio(ours: Samples, theirs: Samples) -> Ratio:
    """Return median(ours) / median(theirs) with a bootstrap interval."""
    generator = random.Random(20)
    resampled = sorted(
        statistics.median(generator.choices(ours.seconds, k=len(ours.seconds)))
        / statistics.median(generator.choices(theirs.seconds, k=len(theirs.seconds)))
        for _ in range(2000)
    )
    return Ratio(ours.median / theirs.median, resampled[100], resampled[1899])
