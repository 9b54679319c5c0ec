"""Spending caps: reservations, sums and resets."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gremlins.fleet.dispatch.observation import Observation
from gremlins.fleet.dispatch.spending import expected_usd
from gremlins.outcome import SpendingCap
from tests.fleet.project import Project


def finish_all(project: Project, cost: float) -> None:
    for gremlin in list(project.fleet.table.values()):
        if gremlin.alive:
            project.fleet.finish(gremlin, cost=cost)


def test_what_an_attempt_is_expected_to_cost(project: Project) -> None:
    assert expected_usd(project.policy, None, 0.3) == 0.3
    assert expected_usd(project.policy, 0.25, 0.3) == 0.25
    assert expected_usd(replace(project.policy, per_attempt=2.0), 0.25, 0.3) == 0.25
    assert expected_usd(replace(project.policy, per_attempt=0.1), 0.25, 0.3) == 0.1


def test_an_untried_pipeline_may_start_although_its_first_call_is_dearer_than_the_day(project: Project) -> None:
    project.policy = replace(project.policy, per_day=0.9, max_running=2)
    project.add("a-1", "a-2")
    assert len(project.tick().spawned) == 1  # it reserves the day; its calls hold the cap


def test_the_reason_names_the_cap_the_figures_and_the_command_that_raises_it(project: Project) -> None:
    project.policy = replace(project.policy, per_day=1.5, max_running=2)
    project.add("a-1", "a-2")
    project.tick()
    reason = project.tick(everything=True).denied["a-2"].reason
    assert "spend.per_day ($1.5)" in reason
    assert "$0.0000 spent today, $1.0000 reserved" in reason
    assert "GREMLINS_SPEND__PER_DAY=3 gremlins dispatch" in reason


def test_reservations_keep_a_fleet_within_the_day(project: Project) -> None:
    project.policy = replace(project.policy, per_day=2.5, max_running=9)
    project.add(*(f"a-{n}" for n in range(9)))
    assert len(project.tick().spawned) == 2  # a dollar each is reserved
    report = project.tick(everything=True)
    assert report.denied["a-5"].bucket == "held"
    assert report.denied["a-5"].hold == "spend"
    finish_all(project, 0.75)
    project.tick()
    assert sum(project.fleet.starts.values()) == 3  # 1.50 spent, 0.75 expected of the next


def test_a_cap_of_the_day_resets_at_midnight_and_when_it_is_raised(project: Project) -> None:
    project.policy = replace(project.policy, per_day=1.0, max_running=1)
    project.add("a-1", "a-2", "a-3")
    project.tick()
    finish_all(project, 0.9)
    project.tick()
    assert sum(project.fleet.starts.values()) == 1
    project.policy = replace(project.policy, per_day=3.0)
    project.tick()
    assert sum(project.fleet.starts.values()) == 2
    project.policy = replace(project.policy, per_day=1.0)
    finish_all(project, 0.9)
    due = project.tick().next_due
    assert due is not None
    project.clock.advance(due - project.now + 1)
    project.tick()
    assert sum(project.fleet.starts.values()) == 3


def test_a_beads_cap_counts_all_its_attempts(project: Project) -> None:
    project.policy = replace(project.policy, per_bead=1.0, max_running=1, backoff_initial=1, backoff_max=1)
    project.add("a-1")
    project.tick()
    gremlin = project.fleet.of("a-1")
    gremlin.cost_usd = 0.6
    project.fleet.fail(gremlin, "task")
    project.run(60)
    assert project.fleet.starts["a-1"] == 1
    project.policy = replace(project.policy, per_bead=2.0)
    project.run(60)
    assert project.fleet.starts["a-1"] == 2


def test_what_an_earlier_attempt_of_the_same_gremlin_cost_is_counted_once(project: Project) -> None:
    project.add("a-1")
    project.tick()
    gremlin = project.fleet.of("a-1")
    gremlin.cost_usd = 0.6
    project.fleet.fail(gremlin, "unknown")
    project.tick()
    project.clock.advance(100)
    project.tick()
    gremlin.cost_usd = 0.7
    project.fleet.fail(gremlin, "task")
    project.tick()
    costs = [attempt.settled.cost_usd for attempt in project.attempts("a-1") if attempt.settled]
    assert costs == pytest.approx([0.6, 0.1])


def end_at_cap(project: Project) -> None:
    """The gremlin of a-1 ends because `spend.per_attempt` leaves no room for its next call."""
    gremlin = project.fleet.of("a-1")
    project.fleet.fail(gremlin, "credit", "spend.per_attempt")
    observe = project.fleet.observe

    def capped(gremlin_id: str) -> Observation | None:
        seen = observe(gremlin_id)
        return replace(seen, cap=SpendingCap("spend.per_attempt", 0.5)) if seen is not None and not seen.alive else seen

    project.fleet.observe = capped  # type: ignore[method-assign]


def test_a_gremlin_that_its_cap_stopped_waits_until_the_cap_is_raised(project: Project) -> None:
    project.policy = replace(project.policy, per_attempt=0.5)
    project.add("a-1")
    project.tick()
    end_at_cap(project)
    project.run(3600)
    assert project.fleet.starts["a-1"] == 1
    assert project.episodes() == ()  # it says nothing about the credential
    assert [notice.kind for notice in project.notices] == ["held"]
    project.policy = replace(project.policy, per_attempt=1.0)
    project.run(60)
    assert project.fleet.starts["a-1"] == 2


def test_a_raised_cap_lets_its_bead_go_on_at_once(project: Project) -> None:
    project.policy = replace(project.policy, per_attempt=0.5)
    project.add("a-1")
    project.tick()
    end_at_cap(project)
    assert project.tick(everything=True).denied["a-1"].hold == "spend"
    project.policy = replace(project.policy, per_attempt=1.0)
    assert len(project.tick().spawned) == 1
