"""The plan of a run: what is struck when, how, and for how long. The same seed gives the same plan."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

# How a process is struck, and how often in relation to the others.
KINDS = {"kill": 5, "stop": 3, "restart": 2}
# How long it stays away or stands still, in seconds.
AWAY_S = {"kill": (0.0, 2.0), "stop": (0.5, 4.0), "restart": (0.0, 0.5)}
FIRST_AT_S = 3.0


@dataclass(frozen=True)
class Blow:
    """Strike one target: `kill` is SIGKILL, `stop` is SIGSTOP, `restart` is SIGTERM; `lasts_s` later it is mended.

    `loses` is about an engine alone: its next daemon ends the containers that it finds, as without live-restore.
    """

    at_s: float
    target: str
    kind: str
    lasts_s: float
    loses: bool = False

    def __str__(self) -> str:
        lost = ", its containers end" if self.loses else ""
        return f"{self.at_s:6.1f} s  {self.kind:<7} {self.target:<8} for {self.lasts_s:.1f} s{lost}"


def make_plan(seed: int, *, duration_s: float, every_s: float, targets: Sequence[str]) -> list[Blow]:
    """Return the blows of a run: one each `every_s` seconds, the targets in turn, in an order that changes."""
    dice = random.Random(f"blows {seed}")
    blows: list[Blow] = []
    at_s = FIRST_AT_S
    row: list[str] = []
    while at_s < duration_s:
        if not row:
            row = list(targets)
            dice.shuffle(row)
            if blows and len(row) > 1 and row[0] == blows[-1].target:
                row.append(row.pop(0))
        target = row.pop(0)
        kind = dice.choices(list(KINDS), weights=list(KINDS.values()))[0]
        lasts_s = round(dice.uniform(*AWAY_S[kind]), 1)
        loses = target == "engine" and kind != "stop" and dice.random() < 0.3
        blows.append(Blow(round(at_s, 1), target, kind, lasts_s, loses))
        at_s += every_s
    return blows
