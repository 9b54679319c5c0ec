"""The gremlin's record, `state.json`: its type, its one reader, and the store that writes it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

import msgspec
from msgspec.structs import replace

from gremlins.clock import Clock
from gremlins.errors import Conflict, CorruptRecord, NotFound
from gremlins.files import make_private_dir, read_file, write_atomic
from gremlins.outcome import FailureClass, SpendingCap
from gremlins.paths import RELOCATION, STATE, GremlinPaths, Home
from gremlins.processes.locks import GremlinLock
from gremlins.records.format import Moment, Record, decoded, encoded

SCHEMA = 1

Mode = Literal["live", "batch"]
StageOutcome = Literal["done", "skipped", "bailed", "failed", "acknowledged"]

Version = tuple[int, int]
"""Inode and modification time of a file: different whenever the file was replaced."""


class ParkedCall(Record, frozen=True):
    """One outstanding batch call. `batch_id` is null while it is being looked for."""

    stage: str
    custom_id: str
    batch_id: str | None = None
    turn: int = 1
    submitted_at: Moment | None = None
    expires_at: Moment | None = None


class StatusBase(Record, tag_field="state", frozen=True):
    """A status of the record, as the gremlin's own process last wrote it."""

    since: Moment

    @property
    def state(self) -> str:
        """Its name on disk."""
        return str(self.__struct_config__.tag)


class Queued(StatusBase, tag="queued", frozen=True):
    """Launched or rescued; its process has not written anything yet."""


class Running(StatusBase, tag="running", frozen=True):
    """At work. `until` is the end of a wait or of a command's timeout: silence before it is not a stall.

    `asleep`: the process is given up until then. `calls` are outstanding batches of branches that wait while others
    work.
    """

    until: Moment | None = None
    waiting_for: str | None = None
    asleep: bool = False
    calls: tuple[ParkedCall, ...] = ()


OVERDUE = timedelta(hours=1)
"""After its expiry a batch has ended; one that has not by this much later is not waited for any more."""


def is_overdue(expires_at: datetime | None, now: datetime) -> bool:
    """True if a batch should have ended long ago."""
    return expires_at is not None and now > expires_at + OVERDUE


def overdue(calls: Iterable[ParkedCall], now: datetime) -> str | None:
    """A sentence about the first of these calls whose batch should have ended long ago, or None."""
    for call in calls:
        if call.expires_at is not None and is_overdue(call.expires_at, now):
            hours = (now - call.expires_at).total_seconds() / 3600
            return f"{call.batch_id or call.stage} is {hours:.0f} h past its expiry and has not ended"
    return None


class Parked(StatusBase, tag="parked", frozen=True):
    """Waiting on batches. `reason` says why the process ended although calls are outstanding."""

    calls: tuple[ParkedCall, ...]
    reason: str | None = None
    failure: FailureClass | None = None


class Evidence(Record, frozen=True):
    """The change a finished gremlin must show, checked against the base commit when it finished."""

    kind: Literal["commits", "none", "nothing_to_do"]
    base: str
    tip: str
    holds: bool
    detail: str = ""


class Finished(StatusBase, tag="finished", frozen=True):
    """Every stage is done."""

    evidence: Evidence


class Landed(StatusBase, tag="landed", frozen=True):
    """Its work is on `target` as the commit `sha`."""

    sha: str
    target: str
    evidence: Evidence
    tip: str | None = None
    """Tip of its branch at the landing: commits added to a kept branch later have not landed."""


class Bailed(StatusBase, tag="bailed", frozen=True):
    """An agent or a rule needs a person. `kind` is the bail's class."""

    stage: str
    kind: str
    detail: str


class FailedGremlin(StatusBase, tag="failed", frozen=True):
    """The process ended by itself and said why. Shown as `dead:exit N`."""

    stage: str
    failure: FailureClass
    reason: str
    exit_code: int = 1
    retry_at: Moment | None = None
    cap: SpendingCap | None = None
    """The spending cap of ours that ended it."""


class Interrupted(StatusBase, tag="interrupted", frozen=True):
    """A signal that was not announced ended the process, which could still write this."""

    signal: str


class Stopped(StatusBase, tag="stopped", frozen=True):
    """A person or the loop stopped it."""

    by: str
    reason: str = ""


Status = Queued | Running | Parked | Finished | Landed | Bailed | FailedGremlin | Interrupted | Stopped

OVER = (Finished, Landed, Bailed, FailedGremlin, Interrupted, Stopped)
"""Statuses that a process writes last."""


