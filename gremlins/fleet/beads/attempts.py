"""Attempts: what the loop has tried for a bead, and the counters that follow from them. Records and pure functions.

Times are seconds since the epoch, UTC. Nothing here is ever written back: a counter is what its attempts say.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from gremlins.fleet.beads.bead import TERMINAL, Hold
from gremlins.outcome import FailureClass
from gremlins.retry import bead_backoff

Kind = Literal["fresh", "rescue", "adopted"]
"""A new gremlin; the last one taken up again; or one that a person took up again, which is never charged."""

OWN_FAULT: frozenset[FailureClass] = frozenset({"task", "unknown"})
"""Always charged. `start` is charged too, but not within an episode of the fleet's breaker."""

FLEET = "fleet"
"""The scope of the breaker that stands for the whole fleet; any other is a credential's."""

Cause = Literal["rate", "start", "config", "credit", "capacity"]

RESET = "reset by a person"

LONGEST_HOLD = 31 * 86400.0
"""Seconds up to which a provider's own time is believed."""


@dataclass(frozen=True)
class Ending:
    """The loop's decision to end an attempt's process, and when it asked for that."""

    reason: str
    at: float


@dataclass(frozen=True)
class Cap:
    """A spending cap that left no room for another call, and what it was set to then."""

    name: str
    usd: float


@dataclass(frozen=True)
class Settlement:
    """How an attempt ended. `seq` numbers the settlements of a project; the clock may jump, it does not."""

    at: float
    failure: FailureClass | None
    reason: str
    seq: int = 0
    exit_code: int | None = None
    retry_at: float | None = None
    cost_usd: float = 0.0
    cap: Cap | None = None
    """The cap of ours that ended it, for class credit. None there: it was the provider."""

    @property
    def failed(self) -> bool:
        return self.failure is not None


@dataclass(frozen=True)
class Attempt:
    """One attempt at one bead. On disk before its process exists.

    `base_*` is what the gremlin's record said when the latest spawn was decided: the spawn is still pending as long
    as `spawned_at` is null and the record has not moved beyond it.
    """

    project: str
    bead_id: str
    number: int
    epoch: int
    gremlin_id: str
    kind: Kind
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
        """When its latest process was started, as far as is known."""
        return self.claimed_at if self.spawned_at is None else self.spawned_at

    @property
    def reattached(self) -> bool:
        """Whether a process was started for it again."""
        return self.spawns > (0 if self.kind == "adopted" else 1)


@dataclass(frozen=True)
class Work:
    """One bead as the loop sees it: no text, but all its attempts, oldest first."""

    project: str
    id: str
    status: str
    generation: int
    epoch: int
    priority: int
    created_at: str
    n: int = 0
    """The order in which beads came, for those made in the same second."""
    attempts: tuple[Attempt, ...] = ()
    blocked: bool = False
    defer_at: float | None = None
    hold: Hold | None = None
    assignee: str = ""

    @property
    def terminal(self) -> bool:
        return self.status in TERMINAL

    @property
    def current(self) -> tuple[Attempt, ...]:
        """The attempts of this retry epoch."""
        return tuple(a for a in self.attempts if a.epoch == self.epoch) if self.attempts else ()

    @property
    def latest(self) -> Attempt | None:
        return self.attempts[-1] if self.attempts else None

    @property
    def unsettled(self) -> Attempt | None:
        return next((a for a in self.attempts if a.settled is None), None) if self.attempts else None

    @property
    def spawns(self) -> int:
        return sum(a.spawns for a in self.current)

    @property
    def order(self) -> tuple[int, str, int]:
        """Highest priority first, then oldest."""
        return (self.priority, self.created_at, self.n)


@dataclass(frozen=True)
class Episode:
    """One time that a breaker was open. Sequence numbers are those of settlements."""

    project: str
    scope: str
    number: int
    cause: Cause
    reason: str
    since_seq: int
    opened_at: float
    level: int
    shut_at: float
    """When its present wait began."""
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
        """Whether it closed because of a probe, not because a person said so."""
        return self.closed_at is not None and self.closed_why != RESET

    def excuses(self, attempt: Attempt) -> bool:
        """Whether a failure to start lies inside it, from the first failure that opened it."""
        if self.scope != FLEET or attempt.settled is None or attempt.settled.seq < self.since_seq:
            return False
        return self.closed_seq is None or attempt.settled.seq <= self.closed_seq


def is_charged(attempt: Attempt, episodes: Iterable[Episode]) -> bool:
    """Whether a failure is the bead's own."""
    if attempt.settled is None or attempt.kind == "adopted" or attempt.probe:
        return False
    if attempt.settled.failure == "start":
        return not any(episode.excuses(attempt) for episode in episodes)
    return attempt.settled.failure in OWN_FAULT


def charged(work: Work, episodes: Iterable[Episode]) -> int:
    """The charged attempts of this epoch."""
    known = tuple(episodes)
    return sum(is_charged(attempt, known) for attempt in work.current)


def host_failures(work: Work) -> int:
    """The failures of this epoch that were the machine's."""
    return sum(a.settled is not None and a.settled.failure == "host" for a in work.current)


def last_failure(work: Work) -> Attempt | None:
    """The latest attempt, if it failed."""
    latest = next((a for a in reversed(work.attempts) if a.settled is not None), None)
    return latest if latest is not None and latest.settled is not None and latest.settled.failed else None


def eligible_at(work: Work, *, initial: float, maximum: float) -> float | None:
    """When the bead's latest failure of this epoch lets it be tried again. None: nothing to wait for."""
    failures = [a for a in work.current if a.settled is not None and a.settled.failed]
    if not failures or (last := failures[-1].settled) is None:
        return None
    match last.failure:
        case "config" | "canceled" | "permanent":
            return None  # a breaker or a person decides
        case "credit" if last.cap is not None:
            return None  # raising the cap releases it at once
        case "capacity" if last.retry_at is not None:
            return min(last.retry_at, last.at + LONGEST_HOLD)
        case "host":
            return last.at + bead_backoff(work.id, 1, initial=initial, maximum=maximum)
        case _:
            return last.at + bead_backoff(work.id, len(failures), initial=initial, maximum=maximum)


def due(moment: float, since: float, now: float) -> bool:
    """Whether a wait that began at `since` and ends at `moment` is over.

    A clock set back by more than the wait itself ends it: nothing may wait for years because of a wrong clock.
    """
    return now >= moment or now < since - (moment - since)


def take_up_again(work: Work) -> str | None:
    """The gremlin to rescue next, its paid calls kept; None after a failure of class task, and after success."""
    latest = work.latest
    if latest is None or latest.settled is None or not latest.settled.failed:
        return None
    return None if latest.settled.failure == "task" else latest.gremlin_id
