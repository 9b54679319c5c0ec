"""The store of beads, as those who use it see it: what can be read, and the changes that can be committed.

A commit is all or nothing and compares before it swaps: a change made against a bead, an attempt or an episode that
somebody has changed meanwhile refuses the whole commit, and nothing is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, Self

from gremlins.errors import Conflict
from gremlins.fleet.beads.attempts import Attempt, Ending, Episode, Settlement, Work
from gremlins.fleet.beads.bead import Bead, Hold, Status


class DependencyCircle(Conflict):
    """A dependency would close a circle: none of its beads could ever be worked on."""

    def __init__(self, path: Sequence[str]) -> None:
        super().__init__(
            "that would make a circle of dependencies: " + " → ".join(path),
            hint="`gremlins bead dep rm` takes one of them away",
        )
        self.path = tuple(path)


@dataclass(frozen=True)
class PutBead:
    """A whole bead: new (`expect` is None), or in place of the generation `expect`. Its generation becomes that + 1."""

    bead: Bead
    expect: int | None


@dataclass(frozen=True)
class MoveBead:
    """A bead into another status, its text untouched. `at` is when, RFC 3339."""

    work: Work
    status: Status
    at: str
    reason: str = ""
    hold: Hold | None = None


@dataclass(frozen=True)
class AddAttempt:
    """Refused while the bead has an unsettled one."""

    attempt: Attempt


@dataclass(frozen=True)
class SettleAttempt:
    """Refused where it is settled. The store numbers the settlement."""

    attempt: Attempt
    settlement: Settlement


@dataclass(frozen=True)
class Base:
    """What a gremlin's record says when a spawn is decided: whatever is beyond it came after."""

    spawn: int = 0
    replies: int = 0
    parked: float = 0.0


@dataclass(frozen=True)
class CountSpawn:
    """One more spawn within an attempt, pending until it is marked. Refused if it was counted meanwhile."""

    attempt: Attempt
    base: Base
    probe: bool


@dataclass(frozen=True)
class MarkSpawned:
    """The pending spawn has happened."""

    attempt: Attempt
    at: float


@dataclass(frozen=True)
class MarkProbe:
    """A spawn that was decided before goes as a breaker's probe."""

    attempt: Attempt


@dataclass(frozen=True)
class MarkEnding:
    """Its process is asked to end. Refused where it was asked before."""

    attempt: Attempt
    ending: Ending


@dataclass(frozen=True)
class PutEpisode:
    """A new episode (version 1), or in place of the version before."""

    episode: Episode


@dataclass(frozen=True)
class Event:
    """Something that happened to a bead, for a person to read."""

    project: str
    bead_id: str
    at: float
    kind: str
    text: str


@dataclass(frozen=True)
class Notice:
    """Something a person wants to be told of. It is no bead, and nothing waits for it."""

    project: str
    at: float
    kind: str
    payload: Mapping[str, Any] = field(hash=False)


@dataclass(frozen=True)
class SetPaused:
    """Whether the project's loop starts anything. `reason` None: it does."""

    project: str
    reason: str | None


StoreChange = (
    PutBead | MoveBead | AddAttempt | SettleAttempt | CountSpawn | MarkSpawned | MarkProbe | MarkEnding
    | PutEpisode | Event | Notice | SetPaused
)  # fmt: skip


@dataclass(frozen=True)
class Query:
    """Which beads. None and empty: any."""

    statuses: Sequence[str] = ()
    issue_types: Sequence[str] = ()
    priorities: Sequence[int] = ()
    labels: Sequence[str] = ()
    """All of them."""
    assignee: str | None = None
    blocked: bool | None = None
    limit: int | None = None


@dataclass(frozen=True)
class View:
    """What a tick needs to see of a project: all that is under way or was tried, and the next that may start."""

    works: tuple[Work, ...]
    bad: tuple[str, ...] = ()
    """Rows that cannot be read, a line each. They stop nothing else."""
    next_deferred: float | None = None


@dataclass(frozen=True)
class Listed:
    """A bead as a table shows it."""

    work: Work
    title: str
    issue_type: str


class BeadStore(Protocol):
    """All beads of one state root, for any number of processes at once."""

    def commit(self, *changes: StoreChange) -> bool:
        """Write all, or nothing: False if something was no longer as expected. Raises DependencyCircle."""

    def bead(self, project: str, bead_id: str) -> Bead | None: ...

    def beads(self, project: str, query: Query) -> Iterator[Bead]:
        """In the order they would be worked on. Rows that cannot be read are passed over (see `view`)."""

    def listing(self, project: str, query: Query) -> tuple[list[Listed], tuple[str, ...]]:
        """What a table shows of them, texts left unread and labels not looked at; and the rows that cannot be read."""

    def matching(self, project: str, text: str) -> list[str]:
        """The ids a person may mean: the id itself, else those that begin with it, with or without the prefix."""

    def ids_beginning(self, prefix: str) -> list[str]:
        """In any project: ids must not collide when projects share a name."""

    def ids(self, project: str) -> list[str]: ...

    def count(self, project: str) -> dict[str, int]:
        """How many beads there are, by status."""

    def view(self, project: str, now: float, *, fresh: int) -> View:
        """`fresh`: how many of the beads that were not tried yet and could start now, the first ones."""

    def under_way(self, project: str) -> View:
        """The beads that have an unsettled attempt."""

    def works(self, project: str, ids: Sequence[str] | None = None) -> View:
        """These beads, or all that are not terminal."""

    def recent(self, project: str, since: float) -> tuple[Attempt, ...]:
        """Attempts settled since, and at least the last twenty, in the order of their settlement."""

    def attempt_of(self, gremlin_id: str) -> Attempt | None:
        """The latest attempt that this gremlin works, or worked, for."""

    def episodes(self, project: str, since_seq: int = 0) -> tuple[Episode, ...]:
        """Those still open, each scope's latest, and those that reach beyond a settlement."""

    def last_seq(self, project: str) -> int: ...

    def day(self, since: float) -> tuple[float, tuple[Attempt, ...]]:
        """What all projects' attempts settled since then have cost, and all unsettled attempts."""

    def dearest(self, pipeline: str) -> float | None:
        """The cost of the dearest settled attempt of a pipeline."""

    def paused(self, project: str) -> str | None: ...

    def events(self, project: str, bead_id: str) -> tuple[Event, ...]: ...

    def blockers(self, project: str, bead_id: str) -> list[tuple[str, str, str]]:
        """What keeps a bead blocked: (blocker, its status, whom of the bead and its ancestors it blocks)."""

    def all_blockers(self, project: str) -> dict[str, list[tuple[str, str, str]]]:
        """`blockers` of every blocked bead at once."""

    def dependents(self, project: str, bead_id: str) -> list[tuple[str, str]]:
        """Who depends on a bead: (id, type)."""

    def circles(self, project: str) -> list[list[str]]:
        """Circles among the dependencies that order work. There are none, but a person may ask."""

    def replace_all(self, project: str, puts: Sequence[PutBead]) -> None:
        """Many beads in one commit. Raises DependencyCircle, or Conflict if one was changed meanwhile."""

    def take_notices(self, project: str) -> tuple[Notice, ...]:
        """Notices not yet handed out, marked as handed out: none is ever given twice."""

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None: ...
