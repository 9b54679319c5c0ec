"""The gremlin's record: `state.json`, what it can say, and the store that reads and writes it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gremlins.clock import Clock
from gremlins.errors import Conflict, CorruptRecord, NotFound, did_you_mean
from gremlins.files import make_private_dir, write_atomic
from gremlins.outcome import FailureClass
from gremlins.paths import GREMLIN_ID, GremlinPaths, Home
from gremlins.processes.locks import GremlinLock

SCHEMA = 1

Mode = Literal["live", "batch"]


class Frozen(BaseModel):
    """A part of a record: immutable; keys of a newer version are passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)


class ParkedCall(Frozen):
    """One outstanding batch call. `batch_id` is null while it is being looked for."""

    stage: str
    custom_id: str
    batch_id: str | None = None
    turn: int = 1
    submitted_at: datetime | None = None
    expires_at: datetime | None = None


class Queued(Frozen):
    state: Literal["queued"] = "queued"
    since: datetime


class Running(Frozen):
    """At work. `until` is the end of a wait or of a command's timeout: no silence before it is a stall. `asleep` while
    the process is given up until then. `calls` are with the API meanwhile: of branches that wait while others work."""

    state: Literal["running"] = "running"
    since: datetime
    until: datetime | None = None
    waiting_for: str | None = None
    asleep: bool = False
    calls: tuple[ParkedCall, ...] = ()


class Parked(Frozen):
    """Waiting on batches. `reason` says why the process ended although the calls are outstanding."""

    state: Literal["parked"] = "parked"
    since: datetime
    calls: tuple[ParkedCall, ...]
    reason: str | None = None
    failure: FailureClass | None = None


class Evidence(Frozen):
    """What a finished gremlin has to show, checked against the base commit when it finished."""

    kind: Literal["commits", "none", "nothing_to_do"]
    base: str
    tip: str
    holds: bool
    detail: str = ""


class Finished(Frozen):
    state: Literal["finished"] = "finished"
    since: datetime
    evidence: Evidence


class Landed(Frozen):
    state: Literal["landed"] = "landed"
    since: datetime
    sha: str
    target: str
    evidence: Evidence
    tip: str | None = None
    """Where its branch ended then: what a person adds to a branch that was kept has not landed."""


class Bailed(Frozen):
    state: Literal["bailed"] = "bailed"
    since: datetime
    stage: str
    kind: str
    detail: str


class Failed(Frozen):
    """The process ended by itself, saying why. Shown as `dead:exit N`."""

    state: Literal["failed"] = "failed"
    since: datetime
    stage: str
    failure: FailureClass
    reason: str
    exit_code: int = 1
    retry_at: datetime | None = None


class Interrupted(Frozen):
    """The process was ended by a signal nobody had announced, and could still say so."""

    state: Literal["interrupted"] = "interrupted"
    since: datetime
    signal: str


class Stopped(Frozen):
    state: Literal["stopped"] = "stopped"
    since: datetime
    by: str
    reason: str = ""


Status = Annotated[
    Queued | Running | Parked | Finished | Landed | Bailed | Failed | Interrupted | Stopped,
    Field(discriminator="state"),
]

OVER = (Finished, Landed, Bailed, Failed, Interrupted, Stopped)
"""Statuses that a process writes as its last word."""


class StageRun(Frozen):
    """One run of one stage. `outcome` is null while it has not ended."""

    path: str
    type: str
    attempt: int
    started_at: datetime
    ended_at: datetime | None = None
    outcome: Literal["done", "skipped", "bailed", "failed", "acknowledged"] | None = None
    note: str = ""


class CostSummary(Frozen):
    """USD, summed over call records. `saved_usd` is what batch prices saved against live ones."""

    total_usd: float = 0.0
    batch_usd: float = 0.0
    live_usd: float = 0.0
    saved_usd: float = 0.0
    wasted_usd: float = 0.0
    unpriced_calls: int = 0


