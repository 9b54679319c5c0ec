"""The fleet as data: every gremlin with its liveness, newest first, and the JSON that scripts rely on. Only reads."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from gremlins.clock import Clock, rfc3339
from gremlins.errors import CorruptRecord, NotFound
from gremlins.fleet.observe import ids, observe, resolve
from gremlins.paths import Home
from gremlins.records.gremlin import Bailed, Gremlin, ParkedCall, StageRun
from gremlins.records.liveness import Liveness, Observed, liveness

OVER = frozenset({"finished", "landed"})
"""Left out of the JSON list unless asked for; people are shown what has finished, for it waits to be landed."""

DEFAULT_IDLE_TIMEOUT = 360.0


class Row(NamedTuple):
    """One gremlin as `status` shows it."""

    seen: Observed
    life: Liveness

    @property
    def record(self) -> Gremlin:
        return self.seen.record


class FleetStatus(NamedTuple):
    """The rows, and the unreadable records."""

    rows: tuple[Row, ...]
    unreadable: tuple[CorruptRecord, ...]


def look(home: Home, gremlin_id: str, clock: Clock, idle_timeout: float = DEFAULT_IDLE_TIMEOUT) -> Row:
    """One gremlin by its full id. Raises NotFound, CorruptRecord."""
    if home.cluster:
        from gremlins.cluster.overview import observe_one, open_fleet

        with contextlib.closing(open_fleet(home)) as db:
            seen = observe_one(home, db, gremlin_id)
        return Row(seen, liveness(seen, clock.now(), seen.idle_timeout or idle_timeout))
    return _look(str(home.gremlin(gremlin_id).root), clock.now(), idle_timeout)


def _look(folder: str, now: datetime, idle_timeout: float, *, in_a_list: bool = False) -> Row:
    seen = observe(folder, holder_of_the_over=not in_a_list)
    return Row(seen, liveness(seen, now, seen.idle_timeout or idle_timeout))


def survey(
    home: Home,
    clock: Clock,
    *,
    names: tuple[str, ...] = (),
    everything: bool = False,
    hidden: frozenset[str] = OVER,
    project: Path | None = None,
    idle_timeout: float = DEFAULT_IDLE_TIMEOUT,
) -> FleetStatus:
    """The fleet, newest first. `names` are unique prefixes; a named gremlin is always shown. Raises NotFound."""
    if home.cluster:
        return _survey_cluster(home, clock, names, everything, hidden, project, idle_timeout)
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
        if names or everything or row.life.state not in hidden:
            rows.append(row)
    if project is not None:
        rows = [row for row in rows if Path(row.record.project) == project]
    rows.sort(key=lambda row: (row.record.created_at, row.record.id), reverse=True)
    if names and unreadable and not rows:
        raise unreadable[0]
    return FleetStatus(tuple(rows), tuple(unreadable))


def _survey_cluster(
    home: Home,
    clock: Clock,
    names: tuple[str, ...],
    everything: bool,
    hidden: frozenset[str],
    project: Path | None,
    idle_timeout: float,
) -> FleetStatus:
    """The same of a cluster, by one query."""
    from gremlins.cluster.overview import observe_all, open_fleet, remote_name

    with contextlib.closing(open_fleet(home)) as db:
        wanted = [resolve(home, name) for name in names] or None
        found, unreadable = observe_all(home, db, wanted)
    now, here = clock.now(), None if project is None else remote_name(project)
    rows = [Row(seen, liveness(seen, now, seen.idle_timeout or idle_timeout)) for seen in found]
    rows = [row for row in rows if names or everything or row.life.state not in hidden]
    rows = [row for row in rows if project is None or remote_name(row.record.project) == here]
    rows.sort(key=lambda row: (row.record.created_at, row.record.id), reverse=True)
    if names and unreadable and not rows:
        raise unreadable[0]
    return FleetStatus(tuple(rows), tuple(unreadable))


def as_json(row: Row) -> dict[str, Any]:
    """The object of `status --json`."""
    record, life = row.record, row.life
    batches = [_batch(call, row.seen) for call in row.seen.outstanding]
    return {
        "id": record.id,
        "pipeline": record.pipeline,
        "task": record.task,
        "title": record.title,
        "bead_id": record.bead_id,
        "project": record.project,
        "branch": record.branch,
        "worktree": record.worktree,
        "stage": record.stage,
        "mode": record.mode,
        "client": record.client,
        "attempt": record.attempt_of(record.stage),
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
        "bail": _bail(record),
        "diff": _diff(record),
        "cost": {
            "total_usd": record.cost.total_usd,
            "batch_usd": record.cost.batch_usd,
            "live_usd": record.cost.live_usd,
            "saved_usd": record.cost.saved_usd,
            "unpriced_calls": record.cost.unpriced_calls,
            "unknown_calls": record.cost.unknown_calls,
        },
        "created_at": rfc3339(record.created_at),
        "updated_at": rfc3339(record.updated_at),
        "ended_at": rfc3339(record.ended_at) if record.ended_at else None,
    }


class UnfinishedBranch(NamedTuple):
    """A branch of a `parallel` stage that is not done. `stage` is the one begun last, `outcome` how it ended."""

    path: str
    stage: str
    outcome: str | None


def unfinished_branches(runs: Sequence[StageRun]) -> Iterator[UnfinishedBranch]:
    """The branches that have begun, of `parallel` stages that are not done, in the order of their beginning."""
    if not any(run.type == "parallel" for run in runs):
        return
    latest = {run.path: run for run in runs}
    for path, run in latest.items():
        if run.type == "parallel" and run.outcome in (None, "bailed", "failed"):
            inside = [inner for inner in latest if inner.startswith(f"{path}/")]
            last = {f"{path}/{inner[len(path) + 1 :].partition('/')[0]}": latest[inner] for inner in inside}
            yield from (UnfinishedBranch(name, end.path, end.outcome) for name, end in last.items())


def branches(row: Row) -> list[dict[str, str]]:
    """The unfinished branches: `state` is running, parked, detached, done, bailed, failed, or unfinished without a
    process."""
    seen = row.seen
    waiting = [call.stage for call in seen.outstanding]
    shown = []
    for branch in unfinished_branches(row.record.stages):
        state = branch.outcome
        if state is None and any(stage.startswith(f"{branch.path}/") for stage in waiting):
            state = "parked" if seen.holder is not None else "detached"
        elif state is None:
            state = "running" if seen.holder is not None else "unfinished"
        shown.append({"path": branch.path, "stage": branch.stage, "state": state})
    return shown


def next_poll(seen: Observed) -> datetime | None:
    """The time at which the API is asked next about its batches; None without a process."""
    if seen.holder is None or seen.wait is None or not seen.wait.until:
        return None
    return datetime.fromtimestamp(seen.wait.until, UTC)


def _bail(record: Gremlin) -> dict[str, Any] | None:
    status = record.status
    if not isinstance(status, Bailed):
        return None
    return {"class": status.kind, "detail": status.detail, "stage": status.stage}


def _diff(record: Gremlin) -> dict[str, int] | None:
    """Size of the branch's change after its last stage; None for a record of an earlier version."""
    diff = record.diff
    return None if diff is None else {"files": diff.files, "added": diff.added, "deleted": diff.deleted}


def _batch(call: ParkedCall, seen: Observed) -> dict[str, Any]:
    due = next_poll(seen)
    watched = {batch.batch_id: batch for batch in seen.wait.calls} if seen.wait else {}
    mine = watched.get(call.batch_id) if call.batch_id else None
    unpolled = "in_progress" if call.batch_id else None
    return {
        "batch_id": call.batch_id,
        "custom_id": call.custom_id,
        "stage": call.stage,
        "turn": call.turn,
        "submitted_at": rfc3339(call.submitted_at) if call.submitted_at else None,
        "expires_at": rfc3339(call.expires_at) if call.expires_at else None,
        "processing_status": mine.processing_status if mine else unpolled,
        "polls": seen.wait.polls if mine and seen.wait else 0,
        "next_poll_at": rfc3339(due) if due else None,
    }
