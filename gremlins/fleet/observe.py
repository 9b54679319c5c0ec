"""A look at a gremlin that is quick enough to take at ten thousand of them: the fields a list shows, read with plain
JSON. `gremlins.records.gremlin` is the typed record; a test holds the two together."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from gremlins.clock import parse_time
from gremlins.errors import CorruptRecord, NotFound, did_you_mean
from gremlins.paths import ACTIVITY, CALLS, FROZEN, GREMLIN_ID, LOCK, LOG, STATE, STOP, WAIT, GremlinPaths, Home
from gremlins.processes.locks import Holder, holder_of


class BranchGlance(NamedTuple):
    """A branch of a `parallel` stage that is not done. `stage` is what it began last, `outcome` how that ended."""

    path: str
    stage: str
    outcome: str | None


class Glance(NamedTuple):
    """What a list shows of one gremlin. `status` is the record's status object; `calls` its outstanding calls."""

    id: str
    pipeline: str
    task: str
    title: str
    bead_id: str | None
    project: str
    branch: str
    worktree: str
    stage: str
    mode: str | None
    client: str | None
    attempt: int
    status: Mapping[str, Any]
    cost: Mapping[str, Any]
    created_at: datetime
    updated_at: datetime
    ended_at: datetime | None
    parked_seconds: float = 0.0
    branches: tuple[BranchGlance, ...] = ()

    @property
    def state(self) -> str:
        """The record's own state: queued, running, parked, finished, landed, bailed, failed, interrupted, stopped."""
        return str(self.status["state"])

    @property
    def since(self) -> datetime:
        return parse_time(str(self.status["since"]))

    @property
    def is_over(self) -> bool:
        return self.state in OVER_STATES


END_OF_TIME = 2.5e11
"""Seconds since 1970 that a date can still hold."""

OVER_STATES = frozenset({"finished", "landed", "bailed", "failed", "interrupted", "stopped"})


class Sighting(NamedTuple):
    """A glance, and what the world says beside it: who holds its lock, and what was last heard of it."""

    glance: Glance
    folder: str
    holder: Holder | None
    stop_wanted: bool = False
    outstanding: tuple[Mapping[str, Any], ...] = ()
    wait: Mapping[str, Any] = MappingProxyType({})
    last_sign: datetime | None = None
    """When its process last wrote anything; only where somebody is alive and not parked, for nobody else stalls."""
    idle_timeout: float | None = None
    """Its own `live.idle_timeout`, as frozen at its launch; under the same condition."""

    @property
    def paths(self) -> GremlinPaths:
        return GremlinPaths(Path(self.folder))


def read_glance(paths: GremlinPaths) -> Glance:
    """Raises NotFound, or CorruptRecord for a half-written or foreign file."""
    return _read_state(str(paths.root))[0]


_Version = tuple[int, int]
"""Inode and time of a file: another one whenever it was replaced."""


