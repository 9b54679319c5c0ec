"""What the loop needs of gremlins: to see one, start one, end one, land one."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, Protocol

from gremlins.fleet.beads.attempts import Cap
from gremlins.outcome import FailureClass

State = Literal[
    "unborn", "running", "parked", "detached", "stalled", "stopping",
    "finished", "landed", "bailed", "stopped", "dead", "unreadable",
]  # fmt: skip
"""As a gremlin's liveness, and `unborn`: there is a record, but no process ever worked; `unreadable`: nobody knows."""


@dataclass(frozen=True)
class Proof:
    """What a finished gremlin has to show for itself, as its runner checked it."""

    kind: Literal["commits", "none", "nothing_to_do"]
    holds: bool
    detail: str = ""
    base: str = ""
    tip: str = ""


@dataclass(frozen=True)
class Observation:
    """One gremlin at one moment. Times are seconds since the epoch."""

    state: State
    spawn: int = 1
    """How many processes were ever started for it."""
    alive: bool = False
    """Its lock is held by a runner. Says more than `state` where the record cannot be read."""
    reason: str = ""
    failure: FailureClass | None = None
    """What its process recorded as its last word; None if it died without one."""
    exit_code: int | None = None
    retry_at: float | None = None
    cap: Cap | None = None
    """The spending cap of ours that ended it."""
    bail: str | None = None
    proof: Proof | None = None
    ended_at: float | None = None
    """When its process gave its last sign of life."""
    age_seconds: float | None = None
    """How long its process has run, by a clock that does not jump. None: not known."""
    waits: bool = False
    """It sleeps until a moment that is on record: a backoff, or a server's own time."""
    parked_seconds: float = 0.0
    """How long it has been parked, all its life."""
    replies: int = 0
    """Signs of work so far: replies collected, commits made."""
    cost_usd: float = 0.0
    """Everything it has cost, unpriced calls at the provider's dearest model."""
    rebooted: bool = False
    """The machine was restarted since its latest start."""
    stage: str = ""
    pid: int | None = None


@dataclass(frozen=True)
class SpawnOrder:
    """What a new gremlin is to be."""

    gremlin_id: str
    bead_id: str
    attempt: int
    pipeline: str
    mode: str | None
    title: str
    task: str


@dataclass(frozen=True)
class Ready:
    """Everything that an agent needs is there."""


@dataclass(frozen=True)
class Missing:
    """What is not there, one line, and what to do about it."""

    reason: str
    hint: str | None = None
    exit_code: int = 5


class SpawnFailed(Exception):
    """A gremlin could not be started. `failure` says whose fault it is, from the error's own type."""

    def __init__(self, reason: str, failure: FailureClass = "start") -> None:
        super().__init__(reason)
        self.reason = reason
        self.failure: FailureClass = failure


class LandingRefused(Exception):
    """The gremlin's work does not go onto the branch, nothing was changed."""


class LandingBusy(Exception):
    """Somebody else has the gremlin in hand at this moment: look again."""


class ReadOnlyFleet(Protocol):
    """Looking at gremlins, for those who only tell how things stand."""

    def observe(self, gremlin_id: str) -> Observation | None:
        """One gremlin now, None where there is none. Never raises for a broken record: that is `unreadable`."""

    def scopes(self) -> tuple[str, ...]:
        """Names of the credentials that the pipeline uses, by fingerprint: another key is another name."""


class Fleet(ReadOnlyFleet, Protocol):
    """The door to gremlins. Every call may be made again: what is done already is not done twice."""

    def preflight(self, *, fresh: bool) -> Ready | Missing:
        """Whether a gremlin could be started now; `fresh` trusts no proof from before. Costs nothing."""

    def spawn(self, order: SpawnOrder) -> None:
        """Make and start a gremlin; returns once it runs on its own. Raises SpawnFailed."""

    def rescue(self, gremlin_id: str) -> None:
        """Start a process for a gremlin that has none, from where it was. Raises SpawnFailed."""

    def terminate(self, gremlin_id: str, reason: str) -> None:
        """Note that it is to stop, and why, and send SIGTERM. Does not wait."""

    def kill(self, gremlin_id: str) -> None:
        """SIGKILL its whole process group."""

    def land(self, gremlin_id: str) -> str:
        """Land a finished gremlin, returning one line about it. Raises LandingRefused, LandingBusy."""

    def wait(self, gremlin_ids: Collection[str], seconds: float) -> None:
        """Return when one of these has ended, or after so long. Raises Terminated when asked to end."""
