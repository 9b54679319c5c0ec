"""The fleet in memory, kept up with what changes on disk. A look at a thousand gremlins takes milliseconds."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from gremlins.cli.fleet_table import group_of
from gremlins.clock import Clock
from gremlins.errors import CorruptRecord, GremlinsError, NotFound
from gremlins.fleet.observe import ids
from gremlins.fleet.status import Row, look, survey
from gremlins.paths import LOCK, LOG, STATE, STOP, Home
from gremlins.processes.locks import holder_of
from gremlins.records.gremlin import Gremlin
from gremlins.records.liveness import ALIVE, Liveness

EVERY = 2.0
"""Seconds between looks, while a page is open."""
LOCKS_EVERY = 5
"""Looks between checks for processes that died without writing anything."""
REMEMBERED = 500
"""Changes that a page may have missed, before it is told of every row."""

Groups = dict[str, str | None]
"""By gremlin the group it was in; None if there was no such gremlin."""
Stamp = tuple[int, int, bool]
"""Times of change of record and log, and if it was asked to stop."""


@dataclass
class FleetWatch:
    """All gremlins. `look` reads again those whose files have changed.

    Pages look from threads of their own: one at a time does, and `rows` and `unreadable` are replaced, never changed.
    """

    home: Home
    clock: Clock
    rows: dict[str, Row] = field(default_factory=dict)
    unreadable: dict[str, CorruptRecord] = field(default_factory=dict)
    changes: int = 0
    """The number of the last change."""
    _history: deque[tuple[int, Groups]] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    _stamps: dict[str, Stamp] = field(default_factory=dict)
    _looks: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def look(self) -> None:
        """Take in what came, changed or went since the last look."""
        with self._lock:
            before, rows, unreadable = self.rows, dict(self.rows), dict(self.unreadable)
            find = self._changed_in_cluster if self.home.cluster else self._changed
            changed = find(rows, unreadable)
            if changed:
                self.rows, self.unreadable = rows, unreadable
                self.changes += 1
                groups = {name: group_of(before[name]) if name in before else None for name in changed}
                self._history.append((self.changes, groups))

    def since(self, number: int) -> Groups:
        """The gremlins that changed after the change of this number, and the groups they were in then."""
        with self._lock:
            if number < self.changes and (not self._history or self._history[0][0] > number + 1):
                return {name: group_of(row) for name, row in self.rows.items()}  # too long ago: all of them, in place
            found: Groups = {}
            for made, groups in self._history:
                if made > number:
                    found = groups | found
            return found

    def _changed(self, rows: dict[str, Row], unreadable: dict[str, CorruptRecord]) -> set[str]:
        """Read again into `rows` and `unreadable`; the names of those that differ for a person."""
        self._looks += 1
        with_locks = self._looks % LOCKS_EVERY == 0
        present, changed = set(ids(self.home)), set[str]()
        for name in present:
            folder = f"{self.home.gremlins}/{name}"
            before = rows.get(name)
            stamp = _stamp(folder, over=before is not None and before.record.over())
            same = stamp == self._stamps.get(name)
            if same and not (with_locks and _may_have_lost_its_process(before, folder)):
                continue
            self._stamps[name] = stamp
            self._read(name, rows, unreadable)
            now = rows.get(name)
            if now is not None and now.record.over():
                self._stamps[name] = (stamp[0], 0, False)  # as the next look sees it
            if not same or (before and before.life) != (now and now.life):
                changed.add(name)
        gone = self._stamps.keys() - present
        for name in gone:
            del self._stamps[name]
            rows.pop(name, None)
            unreadable.pop(name, None)
        return changed | gone

    def _changed_in_cluster(self, rows: dict[str, Row], unreadable: dict[str, CorruptRecord]) -> set[str]:
        """The same by one query for the whole fleet."""
        found = survey(self.home, self.clock, everything=True)
        now = {row.record.id: row for row in found.rows}
        changed = {name for name, row in now.items() if name not in rows or _shown(rows[name]) != _shown(row)}
        changed |= rows.keys() - now.keys()
        rows.clear()
        rows.update(now)
        unreadable.clear()
        unreadable.update({str(error.path): error for error in found.unreadable})
        return changed

    def _read(self, name: str, rows: dict[str, Row], unreadable: dict[str, CorruptRecord]) -> None:
        unreadable.pop(name, None)
        try:
            rows[name] = look(self.home, name, self.clock)
            return
        except CorruptRecord as error:
            unreadable[name] = error
        except NotFound:
            pass  # being launched or removed at this moment
        rows.pop(name, None)

    def in_order(self) -> list[Row]:
        """Newest first."""
        return sorted(self.rows.values(), key=lambda row: (row.record.created_at, row.record.id), reverse=True)


def _shown(row: Row) -> tuple[Gremlin, Liveness]:
    return row.record, row.life


def _may_have_lost_its_process(row: Row | None, folder: str) -> bool:
    if row is None or row.life.state not in ALIVE:
        return False
    return row.life.state != "parked" or holder_of(f"{folder}/{LOCK}") is None


def _stamp(folder: str, *, over: bool) -> Stamp:
    """Of one that is over, only the record can change before another process takes it up."""
    if over:
        return _changed_at(f"{folder}/{STATE}"), 0, False
    return _changed_at(f"{folder}/{STATE}"), _changed_at(f"{folder}/{LOG}"), os.path.exists(f"{folder}/{STOP}")


def _changed_at(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0


@dataclass
class Feed:
    """The news that open pages wait for. One task looks for all of them; none looks while no page is open."""

    watch: FleetWatch
    every: float = EVERY
    _open: int = 0
    _task: asyncio.Task[None] | None = None
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def changes(self, number: int) -> AsyncIterator[tuple[int, Groups]]:
        """The changes after the one of this number, again and again: the number of the last, and by gremlin the
        group before."""
        self._open += 1
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._look())
        try:
            while True:
                async with self._news:
                    while self.watch.changes <= number:
                        await self._news.wait()
                found, number = self.watch.since(number), self.watch.changes
                yield number, found
        finally:
            self._open -= 1

    async def _look(self) -> None:
        while self._open:
            await asyncio.sleep(self.every)
            before = self.watch.changes
            with contextlib.suppress(GremlinsError, OSError):  # the database is away, for example: it is looked again
                await asyncio.to_thread(self.watch.look)
            if self.watch.changes > before:
                async with self._news:
                    self._news.notify_all()
