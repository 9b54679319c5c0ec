"""The durable batch call against the simulator over real HTTP: one batch a call, every answer on purpose."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from gremlins.clients.base import Answer, CallUnsuccessful, Detach, Wait
from gremlins.clients.batch.next_step import AskLive
from gremlins.clients.transport import HttpReply, urllib_transport
from gremlins.config import BatchSettings
from gremlins.outcome import Bail, Failed
from gremlins.records.calls import CallFailed, Collected, Submitted
from gremlins.simulator import Failure, Reply, ScriptedModel
from tests.clients.conftest import MakeRoom
from tests.clients.engine_room import SETTINGS, Fate, Killed, Room, dying

IMPATIENT = SETTINGS.model_copy(update={"http_timeout": 0.3})


def outcome_of(room: Room) -> Failed | Bail:
    with pytest.raises(CallUnsuccessful) as caught:
        room.ask()
    return caught.value.outcome


def assert_paid_once(room: Room) -> None:
    """One batch on the server, its reply on record, its cost booked once."""
    assert len(room.ours) == 1
    assert isinstance(room.record.status, Collected)
    assert room.cost == room.billed > 0


def submit_and_die(room: Room) -> None:
    """Killed as soon as its batch is on record."""
    dead = room.again(fate=Fate(kill_at="after writing submitted"))
    with dying(dead):
        dead.ask()


# ── one call ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_call_is_one_batch_of_one_request(room: Room) -> None:
    assert "plan" in room.text().lower()
    assert_paid_once(room)
    (request,) = room.simulator.batches[0].requests
    assert request.custom_id == room.record.custom_id
    assert request.params == room.record.request
    assert room.record.batch
    assert room.record.batch.request_id


def test_a_reply_on_record_is_returned_and_nothing_is_sent(room: Room) -> None:
    first, before = room.text(), room.simulator.requests
    assert room.again().text(text="another prompt altogether") == first
    assert room.simulator.requests == before


def test_a_failure_on_record_is_returned_and_nothing_is_sent(make_room: MakeRoom) -> None:
    room = make_room(no_batch_models=frozenset({"claude-sonnet-5-5"}))
    first, before = outcome_of(room), room.simulator.requests
    assert outcome_of(room.woken()) == first
    assert room.simulator.requests == before


def test_a_call_in_flight_sends_what_is_on_record_whatever_the_code_now_says(room: Room) -> None:
    dead = room.again(fate=Fate(kill_at="before list"))
    with dying(dead):
        dead.ask("as it was")
    room.text(text="as it is now")
    assert "as it was" in json.dumps(room.simulator.batches[0].requests[0].params)


def test_replies_sent_back_for_correction_are_calls_of_their_own(room: Room) -> None:
    room.text()
    room.text(revision=1)
    assert [(r.revision, r.key.try_) for r in room.records] == [(0, 1), (1, 2)]
    assert len(room.ours) == 2


def test_the_intent_is_on_disk_before_anything_is_sent(room: Room) -> None:
    room.text()
    told = room.fate.told
    assert told.index("after writing intent") < told.index("before list") < told.index("before create")
    assert told[told.index("before create") - 1] == "after writing intent"


# ── exactly once: every fault of the POST ───────────────────────────────────────────────────────────────────────────

POST_FAULTS: dict[str, dict[str, Any]] = {
    "accepted, the connection died": {"do": "drop", "when": "after"},
    "not accepted, the connection died": {"do": "drop", "when": "before"},
    "accepted, then 500": {"do": "error", "status": 500, "when": "after"},
    "not accepted, 500": {"do": "error", "status": 500, "when": "before"},
    "accepted, then 529": {"do": "error", "status": 529, "when": "after"},
    "accepted, then 502 of a proxy": {"do": "garbage", "when": "after"},
    "accepted, half the reply": {"do": "truncate"},
    "429 without a time": {"do": "error", "status": 429},
    "429 with a time": {"do": "error", "status": 429, "retry_after": 120},
    "429 with a date that is none": {"do": "error", "status": 429, "retry_after": "soon"},
    "408": {"do": "error", "status": 408},
}


@pytest.mark.parametrize("fault", POST_FAULTS.values(), ids=list(POST_FAULTS))
def test_a_fault_of_the_post_makes_one_batch_all_the_same(room: Room, fault: dict[str, Any]) -> None:
    room.simulator.fault("create", **fault)
    assert "plan" in room.text().lower()
    assert_paid_once(room)


def test_one_fault_after_another_makes_one_batch_all_the_same(room: Room) -> None:
    faults = [fault for fault in POST_FAULTS.values() if fault.get("when") != "after" and fault["do"] != "truncate"]
    for fault in [*faults, {"do": "drop", "when": "after"}]:
        room.simulator.fault("create", **fault)
    room.text()
    assert_paid_once(room)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_read_timeout_makes_one_batch_all_the_same(make_room: MakeRoom, when: str) -> None:
    room = make_room({"batch": IMPATIENT})
    room.simulator.fault("create", "hang", when=when)
    room.text()
    assert_paid_once(room)


def test_a_connection_that_is_refused_is_tried_again_and_nothing_is_looked_for(room: Room) -> None:
    def come_up(wait: Wait) -> None:
        if len(room.waits) == 3:
            room.simulator.start()

    room.meanwhile = come_up
    room.simulator.stop()
    room.text()
    assert_paid_once(room)
    assert [send.outcome for send in room.record.sends] == ["unsent"] * 3 + ["accepted"]


def test_every_fault_of_the_list_before_the_post_is_waited_out(room: Room) -> None:
    for fault in ({"do": "drop"}, {"do": "error", "status": 500}, {"do": "garbage"}, {"do": "error", "status": 429}):
        room.simulator.fault("list", **fault)
    room.text()
    assert_paid_once(room)


def test_a_servers_own_time_is_honoured_above_the_backoff(room: Room) -> None:
    room.simulator.fault("create", "error", status=429, retry_after=1000)
    room.text()
    assert room.waited[0] == 1000


def test_a_servers_own_time_is_honoured_up_to_an_hour(room: Room) -> None:
    room.simulator.fault("create", "error", status=429, retry_after=10_000_000)
    room.text()
    assert room.waited[0] == 3600


def test_backoff_doubles_from_the_first_failure_to_its_ceiling(room: Room) -> None:
    room.simulator.fault("create", "error", status=429, times=7)
    room.text()
    assert room.waited[:7] == [30, 60, 120, 240, 480, 600, 600]


HOURLY = SETTINGS.model_copy(update={"retry_initial": 3600.0, "retry_max": 3600.0})


@pytest.mark.parametrize("status", [529, 429])
def test_what_is_not_accepted_for_a_day_fails_and_says_so(make_room: MakeRoom, status: int) -> None:
    room = make_room({"batch": HOURLY})
    room.simulator.fault("create", "error", status=status, times=0)
    outcome = outcome_of(room)
    assert isinstance(outcome, Failed)
    assert outcome.failure == "capacity"
    assert "not accepted for a day" in outcome.reason
    assert room.ours == []


@pytest.mark.parametrize("hours", [-30, -5, 5, 30])
def test_a_clock_that_is_wrong_by_hours_does_not_keep_it_trying_for_ever(make_room: MakeRoom, hours: int) -> None:
    room = make_room({"batch": HOURLY}, clock_offset=hours * 3600.0)
    room.simulator.fault("create", "error", status=429, times=0)
    assert isinstance(outcome_of(room), Failed)
    assert len(room.waits) in range(20, 30)


def test_a_machine_without_a_network_for_a_day_is_its_own_fault(make_room: MakeRoom) -> None:
    room = make_room({"batch": HOURLY})
    room.simulator.stop()
    outcome = outcome_of(room)
    assert isinstance(outcome, Failed)
    assert outcome.failure == "host"


@pytest.mark.parametrize(
    ("status", "error", "failure"),
    [
        (400, "invalid_request_error", "task"),
        (401, "authentication_error", "config"),
        (402, "billing_error", "credit"),
        (403, "permission_error", "config"),
        (404, "not_found_error", "config"),
        (413, "request_too_large", "task"),
    ],
)
def test_a_4xx_is_final_and_the_message_is_shown(room: Room, status: int, error: str, failure: str) -> None:
    room.simulator.fault("create", "error", status=status, error=error, message="that will not do", times=0)
    outcome = outcome_of(room)
    assert isinstance(outcome, Failed)
    assert outcome.failure == failure
    assert "that will not do" in outcome.reason
    assert room.simulator.requests["create"] == 1


def test_a_spending_limit_at_the_door_is_nobodys_prompts_fault(room: Room) -> None:
    details = {"error_code": "enforced_spend_limit_reached"}
    room.simulator.fault("create", "error", status=400, error="invalid_request_error", details=details)
    outcome = outcome_of(room)
    assert isinstance(outcome, Failed)
    assert outcome.failure == "credit"


def test_after_a_rescue_a_refused_call_is_asked_as_the_next_try(room: Room) -> None:
    room.simulator.fault("create", "error", status=401)
    outcome_of(room)
    again = room.again()
    again.text()
    assert [r.key.try_ for r in again.records] == [1, 2]
    assert len(again.ours) == 1


# ── exactly once: killed between any two steps ──────────────────────────────────────────────────────────────────────


def killed_everywhere(make: Callable[[], Room]) -> int:
    """Kill a call at each of its steps, and let the next process go on. Returns how many steps there were."""
    steps = 0
    while True:
        room = make()
        room.fate.kill_at = steps + 1
        try:
            room.ask()
        except Killed:
            after = room.again() if steps % 2 else room.woken()
            after.text()
            assert_paid_once(after)
            steps += 1
        else:
            return steps


def test_killed_at_any_step_it_is_one_batch_and_one_booking(make_room: MakeRoom) -> None:
    assert killed_everywhere(lambda: make_room(latency=15.0)) >= 20


@pytest.mark.parametrize("fault", ["accepted, the connection died", "accepted, then 529", "429 without a time"])
def test_killed_at_any_step_of_a_call_with_a_fault_it_is_one_batch(make_room: MakeRoom, fault: str) -> None:
    def make() -> Room:
        room = make_room(latency=15.0)
        room.simulator.fault("create", **POST_FAULTS[fault])
        return room

    assert killed_everywhere(make) >= 20


def test_a_disk_that_is_full_for_a_while_loses_nothing(make_room: MakeRoom) -> None:
    whole = make_room(latency=15.0)
    whole.text()
    writes = [n for n, what in enumerate(whole.fate.told, 1) if what.startswith(("before writing", "before saving"))]
    for step in writes:
        room = make_room(latency=15.0)
        room.fate.disk_full_at = range(step, step + 1)
        with pytest.raises(OSError, match="No space left"):
            room.ask()
        after = room.again()
        after.text()
        assert_paid_once(after)


# ── the outcome table ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["overloaded_error", "api_error", "timeout_error", "rate_limit_error"])
def test_what_was_not_billed_is_sent_again_twice(room: Room, kind: str) -> None:
    room.simulator.fault("outcome", "errored", error=kind, times=2)
    room.text()
    assert len(room.ours) == 3
    assert room.cost == room.billed > 0


def test_what_was_not_billed_three_times_fails(room: Room) -> None:
    room.simulator.fault("outcome", "errored", error="overloaded_error", message="try later", times=0)
    outcome = outcome_of(room)
    assert isinstance(outcome, Failed)
    assert (outcome.failure, len(room.ours), room.cost) == ("capacity", 3, 0.0)
    assert "try later" in outcome.reason


@pytest.mark.parametrize(
    ("error", "details", "failure"),
    [
        ("invalid_request_error", None, "task"),
        ("invalid_request_error", {"error_code": "contract_spend_limit_reached"}, "credit"),
        ("permission_error", {"error_code": "organization_on_hold"}, "credit"),
        ("billing_error", None, "credit"),
        ("permission_error", None, "config"),
        ("authentication_error", None, "config"),
        ("not_found_error", None, "config"),
        ("of_next_year_error", None, "unknown"),
    ],
)
def test_any_other_error_is_final_and_shown(room: Room, error: str, details: Any, failure: str) -> None:
    room.simulator.fault("outcome", "errored", error=error, message="because", details=details, times=0)
    outcome = outcome_of(room)
    assert isinstance(outcome, Failed)
    assert (outcome.failure, len(room.ours), room.cost) == (failure, 1, 0.0)
    assert "because" in outcome.reason


def test_a_model_that_cannot_batch_says_so_at_the_end(make_room: MakeRoom) -> None:
    outcome = outcome_of(make_room(no_batch_models=frozenset({"claude-sonnet-5-5"})))
    assert isinstance(outcome, Failed)
    assert outcome.failure == "task"
    assert "batch" in outcome.reason.lower()


def test_a_cut_reply_is_asked_once_more_larger_and_both_are_paid_for(room: Room) -> None:
    room.batch = SETTINGS.model_copy(update={"max_tokens": 1000})
    room.simulator.fault("outcome", "max_tokens")
    room.text()
    first, second = room.records
    assert (first.request["max_tokens"], second.request["max_tokens"]) == (1000, 2000)
    assert isinstance(first.status, Collected)
    assert first.status.reply.text
    assert room.cost == room.billed == round(sum(r.cost.usd for r in room.records if r.cost and r.cost.usd), 10)


def test_a_reply_cut_at_the_models_own_ceiling_fails_at_once_and_its_text_is_kept(room: Room) -> None:
    ceiling = room.engine().api.model("claude-sonnet-5-5")["max_tokens"]
    room.batch = SETTINGS.model_copy(update={"max_tokens": ceiling})
    room.simulator.fault("outcome", "max_tokens", times=0)
    outcome = outcome_of(room)
    assert isinstance(outcome, Failed)
    assert str(ceiling) in outcome.reason
    assert len(room.ours) == 1
    assert isinstance(room.record.status, Collected)


def test_a_reply_that_is_cut_twice_fails_and_says_why(room: Room) -> None:
    room.simulator.fault("outcome", "max_tokens", times=0)
    outcome = outcome_of(room)
    assert isinstance(outcome, Failed)
    assert len(room.ours) == 2
    assert room.cost == room.billed


def test_a_refusal_bails_and_is_paid_for(room: Room) -> None:
    room.simulator.fault("outcome", "refusal")
    outcome = outcome_of(room)
    assert isinstance(outcome, Bail)
    assert outcome.kind == "refused"
    assert room.cost == room.billed


def test_a_paused_turn_goes_on_as_a_turn_of_its_own(make_room: MakeRoom) -> None:
    replies = [Reply("the first half, ", stop_reason="pause_turn"), Reply("the second half")]
    room = make_room(model=ScriptedModel(replies))
    assert room.text() == "the first half, the second half"
    assert [r.key.turn for r in room.records] == [1, 2]
    assert room.cost == room.billed


def test_a_paused_turn_with_blocks_nobody_knows_can_be_taken_up_again(make_room: MakeRoom) -> None:
    odd = {"type": "of_next_year", "x": 1e22, "y": "\ud800", "z": [[[]]]}
    replies = [Reply(blocks=(odd,), stop_reason="pause_turn"), Reply("done")]
    room = make_room(model=ScriptedModel(replies))
    assert room.text() == "done"
    assert room.again().text() == "done"


def test_an_expired_batch_is_asked_live_where_that_is_possible(make_room: MakeRoom) -> None:
    room = make_room({"live_available": True}, latency=float("inf"))
    assert isinstance(room.ask(), AskLive)
    assert room.cost == 0.0


def test_an_expired_batch_is_sent_again_once_where_live_is_not(make_room: MakeRoom) -> None:
    room = make_room(latency=float("inf"))
    assert outcome_of(room) == Failed("capacity", "the batch expired twice")
    assert len(room.ours) == 2


def test_an_expired_batch_fails_where_the_setting_says_so(make_room: MakeRoom) -> None:
    settings = SETTINGS.model_copy(update={"on_expired": "fail"})
    room = make_room({"live_available": True, "batch": settings}, latency=float("inf"))
    assert isinstance(outcome_of(room), Failed)
    assert len(room.ours) == 1


def test_a_batch_that_somebody_else_canceled_bails(room: Room) -> None:
    room.simulator.fault("outcome", "canceled")
    outcome = outcome_of(room)
    assert isinstance(outcome, Bail)
    assert outcome.kind == "canceled_elsewhere"
    assert room.ours[0] in outcome.detail


# ── collecting ──────────────────────────────────────────────────────────────────────────────────────────────────────

FETCH_FAULTS: dict[str, dict[str, Any]] = {
    "connection died": {"do": "drop"},
    "cut short": {"do": "truncate"},
    "500": {"do": "error", "status": 500},
    "429": {"do": "error", "status": 429, "retry_after": 5},
    "too early": {"do": "error", "status": 400, "error": "invalid_request_error"},
    "a proxy's page": {"do": "garbage"},
}


@pytest.mark.parametrize("fault", FETCH_FAULTS.values(), ids=list(FETCH_FAULTS))
def test_a_fetch_that_fails_is_made_again_and_books_once(room: Room, fault: dict[str, Any]) -> None:
    room.simulator.fault("results", times=3, **fault)
    room.text()
    assert_paid_once(room)


@pytest.mark.parametrize("fault", ["a proxy's page", "cut short"])
def test_results_that_do_not_come_whole_for_hours_are_not_given_up(room: Room, fault: str) -> None:
    room.simulator.fault("results", times=60, **FETCH_FAULTS[fault])
    room.text()
    assert_paid_once(room)
    assert sum(room.waited) > 6 * 3600


def test_results_that_never_come_whole_end_the_call_at_an_unknown_cost(room: Room) -> None:
    room.simulator.fault("results", "garbage", times=0)
    outcome = outcome_of(room)
    assert isinstance(outcome, Failed)
    assert "not among the results" in outcome.reason
    assert room.engine().session.ledger.total().unpriced_calls == 1


def test_the_raw_result_is_saved_before_it_is_read(room: Room) -> None:
    room.text()
    told = room.fate.told
    assert told.index("after saving the raw result") < told.index("before writing ended")
    assert (room.paths.calls / "plan.a1.t1.r1.raw.jsonl").read_bytes().count(b"\n") == 1


def test_a_raw_result_that_somebody_removed_is_fetched_again(room: Room) -> None:
    dead = room.again(fate=Fate(kill_at="after writing ended"))
    with dying(dead):
        dead.ask()
    assert dead.record.status.state == "ended"
    (room.paths.calls / "plan.a1.t1.r1.raw.jsonl").unlink()
    room.text()
    assert_paid_once(room)


@pytest.mark.parametrize("fault", ["duplicate", "extra"])
def test_lines_too_many_change_nothing(room: Room, fault: str) -> None:
    room.simulator.fault("results", fault)
    room.text()
    assert_paid_once(room)


@pytest.mark.parametrize("fault", ["missing", "foreign"])
def test_a_result_without_our_line_fails_and_the_raw_file_is_kept(room: Room, fault: str) -> None:
    room.simulator.fault("results", fault, times=0)
    outcome = outcome_of(room)
    assert isinstance(outcome, Failed)
    assert "not among the results" in outcome.reason
    assert (room.paths.calls / "plan.a1.t1.r1.raw.jsonl").is_file()
    assert room.engine().session.ledger.total().unpriced_calls == 1


def test_a_result_of_a_type_nobody_knows_is_reported_whole(room: Room) -> None:
    room.simulator.fault("outcome", "unknown")
    outcome = outcome_of(room)
    assert isinstance(outcome, Failed)
    assert outcome.failure == "unknown"


def test_results_that_are_gone_fail_and_their_cost_is_unknown_rather_than_nothing(make_room: MakeRoom) -> None:
    room = make_room(results_kept=100.0)
    asleep = room.woken(meanwhile=lambda _wait: room.clock.advance(200.0))
    outcome = outcome_of(asleep)
    assert isinstance(outcome, Failed)
    assert "29 days" in outcome.reason
    assert room.engine().session.ledger.total().unpriced_calls == 1


def test_a_last_no_to_the_fetch_ends_the_call(room: Room) -> None:
    room.simulator.fault("results", "error", status=400, error="invalid_request_error", message="never", times=0)
    outcome = outcome_of(room)
    assert isinstance(outcome, Failed)
    assert "never" in outcome.reason


def test_our_key_never_goes_to_the_host_of_a_results_url(make_room: MakeRoom) -> None:
    stranger = make_room().simulator
    room = make_room(results_base=stranger.url)
    room.text()
    assert_paid_once(room)
    assert stranger.seen == []


def test_a_redirect_is_never_followed_with_our_key_or_prompt(make_room: MakeRoom) -> None:
    asked: list[str] = []

    def redirecting(method: str, url: str, headers: Any, timeout: float) -> HttpReply:
        asked.append(url)
        return urllib_transport(method, url, headers, timeout)

    stranger = make_room()
    room = make_room({"transport": redirecting})
    for endpoint in ("list", "create", "retrieve", "results"):
        room.simulator.fault(endpoint, "error", status=307, message=stranger.simulator.url)
    room.text()
    assert_paid_once(room)
    assert stranger.simulator.seen == []
    assert all(url.startswith(room.simulator.url) for url in asked)


# ── polling ─────────────────────────────────────────────────────────────────────────────────────────────────────────

POLL_FAULTS: dict[str, dict[str, Any]] = {
    "connection died": {"do": "drop"},
    "500": {"do": "error", "status": 500},
    "529": {"do": "error", "status": 529},
    "429": {"do": "error", "status": 429, "retry_after": 30},
    "a proxy's page": {"do": "garbage"},
    "cut short": {"do": "truncate"},
    "302": {"do": "error", "status": 302},
}


@pytest.mark.parametrize("fault", POLL_FAULTS.values(), ids=list(POLL_FAULTS))
def test_no_fault_of_a_poll_fails_the_call(room: Room, fault: dict[str, Any]) -> None:
    room.simulator.fault("retrieve", times=5, **fault)
    room.text()
    assert_paid_once(room)


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_key_that_is_refused_ends_the_process_and_never_the_call(room: Room, status: int) -> None:
    room.simulator.fault("retrieve", "error", status=status, message="who are you?")
    with pytest.raises(Detach, match="who are you") as caught:
        room.ask()
    assert caught.value.calls[0].batch_id == room.ours[0]
    assert isinstance(room.record.status, Submitted)
    room.again().text()
    assert_paid_once(room)


def test_polls_follow_the_age_of_the_batch(make_room: MakeRoom) -> None:
    room = make_room(latency=86_000.0)
    room.text()
    assert len(room.waits) <= 180
    first, *_, last = room.waited
    assert (first, last) == (20.0, 600.0)


def test_a_clock_that_jumps_stretches_no_wait_and_loses_nothing(make_room: MakeRoom) -> None:
    for jump in (86_400.0, -3_600.0):
        room = make_room(latency=100.0)
        jumps = iter([jump])
        room.meanwhile = lambda _wait, room=room, jumps=jumps: room.clock.jump(next(jumps, 0.0))
        room.text()
        assert_paid_once(room)


def test_a_clock_set_back_does_not_put_off_a_backoff_for_ever(room: Room) -> None:
    room.simulator.fault("create", "error", status=429, times=1)
    jumps = iter([-7 * 86_400.0])
    room.meanwhile = lambda _wait: room.clock.jump(next(jumps, 0.0))
    room.text()
    assert_paid_once(room)
    assert max(room.waited) <= 1.2 * 3600


# ── stopping ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_stopped_call_is_canceled_and_costs_nothing(room: Room) -> None:
    submit_and_die(room)
    room.stop()
    status = room.record.status
    assert isinstance(status, CallFailed)
    assert (status.failure, status.kind) == ("canceled", "canceled")
    assert room.simulator.requests["cancel"] == 1
    assert room.cost == room.billed == 0.0


def test_a_success_that_came_too_late_is_booked_and_used_after_a_rescue(make_room: MakeRoom) -> None:
    room = make_room(cancel_too_late=True)
    submit_and_die(room)
    room.stop()
    assert_paid_once(room)
    assert "plan" in room.again().text().lower()
    assert_paid_once(room)


def test_a_call_stopped_before_it_was_sent_is_never_sent(room: Room) -> None:
    dead = room.again(fate=Fate(kill_at="before list"))
    with dying(dead):
        dead.ask()
    assert room.stop() == 0
    assert room.simulator.requests == {}


def test_what_was_stopped_is_asked_again_by_a_rescue(room: Room) -> None:
    submit_and_die(room)
    room.stop()
    room.again().text()
    assert len(room.ours) == 2
    assert room.cost == room.billed > 0


def test_a_stop_survives_an_api_that_is_down(room: Room) -> None:
    submit_and_die(room)
    room.simulator.fault("retrieve", "error", status=500, times=3)
    room.simulator.fault("cancel", "drop", times=2)
    room.stop()
    assert isinstance(room.record.status, CallFailed)
    assert room.simulator.batches[0].cancel_initiated_at is not None


def test_a_stop_between_the_steps_of_a_stop_ends_the_same(make_room: MakeRoom) -> None:
    for step in range(1, 40):
        room = make_room(latency=1000.0)
        submit_and_die(room)
        stopping = room.woken(fate=Fate(kill_at=step))
        try:
            stopping.stop()
        except Killed:
            room.stop()
            assert isinstance(room.record.status, CallFailed)
            assert room.record.status.kind == "canceled"
            continue
        return
    raise AssertionError("a stop has more steps than that?")


# ── keys ────────────────────────────────────────────────────────────────────────────────────────────────────────────

KEYS = {"sk-ant-first-key-000": "ours", "sk-ant-rotated-key-1": "ours", "sk-ant-stranger-0002": "theirs"}


def test_a_rotated_key_goes_on(make_room: MakeRoom) -> None:
    room = make_room({"key": "sk-ant-first-key-000"}, keys=KEYS)
    submit_and_die(room)
    room.again(key="sk-ant-rotated-key-1").text()
    assert_paid_once(room)


def test_another_workspaces_key_sends_nothing_and_the_right_one_goes_on(make_room: MakeRoom) -> None:
    room = make_room({"key": "sk-ant-first-key-000"}, keys=KEYS)
    submit_and_die(room)
    with pytest.raises(Detach):
        room.again(key="sk-ant-stranger-0002").ask()
    assert len(room.simulator.batches) == 1
    room.again().text()
    assert_paid_once(room)


def test_the_key_is_in_no_file_and_no_line(make_room: MakeRoom) -> None:
    key = "sk-ant-canary-0123456789"
    room = make_room({"key": key}, keys={key: "ours"})
    room.simulator.fault("retrieve", "error", status=500, message=f"your key {key} is fine")
    room.simulator.fault("create", "error", status=429, message=f"slow down, {key}")
    room.text()
    assert key not in room.everything_written()
    assert not any(key in wait.why for wait in room.waits)


def test_files_of_a_call_are_for_their_owner_only(room: Room) -> None:
    room.text()
    modes = {path.stat().st_mode & 0o777 for path in room.paths.calls.iterdir()}
    assert modes == {0o600}
    assert room.paths.calls.stat().st_mode & 0o777 == 0o700


# ── an upgraded program ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_record_of_an_older_program_is_taken_up(room: Room) -> None:
    submit_and_die(room)
    path = room.paths.calls / "plan.a1.t1.r1.json"
    old = json.loads(path.read_text())
    for key in ("anew", "torn", "fetches", "looked_since", "suspects", "waste", "notes"):
        del old[key]
    path.write_text(json.dumps({**old, "a_field_of_old": 1}))
    room.text()
    assert_paid_once(room)


def test_a_prompt_of_any_bytes_can_be_asked_and_taken_up_again(room: Room) -> None:
    text = "caf\udce9 \x00 \ud800 🍊"
    with dying(room):
        answer = room.ask(text)
    assert isinstance(answer, Answer)
    assert room.again().text(text=text) == answer.text


def test_an_error_with_an_empty_script_is_just_a_failure(make_room: MakeRoom) -> None:
    room = make_room(model=ScriptedModel([Failure("invalid_request_error", "prompt is too long")]))
    outcome = outcome_of(room)
    assert outcome == Failed("task", "prompt is too long")


def test_intervals_of_a_fraction_of_a_second_are_honoured(make_room: MakeRoom) -> None:
    quick = BatchSettings(poll_initial=0.05, poll_max=0.2, retry_initial=0.05, retry_max=0.1, http_timeout=5)
    room = make_room({"batch": quick}, latency=1.0)
    room.simulator.fault("create", "error", status=429, times=2)
    room.text()
    assert max(room.waited) <= 0.2
