"""Liveness of a gremlin: a pure function of its record, the holder of its lock, and the time."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Literal, NamedTuple, assert_never

from gremlins.paths import GremlinPaths
from gremlins.processes.locks import Holder
from gremlins.records.gremlin import (
    Bailed,
    FailedGremlin,
    Finished,
    Gremlin,
    Interrupted,
    Landed,
    Parked,
    ParkedCall,
    Queued,
    Running,
    Stopped,
    overdue,
)
from gremlins.records.wait import WaitPlan

State = Literal[
    "running",
    "parked",
    "detached",
    "stalled",
    "stopping",
    "finished",
    "landed",
    "bailed",
    "stopped",
    "dead",
]

RESCUABLE: frozenset[State] = frozenset({"dead", "detached", "bailed", "stopped", "stalled"})
ALIVE: frozenset[State] = frozenset({"running", "parked", "stalled", "stopping"})
PATIENCE_AFTER_WAIT = 120.0
"""Seconds that a wait with a known end may be late before its silence is a stall."""


class Observed(NamedTuple):
    """A gremlin's record, and the facts around it at the same moment."""

    record: Gremlin
    folder: str
    holder: Holder | None
    stop_wanted: bool = False
    outstanding: tuple[ParkedCall, ...] = ()
    wait: WaitPlan | None = None
    last_sign: datetime | None = None
    """Last write of its process. Read only for one that is alive and not parked: no other can stall."""
    idle_timeout: float | None = None
    """Its own `live.idle_timeout`, frozen at launch; read under the same condition."""

    @property
    def paths(self) -> GremlinPaths:
        return GremlinPaths(Path(self.folder))


class Liveness(NamedTuple):
    """The state, its start, the pid of a live process, and a sentence if something went wrong."""

    state: State
    since: datetime
    pid: int | None = None
    exit_code: int | None = None
    signal: str | None = None
    reason: str | None = None
    capped: bool = False
    """A spending cap of ours has ended it."""

    @property
    def shown(self) -> str:
        """`dead:exit 3`, `dead:signal SIGTERM`, `dead:lost`, `capped`, else the state."""
        if self.state != "dead":
            return self.state
        if self.capped:
            return "capped"
        if self.signal:
            return f"dead:signal {self.signal}"
        return "dead:lost" if self.exit_code is None else f"dead:exit {self.exit_code}"


def liveness(seen: Observed, now: datetime, idle_timeout: float) -> Liveness:
    """Judge a gremlin. `parked` is decided before any stall rule: a silent wait for a batch is healthy."""
    if seen.record.over():
        return _over(seen.record)
    if seen.holder is not None and seen.holder.role == "runner":
        return _alive(seen, seen.holder, now, idle_timeout)
    return _gone(seen, now)


def _alive(seen: Observed, holder: Holder, now: datetime, idle_timeout: float) -> Liveness:
    status, pid = seen.record.status, holder.pid
    until = waiting_for = None
    if isinstance(status, Running):
        until, waiting_for = status.until, status.waiting_for or None
    if seen.stop_wanted:
        return Liveness("stopping", status.since, pid=pid, reason=waiting_for or _parked_reason(seen))
    if isinstance(status, Parked):
        return Liveness("parked", status.since, pid=pid, reason=overdue(seen.outstanding, now))
    silent = (now - (seen.last_sign or seen.record.updated_at)).total_seconds()
    late = (now - until).total_seconds() if until else None
    if silent > idle_timeout and (late is None or late > PATIENCE_AFTER_WAIT):
        who = f" ({seen.record.client} in {seen.record.stage})" if seen.record.client else ""
        return Liveness("stalled", status.since, pid=pid, reason=f"alive, but silent for {silent:.0f} s{who}")
    return Liveness("running", status.since, pid=pid, reason=waiting_for)


def _parked_reason(seen: Observed) -> str | None:
    status = seen.record.status
    return status.reason or None if isinstance(status, Parked) else None


def _gone(seen: Observed, now: datetime) -> Liveness:
    """Without a process: detached with an outstanding batch or an unsettled stop, else lost."""
    since = seen.record.status.since
    gave_up = _gave_up(seen)
    if seen.outstanding:
        reason = _parked_reason(seen) or gave_up or "its process is gone, its batch is outstanding"
        late = overdue(seen.outstanding, now)
        return Liveness("detached", since, reason=f"{reason}; {late}" if late else reason)
    if seen.stop_wanted:
        return Liveness("detached", since, reason="its process is gone before the stop was settled")
    reason = gave_up or "its process vanished without a word (killed, or the machine went down)"
    return Liveness("dead", seen.record.updated_at, reason=reason)


def _gave_up(seen: Observed) -> str | None:
    """The reason its waiter ended by itself. The plan of an earlier wait says nothing."""
    status = seen.record.status
    waits = isinstance(status, Parked) or (isinstance(status, Running) and status.asleep)
    return f"{seen.wait.gave_up}; `gremlins rescue` goes on" if waits and seen.wait and seen.wait.gave_up else None


def _over(record: Gremlin) -> Liveness:
    match status := record.status:
        case Finished() | Landed():
            return Liveness("landed" if isinstance(status, Landed) else "finished", status.since)
        case Stopped():
            return Liveness("stopped", status.since, reason=status.reason or None)
        case Bailed():
            return Liveness("bailed", status.since, reason=f"{status.kind}: {status.detail}")
        case FailedGremlin():
            return Liveness(
                "dead",
                status.since,
                exit_code=status.exit_code or 1,
                reason=status.reason or None,
                capped=status.cap is not None,
            )
        case Interrupted():
            return Liveness("dead", status.since, signal=status.signal, reason=f"ended by {status.signal}")
        case Queued() | Running() | Parked():
            raise AssertionError(f"a gremlin that is {status.state} is not over")
        case _:
            assert_never(status)
