"""The plan of a chaos run can be repeated, and strikes everything."""

from __future__ import annotations

from itertools import pairwise

from tests.chaos.plan import make_plan

TARGETS = ["app", "proxy", "reaper", "database", "engine"]


def test_the_same_seed_gives_the_same_plan() -> None:
    first, again, other = (make_plan(seed, duration_s=120, every_s=5, targets=TARGETS) for seed in (7, 7, 8))
    assert first == again
    assert first != other


def test_a_blow_falls_every_few_seconds_on_one_target_after_the_other() -> None:
    plan = make_plan(7, duration_s=600, every_s=5, targets=TARGETS)
    assert len(plan) == 120
    assert {later.at_s - sooner.at_s for sooner, later in pairwise(plan)} == {5.0}
    assert all(sooner.target != later.target for sooner, later in pairwise(plan))
    assert {(blow.target, blow.kind) for blow in plan} == {
        (target, kind) for target in TARGETS for kind in ("kill", "stop", "restart")
    }
    assert any(blow.loses for blow in plan)
    assert not any(blow.loses for blow in plan if blow.target != "engine" or blow.kind == "stop")
