"""Breakers: opening, probes, closing, and the cost of an outage."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gremlins.fleet.beads.bead import Hold
from gremlins.fleet.beads.store.interface import PutBead, PutEpisode, SetPaused
from gremlins.fleet.dispatch.breaker import duration
from gremlins.fleet.dispatch.observation import SpawnFailed
from tests.fleet.dispatch.fake_fleet import FakeGremlin
from tests.fleet.project import PROJECT, Project


def fail_all(project: Project, failure: str, **more: float) -> None:
    for gremlin in list(project.fleet.table.values()):
        if gremlin.alive:
            project.fleet.fail(gremlin, failure, **more)  # type: ignore[arg-type]


def dies_at_once(project: Project) -> Callable[[FakeGremlin], None]:
    return lambda gremlin: project.fleet.end(gremlin, "dead", reason="died at once")


def open_scopes(project: Project) -> list[str]:
    return [e.scope for e in project.episodes() if e.open]


def test_three_start_failures_in_a_row_of_two_beads_open_it_and_are_excused(project: Project) -> None:
    project.add("a-1", "a-2", "a-3")
    project.fleet.on_start = dies_at_once(project)
    project.tick()
    project.tick()
    assert open_scopes(project) == ["fleet"]
    assert [project.charged(bead) for bead in ("a-1", "a-2", "a-3")] == [0, 0, 0]


def test_one_bead_alone_never_opens_it(project: Project) -> None:
    project.add("a-1")
    project.fleet.on_start = dies_at_once(project)
    for _ in range(20):
        project.tick()
        project.clock.advance(4000)
    assert project.episodes() == ()
    assert project.bead("a-1").status == "failed"


def test_five_failures_of_three_beads_open_it_where_half_of_all_fail(project: Project) -> None:
    project.policy = replace(project.policy, max_running=9)
    project.add(*(f"a-{n}" for n in range(9)))
    project.tick()
    gremlins = list(project.fleet.table.values())
    for gremlin in gremlins[:5]:
        project.fleet.fail(gremlin, "task")
    for gremlin in gremlins[5:]:
        project.fleet.finish(gremlin)
    project.tick()
    assert open_scopes(project) == ["fleet"]


def test_healthy_work_keeps_it_closed(project: Project) -> None:
    project.policy = replace(project.policy, max_running=20)
    project.add(*(f"a-{n:02}" for n in range(20)))
    project.tick()
    gremlins = list(project.fleet.table.values())
    for gremlin in gremlins[:5]:
        project.fleet.fail(gremlin, "task")
    for gremlin in gremlins[5:]:
        project.fleet.finish(gremlin)
    project.tick()
    assert project.episodes() == ()


def test_four_failures_are_too_few(project: Project) -> None:
    project.policy = replace(project.policy, max_running=4)
    project.add("a-1", "a-2", "a-3", "a-4")
    project.tick()
    fail_all(project, "task")
    project.tick()
    assert project.episodes() == ()


def test_when_half_open_exactly_one_probe_goes(project: Project) -> None:
    project.add("a-1", "a-2", "a-3", "a-4")
    project.fleet.on_start = dies_at_once(project)
    project.tick()
    project.tick()
    project.fleet.on_start = lambda gremlin: None
    project.clock.advance(61)
    assert len(project.tick().spawned) == 1
    assert project.tick().spawned == []
    report = project.tick(everything=True)
    assert {d.bucket for bead, d in report.denied.items() if bead not in dict(report.spawned)} >= {"denied"}


def test_the_probe_is_the_eligible_bead_with_the_fewest_spawns(project: Project) -> None:
    project.add("a-1", "a-2", "a-3")
    project.add("a-4", priority=4)
    project.fleet.on_start = dies_at_once(project)
    project.tick()
    project.tick()
    project.clock.advance(61)
    assert [bead for bead, _ in project.tick().spawned] == ["a-4"]


def test_a_failed_probe_is_not_charged_and_doubles_the_wait(project: Project) -> None:
    project.add("a-1", "a-2", "a-3")
    project.fleet.on_start = dies_at_once(project)
    project.run(3600)
    episode = next(e for e in project.episodes() if e.open)
    assert episode.level >= 4
    assert all(project.charged(bead) == 0 for bead in ("a-1", "a-2", "a-3"))
    assert [duration(n) for n in (0, 1, 8, 50)] == [60, 120, 14400, 14400]


def test_a_healthy_probe_closes_it_and_the_rest_goes_on(project: Project) -> None:
    project.add("a-1", "a-2", "a-3")
    project.fleet.on_start = dies_at_once(project)
    project.tick()
    project.tick()
    project.fleet.on_start = lambda gremlin: None
    project.clock.advance(61)
    project.tick()
    project.clock.advance(25)
    project.tick()
    assert open_scopes(project) == []
    assert sum(gremlin.alive for gremlin in project.fleet.table.values()) == 3
    assert [n.kind for n in project.notices] == ["breaker_opened", "breaker_closed"]


def test_a_probe_that_a_person_stops_proves_nothing_and_another_goes(project: Project) -> None:
    project.add("a-1", "a-2", "a-3")
    project.fleet.on_start = dies_at_once(project)
    project.tick()
    project.tick()
    project.fleet.on_start = lambda gremlin: None
    project.clock.advance(61)
    (probe,) = project.tick().spawned
    project.fleet.end(project.fleet.table[probe[1]], "stopped", reason="by anna")
    (second,) = project.tick().spawned
    assert second[0] != probe[0]


def claimed_but_not_started(project: Project) -> str:
    """Kill a tick between claim and spawn. Returns the bead."""

    def die(verb: str, who: str) -> None:
        raise KeyboardInterrupt

    project.fleet.watch = die
    with pytest.raises(KeyboardInterrupt):
        project.tick()
    project.fleet.watch = lambda verb, who: None
    return next(a.bead_id for n in range(1, 5) for a in project.attempts(f"a-{n}") if a.settled is None)


@pytest.mark.parametrize("blocked", [False, True])
def test_a_probe_that_never_started_and_may_not_any_more_leaves_the_breaker_to_another(
    project: Project, blocked: bool
) -> None:
    project.add("a-1", "a-2", "a-3", "a-4")
    project.fleet.on_start = dies_at_once(project)
    project.tick()
    project.tick()
    project.fleet.on_start = lambda gremlin: None
    project.clock.advance(61)
    bead = project.bead(claimed_but_not_started(project))
    if blocked:
        project.add("gate", defer_until="2100-01-01T00:00:00Z")
        needs = {"dependencies": [{"issue_id": bead.id, "depends_on_id": "gate"}]}
        assert project.store.commit(PutBead(bead.edited(bead.issue.updated_at, **needs), bead.generation))
    else:
        hold = Hold("person", "wait", "anna", project.now)
        assert project.store.commit(PutBead(replace(bead, hold=hold), bead.generation))
    [(second, _)] = project.tick().spawned
    assert second != bead.id
    assert project.fleet.starts[bead.id] <= 1
    assert project.tick(everything=True).denied[bead.id].bucket == ("blocked" if blocked else "held")


def test_a_claim_from_before_the_breaker_opened_goes_as_its_one_probe(project: Project) -> None:
    project.policy = replace(project.policy, max_running=4)
    project.add("a-1", "a-2", "a-3")
    project.fleet.on_start = dies_at_once(project)
    project.tick()
    project.add("a-4", priority=0)
    project.clock.advance(1)
    project.store.commit(SetPaused(PROJECT, "lunch"))
    project.tick()  # the breaker opens
    project.store.commit(SetPaused(PROJECT, None))
    project.fleet.on_start = lambda gremlin: None
    project.clock.advance(61)
    assert claimed_but_not_started(project) == "a-4"
    [episode] = project.episodes()
    assert project.store.commit(PutEpisode(replace(episode, probe=None, version=episode.version + 1)))
    assert [bead for bead, _ in project.tick().spawned] == ["a-4"]
    assert project.tick().spawned == []
    assert project.episodes()[0].probe == "a-4#1"
    assert project.attempts("a-4")[0].probe


def test_what_reopens_soon_is_the_same_episode_with_one_notice(project: Project) -> None:
    project.policy = replace(project.policy, max_running=4)
    project.add("a-1", "a-2", "a-3", "a-4")
    project.fleet.on_start = dies_at_once(project)
    project.tick()
    project.tick()
    project.fleet.on_start = lambda gremlin: None
    project.clock.advance(61)
    project.tick()
    project.clock.advance(25)
    project.fleet.on_start = dies_at_once(project)
    project.tick()  # the probe is healthy: it closes, and starts the others
    project.tick()
    assert [episode.level for episode in project.episodes()] == [1]
    assert open_scopes(project) == ["fleet"]
    assert [n.kind for n in project.notices] == ["breaker_opened", "breaker_closed"]


@pytest.mark.parametrize("failure", ["config", "credit"])
def test_one_refused_credential_stops_all_that_use_it(project: Project, failure: str) -> None:
    project.policy = replace(project.policy, max_running=1)
    project.add("a-1", "a-2")
    project.tick()
    fail_all(project, failure)
    report = project.tick(everything=True)
    assert report.spawned == []
    assert project.charged("a-1") == 0
    assert report.denied["a-1"].bucket == ("held" if failure == "credit" else "denied")
    assert report.denied["a-2"].bucket == "denied"


def test_a_usage_limit_stops_everything_until_its_time(project: Project) -> None:
    project.policy = replace(project.policy, max_running=1)
    project.add("a-1", "a-2")
    project.tick()
    fail_all(project, "capacity", retry_at=project.now + 7200)
    project.run(7100)
    assert sum(project.fleet.starts.values()) == 1
    project.run(200)
    assert sum(project.fleet.starts.values()) == 2


def outage(project: Project, behaviour: Callable[[FakeGremlin], None], hours: float) -> None:
    project.policy = replace(project.policy, interval=600)
    project.add(*(f"a-{n}" for n in range(10)))
    project.fleet.on_start = behaviour
    project.run(hours * 3600)


OUTAGES: dict[str, Callable[[Project], Callable[[FakeGremlin], None]]] = {
    "it dies at once": lambda p: lambda g: p.fleet.end(g, "dead", reason="died at once"),
    "the key is refused": lambda p: lambda g: p.fleet.fail(g, "config", "401"),
    "no credit": lambda p: lambda g: p.fleet.fail(g, "credit", "402"),
    "overloaded": lambda p: lambda g: p.fleet.fail(g, "capacity", "529"),
    "rate limited for an hour": lambda p: lambda g: p.fleet.fail(g, "capacity", "429", retry_at=p.now + 3600),
    "the disk is full": lambda p: lambda g: p.fleet.fail(g, "host", "no space"),
}


@pytest.mark.parametrize("kind", sorted(OUTAGES))
def test_an_outage_of_70_hours_costs_fewer_than_40_spawns_and_drains_by_itself(project: Project, kind: str) -> None:
    outage(project, OUTAGES[kind](project), 70)
    assert sum(project.fleet.starts.values()) < 40
    assert [n.kind for n in project.notices] == ["breaker_opened"]
    assert all(project.bead(f"a-{n}").status != "failed" for n in range(10))
    assert all(project.charged(f"a-{n}") == 0 for n in range(10))
    project.fleet.on_start = lambda gremlin: project.fleet.finish(gremlin)
    project.run(12 * 3600)
    assert all(project.bead(f"a-{n}").status == "closed" for n in range(10))


def test_an_outage_of_the_launcher_fails_no_bead_either(project: Project) -> None:
    project.fleet.start_error = SpawnFailed("fork failed")
    outage(project, lambda gremlin: None, 70)
    assert all(project.bead(f"a-{n}").status == "open" for n in range(10))
    assert sum(len(project.attempts(f"a-{n}")) for n in range(10)) < 40


@settings(max_examples=300 if os.environ.get("GREMLINS_SOAK") else 25)
@given(
    beads=st.integers(2, 7),
    slots=st.integers(1, 4),
    retry_cap=st.integers(2, 5),
    kind=st.sampled_from(["it dies at once", "the disk is full", "the key is refused"]),
    seconds_alive=st.integers(0, 19),
)
def test_what_fails_for_everybody_fails_no_bead_soak(
    beads: int, slots: int, retry_cap: int, kind: str, seconds_alive: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        project = Project.at(Path(folder))
        project.store.db.connection.execute("PRAGMA synchronous = OFF")
        project.policy = replace(project.policy, max_running=slots, retry_cap=retry_cap, interval=600)
        names = [f"a-{n}" for n in range(beads)]
        project.add(*names)
        end = OUTAGES[kind](project)

        def dies_soon(gremlin: FakeGremlin) -> None:
            end(gremlin)
            gremlin.ended_at = gremlin.started_at + seconds_alive

        project.fleet.on_start = dies_soon
        project.run(20 * 3600)
        assert {project.bead(name).status for name in names} <= {"open", "in_progress"}
        assert sum(project.fleet.starts.values()) < 40
        assert [notice.kind for notice in project.notices] == ["breaker_opened"]
        project.fleet.on_start = project.fleet.finish
        project.run(12 * 3600)
        assert {project.bead(name).status for name in names} == {"closed"}
        project.store.close()
