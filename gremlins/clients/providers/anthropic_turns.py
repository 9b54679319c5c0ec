"""The turns of a live conversation over the Messages API, each a call record of its own.

The SDK's tool runner is started anew at the latest turn on record; a turn whose reply is there already is answered
from its record, and only what was never answered is sent. So starting and taking up again are one path.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from gremlins.clients.base import Session
from gremlins.clients.batch.booking import usage_of
from gremlins.clients.batch.engine import failure_class
from gremlins.clients.batch.results import reply_of
from gremlins.clients.live.records import Booked, LiveRecords
from gremlins.clients.next_step import REFUSAL, STALLED, Again, Give, LiveStep, unfinished
from gremlins.clients.transport import ApiFailure
from gremlins.errors import GremlinsError
from gremlins.processes.interrupt import Terminated
from gremlins.records.calls import UNKNOWN, CallFailed, CallRecord, Collected, Cost, LiveCall, Reply, Usage

MAX_LIVE_TURNS = 200
"""The most turns of a conversation, so that it always ends."""
LARGER = 2


class Turns:
    """One conversation's records, and the request under way."""

    def __init__(self, session: Session, records: LiveRecords) -> None:
        self.session = session
        self.records = records
        self.sending: LiveCall | None = None

    def latest(self) -> LiveCall | None:
        """The last record of the last turn: where the conversation goes on."""
        every = self.records.all()
        return every[-1] if every else None

    def step(self) -> LiveStep:
        """The next step, from the records."""
        latest = self.latest()
        return self.step_of(latest.key.turn) if latest else Again()

    def step_of(self, turn: int) -> LiveStep:
        """The next step of one turn. A reply that was cut off is asked once more, larger."""
        step = self.records.step(turn)
        if isinstance(step, Give) and step.reply.stop_reason == "max_tokens" and self._cuts(turn) == 1:
            return Again(step.record)
        return step

    def _cuts(self, turn: int) -> int:
        replies = [r.status.reply for r in self.records.of_turn(turn) if isinstance(r.status, Collected)]
        return sum(reply.stop_reason == "max_tokens" for reply in replies)

    def request(self, record: LiveCall) -> dict[str, Any]:
        """The whole request of a turn: a record holds only the messages that its turn has added."""
        latest = {r.key.turn: r for r in self.records.all()} if record.messages_before else {}
        added, turn, before = [record.request["messages"]], record.key.turn, record.messages_before
        while before:
            turn -= 1
            if turn not in latest:
                raise GremlinsError(f"turn {turn} of {record.key.stage} is not on record any more")
            added.append(latest[turn].request["messages"])
            before = latest[turn].messages_before
        return {**record.request, "messages": [message for messages in reversed(added) for message in messages]}

    def _on_record(self, turn: int, messages: list[Any]) -> tuple[int, int]:
        """The number of these messages that the records of earlier turns hold, and of their tokens, where counted."""
        earlier = self.records.of_turn(turn - 1)
        if not earlier:
            return 0, 0
        known, usage = self.request(earlier[-1])["messages"], earlier[-1].usage or Usage()
        if messages[: len(known)] != known:
            return 0, 0
        return len(known), usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens

    def begin(self, turn: int, body: dict[str, Any]) -> dict[str, Any]:
        """Record the intent to send a turn, and return its request: that of the earlier try if there was one."""
        self.session.check()
        step = self.step_of(turn)
        assert isinstance(step, Again), step
        if isinstance(step.previous, LiveCall):
            body = self.request(step.previous)
            if isinstance(step.previous.status, Collected):
                body["max_tokens"] = int(body["max_tokens"]) * LARGER
        before, counted = self._on_record(turn, body["messages"])
        session_id = self._conversation()
        self.sending = self.records.intend(
            body, turn=turn, session_id=session_id, messages_before=before, counted=counted
        )
        return body

    def _conversation(self) -> str:
        """Turns of one attempt: the edits of earlier ones stand in the worktree when it goes on."""
        latest = self.latest()
        return (latest and latest.session_id) or uuid.uuid4().hex

    def collect(self, message: Mapping[str, Any]) -> None:
        """Record a whole reply and its cost, before any of its tools is run."""
        if self.sending is not None:
            record, self.sending = self.sending, None
            self.records.end(record, reply_of(dict(message)), self.booked(record, message))

    def book(self, message: Mapping[str, Any]) -> None:
        """Record the least cost of a reply that has begun."""
        if self.sending is not None:
            self.sending = self.records.book(self.sending, self.booked(self.sending, message))

    def fail(self, failure: CallFailed, *, lost: bool = False) -> None:
        """lost: the answer was, or may have been, on its way, and so may be billed."""
        if self.sending is not None:
            record, self.sending = self.sending, None
            self.records.end(record, failure, Booked(UNKNOWN if lost and record.cost is None else None))

    def cancel(self, stop: Terminated) -> None:
        if self.sending is not None:
            record, self.sending = self.sending, None
            self.records.cancel(record, stop.signal_name, Booked())

    def booked(self, record: LiveCall, message: Mapping[str, Any]) -> Booked:
        usage = message.get("usage")
        usage = {k: v for k, v in usage.items() if v is not None} if isinstance(usage, Mapping) else {}
        model = str(message.get("model") or record.request.get("model"))
        cost = self.session.price(model, usage, batch=False, at=record.created_at)
        return Booked(Cost(usd=cost.usd, live_usd=cost.usd), usage_of(usage))

    def text(self) -> str:
        """The text of the last turn, together with the paused ones that it completes."""
        parts: list[str] = []
        for turn in sorted({r.key.turn for r in self.records.all()}, reverse=True):
            step = self.records.step(turn)
            if not isinstance(step, Give) or (parts and step.reply.stop_reason != "pause_turn"):
                break
            parts.insert(0, step.reply.text)
        return "".join(parts)


