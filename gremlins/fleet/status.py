"""The fleet as data: every gremlin with its liveness, newest first, and the JSON that scripts rely on. Only reads."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from gremlins.clock import Clock, parse_time, rfc3339
from gremlins.errors import CorruptRecord, NotFound
from gremlins.fleet.liveness import Liveness, liveness
from gremlins.fleet.observe import Glance, Sighting, ids, resolve, sight_folder
from gremlins.paths import Home

HIDDEN = frozenset({"finished", "landed"})
"""Left out of a list unless asked for."""

DEFAULT_IDLE_TIMEOUT = 360.0


class Row(NamedTuple):
    """One gremlin as `status` shows it."""

    seen: Sighting
    life: Liveness

    @property
    def glance(self) -> Glance:
        return self.seen.glance


class Fleet(NamedTuple):
    """The rows, and the records that could not be read."""

    rows: tuple[Row, ...]
    unreadable: tuple[CorruptRecord, ...]


def look(home: Home, gremlin_id: str, clock: Clock, idle_timeout: float = DEFAULT_IDLE_TIMEOUT) -> Row:
    """One gremlin by its full id. Raises NotFound, CorruptRecord."""
    return _look(str(home.gremlin(gremlin_id).root), clock.now(), idle_timeout)


def _look(folder: str, now: datetime, idle_timeout: float, *, in_a_list: bool = False) -> Row:
    seen = sight_folder(folder, holder_of_the_over=not in_a_list)
    return Row(seen, liveness(seen, now, seen.idle_timeout or idle_timeout))


def survey(
    home: Home,
    clock: Clock,
    *,
    names: tuple[str, ...] = (),
    everything: bool = False,
    project: Path | None = None,
    idle_timeout: float = DEFAULT_IDLE_TIMEOUT,
) -> Fleet:
    """The fleet, newest first. `names` are unique prefixes; naming shows whatever there is. Raises NotFound."""
    wanted = [resolve(home, name) for name in names] if names else list(ids(home))
    rows: list[Row] = []
    unreadable: list[CorruptRecord] = []
    root = str(home.gremlins)
    for gremlin_id in dict.fromkeys(wanted):
        try:
            row = _look(f"{root}/{gremlin_id}", clock.now(), idle_timeout, in_a_list=not names)
        except CorruptRecord as error:
            unreadable.append(error)
            continue
        except NotFound:
            continue  # being launched or removed at this moment
        if names or everything or row.life.state not in HIDDEN:
            rows.append(row)
    if project is not None:
        rows = [row for row in rows if Path(row.glance.project) == project]
    rows.sort(key=lambda row: (row.glance.created_at, row.glance.id), reverse=True)
    if names and unreadable and not rows:
        raise unreadable[0]
    return Fleet(tuple(rows), tuple(unreadable))


def as_json(row: Row) -> dict[str, Any]:
    """The object of `status --json`."""
    glance, life = row.glance, row.life
    batches = [_batch(call, row.seen) for call in row.seen.outstanding]
    return {
        "id": glance.id,
        "pipeline": glance.pipeline,
        "task": glance.task,
        "title": glance.title,
        "bead_id": glance.bead_id,
        "project": glance.project,
        "branch": glance.branch,
        "worktree": glance.worktree,
        "stage": glance.stage,
        "mode": glance.mode,
        "client": glance.client,
        "attempt": glance.attempt,
        "liveness": {
            "state": life.state,
            "since": rfc3339(life.since),
            "pid": life.pid,
            "exit_code": life.exit_code,
            "reason": life.reason,
            "shown": life.shown,
        },
        "branches": branches(row),
        "batch": batches[0] if batches else None,
        "batches": batches,
        "bail": _bail(glance),
        "cost": dict(glance.cost),
        "created_at": rfc3339(glance.created_at),
        "updated_at": rfc3339(glance.updated_at),
        "ended_at": rfc3339(glance.ended_at) if glance.ended_at else None,
    }


def branches(row: Row) -> list[dict[str, str]]:
    """The branches of a `parallel` stage that is not done: `state` is running, parked, done, bailed, failed, or
    unfinished where nobody is at work."""
    seen = row.seen
    waiting = [str(call.get("stage")) for call in seen.outstanding]
    shown = []
    for branch in row.glance.branches:
        state = branch.outcome
        if state is None and any(stage.startswith(f"{branch.path}/") for stage in waiting):
            state = "parked" if seen.holder is not None else "detached"
        elif state is None:
            state = "running" if seen.holder is not None else "unfinished"
        shown.append({"path": branch.path, "stage": branch.stage, "state": state})
    return shown


def next_poll(seen: Sighting) -> datetime | None:
    """When the API is next asked about what it waits for; None when nobody lives who would."""
    until = seen.wait.get("until")
    if seen.holder is None or not isinstance(until, int | float) or not until:
        return None
    try:
        return datetime.fromtimestamp(until, UTC)
    except (OverflowError, ValueError, OSError):
        return None  # not a time: the file is only for people's eyes


def _bail(glance: Glance) -> dict[str, Any] | None:
    if glance.state != "bailed":
        return None
    status = glance.status
    return {"class": status.get("kind"), "detail": status.get("detail"), "stage": status.get("stage")}


def _batch(call: Mapping[str, Any], seen: Sighting) -> dict[str, Any]:
    wait, due = seen.wait, next_poll(seen)
    watched = {c.get("batch_id"): c for c in wait.get("calls") or [] if isinstance(c, dict)}
    mine = watched.get(call.get("batch_id")) if call.get("batch_id") else None
    return {
        "batch_id": call.get("batch_id"),
        "custom_id": call.get("custom_id"),
        "stage": call.get("stage"),
        "turn": call.get("turn"),
        "submitted_at": _time(call.get("submitted_at")),
        "expires_at": _time(call.get("expires_at")),
        "processing_status": mine.get("processing_status", "in_progress") if mine else _unwatched(call),
        "polls": int(wait.get("polls") or 0) if mine else 0,
        "next_poll_at": rfc3339(due) if due else None,
    }


def _unwatched(call: Mapping[str, Any]) -> str | None:
    """Nobody has asked yet: in progress as far as known, or not even known to exist."""
    return "in_progress" if call.get("batch_id") else None


def _time(value: object) -> str | None:
    return rfc3339(parse_time(value)) if isinstance(value, str) and value else None
