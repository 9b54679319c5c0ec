"""Observes gremlins of a cluster: rows and documents of the database in one `Observation`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import msgspec

from gremlins.clock import Clock
from gremlins.cluster.books import sums_of
from gremlins.cluster.database import ClusterDb
from gremlins.cluster.documents import PostgresDocuments
from gremlins.cluster.hands import open_patiently
from gremlins.cluster.host_copy import WORK, decode_state, spend_lines
from gremlins.cluster.overview import observe_one
from gremlins.errors import CorruptRecord, NotFound
from gremlins.fleet.dispatch.observation import Observation
from gremlins.fleet.dispatch.observer import Observer
from gremlins.fleet.dispatch.spending import Spending
from gremlins.fleet.start_point import StartPoint
from gremlins.fleet.status import Row
from gremlins.paths import STATE, GremlinPaths, Home
from gremlins.records.gremlin import Gremlin, Landed
from gremlins.records.liveness import liveness
from gremlins.records.totals import at_most
from gremlins.repository.remote_work import RemoteWork


@dataclass(frozen=True)
class BranchOnRemote:
    """A gremlin's record, and what of its commits is on the project's remote."""

    record: Gremlin
    work: RemoteWork

    @property
    def tip(self) -> str:
        return self.work.refs[f"refs/heads/{self.record.branch}"]

    @property
    def landed(self) -> bool:
        return isinstance(self.record.status, Landed)


@dataclass
class ClusterObserver(Observer):
    """Every moment is told by the database, which all hosts see alike."""

    @cached_property
    def db(self) -> ClusterDb:
        return open_patiently(self.home)

    def close(self) -> None:
        if "db" in vars(self):
            self.db.close()

    def observe(self, gremlin_id: str) -> Observation | None:
        try:
            seen = observe_one(self.home, self.db, gremlin_id)
        except NotFound:
            return None
        except CorruptRecord as error:
            return Observation("unreadable", reason=str(error))
        row = Row(seen, liveness(seen, self.clock.now(), self.idle_timeout))
        return self._observation(row, self.home.gremlin(gremlin_id))

    def start_point(self, gremlin_ids: tuple[str, ...]) -> StartPoint:
        """The gremlins whose work has not landed. Where it is merged is told by a tick, which fetches it."""
        found = [name for name in gremlin_ids if (known := self.branch_of(name)) and not known.landed]
        return StartPoint(unlanded=tuple(found))

    def spending(self) -> Spending:
        now = self.clock.now()
        sums = sums_of(self.db, now)
        day = sums.today(now)
        names = dict(self.db.rows("SELECT uid, id FROM gremlin"))
        cost = {names[total.uid]: total.at_most() for total in sums.all() if total.uid in names}
        outstanding = {
            names[total.uid]: usd
            for total in sums.all()
            if total.uid in names and (usd := total.reserved_usd + total.running_usd)
        }
        return Spending(day, cost, outstanding)

    def branch_of(self, gremlin_id: str) -> BranchOnRemote | None:
        """None: it is removed, or has committed nothing."""
        documents = PostgresDocuments(self.db, gremlin_id, 0)
        try:
            record = decode_state(documents.read(STATE), gremlin_id)
            found = BranchOnRemote(record, msgspec.json.decode(documents.read(WORK), type=RemoteWork))
        except FileNotFoundError:
            return None
        return None if found.tip == record.base else found

    def _waits(self, row: Row) -> bool:
        """Also for a worker that takes it."""
        return super()._waits(row) or row.seen.wait is not None

    def _replies(self, paths: GremlinPaths) -> int:
        sql = (
            "SELECT count(*) FROM document WHERE gremlin = %(id)s AND name LIKE 'calls/%%.json' "
            "AND convert_from(content, 'UTF8')::json -> 'status' ->> 'state' = 'collected'"
        )
        return int(self.db.value(sql, {"id": paths.root.name}))

    def _commits(self, record: Gremlin) -> int:
        return int(self.branch_of(record.id) is not None)

    def _last_sign(self, row: Row, paths: GremlinPaths) -> float:
        record = row.record
        return (record.ended_at if record.over() and record.ended_at is not None else record.updated_at).timestamp()

    def _rebooted(self, record: Gremlin) -> bool:
        return False

    def _cost_of(self, record: Gremlin) -> float:
        rows = self.db.rows("SELECT lines FROM spending WHERE uid = %(uid)s", {"uid": record.uid})
        return sum(at_most(line) for (lines,) in rows for line in spend_lines(lines))


def observer_of(home: Home, clock: Clock, idle_timeout: float) -> Observer:
    """The observer of the fleet that is configured."""
    return ClusterObserver(home, clock, idle_timeout) if home.cluster else Observer(home, clock, idle_timeout)
