"""Spending caps, looked at before every call: of this gremlin, of its bead, and of the UTC day."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from gremlins.config import SpendSettings
from gremlins.outcome import CapName, Failed, SpendingCap
from gremlins.paths import Home
from gremlins.records.gremlin import Gremlin
from gremlins.records.prices import dearest_price
from gremlins.records.spend import SpendLine, all_spending


def cap_reached(home: Home, record: Gremlin, caps: SpendSettings, now: datetime) -> Failed | None:
    """The failure of class credit that forbids another call, or None while there is room.

    Every gremlin of this state root counts, removed ones included; an unpriced call counts as the dearest model's.
    """
    if caps.per_attempt is None and caps.per_bead is None and caps.per_day is None:
        return None
    lines, _ = all_spending(home)
    today = now.astimezone(UTC).date()
    midnight = datetime.combine(today, datetime.min.time(), UTC) + timedelta(days=1)
    mine = [line for line in lines if line.uid == record.uid]
    beads = [line for line in lines if record.bead_id is not None and line.bead_id == record.bead_id]
    days = [line for line in lines if line.at.astimezone(UTC).date() == today]
    scopes: tuple[tuple[CapName, float | None, str, list[SpendLine], datetime | None], ...] = (
        ("spend.per_attempt", caps.per_attempt, "this gremlin has cost", mine, None),
        ("spend.per_bead", caps.per_bead, "this bead has cost", beads, None),
        ("spend.per_day", caps.per_day, "today has cost", days, midnight),
    )
    for name, cap, what, spent, until in scopes:
        if cap is not None and (cost := _sum(spent)) >= cap:
            reason = f"{what} ${cost:.4f}, and {name} is ${cap:.2f}"
            return Failed("credit", reason, retry_at=until, cap=SpendingCap(name, cap))
    return None


def _sum(lines: Iterable[SpendLine]) -> float:
    return sum(_at_most(line) for line in lines)


def _at_most(line: SpendLine) -> float:
    """Cost of a line; an unpriced one counts at the provider's dearest model."""
    if line.usd is not None:
        return line.usd
    provider = line.client.partition(":")[0] or "claude"
    usage = {"input_tokens": line.input_tokens, "output_tokens": line.output_tokens}
    dearest = dearest_price(usage, batch=line.mode == "batch", at=line.at, provider=provider)
    return dearest.usd if dearest else 0.0
