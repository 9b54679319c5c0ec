"""The next step after a try that is over: the outcome table as a pure function."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gremlins.clients.next_step import (
    MAX_RESUBMITS,
    MAX_TRIES,
    MAX_TURNS,
    RESUBMIT,
    Ask,
    AskLive,
    BatchStep,
    Give,
    LookAgain,
    RetryPolicy,
    Stop,
    after_batch,
)
from gremlins.clock import FakeClock
from gremlins.config import BatchSettings
from gremlins.outcome import KEEPS_ATTEMPT, Bail, Failed, FailureClass
from gremlins.records.calls import BatchCall, BatchRef, CallFailed, CallKey, Collected, Reply, hash_request

NOW = FakeClock().now()
REQUEST = {"model": "claude-sonnet-5-5", "max_tokens": 1000, "messages": [{"role": "user", "content": "plan"}]}
OnExpired = Literal["live", "resubmit", "fail"]


def policy(*, spawn: int = 1, live: bool = False, on_expired: OnExpired = "live") -> RetryPolicy:
    settings = BatchSettings(on_expired=on_expired, retry_initial=30, retry_max=600)
    return RetryPolicy(settings=settings, spawn=spawn, live_available=live, now=NOW)


def record(status: Collected | CallFailed, *, turn: int = 1, try_: int = 1, **more: Any) -> BatchCall:
    values: dict[str, Any] = {
        "key": CallKey(stage="plan", turn=turn, try_=try_),
        "custom_id": "g_1",
        "client": "claude:x",
        "spawn": 1,
        "created_at": NOW,
        "updated_at": NOW,
        "request": REQUEST,
        "request_sha256": hash_request(REQUEST),
        "batch": BatchRef(batch_id=f"msgbatch_{turn}_{try_}", submitted_at=NOW),
        "status": status,
    }
    return BatchCall(**{**values, **more})


def text_given(step: BatchStep) -> tuple[object, str]:
    assert isinstance(step, Give)
    return step.record, step.reply.text


def reply(text: str, stop_reason: str = "end_turn", **more: Any) -> BatchCall:
    return record(
        Collected(reply=Reply(text=text, stop_reason=stop_reason, blocks=({"type": "text", "text": text},))), **more
    )


def failed(kind: str, failure: FailureClass = "capacity", **more: Any) -> BatchCall:
    return record(CallFailed(failure=failure, kind=kind, message=f"the message of {kind}"), **more)


def tries(*kinds: str) -> list[BatchCall]:
    return [failed(kind, try_=number) for number, kind in enumerate(kinds, 1)]


def ask(next_: BatchStep) -> Ask:
    assert isinstance(next_, Ask)
    return next_


def stopped(next_: BatchStep) -> Failed | Bail:
    assert isinstance(next_, Stop)
    return next_.outcome


def test_the_end_of_a_turn_is_the_reply() -> None:
    done = reply("a plan")
    assert text_given(after_batch([done], policy())) == (done, "a plan")


def test_a_reply_that_ended_at_a_stop_sequence_is_a_reply() -> None:
    assert isinstance(after_batch([reply("a plan", "stop_sequence")], policy()), Give)


@pytest.mark.parametrize("stop_reason", ["tool_use", "compaction", "of_next_year", None])
def test_a_reply_that_did_not_come_to_its_end_is_no_success(stop_reason: Any) -> None:
    outcome = stopped(after_batch([reply("a plan", stop_reason)], policy()))
    assert isinstance(outcome, Failed)
    assert str(stop_reason or "null") in outcome.reason


def test_a_refusal_bails_and_says_what_was_said() -> None:
    assert stopped(after_batch([reply("I will not.", "refusal")], policy())) == Bail("refused", "I will not.")
    assert stopped(after_batch([reply("", "refusal")], policy())) == Bail("refused", "the model declined to answer")


def test_a_reply_that_was_cut_off_gets_one_larger_try() -> None:
    step = ask(after_batch([reply("a pl", "max_tokens")], policy()))
    assert (step.larger, step.key.turn, step.key.try_) == (True, 1, 2)


def test_a_second_cut_fails_the_stage() -> None:
    outcome = stopped(after_batch([reply("a pl", "max_tokens"), reply("a plan of", "max_tokens", try_=2)], policy()))
    assert isinstance(outcome, Failed)
    assert outcome.failure == "task"
    assert "did not fit" in outcome.reason


def test_the_larger_try_keeps_its_size_when_it_has_to_be_sent_again() -> None:
    larger = {**REQUEST, "max_tokens": 2000}
    records = [reply("a pl", "max_tokens"), failed("overloaded_error", try_=2, request=larger)]
    assert ask(after_batch(records, policy())).request["max_tokens"] == 2000


def test_a_full_context_window_is_no_reason_for_a_larger_try() -> None:
    outcome = stopped(after_batch([reply("x", "model_context_window_exceeded")], policy()))
    assert isinstance(outcome, Failed)
    assert "context window" in outcome.reason


def test_a_paused_turn_goes_on_with_what_it_said_in_a_record_of_its_own() -> None:
    step = ask(after_batch([reply("first half, ", "pause_turn")], policy()))
    assert (step.key.turn, step.key.try_, step.larger) == (2, 1, False)
    assert step.request["messages"][-1] == {"role": "assistant", "content": [{"type": "text", "text": "first half, "}]}

    empty = ask(after_batch([reply(" ", "pause_turn")], policy()))
    assert empty.request["messages"] == REQUEST["messages"]  # the API refuses an empty turn of the assistant


def test_the_reply_of_a_paused_turn_is_the_text_of_all_its_turns() -> None:
    last = reply("second half", turn=2)
    assert text_given(after_batch([reply("first half, ", "pause_turn"), last], policy())) == (
        last,
        "first half, second half",
    )


def test_the_text_of_a_turn_is_that_of_its_last_reply() -> None:
    records = [reply("cut", "max_tokens"), reply("whole, ", "pause_turn", try_=2), reply("end", turn=2)]
    assert text_given(after_batch(records, policy())) == (records[-1], "whole, end")


def test_a_turn_that_never_ends_ends() -> None:
    outcome = stopped(after_batch([reply("…", "pause_turn", turn=MAX_TURNS)], policy()))
    assert isinstance(outcome, Failed)


@pytest.mark.parametrize("kind", sorted(RESUBMIT))
def test_what_says_nothing_about_the_request_is_sent_again_twice_with_backoff(kind: str) -> None:
    first, second = ask(after_batch(tries(kind), policy())), ask(after_batch(tries(kind, kind), policy()))
    assert (first.key.try_, second.key.try_) == (2, 3)
    assert first.retry_at == NOW + timedelta(seconds=30)
    assert second.retry_at == NOW + timedelta(seconds=60)
    assert stopped(after_batch(tries(kind, kind, kind), policy())) == Failed("capacity", f"the message of {kind}")


def test_failures_are_counted_across_processes_that_come_and_go() -> None:
    records = [failed("overloaded_error", try_=n, spawn=n) for n in (1, 2, 3)]
    assert isinstance(after_batch(records, policy(spawn=3)), Stop)


@pytest.mark.parametrize("failure", sorted(KEEPS_ATTEMPT))
def test_after_a_rescue_what_is_not_the_tasks_fault_is_asked_again(failure: FailureClass) -> None:
    step = ask(after_batch([failed("any", failure)], policy(spawn=2)))
    assert (step.key.attempt, step.key.try_, step.anew) == (1, 2, True)


def test_what_a_rescue_asks_anew_is_counted_anew() -> None:
    records = [*tries("api_error", "api_error", "api_error"), failed("api_error", try_=4, spawn=2, anew=True)]
    assert isinstance(after_batch(records, policy(spawn=2)), Ask)


def test_the_tasks_own_fault_is_not_asked_again_in_the_same_attempt() -> None:
    outcome = stopped(after_batch([failed("invalid_request_error", "task")], policy(spawn=2)))
    assert outcome == Failed("task", "the message of invalid_request_error")


@pytest.mark.parametrize("spawn", [1, 2])
def test_what_was_stopped_is_asked_again_when_somebody_asks_again(spawn: int) -> None:
    assert ask(after_batch([failed("canceled", "canceled")], policy(spawn=spawn))).anew


def test_a_batch_somebody_else_canceled_bails_and_is_not_asked_again() -> None:
    outcome = stopped(after_batch([failed("canceled_elsewhere", "canceled")], policy()))
    assert isinstance(outcome, Bail)
    assert outcome.kind == "canceled_elsewhere"


@pytest.mark.parametrize(
    ("on_expired", "live", "expected"),
    [("live", True, AskLive), ("live", False, Ask), ("resubmit", True, Ask), ("fail", True, Stop)],
)
def test_an_expired_batch_follows_the_setting(on_expired: OnExpired, live: bool, expected: type) -> None:
    assert isinstance(after_batch(tries("expired"), policy(on_expired=on_expired, live=live)), expected)


def test_an_expired_batch_is_sent_again_once() -> None:
    outcome = stopped(after_batch(tries("expired", "expired"), policy(on_expired="resubmit")))
    assert outcome == Failed("capacity", "the batch expired twice")


def test_a_rescue_does_not_forget_that_what_expired_is_to_be_asked_live() -> None:
    assert isinstance(after_batch(tries("expired"), policy(spawn=2, live=True)), AskLive)


kinds = st.sampled_from([*sorted(RESUBMIT), "expired", "canceled", "invalid_request_error", "results_gone", "odd"])
classes = st.sampled_from(["task", "capacity", "credit", "config", "host", "unknown", "canceled"])


@given(
    st.lists(st.tuples(kinds, classes, st.integers(1, 3), st.booleans()), min_size=1, max_size=MAX_TRIES + 3),
    st.integers(1, 4),
    st.booleans(),
    st.sampled_from(["live", "resubmit", "fail"]),
)
def test_whatever_happened_something_follows_and_every_call_ends(
    history: Sequence[tuple[str, FailureClass, int, bool]], spawn: int, live: bool, on_expired: OnExpired
) -> None:
    records = [
        failed(kind, failure, try_=number, spawn=seen, anew=anew)
        for number, (kind, failure, seen, anew) in enumerate(history, 1)
    ]
    step = after_batch(records, policy(spawn=max(spawn, history[-1][2]), live=live, on_expired=on_expired))
    assert not isinstance(step, Give)
    if len(records) >= MAX_TRIES:
        assert isinstance(step, Stop)
    if isinstance(step, Ask):
        assert step.key not in {r.key for r in records}


def test_a_call_that_may_have_been_billed_is_for_a_person_and_a_rescue_only_looks_again() -> None:
    records = [failed("undecided", "unknown")]
    outcome = stopped(after_batch(records, policy()))
    assert isinstance(outcome, Bail)
    assert outcome.kind == "unknown_cost"
    assert after_batch(records, policy(spawn=2)) == LookAgain(records[0])


@given(st.lists(st.sampled_from(sorted(RESUBMIT)), min_size=1, max_size=8))
def test_without_a_person_nothing_is_sent_more_than_three_times(history: list[str]) -> None:
    step = after_batch(tries(*history), policy())
    assert isinstance(step, Ask) == (len(history) <= MAX_RESUBMITS)
