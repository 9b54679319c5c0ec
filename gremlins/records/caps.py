"""Spending caps: of a gremlin, of its bead, and of the UTC day. They compare what is booked and what outstanding calls
may cost at worst, over all gremlins of the scope.

Each call asks for room before it is sent. The check and the record that reserves the room are one step under a lock.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from gremlins.clock import SystemClock
from gremlins.config import SpendSettings
from gremlins.errors import Conflict
from gremlins.files import make_private_dir
from gremlins.outcome import CapName, Failed, SpendingCap
from gremlins.paths import Home
from gremlins.processes.locks import locked
from gremlins.records.calls import Ledger
from gremlins.records.gremlin import Gremlin
from gremlins.records.totals import Day, Total, Totals, caps_lock, midnight_after

PATIENCE = 600.0
"""Seconds to wait for the lock: its holders read the records that changed, and write one."""
ROUNDING = 1e-9


@dataclass(frozen=True)
class Granted:
    """There is room. `left_usd`: room under the tightest cap, None without caps."""

    left_usd: float | None = None


@dataclass(frozen=True)
class Occupied:
    """There is no room until outstanding calls have ended: they may cost less than their worst case."""

    why: str


@dataclass(frozen=True)
class _Scope:
    cap: CapName
    limit: float
    what: str
    day: Day
    reserved: float
    until: datetime | None = None

    @property
    def booked(self) -> float:
        return self.day.at_most


@contextlib.contextmanager
def room(
    home: Home,
    record: Gremlin,
    caps: SpendSettings,
    worst_usd: float | None,
    now: datetime,
    own: Ledger | None = None,
) -> Iterator[Granted | Occupied | Failed]:
    """Decide if a call that may cost `worst_usd` may be sent now. The block writes its reservation.

    Yields a failure of class credit if the cap is reached, or if what is left is less than the call may cost.
    own: the calls of `record`, as the caller has read them.
    """
    if caps.per_attempt is None and caps.per_bead is None and caps.per_day is None:
        yield Granted()
        return
    make_private_dir(home.root)
    with locked(caps_lock(home), clock=SystemClock(), patience=PATIENCE) as held:
        if not held:
            raise Conflict("another process has been checking the spending caps for minutes")
        totals = Totals(home, own)
        totals.refresh(keep=True)
        yield decide(totals, record, caps, worst_usd, now)


class Sums(Protocol):
    """Costs of gremlins by day, and the worst cases of their outstanding calls."""

    def all(self) -> list[Total]: ...

    def today(self, now: datetime) -> Day: ...

    def reserved_usd(self, *, uid: str | None = None, bead_id: str | None = None) -> float: ...


def decide(
    sums: Sums, record: Gremlin, caps: SpendSettings, worst_usd: float | None, now: datetime
) -> Granted | Occupied | Failed:
    """Room for a call by these sums. The caller keeps them from changing."""
    return _decide(list(_scopes(sums, record, caps, now)), worst_usd or 0.0, record.id)


def _decide(scopes: list[_Scope], worst: float, gremlin_id: str) -> Granted | Occupied | Failed:
    for scope in scopes:
        if scope.booked >= scope.limit or scope.booked + worst > scope.limit + ROUNDING:
            cap = SpendingCap(scope.cap, scope.limit)
            return Failed("credit", _reason(scope, worst, gremlin_id), retry_at=scope.until, cap=cap)
    for scope in scopes:
        if scope.booked + scope.reserved + worst > scope.limit + ROUNDING:
            return Occupied(
                f"waiting for room under {scope.cap} (${scope.limit:g}): {scope.day.words} spent, up to "
                f"${scope.reserved:.4f} more by outstanding calls, up to ${worst:.4f} by the next one"
            )
    return Granted(min(scope.limit - scope.booked - scope.reserved for scope in scopes))


def _reason(scope: _Scope, worst: float, gremlin_id: str) -> str:
    next_call = "" if scope.booked >= scope.limit else f"; the next call may cost up to ${worst:.4f}"
    return (
        f"{scope.cap} is ${scope.limit:g}, and {scope.what} has cost {scope.day.words}{next_call} "
        f"({how_to_raise(scope.cap, scope.limit, f'gremlins rescue {gremlin_id}')})"
    )


def how_to_raise(cap: CapName, limit: float, command: str) -> str:
    """The command that raises a cap."""
    key = cap.partition(".")[2]
    return (
        f"to raise it: `GREMLINS_SPEND__{key.upper()}={max(2 * limit, 1):g} {command}`, "
        f"or {key} under [spend] in $GREMLINS_HOME/config.toml; none lifts it"
    )


def _scopes(totals: Sums, record: Gremlin, caps: SpendSettings, now: datetime) -> Iterator[_Scope]:
    everything = totals.all()
    if caps.per_attempt is not None:
        mine = _sum(day for t in everything if t.uid == record.uid for day in t.days.values())
        reserved = totals.reserved_usd(uid=record.uid)
        yield _Scope("spend.per_attempt", caps.per_attempt, "this gremlin", mine, reserved)
    if caps.per_bead is not None and record.bead_id is not None:
        beads = _sum(day for t in everything if t.bead_id == record.bead_id for day in t.days.values())
        reserved = totals.reserved_usd(bead_id=record.bead_id)
        yield _Scope("spend.per_bead", caps.per_bead, "this bead", beads, reserved)
    if caps.per_day is not None:
        day = totals.today(now)
        yield _Scope("spend.per_day", caps.per_day, "today", day, totals.reserved_usd(), midnight_after(now))


def _sum(days: Iterator[Day]) -> Day:
    found = Day()
    for day in days:
        found.add(day)
    return found
