"""Judgements on attempts, as a table of observations."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gremlins.fleet.beads.attempts import Attempt, Ending, due
from gremlins.fleet.dispatch.judge import End, Kill, Land, Reattach, Respawn, Settle, Watch, judge
from gremlins.fleet.dispatch.observation import Observation
from gremlins.fleet.dispatch.policy import Policy
from gremlins.records.gremlin import Evidence
from tests.fleet.beads.test_store import attempt

NOW = 10_000.0
POLICY = Policy(start_window=20, deadline=3600, kill_after=30)
SPAWNED = replace(attempt("a-1"), claimed_at=0.0, spawned_at=0.0)
PENDING = replace(SPAWNED, spawned_at=None)
COMMITS = Evidence("commits", "", "", holds=True)


def seen(state: str, **more: Any) -> Observation:
    alive = state in ("running", "parked", "stalled", "stopping")
    return Observation(state, alive=alive, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("case", "observed", "failure"),
    [
        (SPAWNED, seen("dead", ended_at=5.0), "start"),
        (SPAWNED, seen("dead", ended_at=25.0), "unknown"),
        (SPAWNED, seen("dead", ended_at=5.0, replies=1), "unknown"),
        (SPAWNED, seen("dead", ended_at=5.0, rebooted=True), "host"),
        (SPAWNED, seen("dead", ended_at=5.0, failure="task"), "task"),
        (SPAWNED, seen("dead", failure="capacity", retry_at=1.0), "capacity"),
        (SPAWNED, seen("unborn", ended_at=1.0), "start"),
        (SPAWNED, seen("stopped"), "canceled"),
        (replace(SPAWNED, ending=Ending("stalled", 1.0)), seen("stopped"), "task"),
        (replace(SPAWNED, ending=Ending("stalled", 1.0)), seen("dead", ended_at=5.0), "task"),
        (SPAWNED, seen("bailed", bail="needs_human"), "permanent"),
        (SPAWNED, seen("bailed", bail="no_evidence"), "task"),
        (SPAWNED, seen("finished"), "task"),
        (SPAWNED, seen("finished", proof=Evidence("commits", "", "", holds=False)), "task"),
        (SPAWNED, seen("finished", proof=COMMITS), None),
        (SPAWNED, seen("landed", proof=COMMITS), None),
        (SPAWNED, seen("finished", proof=Evidence("nothing_to_do", "", "", holds=True)), None),
        (SPAWNED, seen("detached", failure="config"), "config"),
        (replace(SPAWNED, spawns=2), seen("detached", ended_at=5.0), "start"),
        (SPAWNED, None, "canceled"),
        (replace(SPAWNED, spawned_at=NOW - 5), None, "start"),
    ],
)
def test_how_an_attempt_ends(case: Attempt, observed: Observation | None, failure: str | None) -> None:
    verdict = judge(case, observed, NOW, POLICY)
    assert isinstance(verdict, Settle)
    assert verdict.settlement.failure == failure
    assert verdict.settlement.reason


@pytest.mark.parametrize(
    ("case", "observed", "verdict"),
    [
        (PENDING, None, Respawn),
        (replace(PENDING, base_spawn=3), seen("dead", spawn=3), Respawn),
        (replace(PENDING, base_spawn=3), seen("finished", spawn=3, proof=COMMITS), Settle),
        (PENDING, seen("unborn"), Respawn),
        (SPAWNED, seen("detached"), Reattach),
        (SPAWNED, seen("unreadable"), Watch),
        (SPAWNED, seen("parked", age_seconds=1e9), Watch),
        (SPAWNED, seen("stalled"), End),
        (SPAWNED, seen("running", age_seconds=3601), End),
        (SPAWNED, seen("running", age_seconds=3601, waits=True), Watch),
        (SPAWNED, seen("running", age_seconds=4000, parked_seconds=1000), Watch),
        (replace(SPAWNED, base_parked=900), seen("running", age_seconds=4000, parked_seconds=1000), End),
        (replace(SPAWNED, ending=Ending("x", NOW - 29)), seen("stalled"), Watch),
        (replace(SPAWNED, ending=Ending("x", NOW - 31)), seen("stopping"), Kill),
        (SPAWNED, seen("stopping", age_seconds=10), Watch),
    ],
)
def test_what_else_may_follow(case: Attempt, observed: Observation | None, verdict: type) -> None:
    assert isinstance(judge(case, observed, NOW, POLICY), verdict)


def test_landing_comes_before_success_only_where_there_is_something_to_land() -> None:
    landing = replace(POLICY, land=True)
    assert isinstance(judge(SPAWNED, seen("finished", proof=COMMITS), NOW, landing), Land)
    assert isinstance(judge(SPAWNED, seen("landed", proof=COMMITS), NOW, landing), Settle)
    assert isinstance(
        judge(SPAWNED, seen("finished", proof=Evidence("none", "", "", holds=True)), NOW, landing), Settle
    )


def test_a_clock_set_back_far_ends_a_wait_and_a_little_does_not() -> None:
    assert not due(100.0, 40.0, 39.0)
    assert not due(100.0, 40.0, 99.0)
    assert due(100.0, 40.0, 100.0)
    assert due(100.0, 40.0, -100.0)


def test_costs_are_what_the_attempt_added() -> None:
    later = replace(SPAWNED, base_cost_usd=1.0)
    verdict = judge(later, seen("dead", failure="task", cost_usd=1.25), NOW, POLICY)
    assert isinstance(verdict, Settle)
    assert verdict.settlement.cost_usd == 0.25