def final_failure(reply: Reply) -> CallFailed | None:
    """The failure of a conversation's last reply, or None. The reply is paid for either way."""
    match reply.stop_reason:
        case "refusal":
            message = " ".join(reply.text.split())[:300] or "the model declined to answer"
            return CallFailed(failure="permanent", kind=REFUSAL, message=message)
        case "end_turn" | "stop_sequence":
            return None
        case "max_tokens":
            message = "the reply did not fit into its token limit; its beginning is kept in the call record"
            return CallFailed(failure="task", kind="max_tokens", message=message)
        case "tool_use" | "pause_turn" | "compaction":
            message = f"the conversation did not end within {MAX_LIVE_TURNS} turns"
            return CallFailed(failure="task", kind="max_turns", message=message)
        case other:
            return CallFailed(failure="task", kind="unfinished", message=unfinished(other))


def failure_of(failure: ApiFailure) -> CallFailed:
    """The recorded failure of a request. A broken connection counts as lack of capacity."""
    cls = "capacity" if failure.phase == "ambiguous" else failure_class(failure)
    return CallFailed(failure=cls, kind=failure.type or failure.phase, message=failure.message)


def stalled() -> CallFailed:
    return CallFailed(failure="task", kind=STALLED, message="the API fell silent in the middle of a reply")


def replay(record: CallRecord, reply: Reply) -> Iterator[bytes]:
    """The recorded reply as the event stream of the API."""
    usage = record.usage.raw if record.usage else {}
    usage = {"input_tokens": 0, "output_tokens": 0, **usage}
    message: dict[str, Any] = {
        "id": f"msg_{record.custom_id}",
        "type": "message",
        "role": "assistant",
        "model": reply.model or record.request.get("model"),
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage,
    }
    yield _event("message_start", {"message": message})
    for index, block in enumerate(reply.blocks):
        yield from _block_events(index, dict(block))
    end = {"stop_reason": reply.stop_reason, "stop_sequence": None}
    yield _event("message_delta", {"delta": end, "usage": {"output_tokens": usage["output_tokens"]}})
    yield _event("message_stop", {})


def _block_events(index: int, block: dict[str, Any]) -> Iterator[bytes]:
    """A tool's input only counts when it comes as deltas; every other block may come whole."""
    given = block.get("input") if block.get("type") == "tool_use" else None
    start = {**block, "input": {}} if given is not None else block
    yield _event("content_block_start", {"index": index, "content_block": start})
    if given is not None:
        delta = {"type": "input_json_delta", "partial_json": json.dumps(given)}
        yield _event("content_block_delta", {"index": index, "delta": delta})
    yield _event("content_block_stop", {"index": index})


def _event(name: str, data: Mapping[str, Any]) -> bytes:
    return f"event: {name}\ndata: {json.dumps({'type': name, **data})}\n\n".encode()
