"""Costs of each gremlin by UTC day, and the worst case of its outstanding calls. Sums over call records.

The sums are cached in one file, each with the change time of the gremlin's folder of calls: a record is only ever
replaced by a rename into that folder. A sum whose folder changed just before it was read is read again.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from gremlins.clock import SystemClock
from gremlins.errors import CorruptRecord, NotFound
from gremlins.files import read_file, write_atomic
from gremlins.paths import CALLS, GREMLIN_ID, LOCK, Home
from gremlins.processes.locks import holder_of
from gremlins.records.calls import Ledger
from gremlins.records.gremlin import read_record
from gremlins.records.prices import dearest_price
from gremlins.records.spend import Owner, SpendLine, archived, lines_of

TICK = 20_000_000
"""Nanoseconds. Two changes of a folder this close together may bear the same time."""


class Day(msgspec.Struct, omit_defaults=True):
    """Cost of one UTC day. `unpriced_usd` is what caps count for its unpriced and unknown calls, at most."""

    usd: float = 0.0
    unpriced_calls: int = 0
    unpriced_usd: float = 0.0
    unknown_calls: int = 0

    @property
    def at_most(self) -> float:
        return self.usd + self.unpriced_usd

    @property
    def words(self) -> str:
        """The figure as every message has it, with the calls that it does not hold."""
        counts = ((self.unpriced_calls, "call", "without a price"), (self.unknown_calls, "send", "of unknown cost"))
        named = [f"{count} {what}{'' if count == 1 else 's'} {how}" for count, what, how in counts if count]
        beside = f" and {' and '.join(named)}, counted as ${self.unpriced_usd:.4f}" if named else ""
        return f"${self.usd:.4f}{beside}"

    def add(self, other: Day) -> None:
        self.usd += other.usd
        self.unpriced_calls += other.unpriced_calls
        self.unpriced_usd += other.unpriced_usd
        self.unknown_calls += other.unknown_calls


class Total(msgspec.Struct, omit_defaults=True):
    """The sums of one gremlin. `running_usd`: worst cases of live calls, which end with its process."""

    uid: str
    bead_id: str | None = None
    days: dict[str, Day] = msgspec.field(default_factory=dict)
    reserved_usd: float = 0.0
    running_usd: float = 0.0
    changed: int = 0
    """Change time of its folder of calls, in nanoseconds; 0 if that does not tell one state from the next."""

    def at_most(self) -> float:
        return sum(day.at_most for day in self.days.values())

    def add(self, line: SpendLine) -> None:
        day = self.days.setdefault(day_name(line.at), Day())
        if line.usd is not None:
            day.usd += line.usd
        else:
            day.unpriced_calls += not line.unknown
            day.unknown_calls += line.unknown
            day.unpriced_usd += at_most(line)


class _Cache(msgspec.Struct):
    gremlins: dict[str, Total]
    removed: dict[str, Total]
    archive: int
    """Change time of the archive of removed gremlins."""
    schema: int = 1


_DECODER = msgspec.json.Decoder(_Cache)


@dataclass
class Totals:
    """The sums of all gremlins of a state root."""

    home: Home
    own: Ledger | None = None
    """The calls of the gremlin that asks, as its process has read them."""
    _cache: _Cache = field(default_factory=lambda: _Cache({}, {}, -1))
    _loaded: bool = False

    def refresh(self, *, keep: bool = False) -> None:
        """Read what has changed. `keep`: write the cache; the caller holds the lock of the caps."""
        if not self._loaded:
            self._loaded = True
            with contextlib.suppress(OSError, msgspec.MsgspecError):
                self._cache = _DECODER.decode(read_file(self._path))
        changed = self._refresh_archive() | self._refresh_gremlins()
        if changed and keep:
            write_atomic(self._path, msgspec.json.encode(self._cache))

    def today(self, now: datetime) -> Day:
        """The cost of all gremlins on the UTC day of `now`, removed ones included."""
        found, name = Day(), day_name(now)
        for total in self.all():
            if name in total.days:
                found.add(total.days[name])
        return found

    def present(self) -> dict[str, Total]:
        """By the id of the gremlin; those that were never asked anything may be missing."""
        return self._cache.gremlins

    def all(self) -> list[Total]:
        present = list(self._cache.gremlins.values())
        uids = {total.uid for total in present}
        return present + [total for uid, total in self._cache.removed.items() if uid not in uids]

    def reserved_usd(self, *, uid: str | None = None, bead_id: str | None = None) -> float:
        """The worst cases of outstanding calls: of all gremlins, of one, or of a bead's."""
        return sum(
            self._reserved_by(gremlin_id, total)
            for gremlin_id, total in self._cache.gremlins.items()
            if (total.reserved_usd or total.running_usd)
            and (uid is None or total.uid == uid)
            and (bead_id is None or total.bead_id == bead_id)
        )

    def reserved_by(self, gremlin_id: str) -> float:
        total = self._cache.gremlins.get(gremlin_id)
        return 0.0 if total is None else self._reserved_by(gremlin_id, total)

    def _reserved_by(self, gremlin_id: str, total: Total) -> float:
        """A live call ends with its process; a batch goes on without one."""
        runs = total.running_usd and holder_of(self.home.gremlin(gremlin_id).lock) is not None
        return total.reserved_usd + (total.running_usd if runs else 0.0)

    # ── reading ───────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def _path(self) -> Path:
        return self.home.root / "spend-totals.json"

    def _refresh_gremlins(self) -> bool:
        known, found, changed = self._cache.gremlins, {}, False
        now = SystemClock().now().timestamp() * 1e9  # the clock that change times are taken from
        try:
            names = os.listdir(self.home.gremlins)
        except FileNotFoundError:
            names = []
        for name in names:
            try:
                mark = os.stat(f"{self.home.gremlins}/{name}/{CALLS}").st_mtime_ns
            except OSError:
                continue
            total = known.get(name)
            if total is None or total.changed != mark or mark == 0:
                total = self._read(name, mark if mark + TICK < now else 0)
                changed = True
            if total is not None:
                found[name] = total
        changed = changed or len(found) != len(known)
        self._cache.gremlins = found
        return changed

    def _read(self, name: str, mark: int) -> Total | None:
        if not GREMLIN_ID.fullmatch(name):
            return None
        try:
            owner = Owner.of(read_record(f"{self.home.gremlins}/{name}"))
        except NotFound:  # being launched or removed at this moment
            return None
        except CorruptRecord:  # its calls can be read all the same
            owner = Owner(name, f"?{name}")
        paths = self.home.gremlin(name)
        ledger = self.own if self.own is not None and self.own.paths == paths else Ledger(paths)
        calls, unreadable = ledger.readable()
        total = Total(owner.uid, owner.bead_id, changed=mark)
        for line in lines_of(calls, unreadable, owner):
            total.add(line)
        for call in calls:
            if call.mode == "batch":
                total.reserved_usd += call.reservation
            else:
                total.running_usd += call.reservation
        return total

    def _refresh_archive(self) -> bool:
        try:
            mark = self.home.spend.stat().st_mtime_ns
        except FileNotFoundError:
            mark = 0
        if mark == self._cache.archive:
            return False
        removed: dict[str, Total] = {}
        for line in archived(self.home, []):
            removed.setdefault(line.uid, Total(line.uid, line.bead_id)).add(line)
        self._cache.removed, self._cache.archive = removed, mark
        return True


def caps_lock(home: Home) -> Path:
    """Held while a call is checked against the caps and its reservation is written."""
    return home.root / f"spend.{LOCK}"


def day_name(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d}"


def midnight_after(now: datetime) -> datetime:
    """The end of the UTC day."""
    return datetime.combine(now.astimezone(UTC).date(), datetime.min.time(), UTC) + timedelta(days=1)


def at_most(line: SpendLine) -> float:
    """USD of a line. Without one, what may have been billed: its tokens at the provider's dearest model, else its
    worst case."""
    if line.usd is not None:
        return line.usd
    provider = line.client.partition(":")[0] or "claude"
    usage = {"input_tokens": line.input_tokens, "output_tokens": line.output_tokens}
    if line.input_tokens or line.output_tokens:
        dearest = dearest_price(usage, batch=line.mode == "batch", at=line.at, provider=provider)
        if dearest is not None:
            return dearest.usd
    return line.reserved_usd or 0.0
