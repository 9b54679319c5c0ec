"""The loop's interface to gremlins: observe, start, end and land them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Literal, Protocol

from gremlins.fleet.dispatch.spending import Spending
from gremlins.fleet.start_point import StartPoint
from gremlins.outcome import FailureClass, SpendingCap
from gremlins.records.gremlin import Evidence

ObservedState = Literal[
    "unborn", "running", "parked", "detached", "stalled", "stopping",
    "finished", "landed", "bailed", "stopped", "dead", "unreadable",
]  # fmt: skip
"""A gremlin's liveness. unborn: it has a record, but no process has run. unreadable: its record cannot be read."""


@dataclass(frozen=True)
class Observation:
    """One gremlin at one moment. Times are seconds since the epoch."""

    state: ObservedState
    spawn: int = 1
    """Number of processes started for it."""
    alive: bool = False
    """A runner holds its lock. Holds also if the record cannot be read."""
    reason: str = ""
    failure: FailureClass | None = None
    """Class that its process recorded at its end; None if it recorded none."""
    exit_code: int | None = None
    retry_at: float | None = None
    cap: SpendingCap | None = None
    """The person's spending cap that ended it."""
    bail: str | None = None
    proof: Evidence | None = None
    ended_at: float | None = None
    """Last sign of life of its process."""
    age_seconds: float | None = None
    """Age of its process by a monotonic clock. None: unknown."""
    waits: bool = False
    """It sleeps until a recorded time: a backoff, or a server's `retry-after`."""
    parked_seconds: float = 0.0
    """Total parked time."""
    replies: int = 0
    """Signs of work: replies collected; for a dead gremlin without any, 1 if it made commits."""
    cost_usd: float = 0.0
    """Total cost, unpriced and unknown calls at the most that they can have cost."""
    task: str | None = None
    """The text it works on; None: unknown."""
    revised_at: float | None = None
    """Time of a person's latest remarks on its finished work."""
    caught_up: int = 0
    """Rounds in which its finished change was, or is to be, brought up to date after a conflict at landing."""
    rebooted: bool = False
    """The machine has rebooted since its latest start."""
    stage: str = ""
    pid: int | None = None


@dataclass(frozen=True)
class SpawnOrder:
    """A new gremlin to start."""

    gremlin_id: str
    bead_id: str
    attempt: int
    pipeline: str
    mode: str | None
    title: str
    task: str
    start: StartPoint = field(default_factory=StartPoint)


@dataclass(frozen=True)
class Missing:
    """The reason no gremlin can start now: one line, and a hint."""

    reason: str
    hint: str | None = None
    exit_code: int = 5


class SpawnFailed(Exception):
    """A gremlin could not be started. `failure` is the class, derived from the error's type."""

    def __init__(self, reason: str, failure: FailureClass = "start") -> None:
        super().__init__(reason)
        self.reason = reason
        self.failure: FailureClass = failure


class LandingRefused(Exception):
    """The gremlin's work cannot land; nothing was changed. conflict: it and the project have changed the same lines."""

    def __init__(self, reason: str, *, conflict: bool = False) -> None:
        super().__init__(reason)
        self.conflict = conflict


class LandingBusy(Exception):
    """Another process holds the gremlin's lock; try again."""


class ReadOnlyFleet(Protocol):
    """Observes gremlins without changing them."""

    def observe(self, gremlin_id: str) -> Observation | None:
        """A gremlin now; None if it does not exist. A broken record is `unreadable`, not an error."""

    def scopes(self) -> tuple[str, ...]:
        """Names of the credentials that the pipeline uses. Each key has its own name, from its fingerprint."""

    def start_point(self, gremlin_ids: tuple[str, ...]) -> StartPoint:
        """The start point of a gremlin that needs the work of these."""

    def spending(self) -> Spending:
        """Spending of the state root now."""

    def first_call_usd(self) -> float:
        """The worst case of the pipeline's first call, in USD; 0 if it has no price or the pipeline is wrong."""

    def fault(self) -> str | None:
        """The fault of settings, pipeline or providers by which no gremlin can start; None if there is none."""


class Fleet(ReadOnlyFleet, Protocol):
    """Observes and changes gremlins. Every call is idempotent."""

    def preflight(self, *, fresh: bool) -> Missing | None:
        """The reason no gremlin can start now, or None. Costs nothing. `fresh`: trust no earlier proof of a key."""

    def spawn(self, order: SpawnOrder) -> None:
        """Make and start a gremlin. Raises SpawnFailed."""

    def rescue(self, gremlin_id: str) -> None:
        """Start a process for a gremlin that has none. Raises SpawnFailed."""

    def terminate(self, gremlin_id: str, reason: str) -> None:
        """Record the stop request and send SIGTERM. Does not wait."""

    def kill(self, gremlin_id: str) -> None:
        """Send SIGKILL to its process group."""

    def landing_state(self, gremlin_id: str) -> object:
        """Changes whenever a refused landing may succeed: HEAD, the uncommitted paths, and the gremlin's branch."""

    def land(self, gremlin_id: str) -> str:
        """Land a finished gremlin and return one line about it. Raises LandingRefused, LandingBusy."""

    def catch_up(self, gremlin_id: str) -> bool:
        """Give a finished gremlin a round that resolves a conflict at landing. False: a person decides."""

    def wait(self, gremlin_ids: Collection[str], seconds: float) -> None:
        """Return when one of these has ended, or after `seconds`. Raises Terminated."""
