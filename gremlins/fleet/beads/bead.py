"""Beads: the issue in the format of `beads`, and its status here."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictInt, field_validator, model_validator

from gremlins.clock import parse_time
from gremlins.errors import GremlinsError
from gremlins.text import normalised_value

BeadStatus = Literal["open", "in_progress", "closed", "failed", "deferred"]
STATUSES: tuple[BeadStatus, ...] = ("open", "in_progress", "closed", "failed", "deferred")
TERMINAL: frozenset[str] = frozenset({"closed", "failed"})

BLOCKING = frozenset({"blocks", "conditional-blocks", "waits-for"})
"""Dependency types that block a bead until the other one is closed."""
PARENT = "parent-child"
"""A child is blocked while its parent is blocked."""
ORDERING = BLOCKING | {PARENT}
"""Dependency types that must not form a circle."""

TITLE_MAX = 500
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def _is_time(text: str) -> str:
    parse_time(text)
    return text


Rfc3339 = Annotated[str, AfterValidator(_is_time)]
"""An RFC 3339 time, kept as written."""


def _is_id(text: str) -> str:
    if not text.isprintable() or " " in text or "/" in text:
        raise ValueError("an id has no blanks, no `/` and nothing that cannot be printed")
    return text


class Dependency(BaseModel):
    """A dependency on another bead. Unknown keys are kept."""

    model_config = ConfigDict(frozen=True, extra="allow")

    issue_id: str = ""
    depends_on_id: Annotated[str, Field(min_length=1)]
    type: Annotated[str, Field(min_length=1)] = "blocks"

    @property
    def orders(self) -> bool:
        return self.type in ORDERING


class Issue(BaseModel):
    """A bead's text and metadata, with the field names of beads. Unknown keys are kept."""

    model_config = ConfigDict(frozen=True, extra="allow")

    id: Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_is_id)]
    title: Annotated[str, Field(min_length=1, max_length=TITLE_MAX)]
    description: str = ""
    design: str = ""
    acceptance_criteria: str = ""
    notes: str = ""
    status: Annotated[str, Field(min_length=1)] = "open"
    priority: Annotated[StrictInt, Field(ge=0, le=4)] = 2
    issue_type: str = "task"
    assignee: str = ""
    created_at: Rfc3339
    updated_at: Rfc3339
    started_at: Rfc3339 | None = None
    closed_at: Rfc3339 | None = None
    close_reason: str = ""
    due_at: Rfc3339 | None = None
    defer_until: Rfc3339 | None = None
    external_ref: str | None = None
    labels: tuple[str, ...] = ()
    dependencies: tuple[Dependency, ...] = ()
    comments: tuple[dict[str, Any], ...] = ()
    metadata: Any = None

    @model_validator(mode="before")
    @classmethod
    def _without_orders(cls, row: Any) -> Any:
        """Every text in it, comments and unknown keys included, is text. An odd id is refused."""
        return {**normalised_value(row), **({"id": row["id"]} if "id" in row else {})} if isinstance(row, dict) else row

    @field_validator("title")
    @classmethod
    def _not_blank(cls, title: str) -> str:
        if not title.strip():
            raise ValueError("should not be blank")
        return title

    @field_validator("description", "design", "acceptance_criteria", "notes", "assignee", "close_reason", mode="before")
    @classmethod
    def _null_is_empty(cls, value: object) -> object:
        return "" if value is None else value

    @field_validator("labels", "dependencies", "comments", mode="before")
    @classmethod
    def _null_is_none(cls, value: object) -> object:
        return () if value is None else value


HoldKind = Literal["person", "stopped", "spawn_cap", "host", "imported", "not_work", "to_land", "edited"]
"""not_work: a record that beads keeps beside its work, never dispatched.

Of work that is done: to_land, if landing it was refused (the loop lands it when the tree allows); edited, if the bead's
text was changed after its gremlin had got it.
"""


@dataclass(frozen=True)
class Hold:
    """The reason a bead is held until a person releases it. `status`: an imported status that we do not have."""

    kind: HoldKind
    reason: str
    by: str
    at: float
    status: str | None = None


@dataclass(frozen=True)
class Bead:
    """An issue and its status here. `generation` counts changes, `epoch` retries by a person; both begin at 1."""

    project: str
    issue: Issue
    status: BeadStatus = "open"
    generation: int = 1
    epoch: int = 1
    hold: Hold | None = None
    blocked: bool = False
    tried: int = 0
    """Number of its latest attempt, 0 before the first."""

    @property
    def id(self) -> str:
        return self.issue.id

    @property
    def terminal(self) -> bool:
        return self.status in TERMINAL

    def edited(self, now: str, **changes: Any) -> Bead:
        """A copy with changed fields and a new `updated_at`. Raises GremlinsError."""
        return replace(self, issue=with_fields(self.issue, updated_at=now, **changes))

    def moved(self, status: BeadStatus, now: str, *, reason: str = "", hold: Hold | None = None) -> Bead:
        """A copy in another status, with the times that belong to that status."""
        closed = status == "closed"
        started = self.issue.started_at or (now if status == "in_progress" else None)
        issue = with_fields(
            self.issue,
            status=status,
            updated_at=now,
            started_at=started,
            closed_at=now if closed else None,
            close_reason=reason if closed else "",
        )
        return replace(self, issue=issue, status=status, hold=hold)


