"""The interface of the bead store: queries, and changes to commit.

A commit is all or nothing. If another process has changed a bead, an attempt or an episode meanwhile, nothing is
written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

from gremlins.errors import Conflict
from gremlins.fleet.beads.attempts import Attempt, Episode, Settlement, Work
from gremlins.fleet.beads.bead import Bead, BeadStatus, Hold


class DependencyCircle(Conflict):
    """A dependency would close a circle, so that none of its beads could ever start."""

    def __init__(self, path: Sequence[str]) -> None:
        super().__init__(
            "that would make a circle of dependencies: " + " → ".join(path),
            hint="`gremlins bead dep rm` removes one of them",
        )
        self.path = tuple(path)


@dataclass(frozen=True)
class PutBead:
    """Insert a bead (`expect` is None), or replace its generation `expect` by the next."""

    bead: Bead
    expect: int | None


@dataclass(frozen=True)
class MoveBead:
    """Change the status of a bead. `at`: RFC 3339."""

    work: Work
    status: BeadStatus
    at: str
    reason: str = ""
    hold: Hold | None = None


@dataclass(frozen=True)
class AddAttempt:
    """Refused while the bead has an unsettled attempt."""

    attempt: Attempt


@dataclass(frozen=True)
class SettleAttempt:
    """Refused if the attempt is settled. The store sets `seq`."""

    attempt: Attempt
    settlement: Settlement


@dataclass(frozen=True)
class ChangeAttempt:
    """Record a spawn, a probe or the end request of an unsettled attempt.

    Refused if the attempt was settled or spawned again meanwhile, or was already asked to end.
    """

    before: Attempt
    after: Attempt


@dataclass(frozen=True)
class PutEpisode:
    """Insert an episode (version 1) or replace its previous version."""

    episode: Episode


EDITED = "edited"
"""Kind of the event of a change of the text that gremlins are given."""


@dataclass(frozen=True)
class Event:
    """An entry in a bead's history, for people."""

    project: str
    bead_id: str
    at: float
    kind: str
    text: str


@dataclass(frozen=True)
class Notice:
    """A message for the `notify` command. Nothing waits for it."""

    project: str
    at: float
    kind: str
    payload: Mapping[str, Any] = field(hash=False)


@dataclass(frozen=True)
class SetPaused:
    """Pause the loop of a project, or resume it (`reason` is None)."""

    project: str
    reason: str | None


StoreChange = (
    PutBead | MoveBead | AddAttempt | SettleAttempt | ChangeAttempt | PutEpisode | Event | Notice | SetPaused
)  # fmt: skip


@dataclass(frozen=True)
class Query:
    """Conditions on beads. None and empty match all."""

    statuses: Sequence[str] = ()
    issue_types: Sequence[str] = ()
    priorities: Sequence[int] = ()
    labels: Sequence[str] = ()
    """The bead has all of them."""
    assignee: str | None = None
    blocked: bool | None = None
    limit: int | None = None


@dataclass(frozen=True)
class View:
    """Beads of a project, with their attempts."""

    works: tuple[Work, ...]
    bad: tuple[str, ...] = ()
    """A line for each row that cannot be read."""
    next_deferred: float | None = None
    """The time at which the next deferred bead is due."""


@dataclass(frozen=True)
class Listed:
    """A bead without its text, for tables."""

    work: Work
    title: str
    issue_type: str


class BeadStore(Protocol):
    """All beads of a state root, for any number of processes at once."""

    def commit(self, *changes: StoreChange) -> bool:
        """Write all or nothing. False if a row has changed meanwhile. Raises DependencyCircle."""

    def bead(self, project: str, bead_id: str) -> Bead | None:
        """Raises CorruptRecord if its row cannot be read."""

    def beads(self, project: str, query: Query) -> Iterator[Bead]:
        """In the order they are worked on. Unreadable rows are skipped (see `view`)."""

    def listing(self, project: str, query: Query) -> tuple[list[Listed], tuple[str, ...]]:
        """Beads without their text, and a line for each unreadable row. `query.labels` is ignored."""

    def matching(self, project: str, text: str) -> list[str]:
        """The id itself, else the ids that begin with it, with or without the project's prefix."""

    def ids_beginning(self, prefix: str) -> list[str]:
        """Ids of all projects: projects of the same name share a prefix."""

    def ids(self, project: str) -> list[str]: ...

    def count(self, project: str) -> dict[str, int]:
        """Number of beads by status."""

    def view(self, project: str, now: float, *, fresh: int, without: Mapping[str, int] | None = None) -> View:
        """Beads under way, beads that were tried, and the first `fresh` of the others that may start now.

        without: leaves out beads that were tried and still have this generation.
        """

    def under_way(self, project: str) -> View:
        """Beads with an unsettled attempt."""

    def work(self, project: str, bead_id: str) -> Work | None:
        """None if the bead does not exist or cannot be read."""

    def works(self, project: str, ids: Sequence[str] | None = None) -> View:
        """These beads, or all that are neither closed nor failed."""

    def recent(self, project: str, since: float) -> tuple[Attempt, ...]:
        """Attempts settled since then, and at least the last twenty, in the order of their settlement."""

    def attempt_of(self, gremlin_id: str) -> Attempt | None:
        """The latest attempt of a gremlin."""

    def episodes(self, project: str, since_seq: int = 0) -> tuple[Episode, ...]:
        """Open episodes, the latest of each scope, and those that closed at or after a settlement."""

    def last_seq(self, project: str) -> int: ...

    def unsettled_attempts(self) -> tuple[Attempt, ...]:
        """Of all projects."""

    def average_usd(self, pipeline: str) -> float | None:
        """Average USD of a pipeline's latest settled attempts that cost something; None if there is none."""

    def paused(self, project: str) -> str | None:
        """The reason, if the project is paused."""

    def events(self, project: str, bead_id: str) -> tuple[Event, ...]: ...

    def blockers(self, project: str, bead_id: str) -> list[tuple[str, str, str]]:
        """The blockers of a bead: (blocker, its status, the bead or ancestor that it blocks)."""

    def all_blockers(self, project: str) -> dict[str, list[tuple[str, str, str]]]:
        """`blockers` of every blocked bead."""

    def done_by(self, project: str, ids: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """For each of these beads with closed blockers, its own or of a bead it is part of: the gremlins that did
        them."""

    def dependents(self, project: str, bead_id: str) -> list[tuple[str, str]]:
        """Beads that depend on this one: (id, type)."""

    def circles(self, project: str) -> list[list[str]]:
        """Circles of ordering dependencies. Commits refuse them, so there should be none."""

    def replace_all(self, project: str, changes: Sequence[PutBead | Event]) -> None:
        """Many beads and events in one commit. Raises DependencyCircle, or Conflict if a bead was changed meanwhile."""

    def take_notices(self, project: str) -> tuple[Notice, ...]:
        """Takes the waiting notices. Each is returned once."""

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...
