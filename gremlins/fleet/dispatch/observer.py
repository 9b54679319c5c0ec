"""Observes gremlins of this machine: record, lock, call records and process table in one `Observation`."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field, replace
from pathlib import Path

from gremlins.clock import Clock
from gremlins.errors import CorruptRecord, GremlinsError, NotFound
from gremlins.fleet.dispatch.observation import Observation, ObservedState
from gremlins.fleet.dispatch.spending import Spending
from gremlins.fleet.start_point import StartPoint, start_point
from gremlins.fleet.status import Row, look
from gremlins.paths import GremlinPaths, Home
from gremlins.processes.children import age_of, uptime
from gremlins.processes.locks import holder_of
from gremlins.records.calls import Collected, read_call
from gremlins.records.gremlin import (
    Bailed,
    FailedGremlin,
    Finished,
    Gremlin,
    Landed,
    Parked,
    Queued,
    Running,
    Stopped,
)
from gremlins.records.spend import Owner, spent_by
from gremlins.records.totals import Totals, at_most
from gremlins.repository.git import Git

JUST_NOW = 10.0
"""Seconds. A gremlin that was seen alive this recently and is dead now died just now."""


@dataclass
class Observer:
    """Observes gremlins, and caches files that have not changed."""

    home: Home
    clock: Clock
    idle_timeout: float
    _seen_alive: dict[str, float] = field(default_factory=dict)
    _calls: dict[Path, tuple[Hashable, bool]] = field(default_factory=dict)
    _kept: dict[tuple[str, str], tuple[Hashable, float]] = field(default_factory=dict)
    _totals: Totals | None = None

    def start_point(self, gremlin_ids: tuple[str, ...]) -> StartPoint:
        """The start point of a gremlin that needs the work of these."""
        try:
            return start_point(self.home, gremlin_ids)
        except (GremlinsError, OSError) as error:
            return StartPoint(conflict=str(error))

    def spending(self) -> Spending:
        """Spending of the state root now: the sums over its call records."""
        if self._totals is None:
            self._totals = Totals(self.home)
        totals = self._totals
        totals.refresh()
        day = totals.today(self.clock.now())
        cost = {name: total.at_most() for name, total in totals.present().items()}
        outstanding = {name: usd for name in cost if (usd := totals.reserved_by(name))}
        return Spending(day, cost, outstanding)

    def observe(self, gremlin_id: str) -> Observation | None:
        """A gremlin now; None if it does not exist. A broken record is `unreadable`, not an error."""
        paths = self.home.gremlin(gremlin_id)
        try:
            row = look(self.home, gremlin_id, self.clock, self.idle_timeout)
        except NotFound:
            holder = holder_of(paths.lock)
            return None if holder is None else Observation("running", spawn=0, alive=True, pid=holder.pid)
        except (GremlinsError, OSError) as error:
            holder = holder_of(paths.lock)
            alive = holder is not None and holder.role == "runner"
            return Observation("unreadable", alive=alive, reason=str(error), pid=holder.pid if holder else None)
        return self._observation(row, paths)

    def _observation(self, row: Row, paths: GremlinPaths) -> Observation:
        record, holder = row.record, row.seen.holder
        alive = holder is not None and not row.record.over()
        state = _state(row, alive)
        seen = Observation(
            state=state,
            spawn=record.spawn,
            alive=alive,
            reason=row.life.reason or "",
            exit_code=row.life.exit_code,
            age_seconds=age_of(row.life.pid) if alive and row.life.pid else None,
            parked_seconds=record.parked_seconds,
            waits=alive and self._waits(row),
            ended_at=self._ended(row, paths, alive),
            rebooted=not alive and self._rebooted(record),
            replies=self._replies(paths),
            cost_usd=self._cost(record, settled=not alive),
            stage=record.stage,
            task=record.task,
            revised_at=max((r.at.timestamp() for r in record.revisions if r.onto is None), default=None),
            caught_up=sum(r.onto is not None for r in record.revisions),
            pid=holder.pid if holder else None,
        )
        if state in ("dead", "detached") and seen.replies == 0:
            seen = replace(seen, replies=self._commits(record))
        return _with_last_word(seen, record)

    def _ended(self, row: Row, paths: GremlinPaths, alive: bool) -> float | None:
        """The time its process died: now, if it was alive a moment ago; else its last sign of life."""
        now = self.clock.now().timestamp()
        if alive:
            self._seen_alive[row.record.id] = now
            return None
        last = self._seen_alive.get(row.record.id, 0.0)
        if not row.record.over() and 0 <= now - last <= JUST_NOW:
            return now
        return max(last if last <= now else 0.0, self._last_sign(row, paths))

    def _replies(self, paths: GremlinPaths) -> int:
        """Number of collected calls. Files may be large, so unchanged ones are not read again."""
        if not paths.calls.is_dir():
            return 0
        count = 0
        for path in paths.calls.iterdir():
            if path.suffix != ".json" or path.name.startswith("."):
                continue
            try:
                stat = path.stat()
                mark = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
                known = self._calls.get(path)
                if known is None or known[0] != mark:
                    known = self._calls[path] = (mark, isinstance(read_call(path).status, Collected))
            except (OSError, CorruptRecord):
                continue
            count += known[1]
        return count

    def _commits(self, record: Gremlin) -> int:
        """1 if its branch has commits of its own."""

        def differs() -> float:
            try:
                tip = Git(Path(record.project)).try_commit(f"refs/heads/{record.branch}")
            except (GremlinsError, OSError):
                return 0.0
            return float(tip is not None and tip != record.base)

        return int(self._remembered("commits", record, differs))

    def _waits(self, row: Row) -> bool:
        """True if it sleeps until a recorded time. A running command is work."""
        status, now = row.record.status, self.clock.now()
        return isinstance(status, Running) and status.asleep and status.until is not None and status.until > now

    def _last_sign(self, row: Row, paths: GremlinPaths) -> float:
        """Last sign of life of its process."""
        if row.record.over() and row.record.ended_at is not None:
            return row.record.ended_at.timestamp()
        moments = [row.record.updated_at.timestamp()]
        for path in (paths.state, paths.log, paths.activity, paths.wait, paths.output):
            try:
                moments.append(path.stat().st_mtime)
            except OSError:
                continue
        return max(moments)

    def _rebooted(self, record: Gremlin) -> bool:
        up = uptime()
        return up is not None and record.updated_at.timestamp() < self.clock.now().timestamp() - up

    def _cost_of(self, record: Gremlin) -> float:
        return sum(at_most(line) for line in spent_by(self.home, Owner.of(record)))

    def _cost(self, record: Gremlin, *, settled: bool) -> float:
        """Total cost, unpriced and unknown calls at the most that they can have cost."""
        if not settled and not record.cost.unpriced_calls and not record.cost.unknown_calls:
            return record.total_cost_usd
        return self._remembered("cost", record, lambda: self._cost_of(record))

    def _remembered(self, what: str, record: Gremlin, find: object) -> float:
        key, mark = (what, record.id), (record.updated_at, record.spawn)
        known = self._kept.get(key)
        if known is None or known[0] != mark:
            assert callable(find)
            known = self._kept[key] = (mark, float(find()))
        return known[1]


def _state(row: Row, alive: bool) -> ObservedState:
    """Its liveness. While another process rescues or lands it, it counts as running."""
    if alive and row.life.state in ("dead", "detached"):
        return "running"
    if row.life.state == "dead" and isinstance(row.record.status, Queued):
        return "unborn"
    return row.life.state


def _with_last_word(seen: Observation, record: Gremlin) -> Observation:
    """Add the end that its process recorded."""
    match record.status:
        case FailedGremlin(failure=failure, retry_at=retry_at, reason=reason, cap=cap):
            moment = retry_at.timestamp() if retry_at else None
            return replace(seen, failure=failure, retry_at=moment, reason=reason, cap=cap)
        case Parked(failure=failure) if seen.state == "detached":
            return replace(seen, failure=failure)
        case Bailed(kind=kind, detail=detail):
            return replace(seen, bail=kind, reason=f"{kind}: {detail}")
        case Finished(evidence=evidence) | Landed(evidence=evidence):
            return replace(seen, proof=evidence)
        case Stopped(by=by, reason=reason):
            return replace(seen, reason=f"stopped by {by}" + (f" ({reason})" if reason and reason != "stop" else ""))
        case _:
            return seen
