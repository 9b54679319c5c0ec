"""The next step from the records of a live call, as a table; and bytes to lines in bounded memory."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from gremlins.clients.live.process import LineBuffer
from gremlins.clients.next_step import Again, Close, Give, LiveStep, Stop, after_live, outcome_of, takes_up
from gremlins.outcome import Bail, Failed, FailureClass
from gremlins.records.calls import CallFailed, CallKey, CallStatus, Collected, Intent, LiveCall, Reply, hash_request

NOW = datetime(2026, 11, 21, 10, 0, tzinfo=UTC)
SPAWN = 2


def record(status: CallStatus, *, try_: int = 1, spawn: int = SPAWN) -> LiveCall:
    return LiveCall(
        key=CallKey(stage="implement", try_=try_),
        custom_id=f"c{try_}",
        client="claude:m",
        spawn=spawn,
        created_at=NOW,
        updated_at=NOW,
        request={},
        request_sha256=hash_request({}),
        session_id="s",
        status=status,
    )


def failed(failure: FailureClass, kind: str = "x", *, in_seconds: float | None = None) -> CallFailed:
    at = None if in_seconds is None else NOW + timedelta(seconds=in_seconds)
    return CallFailed(failure=failure, kind=kind, message="m", retry_at=at)


def step(*records: LiveCall) -> LiveStep:
    return after_live(records, spawn=SPAWN, retries=3, now=NOW)


def test_nothing_on_record_is_asked() -> None:
    assert step() == Again()


def test_a_reply_is_used_whatever_came_before() -> None:
    reply = Reply(text="ok")
    done = record(Collected(reply=reply), try_=2)
    assert step(record(failed("capacity")), done) == Give(done, reply)


def test_an_intent_is_what_a_dead_process_left() -> None:
    left = record(Intent())
    assert step(left) == Close(left)


def test_what_was_interrupted_goes_on_in_its_session_in_any_spawn() -> None:
    cut = record(failed("host", "interrupted"))
    assert step(cut) == Again(cut, resume="s")


def test_a_session_that_is_gone_is_not_resumed_again() -> None:
    gone = record(failed("unknown", "no_session"))
    assert step(gone) == Again(gone)


@pytest.mark.parametrize("cls", ["config", "credit", "capacity", "host", "start", "unknown", "canceled"])
def test_what_keeps_the_attempt_is_asked_again_by_a_later_spawn_only(cls: FailureClass) -> None:
    earlier = record(failed(cls), spawn=SPAWN - 1)
    assert step(earlier) == Again(earlier, resume="s")
    assert isinstance(step(record(failed(cls))), Stop)


@pytest.mark.parametrize("cls", ["task", "permanent"])
def test_the_tasks_own_failure_is_final_in_every_spawn(cls: FailureClass) -> None:
    assert isinstance(step(record(failed(cls), spawn=SPAWN - 1)), Stop)


@pytest.mark.parametrize("failure", [failed("capacity", in_seconds=60), failed("task", "stalled", in_seconds=60)])
def test_what_time_heals_is_asked_again_at_its_time(failure: CallFailed) -> None:
    again = step(record(failure))
    assert isinstance(again, Again)
    assert again.not_before == NOW + timedelta(seconds=60)


def test_after_so_many_times_it_is_over() -> None:
    tries = [record(failed("capacity", in_seconds=0), try_=n) for n in range(1, 5)]
    assert isinstance(step(*tries[:3]), Again)
    assert isinstance(step(*tries), Stop)


def test_a_time_beyond_an_hour_is_not_waited_for_but_told() -> None:
    over = step(record(failed("capacity", in_seconds=3601)))
    assert isinstance(over, Stop)
    assert isinstance(over.outcome, Failed)
    assert over.outcome.retry_at == NOW + timedelta(seconds=3601)


def test_nothing_loops_for_ever() -> None:
    cut = [record(failed("host", "interrupted"), try_=n, spawn=n) for n in range(1, 41)]
    assert isinstance(step(*cut), Stop)


TAKEN_UP: list[tuple[CallStatus, int, bool]] = [
    (Intent(), SPAWN - 1, True),
    (Collected(reply=Reply(text="ok")), SPAWN - 1, True),
    (failed("canceled"), SPAWN - 1, True),
    (failed("host", "interrupted"), SPAWN - 1, True),
    (failed("capacity", in_seconds=60), SPAWN, True),
    (failed("unknown", "no_session"), SPAWN, False),
    (failed("task"), SPAWN - 1, False),
    (failed("start"), SPAWN, False),
]


@pytest.mark.parametrize(("status", "spawn", "wanted"), TAKEN_UP)
def test_the_worktree_is_kept_exactly_where_a_session_goes_on(status: CallStatus, spawn: int, wanted: bool) -> None:
    last = record(status, spawn=spawn)
    assert takes_up([last], spawn=SPAWN) is wanted
    alone = replace(last, session_id=None)
    assert takes_up([alone], spawn=SPAWN) is isinstance(status, Collected)


def test_a_refusal_is_a_bail() -> None:
    assert outcome_of(failed("permanent", "refusal")) == Bail("refused", "m")


@given(st.lists(st.binary(max_size=40), max_size=20), st.integers(1, 30))
def test_lines_are_the_same_however_the_bytes_are_cut(chunks: list[bytes], limit: int) -> None:
    lines = LineBuffer(limit)
    seen = [line for chunk in chunks for line in lines.feed(chunk)] + list(lines.close())
    whole = [line for line in b"".join(chunks).split(b"\n") if line.strip()]
    assert seen == [line for line in whole if len(line) <= limit]
    assert lines.dropped == sum(len(line) > limit for line in b"".join(chunks).split(b"\n"))


def test_a_line_without_end_is_never_held() -> None:
    lines = LineBuffer(1000)
    for _ in range(10_000):
        assert list(lines.feed(b"x" * 1000)) == []
    assert lines.dropped == 1
