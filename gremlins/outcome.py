"""Outcomes that stages return. The runner's one `match` turns them into the gremlin's next status."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

FailureClass = Literal[
    "task", "permanent", "config", "credit", "capacity", "environment", "host", "start", "canceled", "unknown"
]
"""Whose fault a failure is; `environment` is a missing tool or a failed setup of the worktree. Only `task`, `start` and
`unknown` are ever charged to a bead."""

KEEPS_ATTEMPT: frozenset[FailureClass] = frozenset(
    {"config", "credit", "capacity", "environment", "host", "start", "unknown"}
)
"""After these the same attempt goes on: nothing that was paid for in it is asked again."""


UNKNOWN_COST = "unknown_cost"
"""The class of the bail where only a person can decide, because asking again may pay twice."""
CONFLICT = "conflict_markers"
"""The class of the bail of a change in which a conflict with the project was not resolved."""

CapName = Literal["spend.per_attempt", "spend.per_bead", "spend.per_day"]


@dataclass(frozen=True)
class SpendingCap:
    """A spending cap of our own settings that left no room for another call, and its value at that time."""

    name: CapName
    usd: float


@dataclass(frozen=True)
class Done:
    """The stage did its work. `note` is one line for the log; `nothing_to_do` is the agent's own reason."""

    note: str = ""
    nothing_to_do: str | None = None


@dataclass(frozen=True)
class Bail:
    """An agent, or a rule, says that it cannot go on without a person. `kind` is the word before the colon."""

    kind: str
    detail: str


@dataclass(frozen=True)
class Failed:
    """The stage did not work. `exit_code` is that of the command that failed, where one did."""

    failure: FailureClass
    reason: str
    exit_code: int = 1
    retry_at: datetime | None = None
    """The provider's own time to come back."""
    cap: SpendingCap | None = None
    """Our spending cap that stopped it."""


Outcome = Done | Bail | Failed
