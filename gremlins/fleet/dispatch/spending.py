"""Spending caps before a start: what is spent, what outstanding calls may cost, and what attempts are expected to cost.

The calls themselves hold the caps (`records.caps`); this keeps the loop from starting gremlins that could not go on.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from gremlins.fleet.beads.attempts import Attempt, Work
from gremlins.fleet.dispatch.policy import Policy
from gremlins.fleet.times import day_of
from gremlins.outcome import CapName
from gremlins.records.caps import how_to_raise
from gremlins.records.totals import Day


@dataclass(frozen=True)
class Capped:
    """A cap forbids another attempt. `until`: when it resets by itself."""

    cap: str
    reason: str
    until: float | None = None


@dataclass(frozen=True)
class Spending:
    """Spending of the state root: booked today, and by gremlin what it has cost and may cost by outstanding calls."""

    today: Day = field(default_factory=Day)
    cost: Mapping[str, float] = field(default_factory=dict)
    outstanding: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class DayLedger:
    """Today's spending, and what is reserved by outstanding calls and unsettled attempts."""

    spent: Day = field(default_factory=Day)
    reserved_usd: float = 0.0

    @property
    def taken_usd(self) -> float:
        return self.spent.at_most + self.reserved_usd


def day_ledger(spending: Spending, unsettled: Iterable[Attempt], over: Collection[str]) -> DayLedger:
    """`over`: gremlins that cost nothing more. An attempt reserves what it is expected to cost and has not cost yet."""
    reserved = dict(spending.outstanding)
    for attempt in unsettled:
        if attempt.gremlin_id not in over:
            spent = spending.cost.get(attempt.gremlin_id, 0.0) - attempt.base_cost_usd
            left = max(0.0, attempt.expected_usd - max(0.0, spent))
            reserved[attempt.gremlin_id] = max(reserved.get(attempt.gremlin_id, 0.0), left)
    return DayLedger(spending.today, sum(reserved.values()))


def expected_usd(policy: Policy, average: float | None, first_call: float) -> float:
    """Expected cost of the next attempt: the average of the pipeline's attempts, else its first call's worst case.

    Never more than a cap: an attempt that its cap will stop may begin.
    """
    caps = (cap for cap in (policy.per_attempt, policy.per_bead, policy.per_day) if cap is not None)
    return min([first_call if average is None else average, *caps])


def attempt_usd(attempt: Attempt) -> float:
    """Cost of a settled attempt; reservation of an unsettled one."""
    return attempt.expected_usd if attempt.settled is None else attempt.settled.cost_usd


def room_to_start(work: Work, day: DayLedger, expected: float, now: float, policy: Policy) -> Capped | None:
    """The cap that forbids another attempt at a bead, or None."""
    held = _still_capped(work, now, policy)
    if held is not None:
        return held
    next_usd = f"the next attempt is expected to cost ${expected:.4f}"
    if policy.per_bead is not None:
        cost = sum(attempt_usd(a) for a in work.attempts)
        if cost >= policy.per_bead or cost + expected > policy.per_bead + 1e-9:
            return _capped("spend.per_bead", policy.per_bead, f"${cost:.4f} spent so far, {next_usd}")
    taken = day.taken_usd
    if policy.per_day is not None and (taken >= policy.per_day or taken + expected > policy.per_day + 1e-9):
        return _capped("spend.per_day", policy.per_day, f"{today(day)}, {next_usd}", day_of(now) + 86400.0)
    return None


def today(day: DayLedger) -> str:
    """The figures of today, as every message has them."""
    return f"{day.spent.words} spent today, ${day.reserved_usd:.4f} reserved"


def _still_capped(work: Work, now: float, policy: Policy) -> Capped | None:
    """The cap that ended the latest attempt, unless it was raised or its day is over."""
    latest = work.latest
    if latest is None or latest.settled is None or latest.settled.cap is None or latest.epoch != work.epoch:
        return None
    cap = latest.settled.cap
    limit = {"spend.per_attempt": policy.per_attempt, "spend.per_bead": policy.per_bead}.get(cap.name, policy.per_day)
    if limit is None or limit > cap.usd:
        return None
    ends = day_of(latest.settled.at) + 86400.0 if cap.name == "spend.per_day" else None
    if ends is not None and now >= ends:
        return None
    return Capped(cap.name, latest.settled.reason, ends)


def _capped(cap: CapName, limit: float, why: str, until: float | None = None) -> Capped:
    hint = how_to_raise(cap, limit, "gremlins dispatch")
    return Capped(cap, f"{cap} (${limit:g}) leaves no room: {why} ({hint})", until)