NOT_WORK = frozenset({
    "agent", "role", "rig", "message", "gate", "molecule", "merge-request", "convoy", "event", "milestone", "queue",
    "slot", "wisp",
})  # fmt: skip
"""Issue types of records that beads keeps beside its work."""
NOT_WORK_FLAGS = {"ephemeral": "ephemeral", "wisp": "ephemeral", "pinned": "pinned", "is_template": "a template"}
"""Keys of such records, and their meaning. An export has true, a backup 1; older files say `wisp`."""


def not_work(issue: Issue) -> str | None:
    """The reason a record is no work to dispatch; None if it is work."""
    for flag, meaning in NOT_WORK_FLAGS.items():
        if (issue.model_extra or {}).get(flag) in (True, 1):
            return f"not work: it is {meaning}"
    kind = issue.issue_type.lower().replace("_", "-")
    return f"not work: a record of type {kind}" if kind in NOT_WORK else None


def kept_apart(bead: Bead, at: float) -> Bead:
    """The bead, held as long as it is no work."""
    why, hold = not_work(bead.issue), bead.hold
    if hold is not None and hold.kind == "not_work" and hold.reason != why:
        hold = None
    if hold is None and why is not None and not bead.terminal:
        hold = Hold("not_work", why, "beads", at)
    return bead if hold == bead.hold else replace(bead, hold=hold)


def with_fields(issue: Issue, **changes: Any) -> Issue:
    """A validated copy with changed fields. Raises GremlinsError that names the field."""
    from pydantic import ValidationError

    try:
        return Issue.model_validate(issue.model_dump(exclude_unset=True) | changes)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "bead"
        raise GremlinsError(f"{where}: {first['msg'].removeprefix('Value error, ')}") from None


def task_of(issue: Issue) -> str:
    """The task text for the plan stage: title, description, design, acceptance criteria and notes."""
    parts = [issue.title.strip()]
    for heading, text in (
        ("", issue.description),
        ("Design", issue.design),
        ("Acceptance criteria", issue.acceptance_criteria),
        ("Notes", issue.notes),
    ):
        if text.strip():
            parts.append(f"## {heading}\n\n{text.strip()}" if heading else text.strip())
    return "\n\n".join(parts)


def prefix_of(project: str) -> str:
    """The prefix of a project's bead ids: the name of its folder in lower case (of the one around a `.bare`)."""
    path = PurePath(project)
    name = path.parent.name if path.name.startswith(".") else path.name
    name = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return name[:24].rstrip("-") or "bead"


def new_id(project: str, title: str, now: float, *, nonce: int, crowd: int) -> str:
    """`<prefix>-<hash>`. The hash grows with the number of other beads (`crowd`) and of collisions (`nonce`)."""
    length = 4
    while length < 8 and 36**length < crowd * 36:
        length += 1
    digest = hashlib.sha256(f"{project}\0{title}\0{now!r}\0{nonce}".encode()).digest()
    return f"{prefix_of(project)}-{base36(digest, min(8, length + nonce // 4))}"


def child_id(parent: str, taken: Iterable[str]) -> str:
    """`<parent>.<n>`, the next free number."""
    numbers = (name.removeprefix(f"{parent}.") for name in taken)
    return f"{parent}.{max((int(n) for n in numbers if n.isdigit()), default=0) + 1}"


def base36(digest: bytes, length: int) -> str:
    number = int.from_bytes(digest, "big")
    letters = []
    for _ in range(length):
        number, digit = divmod(number, 36)
        letters.append(_DIGITS[digit])
    return "".join(letters)


def gremlin_id_for(project: str, bead_id: str, number: int, now: float) -> str:
    """The id of the new gremlin of an attempt, unique over all projects."""
    readable = re.sub(r"[^a-z0-9]+", "-", bead_id.lower()).strip("-")[:48].strip("-") or "bead"
    digest = hashlib.sha256(f"{project}\0{bead_id}\0{number}\0{now!r}".encode()).digest()
    return f"{readable}-{number}-{base36(digest, 4)}"


def parse_priority(text: str) -> int:
    """`0` to `4`, or `P0` to `P4`. Raises GremlinsError."""
    if re.fullmatch(r"[pP]?[0-4]", text.strip()):
        return int(text.strip()[-1])
    raise GremlinsError(f"priority `{text}` is not one of 0 (highest) to 4, or P0 to P4")


def parse_dependency(text: str) -> tuple[str, str]:
    """`ID` or `TYPE:ID` as (type, id)."""
    kind, colon, other = text.strip().partition(":")
    return (kind, other) if colon and re.fullmatch(r"[a-z-]+", kind) and other else ("blocks", text.strip())


def words(values: Iterable[str]) -> list[str]:
    """The distinct words of a repeatable, comma-separated option, in order."""
    return list(dict.fromkeys(word for value in values for part in value.split(",") if (word := part.strip())))
