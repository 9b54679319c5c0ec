"""What a gremlin is now: one pure function of its record, who holds its lock, and the time."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, NamedTuple

from gremlins.clock import parse_time
from gremlins.fleet.observe import Glance, Sighting

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


class Liveness(NamedTuple):
    """`state`, since when, the pid while somebody is alive, and for whatever did not go well a sentence."""

    state: State
    since: datetime
    pid: int | None = None
    exit_code: int | None = None
    signal: str | None = None
    reason: str | None = None

    @property
    def shown(self) -> str:
        """As people see it: `dead:exit 3`, `dead:signal SIGTERM`, `dead:lost`, else the state."""
        if self.state != "dead":
            return self.state
        if self.signal:
            return f"dead:signal {self.signal}"
        return "dead:lost" if self.exit_code is None else f"dead:exit {self.exit_code}"


def liveness(seen: Sighting, now: datetime, idle_timeout: float) -> Liveness:
    """Judge a gremlin. `parked` is decided before any stall rule: what waits on a batch is well however silent."""
    glance = seen.glance
    if seen.holder is not None and seen.holder.role == "runner" and not glance.is_over:
        return _alive(seen, now, idle_timeout)
    if glance.is_over:
        return _over(glance)
    return _gone(seen)


def _alive(seen: Sighting, now: datetime, idle_timeout: float) -> Liveness:
    glance = seen.glance
    pid = seen.holder.pid if seen.holder else None
    if seen.stop_wanted:
        why = _text(glance, "waiting_for") or _text(glance, "reason")
        return Liveness("stopping", glance.since, pid=pid, reason=why)
    if glance.state == "parked":
        return Liveness("parked", glance.since, pid=pid)
    silent = (now - (seen.last_sign or glance.updated_at)).total_seconds()
    until = glance.status.get("until")
    late = (now - parse_time(until)).total_seconds() if until else None
    if silent > idle_timeout and (late is None or late > PATIENCE_AFTER_WAIT):
        return Liveness("stalled", glance.since, pid=pid, reason=f"alive, but silent for {silent:.0f} s")
    return Liveness("running", glance.since, pid=pid, reason=_text(glance, "waiting_for"))


def _gone(seen: Sighting) -> Liveness:
    """No process: outstanding batches, or a stop that nobody has settled, make it detached; else it is lost."""
    glance = seen.glance
    if seen.outstanding:
        reason = _text(glance, "reason") or "its process is gone, its batch is outstanding"
        return Liveness("detached", glance.since, reason=reason)
    if seen.stop_wanted:
        return Liveness("detached", glance.since, reason="its process is gone before the stop was settled")
    reason = "its process vanished without a word (killed, or the machine went down)"
    return Liveness("dead", glance.updated_at, reason=reason)


def _over(glance: Glance) -> Liveness:
    status = glance.status
    match glance.state:
        case "finished":
            return Liveness("finished", glance.since)
        case "landed":
            return Liveness("landed", glance.since)
        case "stopped":
            return Liveness("stopped", glance.since, reason=_text(glance, "reason"))
        case "bailed":
            return Liveness("bailed", glance.since, reason=f"{status.get('kind')}: {status.get('detail')}")
        case "failed":
            code = int(status.get("exit_code") or 1)
            return Liveness("dead", glance.since, exit_code=code, reason=_text(glance, "reason"))
        case _:
            name = str(status.get("signal"))
            return Liveness("dead", glance.since, signal=name, reason=f"ended by {name}")


def _text(glance: Glance, key: str) -> str | None:
    value = glance.status.get(key)
    return str(value) if value else None
