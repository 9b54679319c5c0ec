"""The durable batch call: intent → one batch of one request → record → wait → raw result → cost → reply.

`BatchEngine.run` is one loop over the call's records. Starting, parking, crashing and resuming all enter it at the
top and go where the last record says; there is no other recovery code.
"""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, assert_never

from msgspec.structs import replace

from gremlins.clients.base import (
    Answer,
    CallUnsuccessful,
    Detach,
    Prompt,
    PromptSource,
    Session,
    Wait,
    made,
)
from gremlins.clients.batch.api import Batch, BatchApi
from gremlins.clients.batch.booking import Books
from gremlins.clients.batch.lost import GONE, NO_ACCESS, Reconciler, Search, SecondBatches
from gremlins.clients.batch.results import NotThere, Succeeded, classify, classify_status, find_result, reply_of
from gremlins.clients.next_step import Ask, AskLive, BatchStep, Give, LookAgain, RetryPolicy, Stop, after_batch
from gremlins.clients.transport import ApiFailure
from gremlins.outcome import Failed, FailureClass
from gremlins.records.calls import (
    BatchCall,
    BatchRef,
    CallFailed,
    CallKey,
    CallRecord,
    Collected,
    Ended,
    Intent,
    LiveCall,
    Reply,
    Send,
    Submitted,
    Usage,
    hash_request,
    storable,
)
from gremlins.records.gremlin import is_overdue
from gremlins.redaction import Redactor
from gremlins.retry import (
    RETRY_AFTER_CEILING,
    exponential,
    honoured,
    parse_retry_after,
    poll_interval,
    seconds_until,
)

GIVE_UP_SENDING = timedelta(days=1)
LULL = timedelta(hours=2)
"""After a longer silence, longer than any backoff too (a rescue days later), it is tried once more before giving up."""
JITTER_ROOM = 1.2
LARGER = 2
MODEL_CEILING = 64_000
"""Output tokens every current model allows; asked of the API first, used where it does not say."""
UNKNOWN_SENDS = 4
"""POSTs of one call that may each have made a batch which cannot be found, before a person decides."""
REFUSED_ANSWERS = 12
"""Answers in a row that refuse to show a batch or its results, before a person decides; more than an hour. A gateway
may answer 404 for a while, and right after the end it may come too early."""
REFUSED_WHILE_STOPPING = 2
"""The same while a person waits for a stop: the call stays as it is, for another key."""
TORN_ANSWERS = 150
"""The same of results that come incomplete, or with a 5xx; about a day. They are paid for, and a proxy may answer with
a page of its own for hours. A count, because a clock may jump.
"""
LIFETIME = timedelta(days=1)
"""Of a batch, where its `expires_at` is missing."""
RESULTS_KEPT = timedelta(days=28)
"""From expiry until results cannot be fetched any more."""


