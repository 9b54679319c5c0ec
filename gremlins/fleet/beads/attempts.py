"""Attempts at beads, breaker episodes, and the counters derived from them: records and pure functions.

Times are seconds since the epoch, UTC. Counters are never stored.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from gremlins.fleet.beads.bead import TERMINAL, Hold
from gremlins.outcome import FailureClass, SpendingCap
from gremlins.retry import bead_backoff

AttemptKind = Literal["fresh", "rescue", "adopted", "answered"]
"""fresh: a new gremlin. rescue: the loop rescued the last one. adopted: a person rescued it; never charged. answered:
a person answered its question; neither this attempt nor the one that asked is ever charged."""

BY_A_PERSON: frozenset[AttemptKind] = frozenset({"adopted", "answered"})

OWN_FAULT: frozenset[FailureClass] = frozenset({"task", "unknown"})
"""Always charged. `start` is charged too, except within an episode of the fleet's breaker."""

FLEET = "fleet"
"""The scope of the fleet's breaker. Every other scope names a credential."""

Cause = Literal["rate", "start", "config", "credit", "capacity"]

RESET = "reset by a person"

LONGEST_HOLD = 31 * 86400.0
"""Seconds. A provider's `retry_at` further away is cut to this."""


@dataclass(frozen=True)
class Ending:
    """The reason and time of the loop's request that an attempt's process ends."""

    reason: str
    at: float


@dataclass(frozen=True)
class Settlement:
    """The end of an attempt. `seq` numbers the settlements of a project, because the clock may jump."""

    at: float
    failure: FailureClass | None
    reason: str
    seq: int = 0
    exit_code: int | None = None
    retry_at: float | None = None
    cost_usd: float = 0.0
    cap: SpendingCap | None = None
    """For class credit: the person's cap that was reached. None means the provider refused."""

    @property
    def failed(self) -> bool:
        return self.failure is not None


@dataclass(frozen=True)
class Attempt:
    """One attempt at one bead, on disk before its process exists.

    `base_*` are the gremlin's figures when the latest spawn was decided. That spawn is pending while `spawned_at` is
    None and the gremlin's `spawn` does not exceed `base_spawn`.
    """

    project: str
    bead_id: str
    number: int
    epoch: int
    gremlin_id: str
    kind: AttemptKind
    pipeline: str
    mode: str | None
    scopes: tuple[str, ...]
    probe: bool
    expected_usd: float
    claimed_at: float
    spawns: int = 1
    spawned_at: float | None = None
    base_spawn: int = 0
    base_replies: int = 0
    base_parked: float = 0.0
    base_cost_usd: float = 0.0
    ending: Ending | None = None
    settled: Settlement | None = None

    @property
    def key(self) -> str:
        return f"{self.bead_id}#{self.number}"

    @property
    def began(self) -> float:
        """Start of its latest process; the claim if the start is not recorded."""
        return self.claimed_at if self.spawned_at is None else self.spawned_at

    @property
    def reattached(self) -> bool:
        """True once a second process was started for it."""
        return self.spawns > (0 if self.kind in BY_A_PERSON else 1)


@dataclass(frozen=True)
class Work:
    """A bead without its text, and all its attempts, oldest first."""

    project: str
    id: str
    status: str
    generation: int
    epoch: int
    priority: int
    created_at: str
    n: int = 0
    """Insertion order: sorts beads made in the same second."""
    attempts: tuple[Attempt, ...] = ()
    blocked: bool = False
    defer_at: float | None = None
    hold: Hold | None = None
    assignee: str = ""

    @property
    def terminal(self) -> bool:
        return self.status in TERMINAL

    @property
    def done_and(self) -> Literal["to_land", "edited"] | None:
        """The reason its finished work does not close it."""
        kind = self.hold.kind if self.hold is not None and self.unsettled is not None else None
        return kind if kind == "to_land" or kind == "edited" else None

    @property
    def current(self) -> tuple[Attempt, ...]:
        """The attempts of this retry epoch."""
        return tuple(a for a in self.attempts if a.epoch == self.epoch) if self.attempts else ()

    @property
    def latest(self) -> Attempt | None:
        return self.attempts[-1] if self.attempts else None

    @property
    def answered(self) -> frozenset[int]:
        """Numbers of the attempts that ended with a question which a person has answered."""
        return frozenset(a.number - 1 for a in self.attempts if a.kind == "answered")

    @property
    def unsettled(self) -> Attempt | None:
        return next((a for a in self.attempts if a.settled is None), None) if self.attempts else None

    @property
    def spawns(self) -> int:
        return sum(a.spawns for a in self.current)

    @property
    def order(self) -> tuple[int, str, int]:
        """Sort key: highest priority first, then oldest."""
        return (self.priority, self.created_at, self.n)


