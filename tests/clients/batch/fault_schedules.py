"""Random schedules of faults, and runs through them: several gremlins on one account, whose processes are killed,
stopped, put to sleep and rescued, on a network and a disk that fail, under clocks that jump.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from gremlins.clients.base import Answer, CallUnsuccessful, Detach, Wait
from gremlins.clients.batch.engine import UNKNOWN_SENDS
from gremlins.clients.next_step import AskLive
from gremlins.clock import FakeClock
from gremlins.paths import Home
from gremlins.records.calls import CallRecord, Ledger
from gremlins.records.claims import adoption_lock, claimed_batches
from gremlins.simulator import Simulator
from tests.clients.batch_gremlin import PROMPT, BatchGremlin, ProcessFaults
from tests.kill_points import Killed

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
KEYS = ("sk-ant-key-of-then-00", "sk-ant-rotated-key-01")
MOST_STEPS = 4000
"""Steps of all gremlins of one schedule; more of them mean an endless loop."""

LOST: list[dict[str, Any]] = [
    {"do": "drop", "when": "before"},
    {"do": "drop", "when": "after"},
    {"do": "error", "status": 500, "when": "before"},
    {"do": "error", "status": 500, "when": "after"},
    {"do": "error", "status": 529, "when": "after"},
    {"do": "error", "status": 503, "retry_after": 90},
    {"do": "error", "status": 429},
    {"do": "error", "status": 429, "retry_after": 700},
    {"do": "garbage", "when": "after"},
    {"do": "truncate"},
    {"do": "body", "when": "after"},
]
GONE: list[dict[str, Any]] = [{"do": "error", "status": 404}, {"do": "error", "status": 410}]
ERROR_DOCUMENT = '{"type": "error", "error": {"type": "not_found_error", "message": "no such page"}}'
FAULTS: dict[str, list[dict[str, Any]]] = {
    "create": [*LOST, {"do": "late", "seconds": 30.0}, {"do": "late", "seconds": 55.0}, {"do": "error", "status": 401}],
    "list": [*LOST, {"do": "error", "status": 403}, {"do": "error", "status": 404}, {"do": "empty"}],
    "retrieve": [*LOST, *GONE],
    "results": [
        *LOST,
        *GONE,
        {"do": "error", "status": 400},
        {"do": "body", "body": ERROR_DOCUMENT},
        *({"do": kind} for kind in ("duplicate", "extra")),
    ],
    "cancel": LOST,
    "outcome": [
        *({"do": "errored", "error": f"{kind}_error"} for kind in ("overloaded", "api", "timeout", "rate_limit")),
        {"do": "errored", "error": "invalid_request_error"},
        {"do": "errored", "error": "billing_error"},
        {"do": "errored", "error": "of_next_year_error"},
        *({"do": kind} for kind in ("expired", "canceled", "late_success", "unknown", "max_tokens", "refusal")),
        {"do": "pause_turn"},
        {"do": "no_text"},
        {"do": "stop_reason"},
        {"do": "stop_reason", "stop_reason": "tool_use"},
    ],
}


@dataclass(frozen=True)
class ApiFault:
    """A fault of the API or of the way to it."""

    on: str
    fault: dict[str, Any]
    times: int
    skip: int


@dataclass(frozen=True)
class End:
    """The end of one process of a gremlin, and the start of the next."""

    how: str
    step: int
    long: int
    """Writes for which a full disk stays full."""
    woken: bool
    """By itself, from the waiter; else by a rescue."""
    key: int


@dataclass(frozen=True)
class Jump:
    """Time that does not go as it should, after so many steps of all. The server's own clock is taken to be right."""

    after: int
    how: str
    seconds: float


@dataclass(frozen=True)
class Schedule:
    lives: tuple[tuple[End, ...], ...]
    """For each gremlin, the ends of its processes; the last one lives on."""
    api_faults: tuple[ApiFault, ...]
    jumps: tuple[Jump, ...]
    latency: float
    gateway: dict[str, Any]
    """Options of the simulator that make it another server than Anthropic's."""
    homes: int
    order: tuple[int, ...]
    """Indices of the gremlins in the order of their steps, repeated."""


