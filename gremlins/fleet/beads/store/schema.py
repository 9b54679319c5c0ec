"""The tables of `beads.db`, and the conversion of rows. The cluster has the same ones (`gremlins.cluster.schema`)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields
from typing import Any, Protocol

import msgspec

from gremlins.fleet.beads.attempts import Attempt, Episode, Work
from gremlins.fleet.beads.bead import STATUSES, Bead, Hold, Issue
from gremlins.fleet.times import seconds_of

VERSION = 1

TABLES = """
CREATE TABLE beads (
    n INTEGER PRIMARY KEY, project TEXT NOT NULL, id TEXT NOT NULL,
    status TEXT NOT NULL, generation INTEGER NOT NULL, epoch INTEGER NOT NULL,
    priority INTEGER NOT NULL, issue_type TEXT NOT NULL, assignee TEXT NOT NULL,
    created_at TEXT NOT NULL, updated_at TEXT NOT NULL, started_at TEXT, closed_at TEXT, close_reason TEXT NOT NULL,
    defer_at REAL, hold TEXT, blocked INTEGER NOT NULL DEFAULT 0, tried INTEGER NOT NULL DEFAULT 0,
    doc TEXT NOT NULL,
    UNIQUE (project, id)
);
CREATE INDEX beads_by_id ON beads (id);
CREATE INDEX beads_in_order ON beads (project, priority, created_at, n);
CREATE INDEX beads_startable ON beads (project, priority, created_at, n)
    WHERE status IN ('open', 'deferred') AND blocked = 0 AND hold IS NULL AND tried = 0;
CREATE INDEX beads_by_status ON beads (project, status);
CREATE INDEX beads_alive ON beads (project, priority, created_at, n) WHERE status NOT IN ('closed', 'failed');
CREATE INDEX beads_tried ON beads (project, id) WHERE tried > 0 AND status NOT IN ('closed', 'failed');
CREATE INDEX beads_deferred ON beads (project, defer_at)
    WHERE defer_at IS NOT NULL AND status IN ('open', 'deferred');

CREATE TABLE deps (
    project TEXT NOT NULL, issue_id TEXT NOT NULL, depends_on_id TEXT NOT NULL, type TEXT NOT NULL,
    position INTEGER NOT NULL, doc TEXT NOT NULL,
    PRIMARY KEY (project, issue_id, depends_on_id, type)
) WITHOUT ROWID;
CREATE INDEX deps_backwards ON deps (project, depends_on_id, type, issue_id);

CREATE TABLE attempts (
    project TEXT NOT NULL, bead_id TEXT NOT NULL, number INTEGER NOT NULL, epoch INTEGER NOT NULL,
    gremlin_id TEXT NOT NULL, kind TEXT NOT NULL, pipeline TEXT NOT NULL, mode TEXT, scopes TEXT NOT NULL,
    probe INTEGER NOT NULL, expected_usd REAL NOT NULL, claimed_at REAL NOT NULL,
    spawns INTEGER NOT NULL, spawned_at REAL, base_spawn INTEGER NOT NULL, base_replies INTEGER NOT NULL,
    base_parked REAL NOT NULL, base_cost_usd REAL NOT NULL, ending_reason TEXT, ending_at REAL,
    settled_seq INTEGER, settled_at REAL, failure TEXT, reason TEXT, exit_code INTEGER, retry_at REAL,
    cost_usd REAL, cap_name TEXT, cap_usd REAL,
    PRIMARY KEY (project, bead_id, number)
);
CREATE UNIQUE INDEX attempts_one_unsettled ON attempts (project, bead_id) WHERE settled_seq IS NULL;
CREATE UNIQUE INDEX attempts_settled ON attempts (project, settled_seq) WHERE settled_seq IS NOT NULL;
CREATE INDEX attempts_by_gremlin ON attempts (gremlin_id);
CREATE INDEX attempts_by_day ON attempts (settled_at, cost_usd);
CREATE INDEX attempts_dearest ON attempts (pipeline, cost_usd);

CREATE TABLE episodes (
    project TEXT NOT NULL, scope TEXT NOT NULL, number INTEGER NOT NULL, cause TEXT NOT NULL, reason TEXT NOT NULL,
    since_seq INTEGER NOT NULL, opened_at REAL NOT NULL, level INTEGER NOT NULL, shut_at REAL NOT NULL,
    until REAL NOT NULL, probe TEXT, closed_at REAL, closed_seq INTEGER, closed_why TEXT NOT NULL,
    version INTEGER NOT NULL,
    PRIMARY KEY (project, scope, number)
);

CREATE TABLE events (
    n INTEGER PRIMARY KEY, project TEXT NOT NULL, bead_id TEXT NOT NULL, at REAL NOT NULL, kind TEXT NOT NULL,
    text TEXT NOT NULL
);
CREATE INDEX events_of_bead ON events (project, bead_id, n);

