"""The books of the whole cluster: spending caps and claims count the gremlins of every host."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta

from gremlins.cluster.database import ClusterDb
from gremlins.cluster.host_copy import spend_lines
from gremlins.cluster.overview import open_fleet
from gremlins.config import SpendSettings
from gremlins.errors import Conflict
from gremlins.outcome import Failed
from gremlins.paths import Home
from gremlins.records.caps import Granted, Occupied, decide
from gremlins.records.claims import SLACK
from gremlins.records.gremlin import Gremlin
from gremlins.records.spend import SpendLine
from gremlins.records.totals import Day, Total, day_name

PATIENCE = 600.0
PAUSE = 0.05
CAPS, ADOPTION = 7_218_552, 7_218_553
"""Advisory locks."""


class ClusterBooks:
    """As one gremlin asks them."""

    def __init__(self, db: ClusterDb, gremlin_id: str) -> None:
        self.db = db
        self.gremlin_id = gremlin_id
        self._threads = threading.Lock()

    def claimed(self, since: datetime) -> frozenset[str]:
        rows = self.db.rows(
            "SELECT DISTINCT unnest(batches) FROM spending WHERE gremlin <> %(id)s AND at >= %(since)s",
            {"id": self.gremlin_id, "since": since - SLACK},
        )
        return frozenset(row[0] for row in rows)

    @contextlib.contextmanager
    def adopting(self) -> Iterator[None]:
        with self._locked(ADOPTION):
            yield

    @contextlib.contextmanager
    def room(
        self, record: Gremlin, caps: SpendSettings, worst_usd: float | None, now: datetime
    ) -> Iterator[Granted | Occupied | Failed]:
        if caps.per_attempt is None and caps.per_bead is None and caps.per_day is None:
            yield Granted()
            return
        with self._locked(CAPS):
            yield decide(self.sums(record, now), record, caps, worst_usd, now)

    def sums(self, record: Gremlin, now: datetime) -> ClusterSums:
        """The sums that a gremlin's caps compare: its own calls, its bead's, those of the day, and the outstanding."""
        return sums_of(self.db, now, uid=record.uid, bead_id=record.bead_id)

    @contextlib.contextmanager
    def _locked(self, number: int) -> Iterator[None]:
        """Alone in the cluster; the lock is the session's, so it is free once this process is gone."""
        clock = self.db.clock
        deadline = clock.monotonic() + PATIENCE
        with self._threads:
            while not self.db.value("SELECT pg_try_advisory_lock(%(n)s)", {"n": number}):
                if clock.monotonic() > deadline:
                    raise Conflict("another process of the cluster has kept the books for minutes")
                clock.sleep(PAUSE)
            try:
                yield
            finally:
                self.db.value("SELECT pg_advisory_unlock(%(n)s)", {"n": number})


def sums_of(db: ClusterDb, now: datetime, *, uid: str = "", bead_id: str | None = None) -> ClusterSums:
    """The sums of what was spent lately, is outstanding or goes on, and of all that this gremlin or bead has cost."""
    rows = db.rows(
        "SELECT s.uid, s.bead_id, s.lines, s.reserved_usd, "
        "CASE WHEN g.held_by IS NULL THEN 0 ELSE s.running_usd END FROM spending s "
        "LEFT JOIN gremlin g ON g.id = s.gremlin AND g.uid = s.uid WHERE s.at >= %(since)s OR s.uid = %(uid)s "
        "OR s.bead_id = %(bead)s OR s.reserved_usd > 0 OR s.running_usd > 0 OR g.due IS NOT NULL",
        {"since": now - timedelta(days=2), "uid": uid, "bead": bead_id},
    )
    totals: dict[str, Total] = {}
    for owner, bead, lines, reserved, running in rows:
        total = totals.setdefault(owner, Total(owner, bead))
        total.reserved_usd += reserved
        total.running_usd += running
        for line in spend_lines(lines):
            total.add(line)
    return ClusterSums(list(totals.values()))


class ClusterSums:
    """As `gremlins.records.totals.Totals`."""

    def __init__(self, totals: list[Total]) -> None:
        self._totals = totals

    def all(self) -> list[Total]:
        return self._totals

    def today(self, now: datetime) -> Day:
        found, name = Day(), day_name(now)
        for total in self._totals:
            if name in total.days:
                found.add(total.days[name])
        return found

    def reserved_usd(self, *, uid: str | None = None, bead_id: str | None = None) -> float:
        return sum(
            total.reserved_usd + total.running_usd
            for total in self._totals
            if (uid is None or total.uid == uid) and (bead_id is None or total.bead_id == bead_id)
        )


def spending(home: Home) -> list[SpendLine]:
    """Every line of every gremlin that the cluster has or had."""
    with contextlib.closing(open_fleet(home)) as db:
        rows = db.rows("SELECT lines FROM spending ORDER BY at")
    return [line for (lines,) in rows for line in spend_lines(lines)]