ENDS = st.builds(
    End,
    how=st.sampled_from(["kill", "kill", "kill", "full disk", "stop"]),
    step=st.integers(1, 36),
    long=st.integers(1, 4),
    woken=st.booleans(),
    key=st.sampled_from([0, 0, 0, 1]),
)
API_FAULTS = st.sampled_from([(on, fault) for on, faults in FAULTS.items() for fault in faults]).flatmap(
    lambda pair: st.builds(
        ApiFault, on=st.just(pair[0]), fault=st.just(pair[1]), times=st.integers(1, 3), skip=st.integers(0, 3)
    )
)
JUMPS = st.builds(
    Jump,
    after=st.integers(0, 60),
    how=st.sampled_from(["our clock is set", "the machine sleeps"]),
    seconds=st.sampled_from([-172_800.0, -3600.0, -61.0, 61.0, 3600.0, 90_000.0]),
)
SCHEDULES = st.builds(
    Schedule,
    lives=st.lists(st.lists(ENDS, max_size=4).map(tuple), min_size=1, max_size=3).map(tuple),
    api_faults=st.lists(API_FAULTS, max_size=5).map(tuple),
    jumps=st.lists(JUMPS, max_size=2).map(tuple),
    latency=st.sampled_from([0.0, 15.0, 60.0, 900.0]),
    gateway=st.fixed_dictionaries(
        {
            "date_offset": st.sampled_from([0.0, 0.0, -300.0, 300.0]),
            "batch_ids": st.sampled_from(["api", "base64"]),
            "more_counts": st.sampled_from([{}, {"paused": 3}]),
        }
    ),
    homes=st.sampled_from([1, 1, 2]),
    order=st.lists(st.integers(0, 2), min_size=1, max_size=12).map(tuple),
)


@dataclass
class Actor:
    """One gremlin: the process it is now, and how that one and the next will end."""

    gremlin: BatchGremlin
    ends: list[End]
    process: Iterator[Wait | None] | None = None
    due: float = 0.0
    over: str = ""

    def born(self, end: End | None) -> None:
        """The next process, which ends as said."""
        faults = ProcessFaults()
        if end is not None and end.how == "full disk":
            faults.disk_full_at = range(end.step, end.step + 2 * end.long)
        elif end is not None:
            faults.at = end.step
        woken = end is None or end.woken
        self.gremlin = (self.gremlin.woken if woken else self.gremlin.again)(faults=faults)
        self.process = _life(self.gremlin)


def _life(gremlin: BatchGremlin) -> Iterator[Wait | None]:
    """The engine's own loop, one step at a time, so that the steps of others come in between."""
    engine = gremlin.engine()
    while True:
        step = engine.step(PROMPT, label="plan", max_tokens=None, revision=0)
        if isinstance(step, Answer | AskLive):
            return
        yield step


def _stopping(gremlin: BatchGremlin) -> Iterator[Wait | None]:
    """The settling of a stop, one step at a time."""
    engine, looks = gremlin.engine(), 0
    while open_calls := [record for record in gremlin.records if not record.settled]:
        for record in open_calls:
            if engine.settle_stop(record) is not None:
                looks += 1
                yield Wait(gremlin.clock.now().fromtimestamp(gremlin.clock.now().timestamp() + 1 + looks, UTC))