class Gremlin(Frozen):
    """Everything about one gremlin but its calls, its artifacts and what was frozen at launch."""

    schema_: int = Field(default=SCHEMA, alias="schema")
    id: str
    uid: str
    pipeline: str
    task: str
    title: str = ""
    bead_id: str | None = None
    project: str
    branch: str
    worktree: str
    base: str
    stage: str
    mode: Mode | None = None
    client: str | None = None
    attempts: dict[str, int] = Field(default_factory=dict)
    spawn: int = 1
    total_cost_usd: float = 0.0
    cost: CostSummary = CostSummary()
    stages: tuple[StageRun, ...] = ()
    status: Status
    created_at: datetime
    updated_at: datetime
    ended_at: datetime | None = None
    parked_seconds: float = 0.0
    accepts_no_evidence: bool = False
    """A person accepted that it finishes without a change."""

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
        if paths.state.exists():  # somebody was quicker
            lock.release()
            raise taken
        for folder in (paths.calls, paths.artifacts):
            make_private_dir(folder)
        return lock

    def write(self, record: Gremlin, lock: GremlinLock) -> Gremlin:
        """Replace the record. `lock` is proof that the caller may."""
        assert lock.fd >= 0
        stamped = record.model_copy(update={"updated_at": self.clock.now()})
        write_atomic(self.paths(record.id).state, stamped.model_dump_json(indent=1, by_alias=True) + "\n")
        return stamped

    def update(self, gremlin_id: str, lock: GremlinLock, change: Callable[[Gremlin], Gremlin]) -> Gremlin:
        """Read, change, write; the caller holds the lock, so nobody writes in between."""
        return self.write(change(self.read(gremlin_id)), lock)

    def read(self, gremlin_id: str) -> Gremlin:
        """Raises NotFound, or CorruptRecord for a half-written, foreign or newer file."""
        path = self.paths(gremlin_id).state
        record = read_record(path)
        if Path(record.worktree).parts[-2:] != self.home.worktree(gremlin_id).parts[-2:]:
            # Worktrees are written to, set back and removed: never a folder that only a damaged record calls one.
            raise CorruptRecord(path, f"names a worktree that is not its own, `{record.worktree}`")
        return record

    def ids(self) -> Iterator[str]:
        """Every folder that may hold a gremlin, in no order."""
        if self.home.gremlins.is_dir():
            for entry in self.home.gremlins.iterdir():
                if GREMLIN_ID.fullmatch(entry.name) and entry.is_dir():
                    yield entry.name

    def resolve(self, prefix: str) -> str:
        """The id a person means by a unique prefix of it. Raises NotFound with the nearest, or the matches."""
        if GREMLIN_ID.fullmatch(prefix) and self.paths(prefix).root.is_dir():
            return prefix
        ids = sorted(self.ids())
        matches = [known for known in ids if known.startswith(prefix)] if prefix else []
        if len(matches) == 1:
            return matches[0]
        if matches:
            raise NotFound(
                f"`{prefix}` is the beginning of several gremlins", hint="one of: " + ", ".join(matches[:12])
            )
        raise NotFound(
            f"no gremlin `{prefix}`",
            hint=did_you_mean(prefix, ids, otherwise="`gremlins status --all` lists them all"),
        )


def read_record(path: Path) -> Gremlin:
    """A record from its file, validated."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise NotFound(f"no gremlin `{path.parent.name}`") from None
    except OSError as error:
        raise CorruptRecord(path, error.strerror or str(error)) from error
    try:
        record = Gremlin.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise CorruptRecord(path, f"not a gremlin's record ({where or 'file'}: {first['msg']})") from error
    if record.schema_ > SCHEMA:
        raise CorruptRecord(path, f"written by a newer gremlins (schema {record.schema_})")
    if record.id != path.parent.name:
        raise CorruptRecord(path, f"names another gremlin, `{record.id}`")
    return record
