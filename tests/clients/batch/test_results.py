"""Results are read by their `.type` string; torn and foreign bytes are kept."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gremlins.clients.batch.results import (
    NotThere,
    Succeeded,
    classify,
    classify_status,
    find_result,
    reply_of,
)
from gremlins.clients.next_step import RESUBMIT
from gremlins.records.calls import CallFailed, Collected, Reply, storable

OURS = "g_1"
MESSAGE = {"content": [{"type": "text", "text": "a plan"}], "stop_reason": "end_turn", "model": "claude-sonnet-5-5"}


def lines(*rows: Any) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def row(result: Any, custom_id: str = OURS) -> dict[str, Any]:
    return {"custom_id": custom_id, "result": result}


def errored(kind: str, message: str = "no", **error: Any) -> dict[str, Any]:
    inner = {"type": kind, "message": message, **error}
    return row({"type": "errored", "error": {"type": "error", "error": inner, "request_id": "req_1"}})


def failure(raw: bytes) -> CallFailed:
    found = find_result(raw, OURS)
    assert isinstance(found, CallFailed)
    return found


def test_a_success_is_our_line_wherever_it_stands() -> None:
    foreign = row({"type": "expired"}, "another")
    assert find_result(lines(foreign, row({"type": "succeeded", "message": MESSAGE}), foreign), OURS) == Succeeded(
        MESSAGE
    )


@pytest.mark.parametrize(
    ("kind", "failure_class"),
    [
        ("overloaded_error", "capacity"),
        ("api_error", "capacity"),
        ("timeout_error", "capacity"),
        ("rate_limit_error", "capacity"),
        ("billing_error", "credit"),
        ("authentication_error", "config"),
        ("permission_error", "config"),
        ("not_found_error", "config"),
        ("invalid_request_error", "task"),
        ("request_too_large", "task"),
        ("an_error_of_next_year", "unknown"),
    ],
)
def test_an_error_is_judged_by_its_inner_type(kind: str, failure_class: str) -> None:
    found = failure(lines(errored(kind, "the reason")))
    assert (found.failure, found.kind) == (failure_class, kind)
    assert "the reason" in found.message


def test_what_is_not_billed_is_asked_again_and_nothing_else() -> None:
    assert {"overloaded_error", "api_error", "timeout_error", "rate_limit_error"} == RESUBMIT


def test_an_unknown_kind_is_reported_whole() -> None:
    found = failure(lines(errored("quota_of_the_moon", "full", details={"moon": 3})))
    assert "quota_of_the_moon" in found.message
    assert '"moon": 3' in found.message


@pytest.mark.parametrize(
    "code", ["enforced_spend_limit_reached", "contract_spend_limit_reached", "organization_on_hold"]
)
@pytest.mark.parametrize("kind", ["invalid_request_error", "permission_error", "rate_limit_error"])
def test_a_spending_limit_is_known_by_its_code_whatever_the_kind(code: str, kind: str) -> None:
    assert failure(lines(errored(kind, "no", details={"error_code": code}))).failure == "credit"


def test_a_sentence_about_credit_counts_only_where_no_code_answers() -> None:
    words = "Your credit balance is too low to access the Anthropic API."
    assert classify("invalid_request_error", None, words) == "credit"
    assert classify("invalid_request_error", "prompt_too_long", words) == "task"
    assert classify("overloaded_error", None, words) == "capacity"


@pytest.mark.parametrize("code", [[], {}, 3, None, True])
def test_a_code_that_is_none_says_nothing(code: Any) -> None:
    assert failure(lines(errored("invalid_request_error", details={"error_code": code}))).failure == "task"


@pytest.mark.parametrize(("kind", "failure_class"), [("canceled", "canceled"), ("expired", "capacity")])
def test_canceled_and_expired_are_failures_of_their_own(kind: str, failure_class: str) -> None:
    found = failure(lines(row({"type": kind})))
    assert (found.kind, found.failure) == (kind, failure_class)


@pytest.mark.parametrize(
    "result",
    [
        None,
        [],
        "succeeded",
        {},
        {"type": "succeeded"},
        {"type": "succeeded", "message": "hello"},
        {"type": "errored"},
        {"type": "errored", "error": {"type": "invalid_request_error"}},
        {"type": "errored", "error": {"type": "error", "error": {"message": "no type"}}},
        {"type": "of next year"},
    ],
)
def test_a_result_of_no_known_shape_is_a_failure_that_says_so(result: Any) -> None:
    found = failure(lines(row(result)))
    assert (found.failure, found.kind) == ("unknown", "unreadable_result")


def test_results_without_our_line_are_whole_when_every_line_can_be_read() -> None:
    assert find_result(lines(row({"type": "expired"}, "other")), OURS) == NotThere(torn=False)


@pytest.mark.parametrize(
    "raw", [b"", b"\n \n", b'{"custom_id": "g_1", "resu', b"<html>Bad Gateway</html>", b"\xff\xfe"]
)
def test_results_that_are_not_whole_are_torn_rather_than_without_us(raw: bytes) -> None:
    assert find_result(raw, OURS) == NotThere(torn=True)


def test_nesting_without_end_is_torn_and_no_crash() -> None:
    assert find_result(b"[" * 200_000, OURS) == NotThere(torn=True)


def test_the_first_of_two_lines_for_us_counts() -> None:
    raw = lines(row({"type": "succeeded", "message": MESSAGE}), row({"type": "expired"}))
    assert isinstance(find_result(raw, OURS), Succeeded)


def test_a_reply_is_the_text_of_all_its_text_blocks() -> None:
    content = [{"type": "text", "text": "a"}, {"type": "of_next_year", "x": 1}, {"type": "text", "text": "b"}, "odd"]
    reply = reply_of({**MESSAGE, "content": content})
    assert reply.text == "ab"
    assert reply.blocks[1] == {"type": "of_next_year", "x": 1}


@pytest.mark.parametrize("message", [{}, {"content": None}, {"content": 3, "stop_reason": [], "model": {}}])
def test_a_message_of_odd_shape_is_an_empty_reply(message: dict[str, Any]) -> None:
    assert reply_of(message) == Reply(text="")


@pytest.mark.parametrize(
    ("status", "failure_class"),
    [
        (400, "task"),
        (401, "config"),
        (402, "credit"),
        (403, "config"),
        (404, "config"),
        (413, "task"),
        (418, "unknown"),
        (429, "capacity"),
        (500, "capacity"),
        (529, "capacity"),
        (302, "unknown"),
    ],
)
def test_an_http_status_is_judged_where_the_body_says_nothing(status: int, failure_class: str) -> None:
    assert classify_status(status) == failure_class


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(codec=None)), inner, max_size=4),
    max_leaves=12,
)


@given(json_values)
def test_whatever_a_result_says_can_be_kept_and_read_again(value: Any) -> None:
    raw = json.dumps({"custom_id": OURS, "result": {"type": "succeeded", "message": {"content": [{"x": value}]}}})
    found = find_result(raw.encode(), OURS)
    assert isinstance(found, Succeeded)
    kept = Collected(reply=reply_of(found.message))
    assert msgspec.json.decode(msgspec.json.encode(kept), type=Collected) == kept


@given(json_values)
def test_whatever_an_error_says_can_be_kept_and_read_again(value: Any) -> None:
    found = find_result(json.dumps(row({"type": "errored", "error": value})).encode(), OURS)
    assert isinstance(found, CallFailed)
    assert msgspec.json.decode(msgspec.json.encode(found), type=CallFailed) == found


@given(st.binary(max_size=200))
def test_no_bytes_at_all_break_the_reader(raw: bytes) -> None:
    assert isinstance(find_result(raw, OURS), NotThere)


def test_a_reply_nested_deeper_than_any_reader_allows_stays_readable() -> None:
    deep: Any = "bottom"
    for _ in range(5000):
        deep = [deep]
    kept = Collected(reply=Reply(text="", blocks=({"x": storable(deep)},)))
    assert msgspec.json.decode(msgspec.json.encode(kept), type=Collected) == kept