class StageRun(Record, frozen=True):
    """One run of one stage. `outcome` is null while it has not ended."""

    path: str
    type: str
    attempt: int
    started_at: Moment
    ended_at: Moment | None = None
    outcome: StageOutcome | None = None
    note: str = ""
    nothing_to_do: str | None = None
    """The agent's own reason."""


class CostSummary(Record, frozen=True):
    """USD, summed over call records. `saved_usd` is what batch prices saved against live ones."""

    total_usd: float = 0.0
    batch_usd: float = 0.0
    live_usd: float = 0.0
    saved_usd: float = 0.0
    wasted_usd: float = 0.0
    unpriced_calls: int = 0
    unknown_calls: int = 0
    """Sends that may have been billed and cannot be looked up."""


class DiffCount(Record, frozen=True):
    """Size of the branch's change against its base, in files and lines; a binary file has no lines."""

    files: int = 0
    added: int = 0
    deleted: int = 0


class Answered(Record, frozen=True):
    """A question that a stage bailed with, and a person's answer."""

    stage: str
    question: str
    answer: str
    at: Moment


class Remark(Record, frozen=True):
    """A person's remark on a line of the change, or, without a path, on the whole."""

    text: str
    path: str | None = None
    line: int | None = None


class Revision(Record, frozen=True):
    """Remarks on a finished gremlin's change: one more round, after those before it.

    onto: the commit of the project that its branch is merged with first, where the change conflicted at landing; None:
    a person's remarks.
    """

    remarks: tuple[Remark, ...]
    at: Moment
    onto: str | None = None


class Gremlin(Record, frozen=True):
    """Everything about one gremlin but its calls, its artifacts and what was frozen at launch."""

    id: str
    uid: str
    pipeline: str
    task: str
    project: str
    branch: str
    worktree: str
    base: str
    stage: str
    status: Status
    created_at: Moment
    updated_at: Moment
    ended_at: Moment | None = None
    title: str = ""
    bead_id: str | None = None
    mode: Mode | None = None
    client: str | None = None
    attempts: dict[str, int] = msgspec.field(default_factory=dict)
    spawn: int = 1
    total_cost_usd: float = 0.0
    cost: CostSummary = CostSummary()
    stages: tuple[StageRun, ...] = ()
    parked_seconds: float = 0.0
    checkout: str = ""
    """The working tree it was launched from, where that is not `project`: a linked worktree, or one of a bare
    repository."""
    accepts_no_evidence: bool = False
    """A person accepted that it finishes without a change."""
    diff: DiffCount | None = None
    """None: unknown, as in a record of an earlier version."""
    answers: tuple[Answered, ...] = ()
    revisions: tuple[Revision, ...] = ()
    builds_on: tuple[str, ...] = ()
    """Gremlins whose branches, not landed then, its base commit holds."""
    schema: int = SCHEMA

    @property
    def tree(self) -> Path:
        """The working tree it was launched from: settings are read there, and its work lands on the branch there."""
        return Path(self.checkout or self.project)

    def attempt_of(self, label: str) -> int:
        """The attempt of a stage or call: that of the nearest stage around it that has begun another, else 1."""
        path = label
        while path:
            if path in self.attempts:
                return self.attempts[path]
            path = around(path)
        return 1

    def done_stages(self) -> frozenset[str]:
        """Paths of the stages whose latest run is done, skipped or acknowledged: they are never run again."""
        latest = {run.path: run for run in self.stages}
        return frozenset(path for path, run in latest.items() if run.outcome in ("done", "skipped", "acknowledged"))

    def broken_stages(self) -> tuple[str, ...]:
        """Paths of the innermost stages whose latest run bailed or failed, in the order in which they ended."""
        latest = {run.path: run for run in self.stages}
        bad = {path: run for path, run in latest.items() if run.outcome in ("bailed", "failed")}
        leaves = [
            run for path, run in bad.items() if not any(inner.startswith((f"{path}/", f"{path}[")) for inner in bad)
        ]
        return tuple(run.path for run in sorted(leaves, key=lambda run: run.ended_at or run.started_at))

    def stage_at_work(self, but: str = "") -> str | None:
        """The path of the innermost stage that holds all that is unfinished: of branches side by side, the `parallel`
        around them. `but` and what is around it count for nothing. None: nothing is unfinished."""
        unfinished = {path for path, run in {run.path: run for run in self.stages}.items() if run.outcome is None}
        unfinished -= set(_upward(but))
        leaves = [path for path in unfinished if not any(path in _upward(around(other)) for other in unfinished)]
        if not leaves:
            return None
        first, *others = ([*_upward(path)] for path in sorted(leaves))
        return next((path for path in first if all(path in other for other in others)), None)

    def over(self) -> bool:
        return isinstance(self.status, OVER)


