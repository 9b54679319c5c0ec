"""Reads and writes the records of one live call."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Self

from msgspec.structs import replace

from gremlins.clients.base import Room, Session, Wait
from gremlins.clients.next_step import INTERRUPTED, Again, LiveStep, after_live, is_retried, live_failures_in_a_row
from gremlins.records.calls import (
    CallFailed,
    CallKey,
    Collected,
    Cost,
    Intent,
    LiveCall,
    Reply,
    Usage,
    hash_request,
    storable,
)
from gremlins.redaction import Redactor
from gremlins.retry import honoured

SHARE = 0.5
"""Of what the tightest cap leaves, the limit of an agent. The rest is for those that start beside it; one that stops
there goes on with a limit of what is left then."""
RAW_LIMIT = 64 * 2**20
"""Bytes of raw output that are kept of one try."""


@dataclass(frozen=True)
class Booked:
    """Cost of a try so far. `session_id` lets the provider resume it."""

    cost: Cost | None = None
    usage: Usage | None = None
    session_id: str | None = None


class LiveRecords:
    """Reads and writes the live records of one revision of one call."""

    def __init__(self, session: Session, client: str, label: str, revision: int, notes: tuple[str, ...] = ()) -> None:
        self.session = session
        self.client = client
        self.label = label
        self.revision = revision
        self.notes = notes

    def all(self, revision: int | None = None, turn: int | None = None) -> list[LiveCall]:
        """In order of turn and try. A long conversation is read whole only where it must be."""
        wanted = self.revision if revision is None else revision
        every = self.session.ledger.of_call(self.label, self.session.attempt(self.label), turn)
        return [record for record in every if isinstance(record, LiveCall) and record.revision == wanted]

    def of_turn(self, turn: int) -> list[LiveCall]:
        return self.all(turn=turn)

    def step(self, turn: int = 1) -> LiveStep:
        return after_live(
            self.of_turn(turn),
            spawn=self.session.spawn,
            retries=len(self.session.settings.live.resume_backoff),
            now=self.session.clock.now(),
        )

    def wait(self, again: Again) -> bool:
        """True if it is too early to ask; then it has waited a while. The end of the wait is on record."""
        if again.not_before is None or again.not_before <= self.session.clock.now():
            return False
        self.session.park(Wait(again.not_before, why=f"{self.label}: asking again at {again.not_before:%H:%M:%S}Z"))
        return True

    def intend(
        self,
        request: dict[str, Any],
        *,
        turn: int = 1,
        session_id: str | None = None,
        messages_before: int = 0,
        counted: int = 0,
        with_limit: bool = False,
    ) -> LiveCall:
        """Record the next try before it is asked, and what it may cost. Raises CallUnsuccessful at a spending cap.

        messages_before: so many messages of the request are on record already, and are left out of this one.
        counted: tokens of these messages, as the provider has counted them; 0 if it has not.
        with_limit: the agent stops at a limit in USD, which is reserved for it. The caller has called `check`.
        """
        kept = {**request, "messages": request["messages"][messages_before:]} if messages_before else request
        while True:
            with self.session.room(kept if counted else request, self.client, batch=False, counted=counted) as room:
                if isinstance(room, Room):
                    room = room if with_limit else Room(room.worst_usd)
                    return self._intend(kept, turn, session_id, messages_before, room)
            self.session.park(room)

    def _intend(
        self, request: dict[str, Any], turn: int, session_id: str | None, messages_before: int, room: Room
    ) -> LiveCall:
        attempt = self.session.attempt(self.label)
        taken = (r.key.try_ for r in self.session.ledger.of_call(self.label, attempt, turn))
        now = self.session.clock.now()
        limit = None if room.left_usd is None else max(SHARE * room.left_usd, room.worst_usd or 0.0)
        return self.session.ledger.put(
            LiveCall(
                key=CallKey(stage=self.label, attempt=attempt, turn=turn, try_=1 + max(taken, default=0)),
                revision=self.revision,
                custom_id=f"{self.session.gremlin_id[:31]}_{uuid.uuid4().hex}",
                client=self.client,
                spawn=self.session.spawn,
                created_at=now,
                updated_at=now,
                request=request,
                request_sha256=hash_request(request),
                session_id=session_id,
                messages_before=messages_before,
                notes=self.notes,
                reserved_usd=room.worst_usd if limit is None else limit,
                limit_usd=limit,
                status=Intent(),
            )
        )

    def book(self, record: LiveCall, so_far: Booked) -> LiveCall:
        """Put down what a try has cost so far, should this process not live to see its end."""
        return self._put(record, so_far)

    def end(self, record: LiveCall, end: Reply | CallFailed, booked: Booked) -> LiveCall:
        """Record how a try ended, with its cost, in one rename. No secret is in a failure; a reply stays whole."""
        if isinstance(end, CallFailed):
            end = replace(end, message=storable(Redactor(self.session.env).message(end.message)))
        if isinstance(end, CallFailed) and is_retried(end) and (end.retry_at is None or end.kind != "usage_limit"):
            end = replace(end, retry_at=self._retry_at(record, end.retry_at))
        self.session.log(f"{self.label}: {end.message if isinstance(end, CallFailed) else _story(end, booked)}")
        status = end if isinstance(end, CallFailed) else Collected(reply=replace(end, text=storable(end.text)))
        return self._put(record, booked, status=status, ended_at=self.session.clock.now())

    def close(self, record: LiveCall) -> LiveCall:
        """End a try whose process is gone. What it had cost is booked already."""
        message = "the process that ran it ended before the reply came"
        return self.end(record, CallFailed(failure="host", kind=INTERRUPTED, message=message), Booked())

    def cancel(self, record: LiveCall, signal_name: str, booked: Booked) -> LiveCall:
        message = f"ended by {signal_name} while the agent was at work"
        return self.end(record, CallFailed(failure="canceled", kind="canceled", message=message), booked)

    def raw(self, key: CallKey) -> RawFile:
        path = self.session.ledger.paths.calls / (key.filename.removesuffix(".json") + ".raw.jsonl")
        return RawFile(path, Redactor(self.session.env).message)

    def _retry_at(self, record: LiveCall, asked: datetime | None) -> datetime | None:
        """The next time for a try that failed now, not before the server's own time; None once the list of waits is
        used up."""
        waits, now = self.session.settings.live.resume_backoff, self.session.clock.now()
        earlier = [r for r in self.of_turn(record.key.turn) if r.key != record.key]
        before = live_failures_in_a_row(earlier, self.session.spawn)
        if before >= len(waits):
            return None
        wish = (asked - now).total_seconds() if asked else None
        return now + timedelta(seconds=honoured(waits[before] * self.session.jitter(), wish))

    def _put(self, record: LiveCall, booked: Booked, **changes: Any) -> LiveCall:
        known = {
            "cost": booked.cost or record.cost,
            "usage": booked.usage or record.usage,
            "session_id": booked.session_id or record.session_id,
        }
        now = self.session.clock.now()
        written = self.session.ledger.put(replace(record, updated_at=now, **known, **changes))
        self.session.booked()
        return written


def _story(reply: Reply, booked: Booked) -> str:
    usage = booked.usage or Usage()
    cost = "an unknown price" if booked.cost is None or booked.cost.usd is None else f"${booked.cost.usd:.4f}"
    turns = f"{reply.turns} turn{'' if reply.turns == 1 else 's'}"
    return f"replied live after {turns}, {usage.input_tokens} tokens in, {usage.output_tokens} out, {cost}"


class RawFile:
    """Raw output as it comes, up to a limit, its secrets masked: an agent may print them. Nothing of ours reads it.

    Unbuffered: what was written outlives this process.
    """

    def __init__(self, path: Path, redact: Callable[[str], str]) -> None:
        self._redact = redact
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._left = RAW_LIMIT

    def write(self, line: bytes) -> None:
        if self._fd >= 0 and len(line) < self._left:
            shown = self._redact(line.decode(errors="surrogateescape")).encode(errors="surrogateescape")
            self._left -= len(shown) + 1
            os.write(self._fd, shown + b"\n")
        else:
            self._left = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
