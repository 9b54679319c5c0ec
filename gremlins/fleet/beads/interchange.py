"""Import and export of beads' `issues.jsonl`: one issue a line, unknown keys kept."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import ValidationError

from gremlins.clock import parse_time
from gremlins.errors import Conflict, GremlinsError
from gremlins.fleet.beads.bead import Bead, BeadStatus, Hold, Issue, kept_apart, task_of
from gremlins.fleet.beads.store.interface import EDITED, BeadStore, DependencyCircle, Event, PutBead, Query

FAILED_LABEL = "gremlins:failed"
"""Marks a failed bead. It is exported as `blocked`, because `closed` would release its dependents."""
TOMBSTONE = "tombstone"
TRIES = 10
"""Imports of a file before beads that other processes keep changing are a conflict."""
SHARED: frozenset[str] = frozenset({"open", "closed", "deferred"})
"""Statuses with the same meaning in both."""
ALWAYS = ("id", "title", "status", "priority", "issue_type", "created_at", "updated_at")


class BadLine(GremlinsError):
    """A line that cannot be imported. No line of the file was imported."""

    def __init__(self, file: str, line: int, why: str, *, hint: str | None = None) -> None:
        super().__init__(f"{file}:{line}: {why}", hint=hint or "nothing was imported")


@dataclass
class Imported:
    """Result of an import: ids in file order."""

    created: list[str] = field(default_factory=list)
    updated: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    older: list[str] = field(default_factory=list)
    """Ignored, because our row is newer."""
    held: list[str] = field(default_factory=list)
    """Created or updated, and held: no work, or a status we do not have."""
    edited: list[str] = field(default_factory=list)
    """Updated while a gremlin was at work, with another text than it has."""
    skipped: int = 0
    """Number of lines that are not issues, and of tombstones of issues that are not open here."""


def exported(beads: Iterable[Bead]) -> Iterator[str]:
    """Lines without line ends."""
    for bead in beads:
        yield json.dumps({"_type": "issue", **_row(bead)}, ensure_ascii=False)


def _row(bead: Bead) -> dict[str, Any]:
    issue, labels = bead.issue, bead.issue.labels
    status: str = bead.status
    if bead.status == "failed":
        status, labels = "blocked", (*labels, FAILED_LABEL)
    elif bead.hold is not None and bead.hold.status is not None:
        status = bead.hold.status
    row = issue.model_dump(mode="json", exclude_unset=True)
    row = {key: value for key, value in row.items() if _says(key, value) and key != "_type"}
    row |= {key: getattr(issue, key) for key in ALWAYS}
    row["status"] = status
    if labels:
        row["labels"] = list(labels)
    if issue.dependencies:
        dumps = [dep.model_dump(mode="json", exclude_unset=True) for dep in issue.dependencies]
        row["dependencies"] = [{"issue_id": issue.id, "type": "blocks"} | dump for dump in dumps]
    order = {name: position for position, name in enumerate(Issue.model_fields)}
    return dict(sorted(row.items(), key=lambda item: order.get(item[0], len(order))))


def _says(key: str, value: object) -> bool:
    """True unless null means the same as absence: of a key we do not know, null is kept."""
    return value is not None or key not in Issue.model_fields


def read_lines(text: str, file: str, now: str) -> Iterator[tuple[int, Issue | None]]:
    """(line number, issue) of each line; None for a line to skip. Raises BadLine."""
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, parse_constant=_number, parse_float=_number)
        except ValueError as error:
            raise BadLine(file, number, f"not JSON: {error}") from None
        except RecursionError:
            raise BadLine(file, number, "nested too deeply") from None
        if not isinstance(row, dict):
            raise BadLine(file, number, "not a JSON object")
        try:
            yield number, _issue(row, file, number, now)
        except RecursionError:
            raise BadLine(file, number, "nested too deeply") from None


def _number(text: str) -> float:
    """Raises ValueError for one that no JSON can hold: it would be lost in an export."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is no number")
    return number


def _issue(row: dict[str, Any], file: str, number: int, now: str) -> Issue | None:
    if row.get("_type", "issue") != "issue" or ("_schema" in row and "id" not in row):
        return None
    if row.get("status") == TOMBSTONE:
        row = {key: row.get(key) for key in ("id", "status", "created_at", "updated_at")} | {"title": TOMBSTONE}
    row.pop("_type", None)
    row["status"] = row.get("status") or "open"
    row["created_at"] = row.get("created_at") or row.get("updated_at") or now
    row["updated_at"] = row.get("updated_at") or row["created_at"]
    if row.get("status") == "closed":  # older files do not always have closed_at
        row["closed_at"] = row.get("closed_at") or row["updated_at"]
    else:
        row["closed_at"] = None
    try:
        return Issue.model_validate({key: value for key, value in row.items() if _says(key, value)})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BadLine(file, number, f"{where}: {first['msg'].removeprefix('Value error, ')}") from None


