"""What follows once a try of a call is over: a pure function over its records. The outcome table, second half."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, assert_never

from gremlins.clients.batch.results import RESUBMIT
from gremlins.clock import Jitter, no_jitter
from gremlins.config import BatchSettings
from gremlins.outcome import KEEPS_ATTEMPT, Bail, Failed
from gremlins.records.calls import BatchCall, CallFailed, CallKey, CallRecord, Collected
from gremlins.retry import exponential

MAX_RESUBMITS = 2
MAX_TURNS = 12
MAX_TRIES = 40
"""Whatever is misjudged, a call ends."""


@dataclass(frozen=True)
class Give:
    """The call has its reply."""

    record: BatchCall
    text: str


@dataclass(frozen=True)
class Ask:
    """Ask again, under a new key. `larger` asks for more output tokens than `request` names.

    `anew`: because somebody rescued the gremlin; what had failed before no longer counts.
    """

    key: CallKey
    request: dict[str, Any]
    retry_at: datetime | None = None
    larger: bool = False
    anew: bool = False
    why: str = ""


@dataclass(frozen=True)
class AskLive:
    """The batch expired: make the call live."""

    record: CallRecord


@dataclass(frozen=True)
class Stop:
    """The call is over without a reply."""

    outcome: Failed | Bail


Next = Give | Ask | AskLive | Stop


@dataclass(frozen=True)
class Policy:
    """What settings and surroundings say about trying again."""

    settings: BatchSettings
    spawn: int
    live_available: bool
    now: datetime
    jitter: Jitter = no_jitter


def after(records: Sequence[BatchCall], policy: Policy) -> Next:
    """What to do after the last of a call's records, which is collected or failed.

    `records` are one revision of one call, in order of turn and try.
    """
    last = records[-1]
    match last.status:
        case Collected():
            return _after_reply(records, last.status)
        case CallFailed():
            if len(records) >= MAX_TRIES:
                return Stop(Failed("task", f"gave up after {len(records)} tries: {last.status.message}"))
            return _after_failure(records, last.status, policy)
        case other:
            raise AssertionError(f"a call that is {other.state} has no outcome yet")


def _after_reply(records: Sequence[BatchCall], status: Collected) -> Next:
    last = records[-1]
    match status.reply.stop_reason:
        case "refusal":
            return Stop(Bail("refused", _short(status.reply.text) or "the model declined to answer"))
        case "pause_turn":
            if last.key.turn >= MAX_TURNS:
                return Stop(Failed("task", f"the model paused its turn {MAX_TURNS} times without an end"))
            blocks = [dict(block) for block in status.reply.blocks]
            messages = [*last.request["messages"], {"role": "assistant", "content": blocks}]
            key = CallKey(stage=last.key.stage, attempt=last.key.attempt, turn=last.key.turn + 1)
            return Ask(key, {**last.request, "messages": messages}, why="the model paused; its next turn")
        case "max_tokens" | "model_context_window_exceeded":
            return _after_cut(records, last)
        case _:
            return Give(last, "".join(_texts(records)))


def _after_cut(records: Sequence[BatchCall], last: BatchCall) -> Next:
    """A reply cut off at the ceiling was paid for; one larger try, and its text is kept either way."""
    cut = [r for r in records if r.key.turn == last.key.turn and _stop_reason(r) == "max_tokens"]
    if len(cut) == 1 and _stop_reason(last) == "max_tokens":
        return Ask(_next_try(last), last.request, larger=True, why="the reply was cut off; one larger try")
    ceiling = last.request.get("max_tokens")
    return Stop(
        Failed("task", f"the reply did not fit into {ceiling} tokens; its beginning is kept in the call record")
    )


def _after_failure(records: Sequence[BatchCall], failed: CallFailed, policy: Policy) -> Next:
    last = records[-1]
    if failed.kind == "canceled":  # by us, for a stop; whoever asks again wants it no longer
        return Ask(_next_try(last), last.request, anew=True, why="it had been stopped; asked again")
    if last.spawn < policy.spawn and failed.failure in KEEPS_ATTEMPT:
        if failed.kind == "expired" and _on_expired(policy) == "live":
            return AskLive(last)
        return Ask(_next_try(last), last.request, anew=True, why=f"asked again after: {failed.kind}")
    if failed.kind in RESUBMIT and last.batch is not None:
        failures = _failures_in_a_row(records, RESUBMIT)
        if failures <= MAX_RESUBMITS:
            wait = exponential(
                failures,
                initial=policy.settings.retry_initial,
                maximum=policy.settings.retry_max,
                jitter=policy.jitter,
            )
            when = policy.now + timedelta(seconds=wait)
            return Ask(_next_try(last), last.request, retry_at=when, why=f"{failed.kind}, not billed; sent again")
    if failed.kind == "expired":
        return _after_expiry(records, failed, policy)
    if failed.kind == "canceled_elsewhere":
        return Stop(Bail("canceled_elsewhere", failed.message))
    return Stop(Failed(failed.failure, failed.message, retry_at=failed.retry_at))


def _after_expiry(records: Sequence[BatchCall], failed: CallFailed, policy: Policy) -> Next:
    last = records[-1]
    match choice := _on_expired(policy):
        case "live":
            return AskLive(last)
        case "resubmit":
            if _failures_in_a_row(records, frozenset({"expired"})) == 1:
                return Ask(_next_try(last), last.request, why="the batch expired, not billed; sent once more")
            return Stop(Failed(failed.failure, "the batch expired twice"))
        case "fail":
            return Stop(Failed(failed.failure, failed.message))
        case _:
            assert_never(choice)


def _on_expired(policy: Policy) -> Literal["live", "resubmit", "fail"]:
    wanted = policy.settings.on_expired
    return "resubmit" if wanted == "live" and not policy.live_available else wanted


def _next_try(record: BatchCall) -> CallKey:
    key = record.key
    return CallKey(stage=key.stage, attempt=key.attempt, turn=key.turn, try_=key.try_ + 1)


def _failures_in_a_row(records: Sequence[BatchCall], kinds: frozenset[str]) -> int:
    """How many of the latest tries failed in one of these ways, whichever process saw it."""
    count = 0
    for record in reversed(records):
        if not isinstance(record.status, CallFailed) or record.status.kind not in kinds:
            break
        count += 1
        if record.anew:
            break
    return count


def _stop_reason(record: BatchCall) -> str | None:
    return record.status.reply.stop_reason if isinstance(record.status, Collected) else None


def _texts(records: Sequence[BatchCall]) -> list[str]:
    """The text of each turn's collected try, in order: a paused turn's text belongs to the whole."""
    turns = {r.key.turn: r.status.reply.text for r in records if isinstance(r.status, Collected)}
    return [turns[turn] for turn in sorted(turns)]


def _short(text: str) -> str:
    return " ".join(text.split())[:300]
