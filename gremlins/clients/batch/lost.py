"""Lost batches: was a batch made by a POST whose reply was lost?

The API has no idempotency key and lists no custom_ids. A candidate holds one request, is newer than what there was
before the POST, not newer than the first look after it, and claimed by no other record; only the custom_id in its
results proves it ours. A batch that is not proven ours is never canceled.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from msgspec.structs import replace

from gremlins.clients.base import Detach, Session, Wait
from gremlins.clients.batch.api import Batch, BatchApi, pages
from gremlins.clients.batch.booking import Books
from gremlins.clients.batch.results import NotThere, Result, Succeeded, find_result
from gremlins.clients.transport import ApiFailure
from gremlins.records.calls import UNKNOWN, BatchCall, BatchRef, Cost, Intent, Send, Submitted, Waste
from gremlins.records.gremlin import is_overdue
from gremlins.retry import exponential, honoured, parse_retry_after, poll_interval

SLACK = timedelta(seconds=60)
"""Between the server's clock in its Date header and the one that dates its batches. A Date further off is a gateway's
own."""
TORN_LOOKS = 40
"""Fetches of results that decide nothing before the batch counts as unreadable; some hours."""
FAILED_LOOKS = 150
"""Answers in a row with which the account cannot be looked through before a person decides; about a day."""
WITNESSES = 3
"""Earlier batches that are retrieved to prove that another key sees the same workspace."""
NO_ACCESS = (401, 403)
GONE = (404, 410)


@dataclass(frozen=True)
class Found:
    """The result of a search. `record` holds what it learned; `at` is the server's time, or ours if the server does
    not say.
    """

    record: BatchCall
    proven: tuple[Batch, ...]
    open: tuple[Batch, ...]
    """Not ended: nothing tells whose they are."""
    unreadable: tuple[Batch, ...]
    """Ended, and their results never come whole; or never ended."""
    at: datetime
    ahead: float | None
    """Seconds that the server's clock is ahead of ours; None if it did not say."""


@dataclass(frozen=True)
class Listing:
    """The batches that are newer than what there was before the first POST, and the time of the look.

    `dated`: `at` is the server's, and its Date header agrees with the times of the batches.
    """

    batches: tuple[Batch, ...]
    at: datetime
    dated: bool
    ahead: float | None


class Search:
    """Looks through the account for the batches of a call."""

    def __init__(self, session: Session, api: BatchApi, books: Books) -> None:
        self.session = session
        self.api = api
        self.books = books

    def __call__(self, record: BatchCall) -> Found:
        """One look. Raises ApiFailure when the account cannot be looked through to the end."""
        listing = self._list(record)
        record = self._close_sends(record, listing)
        taken = self.session.claimed(record.created_at) | self._claimed_here(record)
        candidates = [batch for batch in listing.batches if batch.id not in taken and _may_be(batch, record, listing)]
        return self._prove(record, candidates, listing)

    def _list(self, record: BatchCall) -> Listing:
        """Every batch from the newest down to what there was before the first POST."""
        seen: list[Batch] = []
        at: datetime | None = None
        for page in pages(self.api):
            at = at or page.server_time
            newer = tuple(itertools.takewhile(lambda batch: _is_newer(batch, record), page.batches))
            seen += newer
            if len(newer) < len(page.batches):
                break
        agrees = at is not None and not any(batch.created_at and batch.created_at > at + SLACK for batch in seen)
        now = self.session.clock.now()
        ahead = (at - now).total_seconds() if at else None
        return Listing(tuple(seen), at or now + timedelta(seconds=record.server_ahead or 0.0), agrees, ahead)

    def _close_sends(self, record: BatchCall, listing: Listing) -> BatchCall:
        """At the first look after a POST that may have made a batch: that batch is not newer than this look.

        By the times of the API's own batches too, because a gateway's Date header may be behind them.
        """
        lost = [send for send in record.sends if send.outcome in (None, "ambiguous")]
        if not lost or record.looked_since is not None:
            return record
        latest = max([listing.at, *(batch.created_at for batch in listing.batches if batch.created_at)])
        sends = tuple(
            replace(s, outcome="ambiguous", failed=max(latest, s.failed or latest), server_clock=listing.dated)
            if s in lost
            else s
            for s in record.sends
        )
        ahead = record.server_ahead if listing.ahead is None else listing.ahead
        return self.books.put(record, sends=sends, looked_since=listing.at, server_ahead=ahead)

    def _claimed_here(self, record: BatchCall) -> frozenset[str]:
        """Batches of the gremlin's own other calls."""
        others = (call for call in self.session.ledger.batch_calls() if call.key != record.key)
        return frozenset(batch_id for other in others for batch_id in batches_of(other))

    def _prove(self, record: BatchCall, candidates: Iterable[Batch], listing: Listing) -> Found:
        """Sort candidates by their results, and record those that are proven foreign."""
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
                case "open" if is_overdue(batch.expires_at, batch.seen_at or listing.at):
                    unreadable.append(batch)
                case "open":
                    undecided.append(batch)
                case "torn" if record.torn.count(batch.id) >= TORN_LOOKS:
                    unreadable.append(batch)
                case "torn":
                    torn.append(batch.id)
                    undecided.append(batch)
        if rejected or torn:
            record = self.books.put(record, rejected=(*record.rejected, *rejected), torn=(*record.torn, *torn))
        return Found(record, tuple(proven), tuple(undecided), tuple(unreadable), listing.at, listing.ahead)

    def _whose(self, record: BatchCall, batch: Batch) -> Literal["ours", "foreign", "open", "torn"]:
        """Decide if a batch carries the call. Raises ApiFailure when the key is refused."""
        if not batch.has_ended:
            return "open"
        try:
            result = find_result(self.api.results(batch.id), record.custom_id)
        except ApiFailure as failure:
            if failure.status in NO_ACCESS:
                raise
            return "open" if failure.status is None else "torn"  # no answer proves it foreign but its own results
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