def import_text(store: BeadStore, project: str, text: str, *, file: str, now: str, at: float) -> Imported:
    """Import a whole file or nothing. Raises BadLine, or Conflict if other processes keep changing the beads."""
    lines: dict[str, int] = {}
    issues: dict[str, Issue] = {}
    others = 0
    for number, issue in read_lines(text, file, now):
        if issue is None:
            others += 1
        elif issue.id not in issues or _moment(issue) >= _moment(issues[issue.id]):
            issues[issue.id], lines[issue.id] = issue, number
    for left in reversed(range(TRIES)):
        ours = {bead.id: bead for bead in store.beads(project, Query())} if issues else {}
        done = Imported(skipped=others)
        puts = [put for issue in issues.values() if (put := _upsert(issue, ours.get(issue.id), project, at, done))]
        try:
            edits = [Event(project, bead_id, at, EDITED, "its text was imported") for bead_id in done.edited]
            store.replace_all(project, [*puts, *edits])
            break
        except DependencyCircle as error:
            line = next((lines[bead_id] for bead_id in error.path if bead_id in lines), 1)
            raise BadLine(file, line, error.message) from None
        except Conflict:
            if not left:
                raise
    return done


def _moment(issue: Issue) -> float:
    return parse_time(issue.updated_at).timestamp()


def _upsert(issue: Issue, ours: Bead | None, project: str, at: float, done: Imported) -> PutBead | None:
    if issue.status == TOMBSTONE:
        if ours is None or ours.terminal:
            done.skipped += 1
            return None
        issue = ours.issue.model_copy(update={"status": TOMBSTONE, "updated_at": issue.updated_at})
    status, hold, issue = _as_ours(issue, at)
    if ours is None:
        bead = kept_apart(Bead(project, issue, status, hold=hold), at)
        done.created.append(issue.id)
        done.held += [issue.id] if bead.hold else []
        return PutBead(bead, None)
    if _moment(issue) < _moment(ours.issue):
        done.older.append(issue.id)
        return None
    status, hold = _keep_ours(ours, status, hold)
    issue = issue.model_copy(update={"status": status})
    changed = kept_apart(replace(ours, issue=issue, status=status, hold=hold), at)
    if _same(changed, ours):
        done.unchanged.append(issue.id)
        return None
    done.updated.append(issue.id)
    if ours.status == "in_progress" and task_of(changed.issue) != task_of(ours.issue):
        done.edited.append(issue.id)
    done.held += [issue.id] if changed.hold else []
    return PutBead(changed, ours.generation)


def _as_ours(issue: Issue, at: float) -> tuple[BeadStatus, Hold | None, Issue]:
    """Our status, hold and issue for an imported one. A status we do not have becomes a hold."""
    status = issue.status
    if status == "blocked" and FAILED_LABEL in issue.labels:
        labels = tuple(label for label in issue.labels if label != FAILED_LABEL)
        return "failed", None, issue.model_copy(update={"status": "failed", "labels": labels})
    if status in SHARED:
        return status, None, issue  # type: ignore[return-value]  # one of our words
    reason = f"imported as `{status}`"
    return "open", Hold("imported", reason, "import", at, status), issue.model_copy(update={"status": "open"})


def _keep_ours(ours: Bead, status: BeadStatus, hold: Hold | None) -> tuple[BeadStatus, Hold | None]:
    """BeadStatus and hold after an update: an import undoes neither our claim nor a person's hold."""
    if status in ("closed", "failed"):
        return status, None
    if ours.status == "in_progress" and status == "open":
        return "in_progress", ours.hold
    own = ours.hold
    if own is not None and (own.kind != "imported" or (hold is not None and own.status == hold.status)):
        return status, own
    return status, hold


def _same(one: Bead, other: Bead) -> bool:
    def told(bead: Bead) -> dict[str, Any]:
        return bead.issue.model_dump(exclude_defaults=True, exclude={"status", "started_at"})

    return one.status == other.status and one.hold == other.hold and told(one) == told(other)
