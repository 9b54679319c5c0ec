"""The next step of a call: pure functions over its records, one for batch calls and one for live calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, assert_never

from msgspec.structs import replace

from gremlins.clock import Jitter, no_jitter
from gremlins.config import BatchSettings
from gremlins.outcome import KEEPS_ATTEMPT, UNKNOWN_COST, Bail, Failed
from gremlins.records.calls import BatchCall, CallFailed, CallKey, CallRecord, Collected, LiveCall, Reply
from gremlins.retry import RETRY_AFTER_CEILING, exponential

STALLED = "stalled"
NO_SESSION = "no_session"
INTERRUPTED = "interrupted"
UNSENT = "unsent"
MAX_BUDGET = "max_budget"
REFUSAL = "refusal"
"""Kinds of failure of our own."""
RESUBMIT = frozenset({"overloaded_error", "api_error", "timeout_error", "rate_limit_error"})
"""Error kinds that say nothing about the request. Not billed; asked again."""
MAX_RESUBMITS = 2
MAX_TURNS = 12
MAX_TRIES = 40
"""The most tries of one call, so that it always ends."""


@dataclass(frozen=True)
class Give:
    """The call has its reply; the text of every turn is in `reply`."""

    record: CallRecord
    reply: Reply


@dataclass(frozen=True)
class Ask:
    """Ask again, under a new key. `larger` asks for more output tokens than `request` names.

    `anew`: because of a rescue; earlier failures no longer count.
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


@dataclass(frozen=True)
class LookAgain:
    """After a rescue: look once more for a call that may have been billed, before a person decides anew."""

    record: BatchCall


BatchStep = Give | Ask | AskLive | LookAgain | Stop


@dataclass(frozen=True)
class RetryPolicy:
    """The settings and facts that decide about another try."""

    settings: BatchSettings
    spawn: int
    live_available: bool
    now: datetime
    jitter: Jitter = no_jitter