def around(path: str) -> str:
    """The path of what a stage is part of: `loop[3]/plan` → `loop[3]` → `loop` → nothing."""
    if path.endswith("]"):
        return path.rpartition("[")[0]
    return path.rpartition("/")[0]


def _upward(path: str) -> Iterator[str]:
    """The path itself, then what it is part of, outward."""
    while path:
        yield path
        path = around(path)


class Relocation(Record, frozen=True):
    """The place of a gremlin's repository now, told while its process waited: its record was not ours to write."""

    project: str
    checkout: str


class RunStore:
    """All gremlins of one state root. Reading needs no lock; writing needs the gremlin's."""

    def __init__(self, home: Home, clock: Clock) -> None:
        self.home = home
        self.clock = clock

    def paths(self, gremlin_id: str) -> GremlinPaths:
        return self.home.gremlin(gremlin_id)

    def claim(self, gremlin_id: str) -> GremlinLock:
        """Make the folder of a new gremlin, and hold its lock. Raises Conflict if the id is taken.

        A folder that a killed launcher left without a record is taken over.
        """
        paths = self.paths(gremlin_id)
        make_private_dir(self.home.gremlins)
        with contextlib.suppress(FileExistsError):
            paths.root.mkdir(mode=0o700)
        taken = Conflict(
            f"there is already a gremlin `{gremlin_id}`",
            hint=f"choose another --id, or `gremlins rm {gremlin_id}` first",
        )
        if paths.state.exists():
            raise taken
        try:
            lock = GremlinLock.acquire(paths.lock, "runner", patience=0.2)
        except Conflict:
            raise taken from None
        if paths.state.exists():  # another process was quicker
            lock.release()
            raise taken
        for folder in (paths.calls, paths.artifacts):
            make_private_dir(folder)
        return lock

    def write(self, record: Gremlin, lock: GremlinLock) -> Gremlin:
        """Replace the record. `lock` is proof that the caller may."""
        assert lock.fd >= 0
        stamped = replace(record, updated_at=self.clock.now())
        write_atomic(self.paths(record.id).state, encoded(stamped))
        return stamped

    def read(self, gremlin_id: str) -> Gremlin:
        """Raises NotFound, or CorruptRecord for a half-written, foreign or newer file."""
        return read_record(str(self.paths(gremlin_id).root))


_DECODER = msgspec.json.Decoder(Gremlin)
_RELOCATION = msgspec.json.Decoder(Relocation)


def read_record(folder: str) -> Gremlin:
    """The record in a gremlin's folder. Raises NotFound, or CorruptRecord. Takes a string: `Path` is slow in lists."""
    return read_version(folder)[0]


def read_version(folder: str) -> tuple[Gremlin, Version]:
    """The record, and which version of its file was read. Raises like `read_record`."""
    name = folder.rpartition("/")[2]
    path = f"{folder}/{STATE}"
    try:
        stat = os.stat(path)  # first: a record that is replaced meanwhile is read again
        raw = read_file(path)
    except FileNotFoundError:
        raise NotFound(f"no gremlin `{name}`") from None
    except OSError as error:
        raise CorruptRecord(Path(path), error.strerror or str(error)) from error
    record = decoded(_DECODER, raw, path, "a gremlin's record", SCHEMA)
    if record.id != name:
        raise CorruptRecord(Path(path), f"names another gremlin, `{record.id}`")
    if not record.worktree.endswith(f"/worktrees/{name}"):
        # Worktrees are written to, reset and removed: a damaged record must not name another folder.
        raise CorruptRecord(Path(path), f"names a worktree that is not its own, `{record.worktree}`")
    return record if record.over() else _relocated(folder, record), (stat.st_ino, stat.st_mtime_ns)


def _relocated(folder: str, record: Gremlin) -> Gremlin:
    try:
        path = f"{folder}/{RELOCATION}"
        told = decoded(_RELOCATION, read_file(path), path, "a relocation", SCHEMA)
    except OSError:
        return record
    return replace(record, project=told.project, checkout=told.checkout)


def read_again(folder: str, record: Gremlin, version: Version) -> tuple[Gremlin, Version]:
    """The newest record: `record` itself while its file is still `version`. Raises like `read_record`."""
    try:
        stat = os.stat(f"{folder}/{STATE}")
    except OSError:
        return read_version(folder)
    return (record, version) if (stat.st_ino, stat.st_mtime_ns) == version else read_version(folder)
