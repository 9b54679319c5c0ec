"""A call that was sent twice: a second batch that turns up after all is canceled, and what it cost is waste."""

from __future__ import annotations

from datetime import datetime

from msgspec.structs import replace

from gremlins.clients.base import Session
from gremlins.clients.batch.api import Batch, BatchApi
from gremlins.clients.batch.booking import Books
from gremlins.clients.batch.results import NotThere, Result, Succeeded, find_result
from gremlins.clients.batch.search import GONE, NO_ACCESS, TORN_LOOKS, Search
from gremlins.clients.transport import ApiFailure
from gremlins.records.calls import BatchCall, BatchRef, Cost, Submitted, Waste


class SecondBatches:
    """Finds second batches of a call, and settles them."""

    def __init__(self, session: Session, api: BatchApi, books: Books, search: Search) -> None:
        self.session = session
        self.api = api
        self.books = books
        self.search = search

    def look(self, record: BatchCall) -> BatchCall:
        """For a call that was sent twice: did an earlier POST make a batch after all? Raises ApiFailure.

        The one that ends first is used. What may be one, and has not ended, is only remembered.
        """
        found = self.search(record)
        record = found.record
        for number, batch in enumerate(sorted(found.proven, key=lambda b: b.created_at or found.at)):
            record = self._instead(record, batch) if number == 0 else self._add(record, batch.id)
        suspects = tuple(batch.id for batch in found.open)
        return self.books.put(record, suspects=suspects) if suspects != record.suspects else record

    def _instead(self, record: BatchCall, ended: Batch) -> BatchCall:
        """A batch that has ended with our request in it. While the record's own has not ended, it takes its place."""
        own = record.batch
        if own is None or not isinstance(record.status, Submitted):
            return self._add(record, ended.id)
        ref = BatchRef(
            batch_id=ended.id, submitted_at=ended.created_at or own.submitted_at, expires_at=ended.expires_at
        )
        self.session.log(f"{record.key.stage}: {ended.id} was made after all; {own.batch_id} is canceled")
        return self._add(record, own.batch_id, batch=ref)

    def _add(self, record: BatchCall, batch_id: str, **changes: BatchRef) -> BatchCall:
        second = Waste(batch_id=batch_id, note="a second batch of the same call")
        return self.books.put(record, waste=(*record.waste, second), **changes)

    def settle(self, record: BatchCall) -> BatchCall:
        """One step towards the end of second batches: canceled where they are at work, booked where they have ended.

        They are proven ours: their ids came from our own POST, or our request was in their results.
        """
        for waste in record.unsettled_waste:
            record = self._settle(record, waste)
        return record

    def _settle(self, record: BatchCall, waste: Waste) -> BatchCall:
        try:
            batch = self.api.retrieve(waste.batch_id)
            if batch.status == "in_progress":
                batch = self.api.cancel(waste.batch_id)
            if not batch.has_ended:
                return record
            result = find_result(self.api.results(waste.batch_id), record.custom_id)
        except ApiFailure as failure:
            if failure.status in (*NO_ACCESS, *GONE):
                return self._settled(record, waste, Cost(usd=None), f"its cost is unknown: {failure.message}")
            return record
        if isinstance(result, NotThere) and result.torn:
            if record.torn.count(waste.batch_id) < TORN_LOOKS:
                return self.books.put(record, torn=(*record.torn, waste.batch_id))
            return self._settled(record, waste, Cost(usd=None), "its cost is unknown: its results cannot be read")
        return self._book(record, waste, result, batch.created_at or record.created_at)

    def _book(self, record: BatchCall, waste: Waste, result: Result, at: datetime) -> BatchCall:
        if isinstance(result, Succeeded):
            cost, _ = self.books.price(record, result.message, at)
            return self._settled(record, waste, cost, waste.note)
        return self._settled(record, waste, None, f"{waste.note}, not billed")

    def _settled(self, record: BatchCall, waste: Waste, cost: Cost | None, note: str) -> BatchCall:
        self.session.log(f"{record.key.stage}: {waste.batch_id} was {note}")
        done = replace(waste, cost=cost, note=note, settled=True)
        return self.books.put(record, waste=tuple(done if w.batch_id == waste.batch_id else w for w in record.waste))
