"""Books replies at batch prices; the one writer of batch call records."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from msgspec.structs import replace

from gremlins.clients.base import Session
from gremlins.records.calls import BatchCall, CallFailed, Cost, Usage, storable, undecided


class Books:
    """Writes the records of one session's batch calls."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def put(self, record: BatchCall, **changes: Any) -> BatchCall:
        """The record with these changes, on disk. A failure is dated and told in the log."""
        now = self.session.clock.now()
        changed = replace(record, updated_at=now, spawn=self.session.spawn, **changes)
        status = changed.status
        if isinstance(status, CallFailed) and changed.ended_at is None:
            changed = replace(changed, ended_at=now)
            self.session.log(f"{record.key.stage}: {status.message}")
        return self.session.ledger.put(changed)

    def undecided(self, record: BatchCall, why: str) -> None:
        """Fail the call without asking again: it may have been made and billed, so a person decides."""
        failed = undecided(record, self.session.gremlin_id, why, self.session.clock.now())
        self.put(record, status=failed.status, cost=failed.cost)

    def price(self, record: BatchCall, message: Mapping[str, Any], at: datetime) -> tuple[Cost, Usage]:
        """Cost of a message at the batch prices of `at`, and its tokens."""
        raw = message.get("usage")
        raw = raw if isinstance(raw, dict) else {}
        asked = str(record.request.get("model"))
        answered = message.get("model")
        cost = self.session.price(answered if isinstance(answered, str) else asked, raw, batch=True, at=at)
        if cost.usd is None and answered != asked:
            cost = self.session.price(asked, raw, batch=True, at=at)
        return cost, usage_of(raw)


def usage_of(raw: Mapping[str, Any]) -> Usage:
    """The tokens of a provider's usage object; invalid counts are 0."""

    def count(name: str) -> int:
        value = raw.get(name)
        return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0

    return Usage(
        input_tokens=count("input_tokens"),
        output_tokens=count("output_tokens"),
        cache_read_tokens=count("cache_read_input_tokens"),
        cache_write_tokens=count("cache_creation_input_tokens"),
        raw=storable(dict(raw)),
    )