@dataclass(frozen=True)
class Episode:
    """A period during which a breaker is or was open. Sequence numbers are `Settlement.seq`."""

    project: str
    scope: str
    number: int
    cause: Cause
    reason: str
    since_seq: int
    opened_at: float
    level: int
    shut_at: float
    """Start of the current wait."""
    until: float
    probe: str | None = None
    closed_at: float | None = None
    closed_seq: int | None = None
    closed_why: str = ""
    version: int = 1

    @property
    def open(self) -> bool:
        return self.closed_at is None

    @property
    def probed_healthy(self) -> bool:
        """True if a probe closed it, not a person."""
        return self.closed_at is not None and self.closed_why != RESET

    def covers(self, attempt: Attempt) -> bool:
        """True for settlements of the fleet's episode, from the first failure that opened it."""
        if self.scope != FLEET or attempt.settled is None or attempt.settled.seq < self.since_seq:
            return False
        return self.closed_seq is None or attempt.settled.seq <= self.closed_seq


def is_charged(work: Work, attempt: Attempt, episodes: Iterable[Episode]) -> bool:
    """True if the attempt failed by the bead's own fault and counts towards `retry_cap`."""
    if attempt.settled is None or attempt.kind in BY_A_PERSON or attempt.probe or attempt.number in work.answered:
        return False
    if attempt.settled.failure == "start":
        return not any(episode.covers(attempt) for episode in episodes)
    return attempt.settled.failure in OWN_FAULT


def charged(work: Work, episodes: Iterable[Episode]) -> int:
    """Charged attempts of this epoch."""
    known = tuple(episodes)
    return sum(is_charged(work, attempt, known) for attempt in work.current)


def host_failures(work: Work) -> int:
    """Failures of class host in this epoch."""
    return sum(a.settled is not None and a.settled.failure == "host" for a in work.current)


def last_failure(work: Work) -> Attempt | None:
    """The latest settled attempt, if it failed."""
    latest = next((a for a in reversed(work.attempts) if a.settled is not None), None)
    return latest if latest is not None and latest.settled is not None and latest.settled.failed else None


def eligible_at(work: Work, *, initial: float, maximum: float) -> float | None:
    """End of the backoff after the latest failure of this epoch. None if there is none."""
    failures = [a for a in work.current if a.settled is not None and a.settled.failed]
    if not failures or (last := failures[-1].settled) is None:
        return None
    match last.failure:
        case "config" | "canceled" | "permanent":
            return None  # a breaker or a person releases it
        case "credit" if last.cap is not None:
            return None  # raising the cap releases it at once
        case "capacity" if last.retry_at is not None:
            return min(last.retry_at, last.at + LONGEST_HOLD)
        case "host":
            return last.at + bead_backoff(work.id, 1, initial=initial, maximum=maximum)
        case _:
            return last.at + bead_backoff(work.id, len(failures), initial=initial, maximum=maximum)


def due(moment: float, since: float, now: float) -> bool:
    """True if a wait from `since` to `moment` is over.

    A clock set back by more than the wait ends it too, so that a wrong clock never makes a bead wait for years.
    """
    return now >= moment or now < since - (moment - since)


def gremlin_to_rescue(work: Work) -> str | None:
    """The gremlin of the latest failure, whose paid calls are kept. None after class task or success."""
    latest = work.latest
    if latest is None or latest.settled is None or not latest.settled.failed:
        return None
    return None if latest.settled.failure == "task" else latest.gremlin_id
