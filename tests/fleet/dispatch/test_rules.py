"""The rules of dispatching as a state machine: they hold for all actions of gremlins, people, clocks and crashes."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec import structs

from gremlins.errors import Conflict, NotFound
from gremlins.fleet.beads.attempts import FLEET, Attempt, Episode, charged
from gremlins.fleet.beads.bead import STATUSES, not_work
from gremlins.fleet.beads.edit import BeadEditor
from gremlins.fleet.beads.store.interface import AddAttempt, SetPaused, StoreChange
from gremlins.fleet.beads.store.sqlite import SqliteStore
from gremlins.fleet.dispatch.admit import BUCKETS, Standing, standing
from gremlins.fleet.dispatch.observation import Missing, Observation, ObservedState, SpawnFailed
from gremlins.fleet.dispatch.ownership import settle_for_retry
from gremlins.fleet.dispatch.policy import Policy
from gremlins.fleet.dispatch.spending import attempt_usd
from gremlins.fleet.dispatch.tick import Dispatcher, TickReport
from gremlins.fleet.dispatch.world import world_of
from gremlins.fleet.times import text_of
from gremlins.outcome import FailureClass
from tests.fleet.dispatch.fake_fleet import COMMITS, FakeGremlin
from tests.fleet.project import PROJECT, Project
from tests.kill_points import Killed

CAPS = Policy(retry_cap=3, spawn_cap=6, host_cap=4, max_running=2, max_parked=3, deadline=7200, land=True)
LATE: tuple[FailureClass | None, ...] = (None, "task", "config")
ENDS = ("task", "unknown", "capacity", "host", "config", "died", "lie")
WAITING_FOR_A_PERSON = {"held", "blocked", "deferred"}


class FragileStore(SqliteStore):
    """A store that kills its user before or after a commit, or lets another process win the race."""

    plan: Callable[[str], None] = staticmethod(lambda where: None)

    claimed: Callable[[Attempt], None] = staticmethod(lambda attempt: None)

    def commit(self, *changes: StoreChange) -> bool:
        self.plan("before commit")
        done = super().commit(*changes)
        for change in changes:
            if done and isinstance(change, AddAttempt):
                self.claimed(change.attempt)
        self.plan("after commit")
        return done


class Dispatching(RuleBasedStateMachine):
    """Beads, arbitrary actions of gremlins and people, and loops that are killed at any write."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        store = FragileStore(Path(self.folder.name) / "beads.db")
        store.db.connection.execute("PRAGMA synchronous = OFF")
        self.project = Project(store, policy=CAPS)
        self.project.fleet.watch = lambda verb, who: self._step(f"before {verb}")
        self.project.fleet.after = lambda verb, who: self._step(f"after {verb}")
        store.plan, store.claimed = self._step, self._claimed
        self.countdown: int | None = None
        self.interloper: int | None = None
        self.closed_by_person: set[str] = set()
        self.honest: set[str] = set()
        self.count = 0
        self.rescued: Counter[str] = Counter()
        self.person_acts = False
        self.loop: Dispatcher | None = None
        self.edited: set[str] = set()
        self._guard_spawns()

    def teardown(self) -> None:
        try:
            self.everything_ends_once_the_world_is_well()
        finally:
            self.project.store.close()
            self.folder.cleanup()

    def _step(self, where: str) -> None:
        """A point at which the loop is killed, or another loop runs a whole tick."""
        if self.interloper is not None:
            self.interloper -= 1
            if self.interloper == 0 and where == "before commit" and not self.claiming:
                self.interloper = None
                self._run(self._dispatcher())
        if self.countdown is not None:
            self.countdown -= 1
            if self.countdown <= 0:
                self.countdown = None
                raise Killed(where)

    claiming = False

    @contextmanager
    def _claim_lock(self) -> Any:
        self.claiming = True
        try:
            yield
        finally:
            self.claiming = False

    def _dispatcher(self) -> Dispatcher:
        """The loop that goes on, or a new one after a kill, a restart, or beside another."""
        if self.loop is None or self.loop.store is not self.project.store or self.interloper is not None:
            self.loop = self.project.dispatcher()
            self.loop.claiming = self._claim_lock
        return self.loop

    def _run(self, dispatcher: Dispatcher, **options: Any) -> TickReport | None:
        try:
            return dispatcher.tick(**options)
        except Killed:
            self.loop = None
            return None

    def _guard_spawns(self) -> None:
        """At every real start: no second process, and no unclosed blocker unless what is paid for goes on; a slot
        unless it only waits for its batch.
        """
        fleet = self.project.fleet
        begin = fleet._begin

        def guarded(gremlin: FakeGremlin) -> None:
            assert gremlin.caught_up <= 2, "it resolves conflicts for ever"
            order = fleet.orders.get(gremlin.id)
            assert order is None or order.start.conflict is None, "started from branches that cannot be merged"
            assert not fleet.living(gremlin.bead) or fleet.living(gremlin.bead) == [gremlin], "a second process"
            if not gremlin.outstanding and not self.person_acts:
                assert gremlin.caught_up or not self._unclosed_blockers(gremlin.bead), "started though blocked"
                others = [g for g in fleet.table.values() if g.alive and g.state != "parked" and g is not gremlin]
                assert len(others) < self.project.policy.max_running, "more at work than there are slots"
            begin(gremlin)

        fleet._begin = guarded  # type: ignore[method-assign]

    def _claimed(self, attempt: Attempt) -> None:
        """At every claim: it is work, the caps have room for it, and finished work is not bought again."""
        if attempt.kind not in ("fresh", "rescue"):
            return
        project = self.project
        assert not_work(project.bead(attempt.bead_id).issue) is None, "no work"
        policy, works = project.policy, project.store.works(PROJECT).works
        day = world_of(project.store, project.fleet, PROJECT, policy, works, project.now).day
        assert policy.per_day is None or day.taken_usd <= policy.per_day + 1e-6, "beyond the day's cap"
        spent = sum(attempt_usd(a) for a in project.attempts(attempt.bead_id))
        assert policy.per_bead is None or spent <= policy.per_bead + 1e-6, "beyond the bead's cap"
        if attempt.kind == "fresh" and attempt.bead_id not in self.edited:
            before = [a for a in project.attempts(attempt.bead_id) if a.epoch == attempt.epoch]
            gremlins = [g for a in before if (g := project.fleet.table.get(a.gremlin_id)) is not None]
            assert not any(gremlin.caught_up for gremlin in gremlins), "finished work is bought again"

    def _unclosed_blockers(self, bead_id: str) -> list[str]:
        rows = self.project.store.db.rows(
            "SELECT b.id FROM deps d JOIN beads b ON b.id = d.depends_on_id"
            " WHERE d.issue_id = ? AND b.status != 'closed'",
            (bead_id,),
        )
        return [row[0] for row in rows]

    def _ids(self) -> list[str]:
        return self.project.store.ids(PROJECT)

    def _pick(self, data: st.DataObject, ids: list[str]) -> str | None:
        return data.draw(st.sampled_from(sorted(ids))) if ids else None

    def _gremlin(self, data: st.DataObject, *, alive: bool | None = None) -> FakeGremlin | None:
        found = sorted(g.id for g in self.project.fleet.table.values() if alive is None or g.alive == alive)
        return self.project.fleet.table[data.draw(st.sampled_from(found))] if found else None

    @initialize(count=st.integers(1, 3), slots=st.integers(1, 2))
    def begin(self, count: int, slots: int) -> None:
        self.project.policy = replace(CAPS, max_running=slots)
        self.project.add(*(f"b-{n}" for n in range(count)))
        self.count = count

    @precondition(lambda self: self.count < 6)
    @rule(data=st.data(), blocked=st.booleans(), priority=st.integers(0, 4))
    def create(self, data: st.DataObject, blocked: bool, priority: int) -> None:
        needs = (data.draw(st.sampled_from(sorted(self._ids()))),) if blocked else ()
        self.project.add(f"b-{self.count}", needs=needs, priority=priority)
        self.count += 1

    @rule(data=st.data(), verb=st.sampled_from(["retry", "release", "reopen", "hold", "claim", "close", "defer"]))
    def a_person_edits(self, data: st.DataObject, verb: str) -> None:
        """With the real verbs. Only what the state does not allow is refused."""
        editor, bead_id = self._editor(), data.draw(st.sampled_from(sorted(self._ids())))
        with suppress(Conflict):
            match verb:
                case "retry":
                    editor.retry(bead_id)
                case "release":
                    editor.release(bead_id)
                case "reopen":
                    editor.reopen(bead_id, "")
                case "hold":
                    editor.hold(bead_id, "wait")
                case "claim":
                    editor.claim(bead_id, "anna")
                case "close":
                    editor.close(bead_id, "by a person")
                    self.closed_by_person.add(bead_id)
                case "defer":
                    seconds = data.draw(st.sampled_from([10, 5000, 10**7]))
                    editor.update(bead_id, {"defer_until": text_of(self.project.now + seconds)})

    @rule(data=st.data())
    def a_person_edits_the_text(self, data: st.DataObject) -> None:
        bead_id = data.draw(st.sampled_from(sorted(self._ids())))
        self._editor().update(bead_id, {"notes": f"as of {self.project.now}"})
        self.edited.add(bead_id)

    @rule(data=st.data(), kind=st.sampled_from(["message", "task"]))
    def a_record_is_work_or_not(self, data: st.DataObject, kind: str) -> None:
        bead_id = data.draw(st.sampled_from(sorted(self._ids())))
        self._editor().update(bead_id, {"issue_type": kind})

    @rule(capped=st.booleans())
    def a_person_caps_spending(self, capped: bool) -> None:
        caps = {"per_bead": 2.2, "per_day": 2.5} if capped else {"per_bead": None, "per_day": None}
        self.project.policy = replace(self.project.policy, **caps)

    @rule(data=st.data(), times=st.integers(1, 3))
    def finished_work_conflicts_with_the_project(self, data: st.DataObject, times: int) -> None:
        gremlin = self._gremlin(data)
        if gremlin is not None:
            gremlin.conflicts = times

    @rule(conflict=st.booleans())
    def the_branches_of_blockers_conflict(self, conflict: bool) -> None:
        self.project.fleet.branches_conflict = conflict

    @rule(data=st.data())
    def a_person_makes_remarks(self, data: st.DataObject) -> None:
        gremlin = self._gremlin(data)
        if gremlin is not None:
            gremlin.revised_at = self.project.now

    @rule(data=st.data(), status=st.sampled_from(STATUSES))
    def a_person_sets_a_status(self, data: st.DataObject, status: str) -> None:
        bead_id = data.draw(st.sampled_from(sorted(self._ids())))
        with suppress(Conflict):
            self._editor().update(bead_id, {}, status)
            if status == "closed":
                self.closed_by_person.add(bead_id)

    @rule(data=st.data(), add=st.booleans())
    def a_person_changes_what_waits_for_what(self, data: st.DataObject, add: bool) -> None:
        one, other = (data.draw(st.sampled_from(sorted(self._ids()))) for _ in range(2))
        with suppress(Conflict, NotFound):
            if add:
                self._editor().depend(one, other, "blocks")
            else:
                self._editor().undepend(one, other, None)

    def _editor(self) -> BeadEditor:
        project = self.project
        return BeadEditor(
            project.store,
            PROJECT,
            project.clock,
            "anna",
            partial(settle_for_retry, observe=project.fleet.observe, policy=CAPS),
        )

    @rule(data=st.data())
    def a_person_stops(self, data: st.DataObject) -> None:
        gremlin = self._gremlin(data, alive=True)
        if gremlin is not None:
            self.project.fleet.end(gremlin, "stopped", reason="by anna")

    @rule(data=st.data())
    def a_person_rescues(self, data: st.DataObject) -> None:
        gremlin = self._gremlin(data, alive=False)
        if gremlin is None or gremlin.state in ("finished", "landed"):
            return
        work = self.project.work(gremlin.bead)
        if work.latest is None or work.latest.gremlin_id != gremlin.id or work.terminal:
            return  # refused: the bead has a newer attempt
        before = self.project.fleet.starts[gremlin.bead]
        self.person_acts = True
        with suppress(SpawnFailed):
            self.project.fleet.rescue(gremlin.id)
        self.person_acts = False
        self.rescued[gremlin.bead] += self.project.fleet.starts[gremlin.bead] - before

    @rule(paused=st.booleans())
    def a_person_pauses(self, paused: bool) -> None:
        self.project.store.commit(SetPaused(PROJECT, "lunch" if paused else None))

    @rule(data=st.data())
    def a_row_is_damaged_and_mended(self, data: st.DataObject) -> None:
        bead_id = self._pick(data, self._ids())
        row = ("garbage", bead_id)
        before = self.project.store.db.value("SELECT hold FROM beads WHERE id = ?", (bead_id,))
        self.project.store.db.run("UPDATE beads SET hold = ? WHERE id = ?", row)
        assert self._run(self._dispatcher()) is not None
        self.project.store.db.run("UPDATE beads SET hold = ? WHERE id = ?", (before, bead_id))

    @rule(data=st.data())
    def a_gremlin_gets_a_reply(self, data: st.DataObject) -> None:
        gremlin = self._gremlin(data, alive=True)
        if gremlin is not None:
            gremlin.replies += 1
            gremlin.cost_usd += 0.05
            gremlin.state, gremlin.outstanding = "running", False

    @rule(data=st.data())
    def a_gremlin_parks(self, data: st.DataObject) -> None:
        gremlin = self._gremlin(data, alive=True)
        if gremlin is not None:
            self.project.fleet.park(gremlin)

    @rule(data=st.data(), kind=st.sampled_from(["commits", "nothing", "lie"]))
    def a_gremlin_finishes(self, data: st.DataObject, kind: str) -> None:
        gremlin = self._gremlin(data, alive=True)
        if gremlin is None:
            return
        if kind == "lie":
            self.project.fleet.end(
                gremlin, "finished", proof=data.draw(st.sampled_from([None, structs.replace(COMMITS, holds=False)]))
            )
            return
        self.honest.add(gremlin.id)
        proof = COMMITS if kind == "commits" else structs.replace(COMMITS, kind="nothing_to_do")
        self.project.fleet.end(gremlin, "finished", proof=proof)

    @rule(data=st.data(), state=st.sampled_from(["finished", "bailed", "dead", "stopped", "detached"]))
    def a_gremlin_answers_late_or_twice(self, data: st.DataObject, state: ObservedState) -> None:
        """The record of a settled gremlin changes."""
        gremlin = self._gremlin(data, alive=False)
        if gremlin is None or gremlin.state in ("landed", "unborn"):
            return
        gremlin.replies += 1
        gremlin.cost_usd += 0.05
        gremlin.outstanding = state == "detached"
        if state == "finished":
            self.honest.add(gremlin.id)
        proof = COMMITS if state == "finished" else None
        failure = data.draw(st.sampled_from(LATE)) if state in ("dead", "detached") else None
        self.project.fleet.end(gremlin, state, proof=proof, failure=failure, reason="late")

    @rule(
        data=st.data(),
        failure=st.sampled_from(["task", "unknown", "host", "capacity", "capacity-until", "config", "credit", "start"]),
    )
    def a_gremlin_fails(self, data: st.DataObject, failure: str) -> None:
        gremlin = self._gremlin(data, alive=True)
        if gremlin is not None:
            until = self.project.now + 600 if failure == "capacity-until" else None
            self.project.fleet.end(
                gremlin,
                "dead",
                failure=failure.removesuffix("-until"),  # type: ignore[arg-type]
                reason=failure,
                retry_at=until,
            )

    @rule(data=st.data(), kind=st.sampled_from(["needs_human", "empty_implementation"]))
    def a_gremlin_bails(self, data: st.DataObject, kind: str) -> None:
        gremlin = self._gremlin(data, alive=True)
        if gremlin is not None:
            self.project.fleet.end(gremlin, "bailed", bail=kind, reason=kind)

    @rule(data=st.data(), rebooted=st.booleans())
    def a_gremlin_crashes(self, data: st.DataObject, rebooted: bool) -> None:
        gremlin = self._gremlin(data, alive=True)
        if gremlin is not None:
            self.project.fleet.end(gremlin, "detached" if gremlin.outstanding else "dead", reason="crashed")
            gremlin.rebooted = rebooted

    @rule(data=st.data(), stubborn=st.booleans())
    def a_gremlin_hangs(self, data: st.DataObject, stubborn: bool) -> None:
        gremlin = self._gremlin(data, alive=True)
        if gremlin is not None and gremlin.state == "running":
            gremlin.state, gremlin.stubborn = "stalled", stubborn

    @rule(data=st.data())
    def a_gremlin_vanishes_with_its_record(self, data: st.DataObject) -> None:
        gremlin = self._gremlin(data, alive=False)
        if gremlin is not None and all(a.spawned_at for a in self.project.attempts(gremlin.bead)):
            del self.project.fleet.table[gremlin.id]

    @rule(data=st.data())
    def a_record_becomes_unreadable_for_a_while(self, data: st.DataObject) -> None:
        gremlin = self._gremlin(data)
        if gremlin is None:
            return
        fleet, observe = self.project.fleet, self.project.fleet.observe

        def garbled(gremlin_id: str) -> Observation | None:
            if gremlin_id == gremlin.id:
                return Observation("unreadable", alive=gremlin.alive, reason="its record cannot be read")
            return observe(gremlin_id)

        fleet.observe = garbled  # type: ignore[method-assign]
        self._run(self._dispatcher())
        fleet.observe = observe  # type: ignore[method-assign]

    @rule(seconds=st.sampled_from([1, 25, 31, 70, 600, 2000, 20_000]))
    def time_passes(self, seconds: int) -> None:
        self.project.clock.advance(seconds)

    @rule(seconds=st.sampled_from([-100_000, -3, 5, 40_000]))
    def the_clock_jumps(self, seconds: int) -> None:
        self.project.clock.jump(seconds)

    @rule(dirty=st.booleans())
    def the_tree_is_dirty_or_clean(self, dirty: bool) -> None:
        """A refused landing is charged to no bead and buys nothing."""
        self.project.fleet.dirty = dirty

    @rule(there=st.booleans())
    def credentials_come_and_go(self, there: bool) -> None:
        self.project.fleet.ready = None if there else Missing("no key")

    @rule(key=st.sampled_from(["claude:key-1", "claude:key-2"]))
    def the_key_is_rotated(self, key: str) -> None:
        self.project.fleet.credential = key

    @rule(works=st.booleans(), failure=st.sampled_from(["start", "host"]))
    def starting_works_or_not(self, works: bool, failure: str) -> None:
        self.project.fleet.start_error = None if works else SpawnFailed("cannot fork", failure)  # type: ignore[arg-type]

    @rule(works=st.booleans())
    def everything_dies_at_once_or_not(self, works: bool) -> None:
        fleet = self.project.fleet
        fleet.on_start = (lambda g: None) if works else (lambda g: fleet.end(g, "dead", reason="died at once"))

    @rule(
        ends=st.lists(st.sampled_from(ENDS), max_size=6)
        | st.builds(lambda how, times: [how] * times, st.sampled_from(ENDS), st.integers(3, 6)),
        seconds=st.sampled_from([31, 2000, 20_000]),
        alone=st.booleans(),
    )
    def attempt_after_attempt_fails(self, ends: list[str], seconds: int, alone: bool) -> None:
        """Of all running gremlins, or of one bead's while the others go on."""
        fleet, beads = self.project.fleet, self._ids()
        for how in ends:
            self.tick()
            running = [g for g in fleet.table.values() if g.alive and g.state == "running"]
            beads = sorted(g.bead for g in running)[:1] if alone and running and len(beads) != 1 else beads
            for gremlin in [g for g in running if g.bead in beads]:
                match how:
                    case "died":
                        fleet.end(gremlin, "dead", reason="vanished")
                    case "lie":
                        fleet.end(gremlin, "finished")
                    case _:
                        fleet.fail(gremlin, how)  # type: ignore[arg-type]
            self.tick()
            self.project.clock.advance(seconds)

    @rule(data=st.data())
    def what_was_tried_is_blocked_before_its_next_attempt(self, data: st.DataObject) -> None:
        works = self.project.store.works(PROJECT).works
        tried = [work.id for work in works if work.attempts and work.unsettled is None]
        if len(works) > 1 and tried:
            one = data.draw(st.sampled_from(sorted(tried)))
            with suppress(Conflict):
                self._editor().depend(one, data.draw(st.sampled_from(sorted(w.id for w in works))), "blocks")
        self.project.clock.advance(20_000)
        self.tick()

    @rule()
    def tick(self) -> None:
        """While a breaker is open, only one probe starts."""
        before = {(e.scope, e.number): e for e in self._open_breakers()}
        report = self._run(self._dispatcher())
        assert report is not None
        for episode in self._open_breakers():
            known = before.get((episode.scope, episode.number))
            if known is not None:
                assert len(report.spawned) <= 1, "more than one probe"
                if report.spawned and episode.probe is not None:
                    assert report.spawned[0][0] == episode.probe.rpartition("#")[0]

    def _open_breakers(self) -> list[Episode]:
        concerned = (FLEET, self.project.fleet.credential)
        return [e for e in self.project.store.episodes(PROJECT) if e.open and e.scope in concerned]

    @rule(step=st.integers(1, 12))
    def a_loop_is_killed_in_its_tick(self, step: int) -> None:
        self.countdown = step
        self._run(self._dispatcher())
        self.countdown = None

    @rule(step=st.integers(1, 8))
    def two_loops_tick_at_once(self, step: int) -> None:
        self.interloper = step
        self._run(self._dispatcher())
        self.interloper = None

    @rule()
    def ticks_with_nothing_new_come_to_rest(self) -> None:
        connection, quiet = self.project.store.db.connection, 0
        for _ in range(40):
            before = connection.total_changes
            self.tick()
            quiet = quiet + 1 if connection.total_changes == before else 0
        assert quiet >= 5, "ticks with nothing new go on writing"

    @rule()
    def a_restart_changes_no_counter(self) -> None:
        before = self._counters()
        self.project.store.close()
        store = FragileStore(Path(self.folder.name) / "beads.db")
        store.db.connection.execute("PRAGMA synchronous = OFF")
        store.plan, store.claimed = self._step, self._claimed
        self.project.store = store
        assert self._counters() == before

    def _counters(self) -> dict[str, tuple[int, int, int]]:
        works = self.project.store.works(PROJECT, self._ids()).works
        return {w.id: (charged(w, self.project.episodes()), w.spawns, w.epoch) for w in works}

    @invariant()
    def spawns_and_charges_stay_within_their_caps(self) -> None:
        episodes = self.project.store.episodes(PROJECT)
        for work in self.project.store.works(PROJECT, self._ids()).works:
            for epoch in {a.epoch for a in work.attempts}:
                then = replace(work, epoch=epoch)
                assert then.spawns <= CAPS.spawn_cap
                assert charged(then, episodes) <= CAPS.retry_cap

    @invariant()
    def what_has_used_up_its_attempts_is_started_no_more(self) -> None:
        episodes = self.project.store.episodes(PROJECT)
        for work in self.project.store.works(PROJECT).works:
            if charged(work, episodes) >= CAPS.retry_cap and work.unsettled is not None:
                assert work.unsettled.kind == "adopted", "started beyond its cap"

    @invariant()
    def every_process_was_counted_before_it_began(self) -> None:
        for work in self.project.store.works(PROJECT, self._ids()).works:
            by_loop = sum(a.spawns for a in work.attempts)
            by_people = self.project.fleet.starts[work.id] - by_loop
            assert by_people <= self.rescued[work.id]

    @invariant()
    def at_most_one_live_process_and_one_unsettled_attempt(self) -> None:
        for work in self.project.store.works(PROJECT, self._ids()).works:
            assert len(self.project.fleet.living(work.id)) <= 1
            assert sum(a.settled is None for a in work.attempts) <= 1

    @invariant()
    def closed_only_with_evidence(self) -> None:
        for work in self.project.store.works(PROJECT, self._ids()).works:
            if work.status == "closed" and work.id not in self.closed_by_person:
                assert work.latest is not None
                assert work.latest.settled is not None
                assert not work.latest.settled.failed
                assert work.latest.gremlin_id in self.honest

    @invariant()
    def the_fleets_breaker_opens_neither_for_one_bead_nor_for_healthy_work(self) -> None:
        episodes = [e for e in self.project.store.episodes(PROJECT) if e.scope == FLEET]
        recent = self.project.store.recent(PROJECT, 0.0)
        for episode in episodes:
            inside = [a for a in recent if a.settled and a.settled.seq >= episode.since_seq]
            failed = [a for a in inside if a.settled and a.settled.failed and a.settled.failure != "canceled"]
            assert len({a.bead_id for a in failed}) >= 2
            assert len(failed) >= 3

    @invariant()
    def an_open_breaker_has_an_end(self) -> None:
        """It waits for a time, or for a probe under way."""
        for episode in self.project.store.episodes(PROJECT):
            if episode.open and episode.probe is not None:
                bead_id, _, number = episode.probe.rpartition("#")
                assert int(number) in {a.number for a in self.project.attempts(bead_id)}
            if episode.open:
                assert episode.until - episode.shut_at <= 31 * 86400 + 4 * 3600

    @invariant()
    def a_beads_place_is_what_its_gremlin_does(self) -> None:
        for bead_id, where in self._standing().items():
            assert where.bucket in BUCKETS
            alive = self.project.fleet.living(bead_id)
            if where.bucket in ("ready", "backing_off", "blocked", "deferred", "denied"):
                assert not alive

    @invariant()
    def every_living_bead_is_in_one_bucket_with_a_next_event(self) -> None:
        for where in self._standing().values():
            assert where.bucket not in ("closed", "failed")
            assert where.reason
            assert where.next

    def _standing(self) -> dict[str, Standing]:
        project = self.project
        works = project.store.works(PROJECT).works
        world = world_of(project.store, project.fleet, PROJECT, project.policy, works, project.now)
        return {work.id: standing(work, world) for work in works}

    @invariant()
    def the_blocked_flag_is_what_the_dependencies_say(self) -> None:
        beads = {
            bead_id: self.project.store.db.rows("SELECT status, blocked FROM beads WHERE id = ?", (bead_id,))[0]
            for bead_id in self._ids()
        }
        needs: dict[str, list[str]] = {}
        for row in self.project.store.db.rows("SELECT issue_id, depends_on_id FROM deps"):
            needs.setdefault(row[0], []).append(row[1])
        for bead_id, row in beads.items():
            assert row["blocked"] == any(beads[other]["status"] != "closed" for other in needs.get(bead_id, ()))

    def everything_ends_once_the_world_is_well(self) -> None:
        """Without faults, each bead closes, fails, or waits for a person with a reason."""
        fleet = self.project.fleet
        fleet.ready = fleet.start_error = None
        fleet.dirty = fleet.branches_conflict = False
        fleet.on_start = fleet.finish
        self.project.store.commit(SetPaused(PROJECT, None))
        for _ in range(400):
            for gremlin in list(fleet.table.values()):
                if gremlin.alive:
                    gremlin.outstanding = False
                    self.honest.add(gremlin.id)
                    fleet.finish(gremlin)
            assert self._run(self._dispatcher()) is not None
            self.project.clock.advance(6 * 3600)
        report = self.project.tick(everything=True)
        for bead_id, denied in report.denied.items():
            assert denied.bucket in WAITING_FOR_A_PERSON, (bead_id, denied)


EXAMPLES = 2000 if os.environ.get("GREMLINS_SOAK") else 30
Dispatching.TestCase.settings = settings(
    max_examples=EXAMPLES, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
TestRulesSoak = Dispatching.TestCase
