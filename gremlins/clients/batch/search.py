"""Searching an account for the batch that a lost POST may have made: the API has no idempotency key and lists no
custom_ids.

A candidate holds one request, was made between a POST and its failure (with some slack), and is claimed by no other
record. Only the custom_id in its results proves what it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from msgspec.structs import replace

from gremlins.clients.base import Session
from gremlins.clients.batch.api import Batch, BatchApi, pages
from gremlins.clients.batch.booking import Books
from gremlins.clients.batch.results import NotThere, find_result
from gremlins.clients.transport import ApiFailure
from gremlins.records.calls import BatchCall, Send

SLACK = timedelta(seconds=60)
"""Between the server's clock in its Date header and the one that dates its batches."""
TORN_LOOKS = 40
"""How often results that come incomplete are fetched before they are taken for what they are: some hours."""
NO_ACCESS = (401, 403)
GONE = (404, 410)


@dataclass(frozen=True)
class Found:
    """What a search brought. `record` holds what was learned on the way; `at` is the server's time of the search, ours
    where it does not say.
    """

    record: BatchCall
    proven: tuple[Batch, ...]
    open: tuple[Batch, ...]
    """Not ended, so that nothing tells whose they are."""
    unreadable: tuple[Batch, ...]
    """Ended, and their results never come whole."""
    at: datetime


class Search:
    """Looks through the account for the batches of a call."""

    def __init__(self, session: Session, api: BatchApi, books: Books) -> None:
        self.session = session
        self.api = api
        self.books = books

    def __call__(self, record: BatchCall) -> Found:
        """One look. Raises ApiFailure when the account cannot be looked through to the end."""
        listed, at = self._listed(record)
        record = self._close_open_sends(record, at)
        taken = self.session.claimed(record.created_at) | self._claimed_here(record)
        candidates = [batch for batch in listed if batch.id not in taken and _may_be(batch, record)]
        return self._prove(record, candidates, at)

    def _listed(self, record: BatchCall) -> tuple[list[Batch], datetime]:
        """Every batch from the newest down to what there was before the first POST."""
        seen: list[Batch] = []
        at: datetime | None = None
        lost = lost_sends(record)
        dated = all(send.server_clock for send in lost)
        earliest = min((send.began for send in lost), default=record.created_at) - SLACK
        for page in pages(self.api):
            at = at or page.server_time or self.session.clock.now()
            for batch in page.batches:
                if batch.id == record.newest_before or (dated and batch.created_at and batch.created_at < earliest):
                    return seen, at
                seen.append(batch)
        return seen, at or self.session.clock.now()

    def _close_open_sends(self, record: BatchCall, at: datetime) -> BatchCall:
        """A killed process left no time of failure: it is the server's time when somebody first looks."""
        if all(send.outcome is not None for send in record.sends):
            return record
        end = {"outcome": "ambiguous", "failed": at}
        sends = tuple(s if s.outcome is not None else replace(s, **end) for s in record.sends)
        return self.books.put(record, sends=sends)

    def _claimed_here(self, record: BatchCall) -> frozenset[str]:
        """Batches of the gremlin's own other calls."""
        others = (call for call in self.session.ledger.batch_calls() if call.key != record.key)
        return frozenset(batch_id for other in others for batch_id in batches_of(other))

    def _prove(self, record: BatchCall, candidates: Iterable[Batch], at: datetime) -> Found:
        """Sort candidates by what their results say; what is proven foreign is remembered."""
        proven: list[Batch] = []
        undecided: list[Batch] = []
        unreadable: list[Batch] = []
        rejected: list[str] = []
        torn: list[str] = []
        for batch in candidates:
            match self._whose(record, batch):
                case "ours":
                    proven.append(batch)
                case "foreign":
                    rejected.append(batch.id)
                case "open":
                    undecided.append(batch)
                case "torn" if record.torn.count(batch.id) >= TORN_LOOKS:
                    unreadable.append(batch)
                case "torn":
                    torn.append(batch.id)
                    undecided.append(batch)
        if rejected or torn:
            record = self.books.put(record, rejected=(*record.rejected, *rejected), torn=(*record.torn, *torn))
        return Found(record, tuple(proven), tuple(undecided), tuple(unreadable), at)

    def _whose(self, record: BatchCall, batch: Batch) -> Literal["ours", "foreign", "open", "torn"]:
        """Whether a batch carries the call, as far as anything can tell. Raises ApiFailure when the key is refused."""
        if not batch.has_ended:
            return "open"
        try:
            result = find_result(self.api.results(batch.id), record.custom_id)
        except ApiFailure as failure:
            if failure.status in NO_ACCESS:
                raise
            return "foreign" if failure.status in GONE else "open"  # gone: nothing will ever prove it ours
        if isinstance(result, NotThere):
            return "torn" if result.torn else "foreign"
        return "ours"


def lost_sends(record: BatchCall) -> list[Send]:
    """POSTs that may have made a batch which the record does not know."""
    return [send for send in record.sends if send.outcome in (None, "ambiguous", "absent")]


def batches_of(record: BatchCall) -> list[str]:
    """Every batch a record has claimed."""
    own = [record.batch.batch_id] if record.batch else []
    return own + [waste.batch_id for waste in record.waste]


def _may_be(batch: Batch, record: BatchCall) -> bool:
    """Whether a batch could have been made by one of the record's lost POSTs."""
    if batch.requests not in (None, 1) or batch.id in record.rejected or batch.id in batches_of(record):
        return False
    return any(_in_time(batch, send) for send in lost_sends(record))


def _in_time(batch: Batch, send: Send) -> bool:
    if batch.created_at is None or not send.server_clock:
        return True
    return send.began - SLACK <= batch.created_at and (send.failed is None or batch.created_at <= send.failed + SLACK)