class BatchEngine:
    """Runs batch calls of one client within one session."""

    def __init__(self, session: Session, api: BatchApi, *, client: str, model: str, live_available: bool) -> None:
        self.session = session
        self.api = api
        self.client = client
        self.model = model
        self.live_available = live_available
        self.books = Books(session)
        search = Search(session, api, self.books)
        self.reconciler = Reconciler(session, api, self.books, search)
        self.second = SecondBatches(session, api, self.books, search)

    # ── the loop ──────────────────────────────────────────────────────────────────────────────────────────────

    def run(self, prompt: PromptSource, *, label: str, max_tokens: int | None, revision: int) -> Answer | AskLive:
        """Go on with a call until it has its reply; waits through `session.park`."""
        while True:
            self.session.check()
            step = self.step(prompt, label=label, max_tokens=max_tokens, revision=revision)
            if isinstance(step, Answer | AskLive):
                return step
            if isinstance(step, Wait):
                self.session.park(step)

    def step(
        self, prompt: PromptSource, *, label: str, max_tokens: int | None, revision: int
    ) -> Answer | AskLive | Wait | None:
        """One transition of the call's records, or what it waits for. None: look again."""
        records = self.records(label, revision)
        if not records:
            self._intend_first(made(prompt), label, max_tokens, revision)
            return None
        last = records[-1]
        if isinstance(last, LiveCall):
            return AskLive(last)
        if last.settled:
            tries = [record for record in records if isinstance(record, BatchCall)]
            return self._follow(after_batch(tries, self._policy()), last)
        return self.advance(last)

    def records(self, label: str, revision: int) -> list[CallRecord]:
        mine = self.session.ledger.of_call(label, self.session.attempt(label))
        return [record for record in mine if record.revision == revision]

    def advance(self, record: BatchCall) -> Wait | None:
        """Move one record on by one step."""
        match record.status:
            case Intent():
                return self._submit(record)
            case Submitted():
                return self._poll(record)
            case Ended():
                return self._collect(record, record.status)
            case Collected() | CallFailed():
                return None
            case _:
                assert_never(record.status)

    def _policy(self) -> RetryPolicy:
        session = self.session
        return RetryPolicy(
            settings=session.settings.batch,
            spawn=session.spawn,
            live_available=self.live_available,
            now=session.clock.now(),
            jitter=session.jitter,
        )

    def _follow(self, step: BatchStep, last: BatchCall) -> Answer | AskLive | None:
        match step:
            case Give():
                return Answer(step.reply.text, step.record)
            case Ask():
                self._intend(self._enlarged(step) if step.larger else step.request, step, last)
                return None
            case AskLive():
                return step
            case LookAgain():
                self._reopen(step.record)
                return None
            case Stop():
                raise CallUnsuccessful(step.outcome)
            case _:
                assert_never(step)

    def _reopen(self, record: BatchCall) -> None:
        """Take a call that stayed undecided up again, with nothing sent: its batch, or the search for one."""
        sends = tuple(replace(s, outcome="ambiguous") if s.outcome == "absent" else s for s in record.sends)
        self.books.put(
            record,
            status=Intent() if record.batch is None else Submitted(),
            sends=sends if record.batch is None else record.sends,
            looked_since=None,
            torn=(),
            fetches=0,
            cost=None,
            ended_at=None,
        )
        self.session.log(f"{record.key.stage}: looking once more for what may have been paid for")

    # ── intent ────────────────────────────────────────────────────────────────────────────────────────────────

    def _intend_first(self, prompt: Prompt, label: str, max_tokens: int | None, revision: int) -> None:
        ceiling = max_tokens or self.session.settings.batch.max_tokens
        tries = self.session.ledger.of_call(label, self.session.attempt(label))
        key = CallKey(
            stage=label,
            attempt=self.session.attempt(label),
            turn=prompt.turn,
            try_=1 + max((r.key.try_ for r in tries if r.key.turn == prompt.turn), default=0),
        )
        self._put_intent(key, storable(build_request(self.model, prompt, ceiling)), revision, self.client)

    def _intend(self, request: dict[str, Any], ask: Ask, last: BatchCall) -> None:
        key = ask.key
        taken = {r.key.try_ for r in self.session.ledger.of_call(key.stage, key.attempt) if r.key.turn == key.turn}
        while key.try_ in taken:
            key = replace(key, try_=key.try_ + 1)
        self._put_intent(key, request, last.revision, last.client, ask)
        self.session.log(f"{key.stage}: {ask.why}")

    def _put_intent(
        self, key: CallKey, request: dict[str, Any], revision: int, client: str, ask: Ask | None = None
    ) -> None:
        now = self.session.clock.now()
        self.session.ledger.put(
            BatchCall(
                key=key,
                revision=revision,
                custom_id=new_custom_id(self.session.gremlin_id),
                client=client,
                spawn=self.session.spawn,
                anew=ask is not None and ask.anew,
                created_at=now,
                updated_at=now,
                request=request,
                request_sha256=hash_request(request),
                status=Intent(retry_at=ask.retry_at if ask else None),
            )
        )

    def _enlarged(self, ask: Ask) -> dict[str, Any]:
        """The same request with a larger ceiling, as far as the model allows. Raises CallUnsuccessful at its limit."""
        current = int(ask.request["max_tokens"])
        try:
            known = self.api.model(str(ask.request["model"])).get("max_tokens")
        except ApiFailure:
            known = None
        limit = known if isinstance(known, int) and known > 0 else MODEL_CEILING
        larger = min(current * LARGER, limit)
        if larger <= current:
            why = f"the reply did not fit into {current} tokens, the most this model allows; its beginning is kept"
            raise CallUnsuccessful(Failed("task", why))
        return {**ask.request, "max_tokens": larger}

    # ── submitting ────────────────────────────────────────────────────────────────────────────────────────────

    def _submit(self, record: BatchCall) -> Wait | None:
        if record.maybe_sent:
            return self.reconciler.look(record)
        if self._sent_enough(record):
            return None
        now = self.session.clock.now()
        if (left := self._too_early(record, now)) > 0:
            return self._backoff(record, left)
        if self._tried_for_long(record, now):
            self._give_up(record)
            return None
        with self.session.room(record.request, record.client, batch=True) as room:  # before anything is asked
            if isinstance(room, Wait):
                return self._less_often(record, room)
        self.api.warm_up()
        self.session.check()
        try:
            page = self.api.page(limit=1)
        except ApiFailure as failure:
            if failure.status in GONE:
                failure.message = f"batch mode needs a list of batches, and this address has none: {failure.message}"
            return self._refused(record, failure)
        newest = page.batches[0] if page.batches else None
        if not record.was_resent:
            # Else an earlier POST may yet turn out to have made a batch: the search for it must reach further back.
            record = replace(
                record,
                newest_before=newest.id if newest else "",
                newest_before_at=newest.created_at if newest else None,
            )
        with self.session.room(record.request, record.client, batch=True) as room:
            if isinstance(room, Wait):
                return self._less_often(record, room)
            record = self.books.put(
                record,
                account=self.api.fingerprint,
                server_ahead=(page.server_time - now).total_seconds() if page.server_time else record.server_ahead,
                sends=(*record.sends, Send(began=page.server_time or now, server_clock=page.server_time is not None)),
                reserved_usd=room.worst_usd,
                status=Intent(),
            )
        return self._create(record)

    def _less_often(self, record: BatchCall, wait: Wait) -> Wait:
        """A wait for room under the caps, the longer the longer it lasts: each look starts a process."""
        now, settings = self.session.clock.now(), self.session.settings.batch
        initial, age = (wait.until - now).total_seconds(), (now - record.created_at).total_seconds()
        seconds = poll_interval(age, initial=initial, maximum=settings.poll_max, jitter=self.session.jitter)
        return dataclasses.replace(wait, until=now + timedelta(seconds=seconds))

    def _sent_enough(self, record: BatchCall) -> bool:
        """Fail a call whose POSTs may have made batches that cannot be found: each may be billed, so their number is
        bounded, over all rescues and tries. One that the server said it took is never sent again."""
        every = self.session.ledger.of_call(record.key.stage, record.key.attempt)
        tries = [other for other in every if isinstance(other, BatchCall) and other.unknown_sends]
        lost = sum(other.unknown_sends for other in tries)
        answered = any(send.answered and send.outcome != "accepted" for other in tries for send in other.sends)
        if lost < UNKNOWN_SENDS and not answered:
            return False
        times = "once" if lost == 1 else f"{lost} times"
        detail = next((f" ({send.detail})" for send in reversed(record.sends) if send.detail), "")
        self.books.undecided(record, f"sent {times}{detail}, and no batch of it can be found")
        return True

    def _tried_for_long(self, record: BatchCall, now: datetime) -> bool:
        lull = max(LULL, timedelta(seconds=2 * self.session.settings.batch.retry_max))
        sends = record.sends
        # Like with like: sends are dated by the server's clock, the record by ours, and the two may be hours apart.
        return bool(sends) and sends[-1].began - sends[0].began > GIVE_UP_SENDING and now - record.updated_at < lull

    def _too_early(self, record: BatchCall, now: datetime) -> float:
        """Seconds until it may be sent. A time further off than the longest wait is a clock that was set back."""
        assert isinstance(record.status, Intent)
        if (due := record.status.retry_at) is None:
            return 0.0
        longest = JITTER_ROOM * max(RETRY_AFTER_CEILING, self.session.settings.batch.retry_max)
        left = seconds_until(due, now, longest=longest)
        if (due - now).total_seconds() > longest:
            self.books.put(record, status=Intent(retry_at=now + timedelta(seconds=longest)))
        return left

    def _create(self, record: BatchCall) -> Wait | None:
        """POST once, and write down what is known of it before anything else happens."""
        started = self.session.clock.monotonic()
        try:
            batch = self.api.create(record.custom_id, record.request)
        except ApiFailure as failure:
            elapsed = timedelta(seconds=self.session.clock.monotonic() - started)
            return self._send_failed(record, failure, record.sends[-1].began + elapsed)
        return self._submitted(record, batch)

    def _submitted(self, record: BatchCall, batch: Batch) -> Wait:
        now = self.session.clock.now()
        expires = batch.expires_at or now + LIFETIME
        ref = BatchRef(batch_id=batch.id, submitted_at=now, expires_at=expires, request_id=batch.request_id)
        sends = (*record.sends[:-1], replace(record.sends[-1], outcome="accepted"))
        record = self.books.put(record, batch=ref, sends=sends, status=Submitted())
        self.session.log(f"{record.key.stage}: submitted as {batch.id}; the process parks until it ends")
        return self._wait_for(record, batch)

    def _send_failed(self, record: BatchCall, failure: ApiFailure, at: datetime) -> Wait | None:
        ambiguous = failure.phase == "ambiguous" or (failure.status or 0) >= 500
        if not ambiguous:
            return self._refused(record, failure)
        send = replace(
            record.sends[-1],
            failed=at,
            outcome="ambiguous",
            answered=200 <= (failure.status or 0) < 300,
            detail=failure.message,
        )
        self.books.put(record, sends=(*record.sends[:-1], send))
        self.session.log(f"{record.key.stage}: {failure.message}; looking whether the batch was made all the same")
        return None

    def _refused(self, record: BatchCall, failure: ApiFailure) -> Wait | None:
        """It surely did not become a batch. A 4xx is the end of it; anything else is tried again later."""
        sends = record.sends
        if sends and sends[-1].outcome is None:
            outcome = "unsent" if failure.phase == "unsent" else "refused"
            last = replace(sends[-1], outcome=outcome, detail=failure.message)
            sends = (*sends[:-1], last)
        if failure.is_final:
            kind = failure.type or f"http_{failure.status}"
            self.books.put(record, sends=sends, status=self._failed(failure_class(failure), kind, failure.message))
            return None
        now = self.session.clock.now()
        if sends == record.sends:  # it did not even come to a POST
            sends = (*sends, Send(began=now, server_clock=False, outcome="unsent", detail=failure.message))
        wait = self._retry_wait(len(sends), failure)
        when = now + timedelta(seconds=wait)
        record = self.books.put(record, sends=sends, status=Intent(retry_at=when))
        self.session.log(f"{record.key.stage}: {failure.message}; trying again in {wait:.0f} s")
        return self._backoff(record, wait)

    def _retry_wait(self, failures: int, failure: ApiFailure | None = None) -> float:
        settings, session = self.session.settings.batch, self.session
        own = exponential(failures, initial=settings.retry_initial, maximum=settings.retry_max, jitter=session.jitter)
        asked = parse_retry_after(failure.retry_after, session.clock.now()) if failure else None
        return honoured(own, asked)

    def _backoff(self, record: BatchCall, seconds: float) -> Wait:
        until = self.session.clock.now() + timedelta(seconds=seconds)
        detail = record.sends[-1].detail if record.sends else "asked again"
        return Wait(until, why=f"{record.key.stage}: sending again at {until:%H:%M:%S}Z ({detail})")

    def _give_up(self, record: BatchCall) -> None:
        last = record.sends[-1]
        failure: FailureClass = "host" if last.outcome == "unsent" else "capacity"
        self.books.put(record, status=self._failed(failure, "not_sent", f"not accepted for a day: {last.detail}"))

    # ── waiting ───────────────────────────────────────────────────────────────────────────────────────────────

    def _wait_for(self, record: BatchCall, batch: Batch | None, failure: ApiFailure | None = None) -> Wait:
        assert record.batch is not None
        settings, now = self.session.settings.batch, self.session.clock.now()
        age = (now - record.batch.submitted_at).total_seconds()
        seconds = poll_interval(
            age, initial=settings.poll_initial, maximum=settings.poll_max, jitter=self.session.jitter
        )
        seconds = honoured(seconds, parse_retry_after(failure.retry_after, now) if failure else None)
        status = batch.status if batch else f"unknown ({failure.message})" if failure else "unknown"
        return Wait(
            now + timedelta(seconds=seconds),
            calls=(record.parked(),),
            why=f"{record.key.stage}: {record.batch.batch_id} is {status}",
            pollable=not record.suspects and not record.was_resent,
        )

    def _poll(self, record: BatchCall) -> Wait | None:
        assert record.batch is not None
        try:
            if record.was_resent:
                record = self.second.settle(self.second.look(record))
            assert record.batch is not None
            batch = self.api.retrieve(record.batch.batch_id)
        except ApiFailure as failure:
            return self._not_seen(record, failure)
        if batch.has_ended:
            return self._fetch(record, batch)
        if self._never_ended(record, batch, None):
            return None
        if record.fetches:
            record = self.books.put(record, fetches=0)
        return self._wait_for(record, batch)

    def _not_seen(self, record: BatchCall, failure: ApiFailure) -> Wait | None:
        """The API does not show the batch. A refused key ends the process; any other answer is asked for again, and
        one that stays the same is for a person to judge: the batch was deleted, or the key sees another workspace."""
        if failure.status in NO_ACCESS:
            raise self.detach(record, failure) from failure
        if not failure.is_final:
            return None if self._never_ended(record, None, failure) else self._wait_for(record, None, failure)
        if record.fetches >= REFUSED_ANSWERS:
            self.books.undecided(record, f"{_batch_of(record)} cannot be seen with this key: {failure.message}")
            return None
        return self._ask_again(record, f"{_batch_of(record)} is not shown: {failure.message}", failure)

    def _never_ended(self, record: BatchCall, batch: Batch | None, failure: ApiFailure | None) -> bool:
        """Fail a call whose batch is in progress long after its expiry, by the server's clock. Where the API cannot be
        reached, the wait ends when its results could not be fetched any more."""
        assert record.batch is not None
        expires = record.batch.expires_at or record.batch.submitted_at + LIFETIME
        told = batch.seen_at if batch else failure.server_time if failure else None
        answered = batch is not None or (failure is not None and failure.status is not None)
        if not is_overdue(expires if answered else expires + RESULTS_KEPT, told or self.session.clock.now()):
            return False
        state = batch.status if batch else f"not shown ({failure.message})" if failure else "not shown"
        self.books.undecided(record, f"{_batch_of(record)} expired at {expires:%Y-%m-%d %H:%MZ} and is {state}")
        return True

    def _fetch(self, record: BatchCall, batch: Batch) -> Wait | None:
        """Save the raw results of an ended batch, before anything reads them."""
        try:
            raw = self.api.results(batch.id)
        except ApiFailure as failure:
            return self._not_fetched(record, failure)
        found = find_result(raw, record.custom_id)
        name = self.session.ledger.save_raw(record.key, raw)
        if isinstance(found, NotThere) and record.fetches < (TORN_ANSWERS if found.torn else REFUSED_ANSWERS):
            return self._ask_again(record, "it has ended, but its results do not hold our request", None)
        ended_at = batch.ended_at or self.session.clock.now()
        ref = replace(record.batch or BatchRef(batch_id=batch.id, submitted_at=ended_at), ended_at=ended_at)
        self.books.put(record, batch=ref, status=Ended(raw=name))
        return None

    def _not_fetched(self, record: BatchCall, failure: ApiFailure) -> Wait | None:
        """The results of an ended batch did not come. They were paid for, so only a lasting "no" is taken for one."""
        if failure.status in NO_ACCESS:
            raise self.detach(record, failure) from failure
        if failure.phase == "unsent":
            return self._wait_for(record, None, failure)
        if record.fetches >= (REFUSED_ANSWERS if failure.is_final else TORN_ANSWERS):
            why = f"the results of {_batch_of(record)} cannot be fetched (they are kept for 29 days): {failure.message}"
            self.books.undecided(record, why)
            return None
        return self._ask_again(record, f"it has ended, but its results do not come: {failure.message}", failure)

    def _ask_again(self, record: BatchCall, why: str, failure: ApiFailure | None) -> Wait:
        """Count an answer that decided nothing, and ask again later."""
        record = self.books.put(record, fetches=record.fetches + 1)
        seconds = self._retry_wait(record.fetches, failure)
        until = self.session.clock.now() + timedelta(seconds=seconds)
        self.session.log(f"{record.key.stage}: {why}; asking again in {seconds:.0f} s")
        return Wait(until, calls=(record.parked(),), why=f"{record.key.stage}: asking again ({why})", pollable=False)

    def detach(self, record: BatchCall, failure: ApiFailure) -> Detach:
        """The API refuses the key of now. The call stays as it is."""
        why = f"{_batch_of(record)} cannot be followed with this key: {failure.message}"
        return Detach(why, failure_class(failure), (record.parked(),))

    # ── collecting ────────────────────────────────────────────────────────────────────────────────────────────

    def _collect(self, record: BatchCall, ended: Ended) -> Wait | None:
        """Read the saved result; the cost is written in the same rename that makes the record collected."""
        try:
            raw = self.session.ledger.read_raw(ended.raw)
        except FileNotFoundError:
            self.books.put(record, status=Submitted())  # the raw file was removed: fetch it again
            return None
        try:
            record = self._settle_second(record)
        except ApiFailure as failure:
            return self._ask_again(record, f"looking for a second batch failed: {failure.message}", failure)
        if record.unsettled_waste:
            return self._await_second(record)
        match result := find_result(raw, record.custom_id):
            case Succeeded():
                self._collected(record, result.message)
            case CallFailed():
                said = replace(result, message=Redactor(self.session.env).message(result.message))
                self.books.put(record, status=self._canceled_by(record) if result.kind == "canceled" else said)
            case NotThere():
                why = f"the results of {_batch_of(record)}, kept in calls/{ended.raw}, do not hold our request"
                self.books.undecided(record, why)
            case _:
                assert_never(result)
        return None

    def _settle_second(self, record: BatchCall) -> BatchCall:
        """A call that was sent twice looks once more, now that it has ended. Raises ApiFailure to be tried again."""
        try:
            return self.second.settle(self.second.look(record) if record.was_resent else record)
        except ApiFailure as failure:
            if not failure.is_final:
                raise
            self.session.log(f"{record.key.stage}: no look for a second batch is possible: {failure.message}")
            return record

    def _await_second(self, record: BatchCall) -> Wait:
        second = record.unsettled_waste[0]
        settings, now = self.session.settings.batch, self.session.clock.now()
        age = (now - record.batch.ended_at).total_seconds() if record.batch and record.batch.ended_at else 0.0
        seconds = poll_interval(
            age, initial=settings.poll_initial, maximum=settings.poll_max, jitter=self.session.jitter
        )
        why = f"{record.key.stage}: waiting for the end of {second.batch_id}, {second.note}"
        return Wait(now + timedelta(seconds=seconds), calls=(record.parked(),), why=why, pollable=False)

    def _canceled_by(self, record: BatchCall) -> CallFailed:
        if record.cancel_requested is not None:
            return self._failed("canceled", "canceled", "canceled for a stop")
        message = f"{_batch_of(record)} was canceled by another program"
        return self._failed("canceled", "canceled_elsewhere", message)

    def _collected(self, record: BatchCall, message: Mapping[str, Any]) -> None:
        reply = reply_of(message)
        cost, usage = self.books.price(
            record, message, record.batch.submitted_at if record.batch else record.created_at
        )
        record = self.books.put(
            record, status=Collected(reply=reply), cost=cost, usage=usage, ended_at=self.session.clock.now()
        )
        self.session.log(f"{record.key.stage}: {_story(record, reply)}")

    # ── stopping ──────────────────────────────────────────────────────────────────────────────────────────────

    def settle_stop(self, record: BatchCall) -> float | None:
        """One step towards the end of a call that a person stopped. None when it moved; where it must wait, the
        seconds that the server asks for, or 0.

        Cancels the batch; what a success that came too late has cost is booked, its text kept. Raises Detach.
        """
        match record.status:
            case Intent() if not record.maybe_sent:
                why = (
                    f"after {_sends(record)} that may have been billed"
                    if record.unknown_sends
                    else "before it was sent"
                )
                self.books.put(record, status=self._failed("canceled", "canceled", f"stopped {why}"))
                return None
            case Intent():
                return self._as_pause(self.reconciler.look(self._cancel_wanted(record)))
            case Submitted():
                return self._cancel(self._cancel_wanted(record))
            case Ended():
                return self._as_pause(self._collect(record, record.status))
            case Collected() | CallFailed():
                return None
            case _:
                assert_never(record.status)

    def _cancel_wanted(self, record: BatchCall) -> BatchCall:
        """On record before anything is asked for: a batch that ends canceled is then known to be our doing."""
        if record.cancel_requested is not None:
            return record
        return self.books.put(record, cancel_requested=self.session.clock.now())

    def _cancel(self, record: BatchCall) -> float | None:
        assert record.batch is not None
        batch_id = record.batch.batch_id
        try:
            batch = self.api.retrieve(batch_id)
            if batch.status == "in_progress":
                self.session.log(f"{record.key.stage}: canceling {batch_id}")
                batch = self.api.cancel(batch_id)
        except ApiFailure as failure:
            if failure.is_final and record.fetches >= REFUSED_WHILE_STOPPING:
                raise self.detach(record, failure) from failure
            if self._not_seen(record, failure) is None:
                return None
            return honoured(0.0, parse_retry_after(failure.retry_after, self.session.clock.now()))
        if batch.has_ended:
            return self._as_pause(self._fetch(record, batch))
        return None if self._never_ended(record, batch, None) else 0.0

    def _as_pause(self, wait: Wait | None) -> float | None:
        """A person waits for the end of a stop: it is looked for more often than while parked."""
        return None if wait is None else 0.0

    # ── writing ───────────────────────────────────────────────────────────────────────────────────────────────

    def _failed(self, failure: FailureClass, kind: str, message: str) -> CallFailed:
        return CallFailed(failure=failure, kind=kind, message=message)


