"""The rules of the loop, one event each."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from gremlins.errors import Conflict
from gremlins.fleet.beads.bead import Hold
from gremlins.fleet.beads.interchange import import_text
from gremlins.fleet.beads.store.interface import PutBead
from gremlins.fleet.dispatch.observation import Missing, SpawnFailed
from gremlins.fleet.dispatch.tick import Dispatcher
from gremlins.fleet.times import text_of
from tests.fleet.dispatch.fake_fleet import FakeGremlin
from tests.fleet.project import PROJECT, Project, moved
from tests.kill_points import Killed, raise_killed


def the_loop_dies_at_the_start_of_a_process(project: Project) -> None:
    project.fleet.watch = lambda verb, who: raise_killed(verb)
    with pytest.raises(Killed):
        project.tick()
    project.fleet.watch = lambda verb, who: None


def test_a_ready_bead_is_given_a_gremlin_and_closes_when_it_finishes(project: Project) -> None:
    project.add("a-1")
    assert project.tick().spawned == [("a-1", project.fleet.of("a-1").id)]
    assert project.bead("a-1").status == "in_progress"
    project.fleet.finish(project.fleet.of("a-1"))
    report = project.tick()
    assert moved(report, "closed") == ["a-1"]
    assert project.bead("a-1").issue.closed_at is not None
    assert [n.kind for n in project.notices] == ["closed"]


def test_a_bead_closes_though_the_loop_was_down_when_its_gremlin_finished(project: Project) -> None:
    project.add("a-1")
    project.tick()
    project.clock.advance(100_000)
    project.fleet.finish(project.fleet.of("a-1"))
    project.clock.advance(100_000)
    assert moved(project.tick(), "closed") == ["a-1"]


def test_finishing_without_evidence_closes_nothing(project: Project) -> None:
    project.add("a-1")
    project.tick()
    project.fleet.end(project.fleet.of("a-1"), "finished")
    project.tick()
    assert project.bead("a-1").status == "open"
    assert project.attempts("a-1")[0].settled is not None
    assert project.charged("a-1") == 1


def test_a_gremlin_that_dies_five_seconds_after_a_good_start_reaches_the_cap(project: Project) -> None:
    project.add("a-1")
    for _ in range(40):
        project.tick()
        for gremlin in project.fleet.living("a-1"):
            project.clock.advance(5)
            project.fleet.end(gremlin, "dead", reason="vanished")
        project.clock.advance(4000)
    assert project.bead("a-1").status == "failed"
    assert project.fleet.starts["a-1"] == 5
    assert project.charged("a-1") == 5


def test_the_cap_is_reached_in_the_tick_that_sees_the_last_failure(project: Project) -> None:
    project.policy = replace(project.policy, retry_cap=1)
    project.add("a-1")
    project.tick()
    project.fleet.fail(project.fleet.of("a-1"), "task", "tests fail")
    report = project.tick()
    assert moved(report, "failed") == ["a-1"]
    assert "tests fail" in project.notices[-1].payload["reason"]


def test_uncharged_failures_end_at_the_spawn_cap_and_hold_the_bead(project: Project) -> None:
    project.add("a-1")
    for _ in range(60):
        project.tick()
        for gremlin in project.fleet.living("a-1"):
            project.fleet.fail(gremlin, "capacity")
        project.clock.advance(20_000)
    bead = project.bead("a-1")
    assert bead.hold is not None
    assert bead.hold.kind == "spawn_cap"
    assert project.fleet.starts["a-1"] == 15
    assert project.charged("a-1") == 0
    assert [n.kind for n in project.notices] == ["held"]


def test_ten_failures_of_the_machine_hold_the_bead(project: Project) -> None:
    project.add("a-1")
    for _ in range(30):
        project.tick()
        for gremlin in project.fleet.living("a-1"):
            project.fleet.fail(gremlin, "host", "no space")
        project.clock.advance(20_000)
    bead = project.bead("a-1")
    assert bead.hold is not None
    assert bead.hold.kind == "host"
    assert project.fleet.starts["a-1"] == 10


def test_after_anything_but_a_task_failure_the_same_gremlin_goes_on(project: Project) -> None:
    project.add("a-1")
    project.tick()
    first = project.fleet.of("a-1").id
    project.fleet.fail(project.fleet.of("a-1"), "unknown")
    project.tick()
    project.clock.advance(100)
    assert project.tick().spawned == [("a-1", first)]
    project.fleet.fail(project.fleet.of("a-1"), "task")
    project.tick()
    project.clock.advance(1000)
    assert project.tick().spawned[0][1] != first


def test_backoff_doubles_and_is_the_same_after_a_restart(project: Project) -> None:
    project.add("a-1")
    waits = []
    for _ in range(3):
        project.tick()
        project.fleet.fail(project.fleet.of("a-1"), "task")
        due = project.tick().next_due
        assert due == project.tick().next_due
        assert due is not None
        waits.append(due - project.now)
        project.clock.advance(due - project.now + 0.001)
    for n, wait in enumerate(waits):
        assert 0.8 * 30 * 2**n <= wait <= 1.2 * 30 * 2**n


def test_a_capacity_errors_own_time_wins(project: Project) -> None:
    project.add("a-1")
    project.tick()
    until = project.now + 5000
    project.fleet.fail(project.fleet.of("a-1"), "capacity", retry_at=until)
    project.tick()
    project.clock.advance(4990)
    assert project.tick().spawned == []
    project.clock.advance(20)
    assert len(project.tick().spawned) == 1
    assert project.charged("a-1") == 0


def test_a_person_who_stops_a_gremlin_holds_its_bead_until_it_is_released(project: Project) -> None:
    project.add("a-1")
    project.tick()
    gremlin = project.fleet.of("a-1")
    project.fleet.end(gremlin, "stopped", reason="stopped by anna")
    project.clock.advance(10_000)
    assert moved(project.tick(), "held") == ["a-1"]
    assert project.tick().spawned == []
    bead = project.bead("a-1")
    assert project.store.commit(PutBead(replace(bead, hold=None), bead.generation))
    assert project.tick().spawned == [("a-1", gremlin.id)]
    assert project.charged("a-1") == 0


@pytest.mark.parametrize("kind", ["needs_human", "refused"])
def test_a_bail_that_needs_a_person_fails_at_once(project: Project, kind: str) -> None:
    project.add("a-1")
    project.tick()
    project.fleet.end(project.fleet.of("a-1"), "bailed", bail=kind, reason=f"{kind}: which database?")
    assert moved(project.tick(), "failed") == ["a-1"]


def test_a_parked_gremlin_is_left_alone_however_long_it_is_silent(project: Project) -> None:
    project.add("a-1")
    project.tick()
    project.fleet.park(project.fleet.of("a-1"))
    for _ in range(30):
        project.clock.advance(86400)
        project.tick()
    assert project.fleet.of("a-1").alive
    assert project.fleet.starts["a-1"] == 1


def test_parked_gremlins_take_no_slot_up_to_their_own_cap(project: Project) -> None:
    project.policy = replace(project.policy, max_running=1, max_parked=2)
    project.add("a-1", "a-2", "a-3", "a-4")
    for _ in range(3):
        project.tick()
        for gremlin in project.fleet.table.values():
            project.fleet.park(gremlin)
    assert len(project.fleet.table) == 2
    assert project.tick(everything=True).denied["a-3"].reason.startswith("all parking places are taken")


def test_a_detached_gremlin_is_re_attached_as_the_same_attempt(project: Project) -> None:
    project.add("a-1")
    project.tick()
    gremlin = project.fleet.of("a-1")
    project.fleet.park(gremlin)
    project.fleet.end(gremlin, "detached")
    assert project.tick().spawned == [("a-1", gremlin.id)]
    assert project.work("a-1").spawns == 2
    assert len(project.attempts("a-1")) == 1
    assert gremlin.state == "parked"


def test_a_detached_gremlin_that_says_its_key_is_refused_waits_for_the_breaker(project: Project) -> None:
    project.add("a-1")
    project.tick()
    gremlin = project.fleet.of("a-1")
    project.fleet.park(gremlin)
    project.fleet.end(gremlin, "detached", failure="config", reason="401")
    assert project.tick().spawned == []
    assert project.charged("a-1") == 0
    assert [e.scope for e in project.episodes() if e.open] == ["claude:key-1"]


def test_another_key_is_not_stopped_by_the_breaker_of_the_old_one(project: Project) -> None:
    project.add("a-1", "a-2")
    project.policy = replace(project.policy, max_running=1)
    project.tick()
    project.fleet.fail(project.fleet.of("a-1"), "config", "401")
    assert project.tick().spawned == []
    project.fleet.credential = "claude:key-2"
    assert len(project.tick().spawned) == 1


def test_nothing_is_started_and_nothing_changed_while_something_is_missing(project: Project) -> None:
    project.add("a-1")
    project.fleet.ready = Missing("no API key", "set ANTHROPIC_API_KEY")
    generation = project.bead("a-1").generation
    report = project.tick()
    assert report.missing is not None
    assert report.spawned == []
    assert project.bead("a-1").generation == generation
    project.fleet.ready = None
    assert len(project.tick().spawned) == 1


def test_a_loop_with_nothing_to_start_asks_for_no_proof(project: Project) -> None:
    project.tick()
    assert project.fleet.preflights == 0


def test_hung_work_is_asked_to_end_then_killed_then_requeued(project: Project) -> None:
    project.add("a-1")
    project.tick()
    gremlin = project.fleet.of("a-1")
    gremlin.stubborn, gremlin.state = True, "stalled"
    project.tick()
    assert gremlin.stop_wanted
    project.clock.advance(29)
    project.tick()
    assert gremlin.alive
    project.clock.advance(2)
    project.tick()
    assert not gremlin.alive
    project.tick()
    settled = project.attempts("a-1")[0].settled
    assert settled is not None
    assert settled.failure == "task"
    assert settled.reason.startswith("stalled")


def test_work_beyond_its_deadline_ends_and_parked_time_does_not_count(project: Project) -> None:
    project.policy = replace(project.policy, deadline=100)
    project.add("a-1")
    project.tick()
    gremlin = project.fleet.of("a-1")
    project.fleet.park(gremlin)
    project.clock.advance(10_000)
    project.tick()
    assert gremlin.alive
    gremlin.state, gremlin.started_ticks = "running", project.clock.monotonic()
    project.clock.advance(101)
    project.tick()
    project.tick()
    settled = project.attempts("a-1")[0].settled
    assert settled is not None
    assert "deadline" in settled.reason


def test_a_failed_blocker_keeps_its_dependents_blocked(project: Project) -> None:
    project.policy = replace(project.policy, retry_cap=1)
    project.add("a-1")
    project.add("a-2", needs=("a-1",))
    project.tick()
    project.fleet.fail(project.fleet.of("a-1"), "task")
    project.tick()
    report = project.tick(everything=True)
    assert report.denied["a-2"].bucket == "blocked"
    assert project.fleet.starts["a-2"] == 0


def test_a_dependent_starts_when_its_blocker_has_closed(project: Project) -> None:
    project.add("a-1")
    project.add("a-2", needs=("a-1",))
    project.tick()
    project.fleet.finish(project.fleet.of("a-1"))
    assert [bead for bead, _ in project.tick().spawned] == ["a-2"]


def test_a_bead_that_a_person_closed_stays_closed_when_its_gremlin_fails(project: Project) -> None:
    project.add("a-1")
    project.tick()
    project.person_moves("a-1", "closed")
    project.fleet.fail(project.fleet.of("a-1"), "task")
    report = project.tick()
    assert [attempt.gremlin_id for attempt, _ in report.settled] == [project.fleet.of("a-1").id]
    assert project.bead("a-1").status == "closed"


def test_work_that_a_person_claimed_is_not_dispatched(project: Project) -> None:
    project.add("a-1")
    project.person_moves("a-1", "in_progress")
    report = project.tick(everything=True)
    assert report.denied["a-1"].bucket == "held"
    assert report.spawned == []


def test_a_gremlin_that_could_not_be_started_is_a_charged_start_failure(project: Project) -> None:
    project.add("a-1")
    project.fleet.start_error = SpawnFailed("git refused")
    project.tick()
    settled = project.attempts("a-1")[0].settled
    assert settled is not None
    assert settled.failure == "start"
    assert project.charged("a-1") == 1


def test_a_gremlin_taken_up_again_by_a_person_is_followed_and_not_doubled(project: Project) -> None:
    project.add("a-1")
    project.tick()
    gremlin = project.fleet.of("a-1")
    project.fleet.fail(gremlin, "task")
    project.tick()
    project.fleet.rescue(gremlin.id)
    project.clock.advance(10_000)
    assert project.tick().spawned == []
    assert project.bead("a-1").status == "in_progress"
    project.fleet.finish(gremlin)
    assert moved(project.tick(), "closed") == ["a-1"]


def finished_on_a_dirty_tree(project: Project) -> Dispatcher:
    project.policy = replace(project.policy, land=True)
    project.add("a-1")
    loop = project.dispatcher()
    loop.tick()
    project.fleet.finish(project.fleet.of("a-1"))
    project.fleet.dirty = True
    assert moved(loop.tick(), "held") == ["a-1"]
    return loop


def test_a_refused_landing_holds_the_bead_and_buys_nothing_again(project: Project) -> None:
    loop = finished_on_a_dirty_tree(project)
    before = project.store.db.connection.total_changes
    for _ in range(20):
        project.clock.advance(1)
        report = loop.tick()
    assert (report.watched, report.next_due) == ((), None)  # the loop waits, and may leave
    assert project.store.db.connection.total_changes == before
    gremlin = project.fleet.of("a-1")
    assert project.fleet.starts["a-1"] == 1
    assert project.charged("a-1") == 0
    assert project.fleet.landings[gremlin.id] == 1  # nothing has changed since
    where = loop.tick(everything=True).denied["a-1"]
    assert where.bucket == "held"
    assert where.reason.startswith(f"to land: gremlin {gremlin.id} has finished")
    assert "uncommitted changes" in where.reason
    project.fleet.dirty = False
    assert moved(loop.tick(), "closed") == ["a-1"]
    assert gremlin.state == "landed"
    assert [notice.kind for notice in project.notices] == ["held", "closed"]


def test_a_landing_that_a_lock_refused_is_tried_again_less_and_less_often(project: Project) -> None:
    """The lock shows neither in the branch nor in the tree: the bead stayed held until the loop was started anew."""
    loop = finished_on_a_dirty_tree(project)
    gremlin = project.fleet.of("a-1")
    project.fleet.dirty, gremlin.land_refused = False, "another git is at work"
    loop.tick()
    for seconds in (30, 60, 120):
        tries = project.fleet.landings[gremlin.id]
        project.clock.advance(seconds - 1)
        loop.tick()
        assert project.fleet.landings[gremlin.id] == tries
        project.clock.advance(1)
        loop.tick()
        assert project.fleet.landings[gremlin.id] == tries + 1
    gremlin.land_refused = None
    project.clock.advance(240)
    assert moved(loop.tick(), "closed") == ["a-1"]


def test_what_waits_to_land_takes_no_slot_and_keeps_its_dependents_waiting(project: Project) -> None:
    loop = finished_on_a_dirty_tree(project)
    project.policy = replace(project.policy, max_running=1)
    project.add("a-2", needs=("a-1",))
    project.add("a-3")
    assert [bead for bead, _ in loop.tick().spawned] == ["a-3"]


def test_a_retry_does_not_throw_away_what_waits_to_land(project: Project) -> None:
    finished_on_a_dirty_tree(project)
    with pytest.raises(Conflict, match="its work waits to land"):
        project.editor().retry("a-1")


def test_another_loop_tries_to_land_it_again(project: Project) -> None:
    finished_on_a_dirty_tree(project)
    project.tick()
    assert project.fleet.landings[project.fleet.of("a-1").id] == 2


@pytest.mark.parametrize("conflicts", [1, 2, 3])
def test_a_conflict_at_landing_is_resolved_by_the_same_gremlin_twice_then_by_a_person(
    project: Project, conflicts: int
) -> None:
    loop = finished_on_a_dirty_tree(project)
    gremlin = project.fleet.of("a-1")
    project.fleet.dirty, gremlin.conflicts = False, conflicts
    for _ in range(min(conflicts, 2)):
        assert loop.tick().spawned == [("a-1", gremlin.id)]
        assert (gremlin.state, project.bead("a-1").hold) == ("running", None)
        project.fleet.finish(gremlin)
    report = loop.tick()
    if conflicts < 3:
        assert moved(report, "closed") == ["a-1"]
        assert gremlin.state == "landed"
    else:
        assert moved(report, "held") == ["a-1"]
        assert loop.tick(everything=True).denied["a-1"].reason.endswith("it conflicts")
    assert project.charged("a-1") == 0
    assert len(project.fleet.table) == 1


def test_a_conflict_that_cannot_be_resolved_is_a_persons_and_buys_nothing_again(project: Project) -> None:
    loop = finished_on_a_dirty_tree(project)
    gremlin = project.fleet.of("a-1")
    project.fleet.dirty, gremlin.conflicts = False, 1
    loop.tick()
    project.fleet.end(gremlin, "bailed", bail="conflict", reason="markers are left")
    assert moved(loop.tick(), "held") == ["a-1"]
    project.clock.advance(86_400)
    assert loop.tick().spawned == []
    assert project.charged("a-1") == 0
    project.fleet.rescue(gremlin.id)
    loop.tick()
    project.fleet.finish(gremlin)
    assert moved(loop.tick(), "closed") == ["a-1"]
    assert len(project.fleet.table) == 1


def test_rounds_that_resolve_conflicts_take_slots_as_other_work_does(project: Project) -> None:
    project.policy = replace(project.policy, land=True, max_running=2)
    for bead in ("a-1", "a-2"):
        project.add(bead)
    loop = project.dispatcher()
    loop.tick()
    for bead in ("a-1", "a-2"):
        project.fleet.of(bead).conflicts = 1
        project.fleet.finish(project.fleet.of(bead))
    project.policy = replace(project.policy, max_running=1)
    assert loop.tick().spawned == [("a-1", project.fleet.of("a-1").id)]
    waiting = loop.tick(everything=True).denied["a-2"]
    assert (waiting.bucket, waiting.reason) == ("starting", "all slots are taken: 1 of 1 at work")
    project.fleet.finish(project.fleet.of("a-1"))
    report = loop.tick()
    assert (moved(report, "closed"), report.spawned) == (["a-1"], [("a-2", project.fleet.of("a-2").id)])
    project.fleet.finish(project.fleet.of("a-2"))
    assert moved(loop.tick(), "closed") == ["a-2"]


@pytest.mark.parametrize("kept", ["blocked", "held"])
def test_what_was_claimed_and_may_not_start_takes_no_slot(project: Project, kept: str) -> None:
    """Or it and what it waits for would wait for each other."""
    project.policy = replace(project.policy, max_running=1)
    project.add("a-1")
    the_loop_dies_at_the_start_of_a_process(project)
    project.add("a-2")
    if kept == "blocked":
        project.editor().depend("a-1", "a-2", "blocks")
    else:
        project.editor().hold("a-1", "wait")
    assert project.tick().spawned == [("a-2", project.fleet.of("a-2").id)]
    if kept == "held":
        project.editor().release("a-1")
        assert project.tick(everything=True).denied["a-1"].reason == "all slots are taken: 1 of 1 at work"
    project.fleet.finish(project.fleet.of("a-2"))
    assert [bead for bead, _ in project.tick().spawned] == ["a-1"]


def test_an_outstanding_batch_is_taken_up_again_though_its_loop_died_and_all_places_are_taken(project: Project) -> None:
    project.policy = replace(project.policy, max_running=1, max_parked=1)
    project.add("a-1")
    project.tick()
    gremlin = project.fleet.of("a-1")
    project.fleet.park(gremlin)
    project.fleet.end(gremlin, "detached")
    the_loop_dies_at_the_start_of_a_process(project)
    project.add("a-2")
    project.editor().depend("a-1", "a-2", "blocks")
    assert project.tick().spawned == [("a-1", gremlin.id)]


def test_a_loop_that_dies_before_a_conflict_is_resolved_is_followed_by_another(project: Project) -> None:
    finished_on_a_dirty_tree(project)
    gremlin = project.fleet.of("a-1")
    project.fleet.dirty, gremlin.conflicts = False, 1
    project.fleet.catch_up(gremlin.id)
    assert project.tick().spawned == [("a-1", gremlin.id)]
    project.fleet.finish(gremlin)
    assert moved(project.tick(), "closed") == ["a-1"]


def test_a_bead_closes_when_a_person_lands_what_was_refused(project: Project) -> None:
    project.policy = replace(project.policy, land=True)
    project.add("a-1")
    project.tick()
    gremlin = project.fleet.of("a-1")
    project.fleet.finish(gremlin)
    gremlin.land_refused = "dirty tree"
    project.tick()
    gremlin.state = "landed"
    assert moved(project.tick(), "closed") == ["a-1"]


# ── a bead that is edited while its gremlin works ─────────────────────────────────────────────────────────────────


def edited_at_work(project: Project) -> FakeGremlin:
    project.add("a-1")
    project.tick()
    project.clock.advance(1)
    project.editor().update("a-1", {"description": "And the other one."})
    gremlin = project.fleet.of("a-1")
    project.fleet.finish(gremlin)
    return gremlin


def test_work_on_an_old_text_is_held_and_not_closed(project: Project) -> None:
    """It was closed as done with the text from before."""
    project.policy = replace(project.policy, land=True)
    gremlin = edited_at_work(project)
    assert moved(project.tick(), "held") == ["a-1"]
    assert gremlin.state == "finished"  # not landed either
    before = project.store.db.connection.total_changes
    where = project.tick(everything=True).denied["a-1"]
    assert f"gremlins revise {gremlin.id}" in where.reason
    assert project.store.db.connection.total_changes == before
    gremlin.state = "landed"
    project.tick()
    hold = project.bead("a-1").hold
    assert hold is not None
    assert "revise" not in hold.reason


def test_a_person_who_has_revised_it_lets_it_close(project: Project) -> None:
    gremlin = edited_at_work(project)
    project.tick()
    gremlin.revised_at = project.now + 1
    assert moved(project.tick(), "closed") == ["a-1"]


@pytest.mark.parametrize("imported", [False, True])
def test_an_edit_after_the_remarks_is_held_again(project: Project, imported: bool) -> None:
    gremlin = edited_at_work(project)
    gremlin.revised_at = project.now + 1
    project.clock.advance(2)
    if imported:
        bead = project.bead("a-1")
        now = text_of(project.now)
        row = {**bead.issue.model_dump(mode="json"), "status": "open", "title": "Another", "updated_at": now}
        done = import_text(project.store, PROJECT, json.dumps(row), file="f", now=now, at=project.now)
        assert done.edited == ["a-1"]
    else:
        project.editor().update("a-1", {"description": "A third one."})
    assert moved(project.tick(), "held") == ["a-1"]


def test_a_label_after_the_remarks_is_no_edit_of_the_text(project: Project) -> None:
    gremlin = edited_at_work(project)
    gremlin.revised_at = project.now + 1
    project.clock.advance(2)
    project.editor().update("a-1", {"priority": 0}, relabel=lambda labels: [*labels, "urgent"])
    assert moved(project.tick(), "closed") == ["a-1"]


def test_a_retry_gives_the_new_text_to_a_fresh_gremlin(project: Project) -> None:
    edited_at_work(project)
    project.tick()
    project.editor().retry("a-1")
    project.tick()
    assert len(project.fleet.orders) == 2
    assert "And the other one." in project.fleet.orders[project.fleet.of("a-1").id].task


def test_a_bail_answered_by_an_edit_is_not_taken_up_with_the_old_text(project: Project) -> None:
    project.add("a-1")
    project.tick()
    project.fleet.end(project.fleet.of("a-1"), "bailed", bail="needs_human", reason="which one?")
    project.tick()
    project.editor().update("a-1", {"description": "The second one."})
    project.editor().retry("a-1")
    project.tick()
    assert project.fleet.starts["a-1"] == 2
    assert "The second one." in project.fleet.orders[project.fleet.of("a-1").id].task


def test_a_retry_of_the_same_text_keeps_what_was_paid_for(project: Project) -> None:
    project.add("a-1")
    project.tick()
    project.fleet.end(project.fleet.of("a-1"), "bailed", bail="needs_human", reason="which one?")
    project.tick()
    project.editor().retry("a-1")
    project.tick()
    assert len(project.fleet.orders) == 1


# ── dependents start from their blockers' work ────────────────────────────────────────────────────────────────────


def closed_and_not_landed(project: Project, *bead_ids: str) -> tuple[str, ...]:
    project.add(*bead_ids)
    project.tick()
    for bead_id in bead_ids:
        project.fleet.finish(project.fleet.of(bead_id))
    project.tick()
    return tuple(project.fleet.of(bead_id).id for bead_id in bead_ids)


def test_a_dependent_starts_from_the_branches_of_its_blockers(project: Project) -> None:
    one, two = closed_and_not_landed(project, "a-1", "a-2")
    project.add("b-1", needs=("a-1", "a-2"))
    project.tick()
    order = project.fleet.orders[project.fleet.of("b-1").id]
    assert order.start.unlanded == (one, two)
    claimed = [event.text for event in project.store.events(PROJECT, "b-1") if event.kind == "claimed"]
    assert f"from the work of {one}, {two}" in claimed[0]


def test_what_has_landed_is_in_head(project: Project) -> None:
    closed_and_not_landed(project, "a-1")
    project.fleet.of("a-1").state = "landed"
    project.add("b-1", needs=("a-1",))
    project.tick()
    assert project.fleet.orders[project.fleet.of("b-1").id].start.unlanded == ()


def test_a_part_starts_from_what_its_whole_needed(project: Project) -> None:
    (one,) = closed_and_not_landed(project, "a-1")
    project.add("whole", needs=("a-1",), status="deferred")
    parent = {"issue_id": "part", "depends_on_id": "whole", "type": "parent-child"}
    project.add("part", dependencies=[parent])
    project.tick()
    assert project.fleet.orders[project.fleet.of("part").id].start.unlanded == (one,)


def test_start_from_landed_waits_and_keeps_no_other_bead_waiting(project: Project) -> None:
    (one,) = closed_and_not_landed(project, "a-1")
    project.policy = replace(project.policy, start_from="landed", max_running=1)
    project.add("b-1", "b-2", needs=("a-1",), priority=0)
    project.add("c-1", priority=4)
    report = project.tick(everything=True)
    assert [bead for bead, _ in report.spawned] == ["c-1"]
    assert report.denied["b-1"].bucket == "blocked"
    assert one in report.denied["b-1"].reason
    assert report.denied["b-1"].next == f"ready when landed: `gremlins land {one}`"
    project.fleet.finish(project.fleet.of("c-1"))
    project.fleet.of("a-1").state = "landed"
    assert [bead for bead, _ in project.tick().spawned] == ["b-1"]


def test_branches_that_conflict_hold_the_dependent_until_they_merge(project: Project) -> None:
    closed_and_not_landed(project, "a-1", "a-2")
    project.fleet.branches_conflict = True
    project.add("b-1", needs=("a-1", "a-2"))
    report = project.tick(everything=True)
    assert report.spawned == []
    assert (report.denied["b-1"].bucket, report.denied["b-1"].hold) == ("held", "start")
    project.fleet.of("a-1").state = "landed"
    assert [bead for bead, _ in project.tick().spawned] == ["b-1"]


def test_nothing_is_spawned_while_paused(project: Project) -> None:
    from gremlins.fleet.beads.store.interface import SetPaused

    project.add("a-1")
    project.store.commit(SetPaused(PROJECT, "lunch"))
    assert project.tick(everything=True).denied["a-1"].reason == "dispatch is paused: lunch"
    project.store.commit(SetPaused(PROJECT, None))
    assert len(project.tick().spawned) == 1


def test_a_held_bead_stays_held_however_its_attempt_ends(project: Project) -> None:
    project.add("a-1")
    project.tick()
    bead = project.bead("a-1")
    hold = Hold("person", "wait for the review", "anna", project.now)
    assert project.store.commit(PutBead(replace(bead, hold=hold), bead.generation))
    project.fleet.fail(project.fleet.of("a-1"), "task")
    project.tick()
    project.clock.advance(10_000)
    assert project.tick().spawned == []
    assert project.bead("a-1").hold == hold


def test_a_tick_with_nothing_new_writes_nothing(project: Project) -> None:
    project.add("a-1", "a-2")
    project.tick()
    project.fleet.fail(project.fleet.of("a-1"), "task")
    project.tick()
    before = project.store.db.connection.total_changes
    for _ in range(10):
        project.tick()
    assert project.store.db.connection.total_changes == before


def test_a_notice_is_handed_out_once(project: Project) -> None:
    project.add("a-1")
    project.tick()
    project.fleet.finish(project.fleet.of("a-1"))
    for _ in range(5):
        project.tick()
    assert len(project.notices) == 1


def test_beads_of_another_project_are_not_touched(project: Project) -> None:
    from gremlins.fleet.beads.bead import Bead
    from tests.fleet.project import issue

    assert project.store.commit(PutBead(Bead(project="/elsewhere", issue=issue("b-1")), None))
    assert project.tick().spawned == []


def test_a_bead_that_cannot_be_read_stops_no_other(project: Project) -> None:
    project.add("a-1", "a-2")
    project.store.db.run("UPDATE beads SET hold = 'garbage', tried = 1 WHERE id = 'a-1'")
    report = project.tick()
    assert [bead for bead, _ in report.spawned] == ["a-2"]
    assert "a-1" in report.bad[0]


@pytest.mark.parametrize("everything", [False, True])
def test_a_text_that_cannot_be_read_takes_no_others_place(project: Project, everything: bool) -> None:
    project.policy = replace(project.policy, max_running=1)
    project.add("a-1", "a-2")
    project.store.db.run("UPDATE beads SET doc = '{half' WHERE id = 'a-1'")
    loop = project.dispatcher()
    loop.task = lambda bead_id: (str(project.store.bead(PROJECT, bead_id)), "")
    report = loop.tick(everything=everything)
    assert [bead for bead, _ in report.spawned] == ["a-2"]
    assert "a-1" in report.bad[0]
    assert project.attempts("a-1") == ()


def test_a_claimed_bead_whose_text_cannot_be_read_stops_nothing(project: Project) -> None:
    project.add("a-1")
    the_loop_dies_at_the_start_of_a_process(project)
    project.add("a-2")
    project.store.db.run("UPDATE beads SET doc = '{half' WHERE id = 'a-1'")
    loop = project.dispatcher()
    loop.task = lambda bead_id: (str(project.store.bead(PROJECT, bead_id)), "")
    for _ in range(3):
        report = loop.tick()
        assert "a-1" in report.bad[0]
    assert project.fleet.starts == {"a-2": 1}
    project.store.db.run("""UPDATE beads SET doc = '{"title": "whole again"}' WHERE id = 'a-1'""")
    assert [bead for bead, _ in loop.tick().spawned] == ["a-1"]
    assert len(project.attempts("a-1")) == 1


def test_a_notice_is_told_though_its_beads_text_cannot_be_read(project: Project) -> None:
    project.add("a-1")
    project.tick()
    project.fleet.finish(project.fleet.of("a-1"))
    project.store.db.run("UPDATE beads SET doc = '{half' WHERE id = 'a-1'")
    loop = project.dispatcher()
    loop.task = lambda bead_id: (str(project.store.bead(PROJECT, bead_id)), "")
    assert moved(loop.tick(), "closed") == ["a-1"]
    assert [notice.payload["bead"] for notice in project.notices] == ["a-1"]


# ── only what is due is looked at ─────────────────────────────────────────────────────────────────────────────────


def test_a_bead_that_backs_off_is_not_read_again_before_it_is_due_or_has_changed(project: Project) -> None:
    project.add("a-1", "a-2")
    loop = project.dispatcher()
    loop.tick()
    for bead_id in ("a-1", "a-2"):
        project.fleet.fail(project.fleet.of(bead_id), "task")
    loop.tick()
    looked_at: list[str] = []
    observe = project.fleet.observe
    project.fleet.observe = lambda gremlin: (looked_at.append(gremlin), observe(gremlin))[1]  # type: ignore[method-assign]
    due = loop.tick().next_due
    assert looked_at == []
    assert due is not None
    project.editor().hold("a-1", "wait")
    loop.tick()
    assert looked_at == [project.attempts("a-1")[0].gremlin_id]
    project.clock.advance(due - project.now + 40)
    assert [bead for bead, _ in loop.tick().spawned] == ["a-2"]


def test_a_changed_setting_reaches_beads_that_back_off(project: Project) -> None:
    project.policy = replace(project.policy, backoff_initial=3600.0, backoff_max=3600.0)
    project.add("a-1")
    loop = project.dispatcher()
    loop.tick()
    project.fleet.fail(project.fleet.of("a-1"), "task")
    loop.tick()
    loop.tick()
    project.policy = replace(project.policy, backoff_initial=0.001, backoff_max=0.001)
    project.clock.advance(1)
    assert [bead for bead, _ in loop.tick().spawned] == ["a-1"]