@dataclass
class ScheduleRun:
    """One run through a schedule."""

    folder: Path
    simulator: Simulator
    clock: FakeClock
    http: Any
    schedule: Schedule
    steps: int = 0
    actors: list[Actor] = field(default_factory=list)

    def run(self) -> None:
        """The whole schedule, and then as long without any fault as it takes to come to an end."""
        schedule = self.schedule
        self.simulator.change(
            **schedule.gateway, latency=schedule.latency, keys=dict.fromkeys(KEYS, f"w{self.folder.name}")
        )
        for injected in schedule.api_faults:
            self.simulator.fault(injected.on, times=injected.times, skip=injected.skip, **injected.fault)
        self.actors = [self._actor(number, list(ends)) for number, ends in enumerate(schedule.lives)]
        while self._turn():
            pass
        self.simulator.faults.clear()
        for actor in self.actors:
            self._to_the_end(actor)

    def _actor(self, number: int, ends: list[End]) -> Actor:
        home = Home(self.folder / f"home{number % self.schedule.homes}")
        name = f"g{number}"
        more = {"adopting": lambda: adoption_lock(home, self.clock)}
        gremlin = BatchGremlin(
            home.gremlins, self.simulator, self.clock, key=KEYS[0], gremlin_id=name, more=more, http=self.http
        )
        gremlin = replace(gremlin, claimed=lambda _since: claimed_batches(home, besides=name, since=LONG_AGO))
        actor = Actor(gremlin, ends)
        actor.born(ends[0] if ends else None)
        return actor

    def _turn(self) -> bool:
        """One step of one gremlin, or the time until the next. False when all are over."""
        living = [actor for actor in self.actors if not actor.over]
        if not living:
            return False
        ready = [actor for actor in living if actor.due <= self.clock.ticks]
        if not ready:
            self.clock.advance(min(actor.due for actor in living) - self.clock.ticks + 0.001)
            return True
        order = self.schedule.order
        self._step(ready[order[self.steps % len(order)] % len(ready)])
        return True

    def _step(self, actor: Actor) -> None:
        self.steps += 1
        assert self.steps < MOST_STEPS, f"it goes round in circles: {actor.gremlin.lines[-6:]}"
        for jump in self.schedule.jumps:
            if jump.after == self.steps:
                self._jump(jump)
        assert actor.process is not None
        try:
            wait = next(actor.process)
        except StopIteration:
            actor.over = "done"
        except CallUnsuccessful as error:
            actor.over = f"{error.outcome}"
        except (Killed, Detach, OSError) as error:
            self._next_life(actor, error)
        else:
            left = (wait.until - self.clock.now()).total_seconds() if wait else 0.0
            actor.due = self.clock.ticks + max(0.0, left)

    def _jump(self, jump: Jump) -> None:
        match jump.how:
            case "our clock is set":
                self.clock.jump(jump.seconds)
                self.simulator.advance(-jump.seconds)
            case _:
                self.clock.advance(abs(jump.seconds))

    def _next_life(self, actor: Actor, error: BaseException) -> None:
        """Start the next process of a dead one, or a stop."""
        end = actor.ends.pop(0) if actor.ends else None
        if isinstance(error, Detach) and end is None:
            actor.over = f"detached: {error}"
            return
        actor.gremlin = replace(actor.gremlin, key=KEYS[end.key if end else 0])
        actor.born(actor.ends[0] if actor.ends else None)
        if end is not None and end.how == "stop":
            actor.process = _stopping(actor.gremlin)
        actor.due = 0.0

    def _to_the_end(self, actor: Actor) -> None:
        """A last rescue on a calm day, with the key that fits."""
        for key in (*KEYS, *KEYS):
            actor.gremlin = replace(actor.gremlin, key=key)
            actor.over, actor.ends = "", []
            actor.born(End("", 0, 0, woken=False, key=0))
            actor.gremlin.faults.at = None
            while self._turn():
                pass
            if not actor.over.startswith("detached"):
                return
        raise AssertionError(f"no key brings it back: {actor.over}")

    # ── what must be true ─────────────────────────────────────────────────────────────────────────────────────────

    def check(self) -> None:
        mine = Counter(r.custom_id for b in self.simulator.batches for r in b.requests)
        home: dict[str, set[str]] = {}
        for batch in self.simulator.batches:
            for request in batch.requests:
                home.setdefault(request.custom_id, set()).add(batch.id)
        for actor in self.actors:
            for record in actor.gremlin.records:
                self._check_record(record, mine[record.custom_id], home.get(record.custom_id, set()))
            self._check_books(actor.gremlin)

    def _check_record(self, record: CallRecord, batches: int, ids: set[str]) -> None:
        """Every batch is on record, or one of the sends of unknown cost, of which there are a few. More than one is
        made only where a list showed nothing."""
        assert record.settled, f"{record.key} is still {record.status.state}"
        known = {waste.batch_id for waste in record.waste} | ({record.batch.batch_id} if record.batch else set())
        assert known <= ids, f"{record.key}: on the server {ids}, on record {known}"
        assert len(ids - known) <= record.unknown_sends, f"{record.key}: on the server {ids}, on record {known}"
        assert record.unknown_sends <= UNKNOWN_SENDS
        assert batches <= (UNKNOWN_SENDS if self._lists_nothing else 1), f"{record.key} was sent {batches} times"

    @property
    def _lists_nothing(self) -> bool:
        return any(injected.fault["do"] == "empty" for injected in self.schedule.api_faults)

    def _check_books(self, gremlin: BatchGremlin) -> None:
        total = Ledger(gremlin.paths).total()
        assert total.wasted_usd == 0 or self._lists_nothing
        if total.unpriced_calls or total.unknown_calls:
            assert total.total_usd <= gremlin.billed
        else:
            assert total.total_usd == gremlin.billed
        outcomes = [record.status.state for record in gremlin.records]
        assert len(outcomes) <= 16, outcomes