def after_batch(records: Sequence[BatchCall], policy: RetryPolicy) -> BatchStep:
    """The next step of a batch call whose last record is collected or failed.

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


def _after_reply(records: Sequence[BatchCall], status: Collected) -> BatchStep:
    last = records[-1]
    match status.reply.stop_reason:
        case "refusal":
            return Stop(Bail("refused", _short(status.reply.text) or "the model declined to answer"))
        case "pause_turn":
            if last.key.turn >= MAX_TURNS:
                return Stop(Failed("task", f"the model paused its turn {MAX_TURNS} times without an end"))
            blocks = [dict(block) for block in status.reply.blocks if not is_blank(block)]
            turn = [{"role": "assistant", "content": blocks}] if blocks else []
            messages = [*last.request["messages"], *turn]
            key = CallKey(stage=last.key.stage, attempt=last.key.attempt, turn=last.key.turn + 1)
            return Ask(key, {**last.request, "messages": messages}, why="the model paused; its next turn")
        case "max_tokens":
            return _after_cut(records, last)
        case "end_turn" | "stop_sequence":
            return Give(last, replace(status.reply, text="".join(_texts(records))))
        case other:
            return Stop(Failed("task", f"{unfinished(other)}; its text is kept in the call record"))


def unfinished(stop_reason: str | None) -> str:
    """The reason a reply with this stop reason is no answer."""
    if stop_reason == "model_context_window_exceeded":
        return "prompt and reply together are more than the model's context window holds"
    return f"the reply did not come to its end (its stop_reason is {stop_reason or 'null'})"


def is_blank(block: Mapping[str, Any]) -> bool:
    """True for a text block without text: the API takes none back."""
    return block.get("type") == "text" and not str(block.get("text") or "").strip()


def _after_cut(records: Sequence[BatchCall], last: BatchCall) -> BatchStep:
    """One larger try for a reply that was cut off. Its text stays on record."""
    cut = [r for r in records if r.key.turn == last.key.turn and _stop_reason(r) == "max_tokens"]
    if len(cut) == 1 and _stop_reason(last) == "max_tokens":
        return Ask(_next_try(last), last.request, larger=True, why="the reply was cut off; one larger try")
    ceiling = last.request.get("max_tokens")
    return Stop(
        Failed("task", f"the reply did not fit into {ceiling} tokens; its beginning is kept in the call record")
    )


def _after_failure(records: Sequence[BatchCall], failed: CallFailed, policy: RetryPolicy) -> BatchStep:
    last = records[-1]
    if failed.kind == "canceled":  # by us, for a stop; asking again ends that wish
        return Ask(_next_try(last), last.request, anew=True, why="it had been stopped; asked again")
    if failed.undecided:
        return LookAgain(last) if last.spawn < policy.spawn else Stop(Bail(UNKNOWN_COST, failed.message))
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


def _after_expiry(records: Sequence[BatchCall], failed: CallFailed, policy: RetryPolicy) -> BatchStep:
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


def _on_expired(policy: RetryPolicy) -> Literal["live", "resubmit", "fail"]:
    wanted = policy.settings.on_expired
    return "resubmit" if wanted == "live" and not policy.live_available else wanted


def _next_try(record: BatchCall) -> CallKey:
    key = record.key
    return CallKey(stage=key.stage, attempt=key.attempt, turn=key.turn, try_=key.try_ + 1)


def _failures_in_a_row(records: Sequence[BatchCall], kinds: frozenset[str]) -> int:
    """Number of the latest tries that failed in one of these ways, in any process."""
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


# ── live calls ─────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Again:
    """Ask the agent, for the first time or as the next try; `resume` names the session to go on with."""

    previous: CallRecord | None = None
    not_before: datetime | None = None
    resume: str | None = None


@dataclass(frozen=True)
class Close:
    """Book the try of a dead process as failed, then decide again."""

    record: LiveCall


LiveStep = Give | Again | Close | Stop


def after_live(records: Sequence[LiveCall], *, spawn: int, retries: int, now: datetime) -> LiveStep:
    """The next step of a live call. `records` are its tries of one revision and one turn, in order."""
    if not records:
        return Again()
    last = records[-1]
    match last.status:
        case Collected():
            return Give(last, last.status.reply)
        case CallFailed():
            return _after_live_failure(records, last.status, spawn=spawn, retries=retries, now=now)
        case _:
            return Close(last)


def _after_live_failure(
    records: Sequence[LiveCall], failed: CallFailed, *, spawn: int, retries: int, now: datetime
) -> LiveStep:
    last = records[-1]
    if len(records) >= MAX_TRIES:
        return Stop(outcome_of(failed))
    if failed.kind == NO_SESSION:
        return Again(last)
    if failed.kind in (INTERRUPTED, MAX_BUDGET):  # at its limit: the caps decide if the session goes on
        return Again(last, resume=last.session_id)
    if last.spawn < spawn and (failed.failure in KEEPS_ATTEMPT or failed.failure == "canceled"):
        return Again(last, resume=last.session_id)
    again_at = failed.retry_at if is_retried(failed) and live_failures_in_a_row(records, spawn) <= retries else None
    if again_at is None or again_at - now > timedelta(seconds=RETRY_AFTER_CEILING):
        return Stop(outcome_of(failed))
    return Again(last, not_before=again_at, resume=last.session_id)


def takes_up(records: Sequence[LiveCall], *, spawn: int) -> bool:
    """True if the next call resumes a session or has its reply; if False, the caller cleans the worktree first."""
    if not records:
        return False
    last = records[-1]
    match last.status:
        case Collected():
            return True
        case CallFailed():
            step = _after_live_failure([last], last.status, spawn=spawn, retries=1, now=last.updated_at)
            return isinstance(step, Again) and step.resume is not None
        case _:
            return last.session_id is not None


def is_retried(failed: CallFailed) -> bool:
    """True if the same spawn asks again by itself: a passing fault, or a stall."""
    return failed.failure == "capacity" or failed.kind in (STALLED, UNSENT)


def live_failures_in_a_row(records: Sequence[LiveCall], spawn: int) -> int:
    """Number of the latest tries of this spawn that ended in a passing fault."""
    count = 0
    for record in reversed(records):
        if record.spawn != spawn or not isinstance(record.status, CallFailed) or not is_retried(record.status):
            break
        count += 1
    return count


def outcome_of(failed: CallFailed) -> Failed | Bail:
    """The outcome of a stage whose call failed."""
    if failed.kind == REFUSAL:
        return Bail("refused", failed.message)
    return Failed(failed.failure, failed.message, retry_at=failed.retry_at)