def _is_newer(batch: Batch, record: BatchCall) -> bool:
    """True unless it was there before the first POST."""
    if batch.id == record.newest_before:
        return False
    earliest = record.newest_before_at
    return earliest is None or batch.created_at is None or batch.created_at >= earliest - SLACK


def _may_be(batch: Batch, record: BatchCall, listing: Listing) -> bool:
    """True if one of the record's lost POSTs could have made the batch."""
    if batch.requests not in (None, 1) or batch.id in record.rejected or batch.id in batches_of(record):
        return False
    return any(_in_time(batch, send, listing) for send in lost_sends(record))


def _in_time(batch: Batch, send: Send, listing: Listing) -> bool:
    if batch.created_at is None or send.failed is None or not (send.server_clock and listing.dated):
        return True
    return batch.created_at <= send.failed + SLACK


class Reconciler:
    """Settles calls that may have been sent."""

    def __init__(self, session: Session, api: BatchApi, books: Books, search: Search) -> None:
        self.session = session
        self.api = api
        self.books = books
        self.search = search

    def look(self, record: BatchCall) -> Wait | None:
        """One look through the account for a call that may have been sent.

        Adopts a proven batch; waits while one may be ours; else, after the grace period for slow lists, lets the call
        be sent again. Raises Detach if this key sees another account.
        """
        try:
            doubt = self._doubt(record)
            found = self.search(record)
        except ApiFailure as failure:
            if failure.status in NO_ACCESS:
                why = f"a batch may have been sent, and the account cannot be searched: {failure.message}"
                raise Detach(why, "config", (record.parked(),)) from failure
            return self._failed_look(record, failure)
        record = found.record
        if found.proven:
            self._adopt(record, found.proven)
            return None
        if doubt is not None:
            raise Detach(doubt, "config", (record.parked(),))
        if record.fetches:
            record = self.books.put(record, fetches=0)
        if found.open:
            return self._look_again(record, f"{found.open[0].id} may be it", age_of=found.open[0])
        if found.unreadable:
            self._unreadable(record, found.unreadable[0])
            return None
        return self._absent(record, found, record.looked_since or found.at)

    # ── another key ───────────────────────────────────────────────────────────────────────────────────────────

    def _doubt(self, record: BatchCall) -> str | None:
        """The reason this key may see another workspace than the POST's, or None. Raises ApiFailure if nothing tells.

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
        """Fail the call: the batch may be ours, and sending again could pay twice, so a person decides."""
        self.books.undecided(record, f"{batch.id} may be this call, and its results cannot be read")

    def _failed_look(self, record: BatchCall, failure: ApiFailure) -> Wait | None:
        """An account that cannot be looked through says nothing of a batch; after many answers a person decides."""
        if failure.status is not None:
            record = self.books.put(record, fetches=record.fetches + 1)
        if record.fetches > FAILED_LOOKS:
            self.books.undecided(record, f"the account cannot be looked through: {failure.message}")
            return None
        settings = self.session.settings.batch
        at_least = exponential(max(1, record.fetches), initial=settings.poll_initial, maximum=settings.poll_max)
        return self._look_again(record, f"looking failed: {failure.message}", failure=failure, at_least=at_least)

    def _absent(self, record: BatchCall, found: Found, since: datetime) -> Wait | None:
        """No batch can be ours. After the grace period the call may be sent again, with the same custom_id."""
        settings = self.session.settings.batch
        other_clock = record.server_ahead is None and found.ahead is not None  # it began by ours
        if found.at < since or other_clock:  # a clock that was set back must not stretch the grace
            since = found.at
            ahead = found.ahead if other_clock else record.server_ahead
            record = self.books.put(record, looked_since=since, server_ahead=ahead)
        looked = (found.at - since).total_seconds()
        if (left := settings.reconcile_grace - looked) > 0:
            return self._look_again(record, "not in the list so far", at_most=left)
        sends = tuple(replace(s, outcome="absent") if s.outcome == "ambiguous" else s for s in record.sends)
        backoff = exponential(
            len(sends), initial=settings.retry_initial, maximum=settings.retry_max, jitter=self.session.jitter
        )
        retry_at = self.session.clock.now() + timedelta(seconds=max(0.0, backoff - looked))
        self.books.put(record, sends=sends, status=Intent(retry_at=retry_at), looked_since=None)
        self.session.log(f"{record.key.stage}: no batch of it is to be found")
        return None

    def _look_again(
        self,
        record: BatchCall,
        why: str,
        *,
        at_most: float | None = None,
        at_least: float = 0.0,
        age_of: Batch | None = None,
        failure: ApiFailure | None = None,
    ) -> Wait:
        settings, now = self.session.settings.batch, self.session.clock.now()
        seconds = poll_interval(
            _age(age_of, now), initial=settings.poll_initial, maximum=settings.poll_max, jitter=self.session.jitter
        )
        seconds = max(seconds, at_least)
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


class SecondBatches:
    """Finds second batches of a call, and settles them."""

    def __init__(self, session: Session, api: BatchApi, books: Books, search: Search) -> None:
        self.session = session
        self.api = api
        self.books = books
        self.search = search

    def look(self, record: BatchCall) -> BatchCall:
        """For a call that was sent twice: did an earlier POST make a batch after all? Raises ApiFailure.

        The one that ends first is used. Candidates that have not ended are recorded.
        """
        found = self.search(record)
        record = found.record
        for number, batch in enumerate(sorted(found.proven, key=lambda b: b.created_at or found.at)):
            record = self._instead(record, batch) if number == 0 else self._add(record, batch.id)
        suspects = tuple(batch.id for batch in found.open)
        return self.books.put(record, suspects=suspects) if suspects != record.suspects else record

    def _instead(self, record: BatchCall, ended: Batch) -> BatchCall:
        """Use an ended batch in place of the record's own, unless that has ended too."""
        own = record.batch
        if own is None or not isinstance(record.status, Submitted):
            return self._add(record, ended.id)
        ref = BatchRef(
            batch_id=ended.id, submitted_at=ended.created_at or own.submitted_at, expires_at=ended.expires_at
        )
        self.session.log(f"{record.key.stage}: {ended.id} was made after all; {own.batch_id} is canceled")
        return self._add(record, own.batch_id, batch=ref)

    def _add(self, record: BatchCall, batch_id: str, **changes: BatchRef) -> BatchCall:
        """Record a second batch: one of the POSTs of unknown cost is known now."""
        second = Waste(batch_id=batch_id, note="a second batch of the same call")
        lost = next((send for send in record.sends if send.outcome == "absent"), None)
        sends = tuple(replace(s, outcome="accepted") if s is lost else s for s in record.sends)
        return self.books.put(record, waste=(*record.waste, second), sends=sends, **changes)

    def settle(self, record: BatchCall) -> BatchCall:
        """Cancel second batches that are in progress, and book those that have ended.

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
                overdue = is_overdue(batch.expires_at, batch.seen_at or self.session.clock.now())
                return self._undecided(record, waste, "it never ended") if overdue else record
            result = find_result(self.api.results(waste.batch_id), record.custom_id)
        except ApiFailure as failure:
            if failure.status in NO_ACCESS:
                return self._settled(record, waste, UNKNOWN, f"its cost is unknown: {failure.message}")
            return record if failure.status is None else self._undecided(record, waste, failure.message)
        if isinstance(result, NotThere):
            return self._undecided(record, waste, "its results cannot be read")
        return self._book(record, waste, result, batch.created_at or record.created_at)

    def _undecided(self, record: BatchCall, waste: Waste, why: str) -> BatchCall:
        """Look again, so many times."""
        if record.torn.count(waste.batch_id) < TORN_LOOKS:
            return self.books.put(record, torn=(*record.torn, waste.batch_id))
        return self._settled(record, waste, UNKNOWN, f"its cost is unknown: {why}")

    def _book(self, record: BatchCall, waste: Waste, result: Result, at: datetime) -> BatchCall:
        if isinstance(result, Succeeded):
            cost, _ = self.books.price(record, result.message, at)
            return self._settled(record, waste, cost, waste.note)
        return self._settled(record, waste, None, f"{waste.note}, not billed")

    def _settled(self, record: BatchCall, waste: Waste, cost: Cost | None, note: str) -> BatchCall:
        self.session.log(f"{record.key.stage}: {waste.batch_id} was {note}")
        done = replace(waste, cost=cost, note=note, settled=True)
        return self.books.put(record, waste=tuple(done if w.batch_id == waste.batch_id else w for w in record.waste))