def new_custom_id(gremlin_id: str) -> str:
    """A new custom_id: at most 64 characters of `[A-Za-z0-9_-]`, unique across accounts and state roots."""
    return f"{gremlin_id[:31]}_{uuid.uuid4().hex}"


def build_request(model: str, prompt: Prompt, max_tokens: int) -> dict[str, Any]:
    """The parameters of a one-shot message. No `cache_control`: a cache write costs extra, and nothing reads it."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": prompt.text}]
    for reply, correction in prompt.followups:
        if reply.strip():
            messages += [{"role": "assistant", "content": reply}, {"role": "user", "content": correction}]
        else:  # the API refuses an empty turn of the assistant
            messages[-1]["content"] += f"\n\n{correction}"
    request: dict[str, Any] = {"model": model, "max_tokens": max_tokens, "messages": messages}
    if prompt.system:
        request["system"] = prompt.system
    if prompt.schema is not None:
        request["output_config"] = {"format": dict(prompt.schema)}
    return request


def prompt_of(request: Mapping[str, Any]) -> Prompt:
    """The prompt that a request was built from."""
    messages: Sequence[Mapping[str, Any]] = request["messages"]
    texts = [m["content"] if isinstance(m["content"], str) else "" for m in messages]
    pairs = tuple(zip(texts[1::2], texts[2::2], strict=False))
    output = request.get("output_config")
    return Prompt(texts[0], system=request.get("system"), schema=output["format"] if output else None, followups=pairs)


def failure_class(failure: ApiFailure) -> FailureClass:
    """The failure class of a refused request."""
    if failure.phase != "answered":
        return "host"
    known = classify(failure.type, failure.error_code, failure.message) if failure.type else "unknown"
    return classify_status(failure.status or 0) if known == "unknown" else known


def _batch_of(record: BatchCall) -> str:
    return record.batch.batch_id if record.batch else "its batch"


def _sends(record: BatchCall) -> str:
    return "a send" if record.unknown_sends == 1 else f"{record.unknown_sends} sends"


def _story(record: BatchCall, reply: Reply) -> str:
    usage = record.usage or Usage()
    cost = "an unknown price" if record.cost is None or record.cost.usd is None else f"${record.cost.usd:.4f}"
    return f"replied, {usage.input_tokens} tokens in, {usage.output_tokens} out, {cost} ({reply.stop_reason})"
