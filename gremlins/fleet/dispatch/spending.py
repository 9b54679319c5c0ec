"""Spending caps: what an attempt is expected to cost is reserved while it is unsettled. Sums over attempts only.

An attempt's cost is what its gremlin has cost since the attempt began, so no dollar is counted twice.
"""

from __future__ import annotations

from dataclasses import dataclass

from gremlins.fleet.beads.attempts import Attempt, Work
from gremlins.fleet.dispatch.policy import Policy
from gremlins.fleet.times import day_of

UNKNOWN_ATTEMPT_USD = 1.0
"""Expected of an attempt of which nothing is known."""


@dataclass(frozen=True)
class Capped:
    """A cap leaves no room. `until` is when it resets by itself."""

    cap: str
    reason: str
    until: float | None = None


@dataclass(frozen=True)
class DayLedger:
    """What the state root has spent today: settled attempts, and what is reserved for those under way."""

    spent_usd: float = 0.0
    reserved_usd: float = 0.0


def expected_usd(policy: Policy, dearest: float | None) -> float:
    """What the next attempt is expected to cost: its own cap, else the pipeline's dearest so far, else a dollar."""
    if policy.per_attempt is not None:
        return policy.per_attempt
    return UNKNOWN_ATTEMPT_USD if dearest is None else dearest


def attempt_usd(attempt: Attempt, gremlin_usd: float | None) -> float:
    """What an attempt has cost, or may yet: while unsettled at least what is expected of it."""
    if attempt.settled is not None:
        return attempt.settled.cost_usd
    return max(attempt.expected_usd, spent_usd(attempt, gremlin_usd))


def spent_usd(attempt: Attempt, gremlin_usd: float | None) -> float:
    """What an unsettled attempt has cost up to now."""
    return max(0.0, (gremlin_usd or 0.0) - attempt.base_cost_usd)


def room_to_start(work: Work, day: DayLedger, expected: float, now: float, policy: Policy) -> Capped | None:
    """The cap that forbids another attempt at a bead, if one does."""
    held = _still_capped(work, now, policy)
    if held is not None:
        return held
    if policy.per_bead is not None:
        cost = sum(attempt_usd(a, None) for a in work.attempts)
        if cost + expected > policy.per_bead + 1e-9:
            return _capped("spend.per_bead", policy.per_bead, _sums(cost, expected))
    return room_today(day, expected, now, policy)


def room_today(day: DayLedger, expected: float, now: float, policy: Policy) -> Capped | None:
    """Whether the day's cap leaves room for `expected` more."""
    if policy.per_day is None or day.spent_usd + day.reserved_usd + expected <= policy.per_day + 1e-9:
        return None
    spent = f"${day.spent_usd:.4f} spent today and ${day.reserved_usd:.4f} reserved"
    reason = f"{spent}, the next attempt is expected to cost ${expected:.4f}"
    return _capped("spend.per_day", policy.per_day, reason, day_of(now) + 86400.0)


def _still_capped(work: Work, now: float, policy: Policy) -> Capped | None:
    """Whether the cap that ended the latest attempt stands as it did: not raised, and its day not over."""
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
    return _capped(cap.name, limit, latest.settled.reason, ends)


def _capped(cap: str, limit: float, why: str, until: float | None = None) -> Capped:
    return Capped(cap, f"{cap} (${limit:g}) leaves no room: {why}", until)


def _sums(cost: float, expected: float) -> str:
    return f"${cost:.4f} spent so far, the next attempt is expected to cost ${expected:.4f}"
