"""Settling a call of which nobody knows whether it was sent: its batch is found and adopted, or proven not to be.

A batch that is not proven ours is never canceled.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from msgspec.structs import replace

from gremlins.clients.base import Detach, Session, Wait
from gremlins.clients.batch.api import Batch, BatchApi
from gremlins.clients.batch.booking import Books
from gremlins.clients.batch.search import GONE, NO_ACCESS, Found, Search
from gremlins.clients.transport import ApiFailure
from gremlins.records.calls import BatchCall, BatchRef, CallFailed, Cost, Intent, Send, Submitted, Waste
from gremlins.retry import exponential, honoured, parse_retry_after, poll_interval

WITNESSES = 3
"""How many batches known from before are asked for, to prove that another key sees the same workspace."""


class Reconciler:
    """Settles calls that may have been sent."""

    def __init__(self, session: Session, api: BatchApi, books: Books, search: Search) -> None:
        self.session = session
        self.api = api
        self.books = books
        self.search = search

    def look(self, record: BatchCall) -> Wait | None:
        """One look through the account for a call that may have been sent.

        Adopts its batch when one is proven, waits while one may be it, and gives the call free to be sent again when
        none can be and the grace period for slow lists has passed. Raises Detach when this key sees another account.
        """
        try:
            doubt = self._doubt(record)
            found = self.search(record)
        except ApiFailure as failure:
            if failure.status in (*NO_ACCESS, *GONE):
                why = f"a batch may have been sent, and the account cannot be searched: {failure.message}"
                raise Detach(why, "config", (record.parked(),)) from failure
            return self._look_again(record, f"looking failed: {failure.message}", failure=failure)
        record = found.record
        if found.proven:
            self._adopt(record, found.proven)
            return None
        if doubt is not None:
            raise Detach(doubt, "config", (record.parked(),))
        if record.looked_since is None:
            record = self.books.put(record, looked_since=found.at)
        if found.open:
            return self._look_again(record, f"{found.open[0].id} may be it", age_of=found.open[0])
        if found.unreadable:
            self._unreadable(record, found.unreadable[0])
            return None
        return self._absent(record, found, record.looked_since or found.at)

    # ── another key ───────────────────────────────────────────────────────────────────────────────────────────

    def _doubt(self, record: BatchCall) -> str | None:
        """Why this key may see another workspace than the POST's, or None. Raises ApiFailure if that cannot be told.

        With another key only a batch from before, seen with this one too, proves that they share a workspace.
        """
        if record.account in (None, self.api.fingerprint):
            return None
        why = "nothing proves that this key sees the same workspace"
        for batch_id in self._witnesses(record):
            try:
                self.api.retrieve(batch_id)
            except ApiFailure as failure:
                if failure.status not in (*NO_ACCESS, *GONE):
                    raise
                why = f"this one cannot see {batch_id}: {failure.message}"
            else:
                return None
        return f"a batch may have been sent with another key, and {why}"

    def _witnesses(self, record: BatchCall) -> list[str]:
        """Batches that the POST's key has seen."""
        known = [record.newest_before] if record.newest_before else []
        for other in reversed(self.session.ledger.batch_calls()):
            if other.account == record.account and other.batch is not None:
                known.append(other.batch.batch_id)
        return known[:WITNESSES]

    # ── what was found ────────────────────────────────────────────────────────────────────────────────────────

    def _adopt(self, record: BatchCall, proven: tuple[Batch, ...]) -> None:
        """Make the oldest proven batch the call's; any other is waste. Locked, against another process's claim."""
        now = self.session.clock.now()
        first, *others = sorted(proven, key=lambda b: b.created_at or now)
        second = tuple(Waste(batch_id=b.id, note="a second batch of the same call") for b in others)
        with self.session.adopting():
            if first.id in self.session.claimed(record.created_at):
                return
            self.books.put(
                record,
                batch=BatchRef(batch_id=first.id, submitted_at=first.created_at or now, expires_at=first.expires_at),
                sends=_found(record.sends),
                waste=(*record.waste, *second),
                account=self.api.fingerprint,
                looked_since=None,
                status=Submitted(),
            )
        self.session.log(f"{record.key.stage}: found its batch {first.id}; nothing is sent again")

    def _unreadable(self, record: BatchCall, batch: Batch) -> None:
        """It may be ours and nothing will prove it: asking again could pay twice, so a person decides."""
        message = f"{batch.id} may be this call, and its results cannot be read; rescue it to ask again"
        status = CallFailed(failure="unknown", kind="results_unreadable", message=message)
        self.books.put(record, status=status, cost=Cost(usd=None))

    def _absent(self, record: BatchCall, found: Found, since: datetime) -> Wait | None:
        """None can be ours. After the grace period the call may be sent again, under the same custom_id."""
        settings = self.session.settings.batch
        if found.at < since:  # a clock that was set back must not stretch the grace
            since = found.at
            record = self.books.put(record, looked_since=since)
        looked = (found.at - since).total_seconds()
        if (left := settings.reconcile_grace - looked) > 0:
            return self._look_again(record, "not in the list so far", at_most=left)
        sends = tuple(replace(s, outcome="absent") if s.outcome == "ambiguous" else s for s in record.sends)
        backoff = exponential(
            len(sends), initial=settings.retry_initial, maximum=settings.retry_max, jitter=self.session.jitter
        )
        retry_at = self.session.clock.now() + timedelta(seconds=max(0.0, backoff - looked))
        self.books.put(record, sends=sends, status=Intent(retry_at=retry_at), looked_since=None)
        self.session.log(f"{record.key.stage}: no batch was made; it is sent again")
        return None

    def _look_again(
        self,
        record: BatchCall,
        why: str,
        *,
        at_most: float | None = None,
        age_of: Batch | None = None,
        failure: ApiFailure | None = None,
    ) -> Wait:
        settings, now = self.session.settings.batch, self.session.clock.now()
        seconds = poll_interval(
            _age(age_of, now), initial=settings.poll_initial, maximum=settings.poll_max, jitter=self.session.jitter
        )
        if at_most is not None:
            seconds = min(seconds, at_most)
        seconds = honoured(seconds, parse_retry_after(failure.retry_after, now) if failure else None)
        return Wait(
            now + timedelta(seconds=seconds),
            calls=(record.parked(),),
            why=f"{record.key.stage}: looking for a batch it may have sent ({why})",
            pollable=False,
        )


def _age(batch: Batch | None, now: datetime) -> float:
    return (now - batch.created_at).total_seconds() if batch and batch.created_at else 0.0


def _found(sends: tuple[Send, ...]) -> tuple[Send, ...]:
    """The sends once their batch was found: none of them is open any more."""
    return tuple(replace(s, outcome="accepted") if s.outcome in (None, "ambiguous") else s for s in sends)