def _read_state(folder: str) -> tuple[Glance, _Version]:
    """The glance, and of which version of the file. Raises as `read_glance`."""
    name = folder.rpartition("/")[2]
    try:
        fd = os.open(f"{folder}/{STATE}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            stat = os.fstat(fd)
            raw = os.read(fd, stat.st_size)
        finally:
            os.close(fd)
    except FileNotFoundError:
        raise NotFound(f"no gremlin `{name}`") from None
    except OSError as error:
        raise CorruptRecord(Path(folder, STATE), error.strerror or str(error)) from error
    try:
        return _glance(json.loads(raw.decode()), name), (stat.st_ino, stat.st_mtime_ns)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        why = f"not a gremlin's record ({type(error).__name__}: {error})"
        raise CorruptRecord(Path(folder, STATE), why) from error


def _read_again(folder: str, glance: Glance, version: _Version) -> tuple[Glance, _Version]:
    """The same glance where its file is still the same: reading is most of what a look costs."""
    try:
        stat = os.stat(f"{folder}/{STATE}")
    except OSError:
        return _read_state(folder)
    return (glance, version) if (stat.st_ino, stat.st_mtime_ns) == version else _read_state(folder)


def _glance(row: dict[str, Any], name: str) -> Glance:
    if row["id"] != name:
        raise ValueError(f"names another gremlin, {row['id']!r}")
    status, cost = _status(row["status"]), row["cost"]
    stage = _text(row, "stage")
    return Glance(
        id=name,
        pipeline=_text(row, "pipeline"),
        task=_text(row, "task"),
        title=_text(row, "title"),
        bead_id=row.get("bead_id"),
        project=_text(row, "project"),
        branch=_text(row, "branch"),
        worktree=_text(row, "worktree"),
        stage=stage,
        mode=row.get("mode"),
        client=row.get("client"),
        attempt=_attempt(row["attempts"], stage),
        status=status,
        cost={
            "total_usd": float(cost["total_usd"]),
            "batch_usd": float(cost["batch_usd"]),
            "live_usd": float(cost["live_usd"]),
            "saved_usd": float(cost["saved_usd"]),
            "unpriced_calls": int(cost["unpriced_calls"]),
        },
        created_at=parse_time(row["created_at"]),
        updated_at=parse_time(row["updated_at"]),
        ended_at=parse_time(row["ended_at"]) if row.get("ended_at") else None,
        parked_seconds=float(row.get("parked_seconds") or 0.0),
        branches=tuple(_branches(row.get("stages") or ())),
    )


def _status(status: Mapping[str, Any]) -> Mapping[str, Any]:
    """The record's status, of which whoever shows it reads only what is checked here."""
    parse_time(status["since"])
    checked = {**status, "state": str(status["state"])}
    if status.get("until") is not None:
        parse_time(status["until"])
    if status.get("exit_code") is not None:
        checked["exit_code"] = int(status["exit_code"])
    if "calls" in status:
        checked["calls"] = [_call(call, call) for call in status["calls"]]
    return checked


def _call(call: Mapping[str, Any], batch: Mapping[str, Any]) -> Mapping[str, Any]:
    """One outstanding call, as it is shown. Raises ValueError, KeyError, TypeError, AttributeError."""
    shown: dict[str, Any] = {
        "stage": _text(call, "stage"),
        "turn": int(call["turn"]),
        "custom_id": _text(call, "custom_id"),
        "batch_id": batch.get("batch_id"),
        "submitted_at": batch.get("submitted_at"),
        "expires_at": batch.get("expires_at"),
    }
    if not isinstance(shown["batch_id"], str | None):
        raise TypeError("batch_id is not text")
    for moment in (shown["submitted_at"], shown["expires_at"]):
        if moment is not None:
            parse_time(moment)
    return shown


def _branches(runs: Sequence[Mapping[str, Any]]) -> Iterator[BranchGlance]:
    """The branches that have begun, in that order."""
    if not any(run["type"] == "parallel" for run in runs):
        return
    latest = {run["path"]: run for run in runs}
    for path, run in latest.items():
        if run["type"] == "parallel" and run["outcome"] in (None, "bailed", "failed"):
            inside = [inner for inner in latest if inner.startswith(f"{path}/")]
            last = {f"{path}/{inner[len(path) + 1 :].partition('/')[0]}": latest[inner] for inner in inside}
            yield from (BranchGlance(name, str(end["path"]), end["outcome"]) for name, end in last.items())


def _text(row: Mapping[str, Any], key: str) -> str:
    value = row[key]
    if not isinstance(value, str):
        raise TypeError(f"{key} is not text")
    return value


def _attempt(attempts: Mapping[str, int], stage: str) -> int:
    path = stage
    while path:
        if path in attempts:
            return int(attempts[path])
        path = path.rpartition("[" if path.endswith("]") else "/")[0]  # as gremlins.records.gremlin.around
    return 1


def sight(paths: GremlinPaths) -> Sighting:
    """Read a gremlin and look around it. Raises NotFound, CorruptRecord."""
    return sight_folder(str(paths.root))


def sight_folder(folder: str, *, holder_of_the_over: bool = True) -> Sighting:
    """`sight` by the path of its folder. A list does not ask who holds the lock of what is over."""
    lock = f"{folder}/{LOCK}"
    glance, version = _read_state(folder)
    if glance.is_over and not holder_of_the_over:
        return Sighting(glance, folder, None)
    while True:
        holder = holder_of(lock)  # asked between two looks at the record, so that what is said is of one moment
        seen = version
        glance, version = _read_again(folder, glance, version)
        if holder is not None or version == seen:
            break
    if holder is None and glance.is_over:
        return Sighting(glance, folder, None)
    may_stall = holder is not None and glance.state != "parked"
    return Sighting(
        glance,
        folder,
        holder,
        stop_wanted=os.path.exists(f"{folder}/{STOP}"),
        outstanding=_outstanding(folder, glance, alive=holder is not None),
        wait=_read_wait(folder) if glance.state in ("parked", "running") else {},
        last_sign=_last_sign(folder) if may_stall else None,
        idle_timeout=_idle_timeout(folder) if may_stall else None,
    )


def _outstanding(folder: str, glance: Glance, *, alive: bool) -> tuple[Mapping[str, Any], ...]:
    """Calls that are, or may be, with the API: the record's where somebody lives, else those of the call records."""
    if glance.state == "parked" or alive:
        return tuple(glance.status.get("calls") or ())
    found = [call for path in sorted(Path(folder, CALLS).glob("*.json")) if (call := outstanding_call(path))]
    return tuple(sorted(found, key=lambda call: str(call.get("submitted_at") or "")))


def outstanding_call(path: Path) -> Mapping[str, Any] | None:
    """What a call waits for, or None where nothing of it is outstanding: `CallRecord.outstanding` and `.parked()`."""
    try:
        row = json.loads(path.read_bytes())
        state, batch = row["status"]["state"], row.get("batch")
        second = [waste for waste in row.get("waste") or () if not waste.get("settled")]
        maybe_sent = any(send.get("outcome") in (None, "ambiguous") for send in row["sends"])
        waits = state in ("submitted", "ended") or (state == "intent" and maybe_sent)
        if row["mode"] != "batch" or not waits:
            return None
        if second and state == "ended" and batch:
            batch = {**batch, "batch_id": second[0]["batch_id"], "expires_at": None}
        key = row["key"]
        return _call({"stage": key["stage"], "turn": key["turn"], "custom_id": row["custom_id"]}, batch or {})
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None  # `doctor` reports it; it hides no other call


def _read_wait(folder: str) -> Mapping[str, Any]:
    """What a parked process left about its wait: `until` (epoch), `polls`, and `calls` with their statuses."""
    try:
        with open(f"{folder}/{WAIT}", "rb", buffering=0) as file:
            found = json.loads(file.read())
        until, polls, calls = found.get("until"), found.get("polls"), found.get("calls")
    except (OSError, ValueError, AttributeError, RecursionError):
        return {}
    return {
        "until": until if isinstance(until, int | float) and 0 < until < END_OF_TIME else None,
        "polls": polls if isinstance(polls, int) else 0,
        "calls": [
            {"batch_id": call["batch_id"], "processing_status": str(call.get("processing_status") or "in_progress")}
            for call in (calls if isinstance(calls, list) else ())
            if isinstance(call, dict) and isinstance(call.get("batch_id"), str)
        ],
    }


def _last_sign(folder: str) -> datetime | None:
    """When its process last wrote anything."""
    newest = 0.0
    for name in (STATE, ACTIVITY, LOG):
        try:
            newest = max(newest, os.stat(f"{folder}/{name}").st_mtime)
        except OSError:
            continue
    return datetime.fromtimestamp(newest, UTC) if newest else None


def _idle_timeout(folder: str) -> float | None:
    try:
        with open(f"{folder}/{FROZEN}", "rb", buffering=0) as file:
            return float(json.loads(file.read())["settings"]["live"]["idle_timeout"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def ids(home: Home) -> Iterator[str]:
    """Every folder that may hold a gremlin, in no order."""
    try:
        entries = os.scandir(home.gremlins)
    except (FileNotFoundError, NotADirectoryError):
        return
    with entries:
        for entry in entries:
            if GREMLIN_ID.fullmatch(entry.name) and entry.is_dir():
                yield entry.name


def resolve(home: Home, prefix: str) -> str:
    """The id a person means by a unique prefix of it. Raises NotFound with the nearest, or with the matches."""
    if GREMLIN_ID.fullmatch(prefix) and home.gremlin(prefix).root.is_dir():
        return prefix
    known = sorted(ids(home))
    matches = [name for name in known if name.startswith(prefix)] if prefix else []
    if len(matches) == 1:
        return matches[0]
    if matches:
        some = ", ".join(matches[:12]) + (" …" if len(matches) > 12 else "")
        raise NotFound(f"`{prefix}` is the beginning of several gremlins", hint=f"one of: {some}")
    hint = did_you_mean(prefix, known, otherwise="`gremlins status --all` lists them all")
    raise NotFound(f"no gremlin `{prefix}`", hint=hint)
