"""A `Fleet` in memory: gremlins do what a test tells them, and record calls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from gremlins.clock import FakeClock
from gremlins.fleet.dispatch.observation import (
    LandingRefused,
    Missing,
    Observation,
    ObservedState,
    SpawnFailed,
    SpawnOrder,
)
from gremlins.fleet.dispatch.spending import Spending
from gremlins.fleet.start_point import StartPoint
from gremlins.fleet.times import day_of
from gremlins.outcome import FailureClass
from gremlins.records.gremlin import Evidence
from gremlins.records.totals import Day

COMMITS = Evidence("commits", "a" * 40, "b" * 40, holds=True)


@dataclass
class FakeGremlin:
    """One gremlin: its record and its process."""

    id: str
    bead: str
    state: ObservedState = "running"
    alive: bool = True
    spawn: int = 1
    started_at: float = 0.0
    ended_at: float | None = None
    failure: FailureClass | None = None
    reason: str = ""
    retry_at: float | None = None
    bail: str | None = None
    proof: Evidence | None = None
    replies: int = 0
    cost_usd: float = 0.0
    started_ticks: float = 0.0
    rebooted: bool = False
    stubborn: bool = False
    stop_wanted: bool = False
    outstanding: bool = False
    killed: int = 0
    land_refused: str | None = None
    task: str | None = None
    revised_at: float | None = None
    conflicts: int = 0
    """Landings that will meet a conflict."""
    caught_up: int = 0


@dataclass
class FakeFleet:
    """The `Fleet` protocol over fake gremlins."""

    clock: FakeClock
    table: dict[str, FakeGremlin] = field(default_factory=dict)
    starts: Counter[str] = field(default_factory=Counter)
    """Number of processes started, by bead."""
    ready: Missing | None = None
    credential: str = "claude:key-1"
    start_error: SpawnFailed | None = None
    on_start: Callable[[FakeGremlin], None] = lambda gremlin: None
    watch: Callable[[str, str], None] = lambda verb, who: None
    """Called before each call acts; may raise, to crash the loop there."""
    after: Callable[[str, str], None] = lambda verb, who: None
    """Called after each call has acted."""
    branches_conflict: bool = False
    """Several branches cannot be merged."""
    dirty: bool = False
    """The tree has uncommitted changes: nothing lands."""
    landings: Counter[str] = field(default_factory=Counter)
    """Tries to land, by gremlin."""
    preflights: int = 0
    first_call: float = 1.0
    orders: dict[str, SpawnOrder] = field(default_factory=dict)

    def now(self) -> float:
        return self.clock.now().timestamp()

    def observe(self, gremlin_id: str) -> Observation | None:
        gremlin = self.table.get(gremlin_id)
        if gremlin is None:
            return None
        return Observation(
            state=gremlin.state,
            spawn=gremlin.spawn,
            alive=gremlin.alive,
            reason=gremlin.reason,
            failure=gremlin.failure,
            retry_at=gremlin.retry_at,
            bail=gremlin.bail,
            proof=gremlin.proof,
            ended_at=gremlin.ended_at,
            age_seconds=self.clock.monotonic() - gremlin.started_ticks if gremlin.alive else None,
            replies=gremlin.replies,
            cost_usd=gremlin.cost_usd,
            task=gremlin.task,
            revised_at=gremlin.revised_at,
            caught_up=gremlin.caught_up,
            rebooted=gremlin.rebooted,
        )

    def scopes(self) -> tuple[str, ...]:
        return (self.credential,)

    def start_point(self, gremlin_ids: tuple[str, ...]) -> StartPoint:
        """On the branches of those that have not landed."""
        there = (self.table[gremlin_id] for gremlin_id in gremlin_ids if gremlin_id in self.table)
        unlanded = tuple(gremlin.id for gremlin in there if gremlin.state == "finished")
        conflict = "they touch one line" if self.branches_conflict and len(unlanded) > 1 else None
        return StartPoint("+".join(unlanded) or None, unlanded, conflict)

    def spending(self) -> Spending:
        """A gremlin's cost is of the day of its end."""
        today = day_of(self.now())
        spent = sum(g.cost_usd for g in self.table.values() if g.ended_at is None or day_of(g.ended_at) == today)
        return Spending(Day(spent), cost={g.id: g.cost_usd for g in self.table.values()})

    def first_call_usd(self) -> float:
        return self.first_call

    def fault(self) -> None:
        return None

    def preflight(self, *, fresh: bool) -> Missing | None:
        self.preflights += 1
        return self.ready

    def spawn(self, order: SpawnOrder) -> None:
        self.watch("spawn", order.gremlin_id)
        if order.gremlin_id not in self.table:
            if self.start_error is not None:
                raise self.start_error
            self.orders[order.gremlin_id] = order
            gremlin = FakeGremlin(order.gremlin_id, order.bead_id, task=order.task)
            self.table[order.gremlin_id] = gremlin
            self._begin(gremlin)
        self.after("spawn", order.gremlin_id)

    def rescue(self, gremlin_id: str) -> None:
        self.watch("rescue", gremlin_id)
        gremlin = self.table.get(gremlin_id)
        if gremlin is None:
            raise SpawnFailed("no such gremlin")
        if not gremlin.alive:
            if gremlin.state in ("finished", "landed"):
                raise SpawnFailed("there is nothing to rescue")
            if self.start_error is not None:
                raise self.start_error
            gremlin.spawn += 1
            self._begin(gremlin)
        self.after("rescue", gremlin_id)

    def terminate(self, gremlin_id: str, reason: str) -> None:
        self.watch("terminate", gremlin_id)
        gremlin = self.table[gremlin_id]
        gremlin.stop_wanted = True
        if gremlin.alive:
            gremlin.state = "stopping"
            if not gremlin.stubborn:
                self.end(gremlin, "stopped")
        self.after("terminate", gremlin_id)

    def kill(self, gremlin_id: str) -> None:
        self.watch("kill", gremlin_id)
        gremlin = self.table[gremlin_id]
        gremlin.killed += 1
        if gremlin.alive:
            self.end(gremlin, "detached" if gremlin.outstanding else "dead", reason="killed")

    def landing_state(self, gremlin_id: str) -> object:
        return self.dirty, self.table[gremlin_id].conflicts

    def land(self, gremlin_id: str) -> str:
        self.watch("land", gremlin_id)
        gremlin = self.table[gremlin_id]
        self.landings[gremlin_id] += 1
        refused = "uncommitted changes" if self.dirty else gremlin.land_refused
        if refused is not None:
            raise LandingRefused(refused)
        if gremlin.conflicts:
            raise LandingRefused("it conflicts", conflict=True)
        gremlin.state = "landed"
        self.after("land", gremlin_id)
        return f"landed gremlin {gremlin_id}"

    def catch_up(self, gremlin_id: str) -> bool:
        self.watch("catch_up", gremlin_id)
        gremlin = self.table[gremlin_id]
        if gremlin.caught_up >= 2:
            return False
        gremlin.caught_up, gremlin.conflicts = gremlin.caught_up + 1, gremlin.conflicts - 1
        self.end(gremlin, "unborn")
        self.after("catch_up", gremlin_id)
        return True

    def wait(self, gremlin_ids: Collection[str], seconds: float) -> None:
        self.clock.sleep(seconds)

    def _begin(self, gremlin: FakeGremlin) -> None:
        self.starts[gremlin.bead] += 1
        gremlin.started_at, gremlin.ended_at = self.now(), None
        gremlin.started_ticks = self.clock.monotonic()
        gremlin.alive, gremlin.rebooted = True, False
        gremlin.failure = gremlin.bail = gremlin.retry_at = gremlin.proof = None
        gremlin.reason = ""
        if gremlin.stop_wanted and gremlin.outstanding:  # an unsettled stop is settled first
            gremlin.outstanding = False
            self.end(gremlin, "stopped")
            return
        gremlin.stop_wanted = False
        gremlin.state = "parked" if gremlin.outstanding else "running"
        self.on_start(gremlin)

    def end(
        self,
        gremlin: FakeGremlin,
        state: ObservedState,
        *,
        failure: FailureClass | None = None,
        reason: str = "",
        retry_at: float | None = None,
        proof: Evidence | None = None,
        bail: str | None = None,
    ) -> None:
        """End the process with this record."""
        assert state not in ("running", "parked", "stalled", "stopping")
        gremlin.alive, gremlin.state, gremlin.ended_at = False, state, self.now()
        gremlin.failure, gremlin.reason, gremlin.retry_at = failure, reason, retry_at
        gremlin.proof, gremlin.bail = proof, bail
        if state in ("finished", "landed", "bailed", "stopped") or (state == "dead" and failure is not None):
            gremlin.outstanding = False

    def finish(self, gremlin: FakeGremlin, *, cost: float = 0.01) -> None:
        gremlin.replies += 1
        gremlin.cost_usd += cost
        self.end(gremlin, "finished", proof=COMMITS)

    def fail(self, gremlin: FakeGremlin, failure: FailureClass, reason: str = "it went wrong", **more: float) -> None:
        self.end(gremlin, "dead", failure=failure, reason=reason, retry_at=more.get("retry_at"))

    def park(self, gremlin: FakeGremlin) -> None:
        gremlin.state, gremlin.outstanding = "parked", True

    def of(self, bead: str) -> FakeGremlin:
        """The latest gremlin of a bead."""
        return [g for g in self.table.values() if g.bead == bead][-1]

    def living(self, bead: str) -> list[FakeGremlin]:
        return [g for g in self.table.values() if g.bead == bead and g.alive]
