"""One tick of dispatching: observe, settle, breakers, transitions, admit, preflight, claim, spawn, notices.

Pure functions decide (`judge`, `breaker`, `admit`, `plan`); this module applies their decisions. Each step is one
compare-and-swap commit, so the next tick goes on after a crash between any two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from gremlins.clock import Clock
from gremlins.errors import GremlinsError
from gremlins.fleet.beads.attempts import Attempt, Ending, Episode, Settlement, Work, due
from gremlins.fleet.beads.store.interface import EDITED, BeadStore, ChangeAttempt, Event, Notice, StoreChange
from gremlins.fleet.dispatch import plan
from gremlins.fleet.dispatch.admit import Standing, backs_off, waits_for_code
from gremlins.fleet.dispatch.breaker import WINDOW
from gremlins.fleet.dispatch.judge import End, Judgement, Kill, Land, Reattach, judge, never_started
from gremlins.fleet.dispatch.observation import (
    Fleet,
    LandingBusy,
    LandingRefused,
    Missing,
    Observation,
    SpawnFailed,
    SpawnOrder,
)
from gremlins.fleet.dispatch.policy import Policy
from gremlins.fleet.dispatch.world import World, world_of
from gremlins.retry import exponential

PlannedStart = tuple[plan.Spawn, SpawnOrder | None]
"""A spawn, with the order for a new gremlin."""


@dataclass(frozen=True)
class LoopEvent:
    """Something the loop did, for display."""

    kind: str
    bead: str
    text: str


class RefusedLanding(NamedTuple):
    """A landing that was refused: the state of branch, tree and work, how often, and when."""

    state: object
    times: int
    at: float


class BackingOff(NamedTuple):
    """A bead that backs off: its generation, and from when until when."""

    generation: int
    since: float
    until: float


@dataclass
class TickReport:
    """Results of a tick, and when the next is due."""

    spawned: list[tuple[str, str]] = field(default_factory=list)
    """(bead, gremlin), including rescues and re-attachments."""
    settled: list[tuple[Attempt, Settlement]] = field(default_factory=list)
    moved: list[Notice] = field(default_factory=list)
    """Notices of beads that were closed, failed or held."""
    denied: dict[str, Standing] = field(default_factory=dict)
    episodes: tuple[Episode, ...] = ()
    missing: Missing | None = None
    bad: tuple[str, ...] = ()
    watched: tuple[str, ...] = ()
    """Gremlins at work, whose end starts the next tick at once."""
    now: float = 0.0
    next_due: float | None = None


@dataclass
class Dispatcher:
    """Runs ticks for one project. Keeps no state that the next tick needs."""

    store: BeadStore
    fleet: Fleet
    clock: Clock
    project: str
    policy: Callable[[], Policy]
    task: Callable[[str], tuple[str, str]]
    """Returns title and task text of a bead."""
    tell: Callable[[Notice], None] = lambda notice: None
    say: Callable[[LoopEvent], None] = lambda event: None
    claiming: Callable[[], AbstractContextManager[None]] = nullcontext
    """The lock for claims."""
    draining: Callable[[], bool] = lambda: False
    _asked: set[str] = field(default_factory=set)
    """Attempts whose process was asked to end."""
    _refused: dict[str, RefusedLanding] = field(default_factory=dict)
    """The latest refusals to land, by attempt."""
    _waiting: dict[str, BackingOff] = field(default_factory=dict)
    """Beads that back off, so that ticks read them again only when they are due or have changed."""
    _waiting_under: Policy | None = None
    _recent: tuple[int, tuple[Attempt, ...]] | None = None
    """The latest settlement, and what was settled recently by then."""
    _next_deferred: float | None = None

    def tick(self, *, everything: bool = False) -> TickReport:
        """Do everything that is due. `everything`: report where each bead stands, not only those looked at."""
        report = TickReport(now=self._now())
        policy = self.policy()
        self._settle(policy, report)
        self._breakers(policy, report)
        world, works = self._look(policy, report, everything=everything)
        moved = [self._commit(plan.transition(work, world), report) for work in works]
        if any(moved):
            world, works = self._look(policy, report, everything=everything)
        self._spawn(policy, report, world, works, everything=everything)
        self._tell(report)
        return report

    def _settle(self, policy: Policy, report: TickReport) -> None:
        view = self.store.under_way(self.project)
        report.bad = view.bad
        for work in view.works:
            attempt = work.unsettled
            if attempt is not None:
                seen = self.fleet.observe(attempt.gremlin_id)
                self._note_spawned(attempt, seen, report.now)
                self._follow(work, attempt, seen, judge(attempt, seen, report.now, policy), policy, report)

    def _note_spawned(self, attempt: Attempt, seen: Observation | None, now: float) -> None:
        """Record a spawn of an earlier loop that died before it recorded it."""
        if attempt.spawned_at is None and seen is not None and not never_started(attempt, seen):
            began = attempt.claimed_at if seen.age_seconds is None else now - seen.age_seconds
            self.store.commit(ChangeAttempt(attempt, replace(attempt, spawned_at=began)))

    def _follow(
        self,
        work: Work,
        attempt: Attempt,
        seen: Observation | None,
        judgement: Judgement,
        policy: Policy,
        report: TickReport,
    ) -> None:
        """Apply the judgement on one attempt."""
        end = plan.settlement_of(work, judgement, report.now)
        if end is not None and not end.failed and seen is not None and self._was_edited(work, seen):
            reason = plan.edited_meanwhile(work, attempt, seen)
            self._commit(plan.hold_done(work, "edited", reason, report.now), report)
            return
        if end is not None and end.failure in ("task", "permanent") and seen is not None and seen.caught_up:
            end = plan.left_to_a_person(end)
        if isinstance(judgement, Reattach) and work.done_and == "to_land":  # an earlier loop died in between
            self._commit(plan.catching_up(work, attempt, "", report.now), report)
        if isinstance(judgement, Land):
            end = judgement.settlement if work.terminal else self._land(work, attempt, judgement, policy, report)
            if end is None:
                return
        if end is not None:
            if self._commit(plan.settle_changes(work, attempt, end), report):
                report.settled.append((attempt, end))
        elif isinstance(judgement, End):
            event = Event(self.project, work.id, report.now, "ending", judgement.reason)
            ending = replace(attempt, ending=Ending(judgement.reason, report.now))
            if self._commit((ChangeAttempt(attempt, ending), event), report):
                self._terminate(attempt, judgement.reason)
        elif isinstance(judgement, Kill):
            self.fleet.kill(attempt.gremlin_id)
        elif attempt.ending is not None and attempt.key not in self._asked:
            self._terminate(attempt, attempt.ending.reason)  # an earlier loop may have died before it sent the signal

    def _was_edited(self, work: Work, seen: Observation) -> bool:
        """True if the bead's text is not the one its gremlin has, and no remarks of a person have followed."""
        if work.status != "in_progress" or seen.task is None:
            return False
        with suppress(GremlinsError):
            if self.task(work.id)[1] == seen.task:
                return False
            edits = (e.at for e in self.store.events(self.project, work.id) if e.kind == EDITED)
            return seen.revised_at is None or seen.revised_at < max(edits, default=0.0)
        return False  # its text cannot be read

    def _terminate(self, attempt: Attempt, reason: str) -> None:
        self._asked.add(attempt.key)
        self.fleet.terminate(attempt.gremlin_id, reason)

    def _land(
        self, work: Work, attempt: Attempt, judgement: Land, policy: Policy, report: TickReport
    ) -> Settlement | None:
        """Land finished work. None: another process is at it, or the tree does not allow it: the bead is held.

        After a refusal it is tried again once branch, tree or work have changed, after a backoff (a lock, a full disk,
        an ignored file show in none of them), and by another loop.
        """
        state, before = self.fleet.landing_state(attempt.gremlin_id), self._refused.get(attempt.key)
        times = before.times if before is not None and before.state == state else 0
        wait = exponential(times, initial=policy.backoff_initial, maximum=policy.backoff_max) if times else 0.0
        if before is not None and work.done_and == "to_land" and not due(before.at + wait, before.at, report.now):
            return None
        try:
            text = self.fleet.land(attempt.gremlin_id)
        except LandingBusy:
            return None
        except LandingRefused as error:
            if error.conflict and not self.draining() and self.fleet.catch_up(attempt.gremlin_id):
                self._commit(plan.catching_up(work, attempt, str(error), report.now), report)
                return None
            self._refused[attempt.key] = RefusedLanding(state, times + 1, report.now)
            reason = plan.refused_landing(attempt, str(error))
            self._commit(plan.hold_done(work, "to_land", reason, report.now), report)
            return None
        self._refused.pop(attempt.key, None)
        return replace(judgement.settlement, reason=text)

    def _breakers(self, policy: Policy, report: TickReport) -> None:
        episodes = self.store.episodes(self.project)
        seq = self.store.last_seq(self.project)
        if self._recent is None or self._recent[0] != seq:
            self._recent = (seq, self.store.recent(self.project, report.now - WINDOW))
        recent = self._recent[1]
        probes = self._probes(episodes)
        for changes in plan.breaker_changes(episodes, recent, probes, report.now, policy):
            self._commit(changes, report)

    def _probes(self, episodes: Iterable[Episode]) -> dict[str, tuple[Attempt, Observation | None]]:
        """Probes under way. One that was claimed, never started and then held or blocked is not."""
        named = {e.probe for e in episodes if e.open and e.probe is not None}
        found = {}
        if named:
            beads = sorted({key.rpartition("#")[0] for key in named})
            for work in self.store.works(self.project, beads).works:
                for attempt in work.attempts:
                    if attempt.key in named:
                        seen = self.fleet.observe(attempt.gremlin_id)
                        if not plan.is_kept_from_starting(work, attempt, seen):
                            found[attempt.key] = (attempt, seen)
        return found

    def _look(self, policy: Policy, report: TickReport, *, everything: bool) -> tuple[World, tuple[Work, ...]]:
        """The world now, and the beads to decide on."""
        now, fresh, waiting = self._now(), 0, 0
        without = {} if everything else self._backing_off(policy, now)
        while fresh < policy.max_running + waiting:  # those that wait for code keep no other from being looked at
            fresh = policy.max_running + waiting
            view = self.store.view(self.project, now, fresh=fresh, without=without)
            works = view.works
            if everything:
                known = {work.id for work in works}
                works += tuple(work for work in self.store.works(self.project).works if work.id not in known)
            since = min((a.settled.seq for w in works for a in w.current if a.settled), default=0)
            world = world_of(self.store, self.fleet, self.project, policy, works, now, since)
            waiting = sum(not work.attempts and waits_for_code(work, world) is not None for work in view.works)
        report.bad = tuple(dict.fromkeys((*report.bad, *view.bad)))
        self._next_deferred = view.next_deferred
        return world, works

    def _backing_off(self, policy: Policy, now: float) -> dict[str, int]:
        """The generations of the beads that still back off, as far as this loop knows."""
        if policy != self._waiting_under:
            self._waiting, self._waiting_under = {}, policy
        self._waiting = {i: w for i, w in self._waiting.items() if w.since <= now and not due(w.until, w.since, now)}
        return {bead_id: waiting.generation for bead_id, waiting in self._waiting.items()}

    def _remember_waiting(self, works: Iterable[Work], denied: Mapping[str, Standing], world: World) -> None:
        for work in works:
            where = backs_off(work, world) if work.id in denied and work.unsettled is None else None
            if where is not None and where.until is not None:
                self._waiting[work.id] = BackingOff(work.generation, world.now, where.until)
            else:
                self._waiting.pop(work.id, None)

    def _spawn(
        self, policy: Policy, report: TickReport, world: World, works: tuple[Work, ...], *, everything: bool
    ) -> None:
        planned, denied = plan.spawns(works, world)
        if planned and not self.draining():
            probing = any(spawn.admitted.probe_for for spawn in planned)
            report.missing = missing = self.fleet.preflight(fresh=probing)
            if missing is not None:
                denied |= {s.work.id: Standing("ready", missing.reason, "it waits for that") for s in planned}
            else:
                with self.claiming():
                    world, works = self._look(policy, report, everything=everything)
                    orders, denied = self._plan(works, world, report)
                    self._start_all(orders, report)
        report.denied = {i: d for i, d in denied.items() if d.bucket not in ("closed", "failed")}
        report.episodes = world.episodes
        at_work = (a.gremlin_id for w in works if (a := w.unsettled) and _is_alive(world.seen.get(a.gremlin_id)))
        report.watched = (*at_work, *(gremlin for _, gremlin in report.spawned))
        self._remember_waiting(works, denied, world)
        moments = [self._next_deferred, *(waiting.until for waiting in self._waiting.values())]
        later = min((moment for moment in moments if moment is not None), default=None)
        report.next_due = plan.next_due(works, report.denied, world, later)
        if report.spawned:
            report.next_due = min(report.next_due or world.now + policy.interval, world.now + policy.interval)

    def _plan(
        self, works: Iterable[Work], world: World, report: TickReport
    ) -> tuple[list[PlannedStart], dict[str, Standing]]:
        """The spawns of this tick. Beads whose text cannot be read take no slot."""
        unreadable: dict[str, Standing] = {}
        while True:
            planned, denied = plan.spawns((work for work in works if work.id not in unreadable), world)
            orders: list[PlannedStart] = []
            for spawn in planned:
                try:
                    orders.append((spawn, self._order(spawn.attempt)))
                except GremlinsError as error:
                    unreadable[spawn.work.id] = Standing(
                        "held", error.message, "a person looks at it (`gremlins doctor`)"
                    )
                    report.bad += (error.message,)
            if len(orders) == len(planned):
                return orders, denied | unreadable

    def _start_all(self, orders: Sequence[PlannedStart], report: TickReport) -> None:
        for spawn, order in orders:
            if self.draining():
                return
            if spawn.changes and not self._commit(spawn.changes, report):
                continue  # the bead was changed meanwhile
            self._start(spawn, order, report)

    def _order(self, attempt: Attempt) -> SpawnOrder | None:
        """The order for a new gremlin; None if an existing one is rescued. Raises GremlinsError."""
        if attempt.kind != "fresh" or attempt.spawns != 1 or self.fleet.observe(attempt.gremlin_id) is not None:
            return None
        title, text = self.task(attempt.bead_id)
        needed = self.store.done_by(self.project, [attempt.bead_id]).get(attempt.bead_id, ())
        start = self.fleet.start_point(needed)
        if start.conflict is not None:
            raise GremlinsError(start.conflict)
        return SpawnOrder(
            attempt.gremlin_id, attempt.bead_id, attempt.number, attempt.pipeline, attempt.mode, title, text, start
        )

    def _start(self, spawn: plan.Spawn, order: SpawnOrder | None, report: TickReport) -> None:
        """Start the process of a committed attempt."""
        attempt = spawn.attempt
        try:
            if order is not None:
                self.fleet.spawn(order)
            else:
                self.fleet.rescue(attempt.gremlin_id)
        except SpawnFailed as error:
            self._could_not_start(spawn, error, report)
            return
        self.store.commit(ChangeAttempt(attempt, replace(attempt, spawned_at=self._now())))
        report.spawned.append((attempt.bead_id, attempt.gremlin_id))
        words = {"fresh": "started", "rescue": "rescued", "reattach": "re-attached", "respawn": "started"}
        text = f"gremlin {attempt.gremlin_id} {words[spawn.admitted.how]} (attempt {attempt.number})"
        self.say(LoopEvent("spawned", attempt.bead_id, text))

    def _could_not_start(self, spawn: plan.Spawn, error: SpawnFailed, report: TickReport) -> None:
        work = self.store.work(self.project, spawn.work.id)
        attempt = work.unsettled if work is not None else None
        if work is not None and attempt is not None and attempt.key == spawn.attempt.key:
            end = Settlement(self._now(), error.failure, f"could not be started: {error.reason}")
            if self._commit(plan.settle_changes(work, attempt, end), report):
                report.settled.append((attempt, end))

    def _commit(self, changes: tuple[StoreChange, ...], report: TickReport) -> bool:
        """Commit changes and report them. False if a row has changed meanwhile; nothing is written then."""
        if not changes or not self.store.commit(*changes):
            return False
        events = [change for change in changes if isinstance(change, Event)]
        if events and events[-1].kind not in ("claimed", "reattached"):  # of these, the start of the process is said
            self.say(LoopEvent(events[-1].kind, events[-1].bead_id, events[-1].text))
        for change in changes:
            if isinstance(change, Notice) and "bead" in change.payload:
                report.moved.append(change)
            elif isinstance(change, Notice):
                self.say(LoopEvent(change.kind, "", str(change.payload["reason"])))
        return True

    def _tell(self, report: TickReport) -> None:
        for notice in self.store.take_notices(self.project):
            payload = dict(notice.payload)
            with suppress(GremlinsError):  # an unreadable text does not hold up the notice
                payload |= {"title": self.task(str(payload["bead"]))[0]} if "bead" in payload else {}
            self.tell(replace(notice, payload=payload))

    def _now(self) -> float:
        return self.clock.now().timestamp()


def _is_alive(seen: Observation | None) -> bool:
    return seen is not None and seen.alive