CREATE TABLE notices (
    n INTEGER PRIMARY KEY, project TEXT NOT NULL, at REAL NOT NULL, kind TEXT NOT NULL, payload TEXT NOT NULL,
    taken INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX notices_waiting ON notices (project, n) WHERE taken = 0;

CREATE TABLE pauses (project TEXT PRIMARY KEY, reason TEXT NOT NULL);
"""

WORK_COLUMNS = "n, project, id, status, generation, epoch, priority, created_at, blocked, defer_at, hold, assignee"
BEAD_COLUMNS = (
    "project, id, status, generation, epoch, priority, issue_type, assignee, created_at, updated_at, started_at,"
    " closed_at, close_reason, hold, blocked, tried, doc"
)
_IN_COLUMNS = (
    "id", "status", "priority", "issue_type", "assignee", "created_at", "updated_at", "started_at", "closed_at",
    "close_reason",
)  # fmt: skip
"""Issue fields with columns. Dependencies have a table; all other fields are in `doc`."""

_MAYBE_EMPTY = ("assignee", "close_reason")
"""Fields whose column is empty also if the issue does not have them: an empty one is in `doc`."""

SPAWN_COLUMNS = ("spawns", "spawned_at", "base_spawn", "base_replies", "base_parked")
_ATTEMPT_COLUMNS = tuple(f.name for f in fields(Attempt) if f.name not in ("ending", "settled"))


class StoredRow(Protocol):
    """Values by column name or position. It iterates over the values."""

    def keys(self) -> list[str]: ...

    def __getitem__(self, key: Any, /) -> Any: ...

    def __iter__(self) -> Iterator[Any]: ...


class BadRow(ValueError):
    """A row with invalid content."""


def bead_row(bead: Bead) -> dict[str, Any]:
    """Column values of a bead."""
    issue = bead.issue
    everything = issue.model_dump(mode="json", exclude_unset=True)
    doc = {
        key: value
        for key, value in everything.items()
        if (key not in _IN_COLUMNS and key != "dependencies") or (key in _MAYBE_EMPTY and value == "")
    }
    if len({(dep.depends_on_id, dep.type) for dep in issue.dependencies}) < len(issue.dependencies):
        doc["dependencies"] = everything["dependencies"]  # the table holds each once
    return {key: getattr(issue, key) for key in _IN_COLUMNS} | {
        "project": bead.project,
        "status": bead.status,
        "generation": bead.generation,
        "epoch": bead.epoch,
        "defer_at": seconds_of(issue.defer_until) if issue.defer_until else None,
        "hold": dump_hold(bead.hold),
        "tried": bead.tried,
        "doc": json.dumps(doc, ensure_ascii=False),
    }


def bead_of(row: StoredRow, dependencies: list[dict[str, Any]]) -> Bead:
    """Raises BadRow."""
    try:
        content = json.loads(row["doc"])
        if not isinstance(content, dict) or row["status"] not in STATUSES:
            raise BadRow(f"bead {row['id']}: invalid content")
        content |= {k: row[k] for k in _IN_COLUMNS if row[k] is not None and (row[k] or k not in _MAYBE_EMPTY)}
        issue = Issue.model_validate({"dependencies": dependencies} | content if dependencies else content)
        return Bead(
            project=row["project"],
            issue=issue,
            status=row["status"],
            generation=int(row["generation"]),
            epoch=int(row["epoch"]),
            hold=load_hold(row["hold"]),
            blocked=bool(row["blocked"]),
            tried=int(row["tried"]),
        )
    except (ValueError, TypeError, KeyError) as error:
        raise BadRow(f"bead {row['id']}: {_short(error)}") from error


def work_of(row: StoredRow, attempts: list[StoredRow]) -> Work:
    """Raises BadRow."""
    try:
        if row["status"] not in STATUSES:
            raise BadRow(f"bead {row['id']}: unknown status")
        return Work(
            project=row["project"],
            id=row["id"],
            status=row["status"],
            generation=int(row["generation"]),
            epoch=int(row["epoch"]),
            priority=int(row["priority"]),
            created_at=str(row["created_at"]),
            n=int(row["n"]),
            attempts=tuple(attempt_of(a) for a in attempts),
            blocked=bool(row["blocked"]),
            defer_at=None if row["defer_at"] is None else float(row["defer_at"]),
            hold=load_hold(row["hold"]),
            assignee=str(row["assignee"]),
        )
    except (ValueError, TypeError, KeyError) as error:
        raise BadRow(f"bead {row['id']}: {_short(error)}") from error


def attempt_row(attempt: Attempt) -> dict[str, Any]:
    """Column values of an unsettled attempt."""
    ending = attempt.ending
    return {name: getattr(attempt, name) for name in _ATTEMPT_COLUMNS} | {
        "scopes": json.dumps(attempt.scopes),
        "ending_reason": ending.reason if ending else None,
        "ending_at": ending.at if ending else None,
    }


def attempt_of(row: StoredRow) -> Attempt:
    """Raises BadRow."""
    try:
        content = dict(row)
        content["scopes"] = msgspec.json.decode(row["scopes"])
        if row["ending_at"] is not None:
            content["ending"] = {"reason": row["ending_reason"], "at": row["ending_at"]}
        if row["settled_seq"] is not None:
            content["settled"] = {
                "at": row["settled_at"],
                "failure": row["failure"],
                "reason": row["reason"],
                "seq": row["settled_seq"],
                "exit_code": row["exit_code"],
                "retry_at": row["retry_at"],
                "cost_usd": row["cost_usd"] or 0.0,
                "cap": None if row["cap_name"] is None else {"name": row["cap_name"], "usd": row["cap_usd"]},
            }
        return msgspec.convert(content, Attempt, strict=False)  # SQLite has no booleans
    except (msgspec.MsgspecError, ValueError, TypeError) as error:
        raise BadRow(f"attempt {row['number']}: {_short(error)}") from error


def episode_of(row: StoredRow) -> Episode:
    return Episode(**{key: row[key] for key in row.keys()})  # noqa: SIM118  (a StoredRow iterates over its values)


def dump_hold(hold: Hold | None) -> str | None:
    return None if hold is None else json.dumps(vars(hold), ensure_ascii=False)


def load_hold(text: str | None) -> Hold | None:
    """Raises BadRow."""
    try:
        return None if text is None else msgspec.json.decode(text, type=Hold)
    except msgspec.MsgspecError as error:
        raise BadRow("invalid hold") from error


def _short(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
