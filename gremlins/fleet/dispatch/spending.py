"""Spending caps: the expected cost of an unsettled attempt is reserved. All sums are over attempts.

An attempt's cost is its gremlin's cost since the attempt began, so no dollar counts twice.
"""

from __future__ import annotations

from dataclasses import dataclass

from gremlins.fleet.beads.attempts import Attempt, Work
from gremlins.fleet.dispatch.policy import Policy
from gremlins.fleet.times import day_of

UNKNOWN_ATTEMPT_USD = 1.0
"""Expected cost if the pipeline has no settled attempt."""


@dataclass(frozen=True)
class Capped:
    """A cap forbids another attempt. `until`: when it resets by itself."""

    cap: str
    reason: str
    until: float | None = None


@dataclass(frozen=True)
class DayLedger:
    """Spending of the state root today: settled attempts, and reservations of unsettled ones."""

    spent_usd: float = 0.0
    reserved_usd: float = 0.0


def expected_usd(policy: Policy, dearest: float | None) -> float:
    """Expected cost of the next attempt: its cap, else the pipeline's dearest attempt, else a dollar."""
    if policy.per_attempt is not None:
        return policy.per_attempt
    return UNKNOWN_ATTEMPT_USD if dearest is None else dearest


def attempt_usd(attempt: Attempt, gremlin_usd: float | None) -> float:
    """Cost of a settled attempt; reservation of an unsettled one."""
    if attempt.settled is not None:
        return attempt.settled.cost_usd
    return max(attempt.expected_usd, (gremlin_usd or 0.0) - attempt.base_cost_usd)


def room_to_start(work: Work, day: DayLedger, expected: float, now: float, policy: Policy) -> Capped | None:
    """The cap that forbids another attempt at a bead, or None."""
    held = _still_capped(work, now, policy)
    if held is not None:
        return held
    next_usd = f"the next attempt is expected to cost ${expected:.4f}"
    if policy.per_bead is not None:
        cost = sum(attempt_usd(a, None) for a in work.attempts)
        if cost + expected > policy.per_bead + 1e-9:
            return _capped("spend.per_bead", policy.per_bead, f"${cost:.4f} spent so far, {next_usd}")
    if policy.per_day is not None and day.spent_usd + day.reserved_usd + expected > policy.per_day + 1e-9:
        spent = f"${day.spent_usd:.4f} spent today and ${day.reserved_usd:.4f} reserved"
        return _capped("spend.per_day", policy.per_day, f"{spent}, {next_usd}", day_of(now) + 86400.0)
    return None


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
    return _capped(cap.name, limit, latest.settled.reason, ends)


def _capped(cap: str, limit: float, why: str, until: float | None = None) -> Capped:
    return Capped(cap, f"{cap} (${limit:g}) leaves no room: {why}", until)
