"""The durable batch call against the simulator over real HTTP: one batch a call, every answer on purpose."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from gremlins.clients.base import Answer, CallUnsuccessful, Detach, Wait
from gremlins.clients.next_step import AskLive
from gremlins.clients.transport import HttpReply, http_transport
from gremlins.config import BatchSettings
from gremlins.outcome import Bail, Failed
from gremlins.records.calls import CallFailed, Collected, Ledger, Submitted
from gremlins.simulator import ModelError, ModelReply, ScriptedModel
from tests.clients.batch_gremlin import SETTINGS, BatchGremlin, ProcessFaults, until_killed
from tests.clients.conftest import MakeGremlin
from tests.kill_points import Killed

IMPATIENT = SETTINGS.model_copy(update={"http_timeout": 0.3})


def outcome_of(gremlin: BatchGremlin) -> Failed | Bail:
    with pytest.raises(CallUnsuccessful) as caught:
        gremlin.ask()
    return caught.value.outcome


def assert_paid_once(gremlin: BatchGremlin) -> None:
    """One batch on the server, its reply on record, its cost booked once."""
    assert len(gremlin.ours) == 1
    assert isinstance(gremlin.record.status, Collected)
    assert gremlin.cost == gremlin.billed > 0


def undecided(gremlin: BatchGremlin) -> str:
    """It ends for a person to decide, with one call of unknown cost. Returns the sentence."""
    outcome = outcome_of(gremlin)
    assert isinstance(outcome, Bail)
    assert outcome.kind == "unknown_cost"
    assert Ledger(gremlin.paths).total().unknown_calls == 1
    return outcome.detail


def submit_and_die(gremlin: BatchGremlin) -> None:
    """Killed as soon as its batch is on record."""
    dead = gremlin.again(faults=ProcessFaults("after writing submitted"))
    with until_killed():
        dead.ask()


# ── one call ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_call_is_one_batch_of_one_request(gremlin: BatchGremlin) -> None:
    assert "plan" in gremlin.text().lower()
    assert_paid_once(gremlin)
    (request,) = gremlin.simulator.batches[0].requests
    assert request.custom_id == gremlin.record.custom_id
    assert request.params == gremlin.record.request
    assert gremlin.record.batch
    assert gremlin.record.batch.request_id


def test_a_reply_on_record_is_returned_and_nothing_is_sent(gremlin: BatchGremlin) -> None:
    first, before = gremlin.text(), gremlin.simulator.requests
    assert gremlin.again().text(text="another prompt altogether") == first
    assert gremlin.simulator.requests == before


def test_a_failure_on_record_is_returned_and_nothing_is_sent(make_gremlin: MakeGremlin) -> None:
    gremlin = make_gremlin(no_batch_models=frozenset({"claude-sonnet-5-5"}))
    first, before = outcome_of(gremlin), gremlin.simulator.requests
    assert outcome_of(gremlin.woken()) == first
    assert gremlin.simulator.requests == before


def test_a_call_in_flight_sends_what_is_on_record_whatever_the_code_now_says(gremlin: BatchGremlin) -> None:
    dead = gremlin.again(faults=ProcessFaults("before list"))
    with until_killed():
        dead.ask("as it was")
    gremlin.text(text="as it is now")
    assert "as it was" in json.dumps(gremlin.simulator.batches[0].requests[0].params)


def test_replies_sent_back_for_correction_are_calls_of_their_own(gremlin: BatchGremlin) -> None:
    gremlin.text()
    gremlin.text(revision=1)
    assert [(r.revision, r.key.try_) for r in gremlin.records] == [(0, 1), (1, 2)]
    assert len(gremlin.ours) == 2


def test_the_intent_is_on_disk_before_anything_is_sent(gremlin: BatchGremlin) -> None:
    gremlin.text()
    told = gremlin.faults.reached
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
def test_a_fault_of_the_post_makes_one_batch_all_the_same(gremlin: BatchGremlin, fault: dict[str, Any]) -> None:
    gremlin.simulator.fault("create", **fault)
    assert "plan" in gremlin.text().lower()
    assert_paid_once(gremlin)


def test_one_fault_after_another_makes_one_batch_all_the_same(gremlin: BatchGremlin) -> None:
    faults = [fault for fault in POST_FAULTS.values() if fault.get("when") != "after" and fault["do"] != "truncate"]
    for fault in [*faults, {"do": "drop", "when": "after"}]:
        gremlin.simulator.fault("create", **fault)
    gremlin.text()
    assert_paid_once(gremlin)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_read_timeout_makes_one_batch_all_the_same(make_gremlin: MakeGremlin, when: str) -> None:
    gremlin = make_gremlin({"batch": IMPATIENT})
    gremlin.simulator.fault("create", "hang", when=when)
    gremlin.text()
    assert_paid_once(gremlin)


def test_a_connection_that_is_refused_is_tried_again_and_nothing_is_looked_for(gremlin: BatchGremlin) -> None:
    def come_up(wait: Wait) -> None:
        if len(gremlin.waits) == 3:
            gremlin.simulator.start()

    gremlin.meanwhile = come_up
    gremlin.simulator.stop()
    gremlin.text()
    assert_paid_once(gremlin)
    assert [send.outcome for send in gremlin.record.sends] == ["unsent"] * 3 + ["accepted"]


def test_an_address_without_a_list_of_batches_is_said_before_anything_is_sent(gremlin: BatchGremlin) -> None:
    gremlin.simulator.fault("list", "error", status=404, times=0)
    outcome = outcome_of(gremlin)
    assert isinstance(outcome, Failed)
    assert outcome.failure == "config"
    assert "list of batches" in outcome.reason
    assert gremlin.simulator.custom_ids == []


def test_every_fault_of_the_list_before_the_post_is_waited_out(gremlin: BatchGremlin) -> None:
    for fault in ({"do": "drop"}, {"do": "error", "status": 500}, {"do": "garbage"}, {"do": "error", "status": 429}):
        gremlin.simulator.fault("list", **fault)
    gremlin.text()
    assert_paid_once(gremlin)


def test_a_servers_own_time_is_honoured_above_the_backoff(gremlin: BatchGremlin) -> None:
    gremlin.simulator.fault("create", "error", status=429, retry_after=1000)
    gremlin.text()
    assert gremlin.waited[0] == 1000


def test_a_servers_own_time_is_honoured_up_to_an_hour(gremlin: BatchGremlin) -> None:
    gremlin.simulator.fault("create", "error", status=429, retry_after=10_000_000)
    gremlin.text()
    assert gremlin.waited[0] == 3600


def test_backoff_doubles_from_the_first_failure_to_its_ceiling(gremlin: BatchGremlin) -> None:
    gremlin.simulator.fault("create", "error", status=429, times=7)
    gremlin.text()
    assert gremlin.waited[:7] == [30, 60, 120, 240, 480, 600, 600]


HOURLY = SETTINGS.model_copy(update={"retry_initial": 3600.0, "retry_max": 3600.0})


def test_what_is_not_accepted_for_a_day_fails_and_says_so(make_gremlin: MakeGremlin) -> None:
    gremlin = make_gremlin({"batch": HOURLY})
    gremlin.simulator.fault("create", "error", status=429, times=0)
    outcome = outcome_of(gremlin)
    assert isinstance(outcome, Failed)
    assert outcome.failure == "capacity"
    assert "not accepted for a day" in outcome.reason
    assert gremlin.ours == []


@pytest.mark.parametrize("hours", [-30, -5, 5, 30])
def test_a_clock_that_is_wrong_by_hours_does_not_keep_it_trying_for_ever(make_gremlin: MakeGremlin, hours: int) -> None:
    gremlin = make_gremlin({"batch": HOURLY}, clock_offset=hours * 3600.0)
    gremlin.simulator.fault("create", "error", status=429, times=0)
    assert isinstance(outcome_of(gremlin), Failed)
    assert len(gremlin.waits) in range(20, 30)


def test_a_machine_without_a_network_for_a_day_is_its_own_fault(make_gremlin: MakeGremlin) -> None:
    gremlin = make_gremlin({"batch": HOURLY})
    gremlin.simulator.stop()
    outcome = outcome_of(gremlin)
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
def test_a_4xx_is_final_and_the_message_is_shown(gremlin: BatchGremlin, status: int, error: str, failure: str) -> None:
    gremlin.simulator.fault("create", "error", status=status, error=error, message="that will not do", times=0)
    outcome = outcome_of(gremlin)
    assert isinstance(outcome, Failed)
    assert outcome.failure == failure
    assert "that will not do" in outcome.reason
    assert gremlin.simulator.requests["create"] == 1


def test_a_spending_limit_at_the_door_is_nobodys_prompts_fault(gremlin: BatchGremlin) -> None:
    details = {"error_code": "enforced_spend_limit_reached"}
    gremlin.simulator.fault("create", "error", status=400, error="invalid_request_error", details=details)
    outcome = outcome_of(gremlin)
    assert isinstance(outcome, Failed)
    assert outcome.failure == "credit"


def test_after_a_rescue_a_refused_call_is_asked_as_the_next_try(gremlin: BatchGremlin) -> None:
    gremlin.simulator.fault("create", "error", status=401)
    outcome_of(gremlin)
    again = gremlin.again()
    again.text()
    assert [r.key.try_ for r in again.records] == [1, 2]
    assert len(again.ours) == 1


# ── exactly once: killed between any two steps ──────────────────────────────────────────────────────────────────────


def killed_everywhere(make: Callable[[], BatchGremlin]) -> int:
    """Kill a call at each of its steps, and let the next process go on. Returns how many steps there were."""
    steps = 0
    while True:
        gremlin = make()
        gremlin.faults.at = steps + 1
        try:
            gremlin.ask()
        except Killed:
            after = gremlin.again() if steps % 2 else gremlin.woken()
            after.text()
            assert_paid_once(after)
            steps += 1
        else:
            return steps


def test_killed_at_any_step_it_is_one_batch_and_one_booking(make_gremlin: MakeGremlin) -> None:
    assert killed_everywhere(lambda: make_gremlin(latency=15.0)) >= 20


@pytest.mark.parametrize("fault", ["accepted, the connection died", "accepted, then 529", "429 without a time"])
def test_killed_at_any_step_of_a_call_with_a_fault_it_is_one_batch(make_gremlin: MakeGremlin, fault: str) -> None:
    def make() -> BatchGremlin:
        gremlin = make_gremlin(latency=15.0)
        gremlin.simulator.fault("create", **POST_FAULTS[fault])
        return gremlin

    assert killed_everywhere(make) >= 20


def test_a_disk_that_is_full_for_a_while_loses_nothing(make_gremlin: MakeGremlin) -> None:
    whole = make_gremlin(latency=15.0)
    whole.text()
    writes = [
        n for n, what in enumerate(whole.faults.reached, 1) if what.startswith(("before writing", "before saving"))
    ]
    for step in writes:
        gremlin = make_gremlin(latency=15.0)
        gremlin.faults.disk_full_at = range(step, step + 1)
        with pytest.raises(OSError, match="No space left"):
            gremlin.ask()
        after = gremlin.again()
        after.text()
        assert_paid_once(after)


# ── the outcome table ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["overloaded_error", "api_error", "timeout_error", "rate_limit_error"])
def test_what_was_not_billed_is_sent_again_twice(gremlin: BatchGremlin, kind: str) -> None:
    gremlin.simulator.fault("outcome", "errored", error=kind, times=2)
    gremlin.text()
    assert len(gremlin.ours) == 3
    assert gremlin.cost == gremlin.billed > 0


def test_what_was_not_billed_three_times_fails(gremlin: BatchGremlin) -> None:
    gremlin.simulator.fault("outcome", "errored", error="overloaded_error", message="try later", times=0)
    outcome = outcome_of(gremlin)
    assert isinstance(outcome, Failed)
    assert (outcome.failure, len(gremlin.ours), gremlin.cost) == ("capacity", 3, 0.0)
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
def test_any_other_error_is_final_and_shown(gremlin: BatchGremlin, error: str, details: Any, failure: str) -> None:
    gremlin.simulator.fault("outcome", "errored", error=error, message="because", details=details, times=0)
    outcome = outcome_of(gremlin)
    assert isinstance(outcome, Failed)
    assert (outcome.failure, len(gremlin.ours), gremlin.cost) == (failure, 1, 0.0)
    assert "because" in outcome.reason


def test_a_model_that_cannot_batch_says_so_at_the_end(make_gremlin: MakeGremlin) -> None:
    outcome = outcome_of(make_gremlin(no_batch_models=frozenset({"claude-sonnet-5-5"})))
    assert isinstance(outcome, Failed)
    assert outcome.failure == "task"
    assert "batch" in outcome.reason.lower()


def test_a_cut_reply_is_asked_once_more_larger_and_both_are_paid_for(gremlin: BatchGremlin) -> None:
    gremlin.batch = SETTINGS.model_copy(update={"max_tokens": 1000})
    gremlin.simulator.fault("outcome", "max_tokens")
    gremlin.text()
    first, second = gremlin.records
    assert (first.request["max_tokens"], second.request["max_tokens"]) == (1000, 2000)
    assert isinstance(first.status, Collected)
    assert first.status.reply.text
    assert (
        gremlin.cost == gremlin.billed == round(sum(r.cost.usd for r in gremlin.records if r.cost and r.cost.usd), 10)
    )


def test_a_reply_cut_at_the_models_own_ceiling_fails_at_once_and_its_text_is_kept(gremlin: BatchGremlin) -> None:
    ceiling = gremlin.engine().api.model("claude-sonnet-5-5")["max_tokens"]
    gremlin.batch = SETTINGS.model_copy(update={"max_tokens": ceiling})
    gremlin.simulator.fault("outcome", "max_tokens", times=0)
    outcome = outcome_of(gremlin)
    assert isinstance(outcome, Failed)
    assert str(ceiling) in outcome.reason
    assert len(gremlin.ours) == 1
    assert isinstance(gremlin.record.status, Collected)


def test_a_reply_that_is_cut_twice_fails_and_says_why(gremlin: BatchGremlin) -> None:
    gremlin.simulator.fault("outcome", "max_tokens", times=0)
    outcome = outcome_of(gremlin)
    assert isinstance(outcome, Failed)
    assert len(gremlin.ours) == 2
    assert gremlin.cost == gremlin.billed


def test_a_refusal_bails_and_is_paid_for(gremlin: BatchGremlin) -> None:
    gremlin.simulator.fault("outcome", "refusal")
    outcome = outcome_of(gremlin)
    assert isinstance(outcome, Bail)
    assert outcome.kind == "refused"
    assert gremlin.cost == gremlin.billed


def test_a_paused_turn_goes_on_as_a_turn_of_its_own(make_gremlin: MakeGremlin) -> None:
    replies = [ModelReply("the first half, ", stop_reason="pause_turn"), ModelReply("the second half")]
    gremlin = make_gremlin(model=ScriptedModel(replies))
    assert gremlin.text() == "the first half, the second half"
    assert [r.key.turn for r in gremlin.records] == [1, 2]
    assert gremlin.cost == gremlin.billed


def test_a_paused_turn_with_blocks_nobody_knows_can_be_taken_up_again(make_gremlin: MakeGremlin) -> None:
    odd = {"type": "of_next_year", "x": 1e22, "y": "\ud800", "z": [[[]]]}
    replies = [ModelReply(blocks=(odd,), stop_reason="pause_turn"), ModelReply("done")]
    gremlin = make_gremlin(model=ScriptedModel(replies))
    assert gremlin.text() == "done"
    assert gremlin.again().text() == "done"


def test_an_expired_batch_is_asked_live_where_that_is_possible(make_gremlin: MakeGremlin) -> None:
    gremlin = make_gremlin({"live_available": True}, latency=float("inf"))
    assert isinstance(gremlin.ask(), AskLive)
    assert gremlin.cost == 0.0


def test_an_expired_batch_is_sent_again_once_where_live_is_not(make_gremlin: MakeGremlin) -> None:
    gremlin = make_gremlin(latency=float("inf"))
    assert outcome_of(gremlin) == Failed("capacity", "the batch expired twice")
    assert len(gremlin.ours) == 2


def test_an_expired_batch_fails_where_the_setting_says_so(make_gremlin: MakeGremlin) -> None:
    settings = SETTINGS.model_copy(update={"on_expired": "fail"})
    gremlin = make_gremlin({"live_available": True, "batch": settings}, latency=float("inf"))
    assert isinstance(outcome_of(gremlin), Failed)
    assert len(gremlin.ours) == 1


def test_a_batch_that_somebody_else_canceled_bails(gremlin: BatchGremlin) -> None:
    gremlin.simulator.fault("outcome", "canceled")
    outcome = outcome_of(gremlin)
    assert isinstance(outcome, Bail)
    assert outcome.kind == "canceled_elsewhere"
    assert gremlin.ours[0] in outcome.detail


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
def test_a_fetch_that_fails_is_made_again_and_books_once(gremlin: BatchGremlin, fault: dict[str, Any]) -> None:
    gremlin.simulator.fault("results", times=3, **fault)
    gremlin.text()
    assert_paid_once(gremlin)


@pytest.mark.parametrize("fault", ["a proxy's page", "cut short"])
def test_results_that_do_not_come_whole_for_hours_are_not_given_up(gremlin: BatchGremlin, fault: str) -> None:
    gremlin.simulator.fault("results", times=60, **FETCH_FAULTS[fault])
    gremlin.text()
    assert_paid_once(gremlin)
    assert sum(gremlin.waited) > 6 * 3600


def test_results_that_never_come_whole_end_the_call_at_an_unknown_cost(gremlin: BatchGremlin) -> None:
    gremlin.simulator.fault("results", "garbage", times=0)
    assert "do not hold our request" in undecided(gremlin)


def test_the_raw_result_is_saved_before_it_is_read(gremlin: BatchGremlin) -> None:
    gremlin.text()
    told = gremlin.faults.reached
    assert told.index("after saving the raw result") < told.index("before writing ended")
    assert (gremlin.paths.calls / "plan.a1.t1.r1.raw.jsonl").read_bytes().count(b"\n") == 1


def test_a_raw_result_that_somebody_removed_is_fetched_again(gremlin: BatchGremlin) -> None:
    dead = gremlin.again(faults=ProcessFaults("after writing ended"))
    with until_killed():
        dead.ask()
    assert dead.record.status.state == "ended"
    (gremlin.paths.calls / "plan.a1.t1.r1.raw.jsonl").unlink()
    gremlin.text()
    assert_paid_once(gremlin)


@pytest.mark.parametrize("fault", ["duplicate", "extra"])
def test_lines_too_many_change_nothing(gremlin: BatchGremlin, fault: str) -> None:
    gremlin.simulator.fault("results", fault)
    gremlin.text()
    assert_paid_once(gremlin)


@pytest.mark.parametrize("fault", ["missing", "foreign"])
def test_a_result_without_our_line_fails_and_the_raw_file_is_kept(gremlin: BatchGremlin, fault: str) -> None:
    gremlin.simulator.fault("results", fault, times=0)
    assert "do not hold our request" in undecided(gremlin)
    assert (gremlin.paths.calls / "plan.a1.t1.r1.raw.jsonl").is_file()


def test_a_result_of_a_type_nobody_knows_is_reported_whole(gremlin: BatchGremlin) -> None:
    gremlin.simulator.fault("outcome", "unknown")
    outcome = outcome_of(gremlin)
    assert isinstance(outcome, Failed)
    assert outcome.failure == "unknown"


def test_results_that_are_gone_fail_and_their_cost_is_unknown_rather_than_nothing(make_gremlin: MakeGremlin) -> None:
    gremlin = make_gremlin(results_kept=100.0)
    asleep = gremlin.woken(meanwhile=lambda _wait: gremlin.clock.advance(200.0))
    assert "29 days" in undecided(asleep)


def test_a_last_no_to_the_fetch_ends_the_call(gremlin: BatchGremlin) -> None:
    gremlin.simulator.fault("results", "error", status=400, error="invalid_request_error", message="never", times=0)
    assert "never" in undecided(gremlin)


def test_our_key_never_goes_to_the_host_of_a_results_url(make_gremlin: MakeGremlin) -> None:
    stranger = make_gremlin().simulator
    gremlin = make_gremlin(results_base=stranger.url)
    gremlin.text()
    assert_paid_once(gremlin)
    assert stranger.seen == []


def test_a_redirect_is_never_followed_with_our_key_or_prompt(make_gremlin: MakeGremlin) -> None:
    asked: list[str] = []

    def redirecting(method: str, url: str, headers: Any, timeout: float) -> HttpReply:
        asked.append(url)
        return http_transport(method, url, headers, timeout)

    stranger = make_gremlin()
    gremlin = make_gremlin({"transport": redirecting})
    for endpoint in ("list", "create", "retrieve", "results"):
        gremlin.simulator.fault(endpoint, "error", status=307, message=stranger.simulator.url)
    gremlin.text()
    assert_paid_once(gremlin)
    assert stranger.simulator.seen == []
    assert all(url.startswith(gremlin.simulator.url) for url in asked)


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
def test_no_fault_of_a_poll_fails_the_call(gremlin: BatchGremlin, fault: dict[str, Any]) -> None:
    gremlin.simulator.fault("retrieve", times=5, **fault)
    gremlin.text()
    assert_paid_once(gremlin)


@pytest.mark.parametrize("status", [401, 403])
def test_a_key_that_is_refused_ends_the_process_and_never_the_call(gremlin: BatchGremlin, status: int) -> None:
    gremlin.simulator.fault("retrieve", "error", status=status, message="who are you?")
    with pytest.raises(Detach, match="who are you") as caught:
        gremlin.ask()
    assert caught.value.calls[0].batch_id == gremlin.ours[0]
    assert isinstance(gremlin.record.status, Submitted)
    gremlin.again().text()
    assert_paid_once(gremlin)


def test_polls_follow_the_age_of_the_batch(make_gremlin: MakeGremlin) -> None:
    gremlin = make_gremlin(latency=86_000.0)
    gremlin.text()
    assert len(gremlin.waits) <= 180
    first, *_, last = gremlin.waited
    assert (first, last) == (20.0, 600.0)


def test_a_clock_that_jumps_stretches_no_wait_and_loses_nothing(make_gremlin: MakeGremlin) -> None:
    for jump in (86_400.0, -3_600.0):
        gremlin = make_gremlin(latency=100.0)
        jumps = iter([jump])
        gremlin.meanwhile = lambda _wait, gremlin=gremlin, jumps=jumps: gremlin.clock.jump(next(jumps, 0.0))
        gremlin.text()
        assert_paid_once(gremlin)


def test_a_clock_set_back_does_not_put_off_a_backoff_for_ever(gremlin: BatchGremlin) -> None:
    gremlin.simulator.fault("create", "error", status=429, times=1)
    jumps = iter([-7 * 86_400.0])
    gremlin.meanwhile = lambda _wait: gremlin.clock.jump(next(jumps, 0.0))
    gremlin.text()
    assert_paid_once(gremlin)
    assert max(gremlin.waited) <= 1.2 * 3600


# ── stopping ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_stopped_call_is_canceled_and_costs_nothing(gremlin: BatchGremlin) -> None:
    submit_and_die(gremlin)
    gremlin.stop()
    status = gremlin.record.status
    assert isinstance(status, CallFailed)
    assert (status.failure, status.kind) == ("canceled", "canceled")
    assert gremlin.simulator.requests["cancel"] == 1
    assert gremlin.cost == gremlin.billed == 0.0


def test_a_success_that_came_too_late_is_booked_and_used_after_a_rescue(make_gremlin: MakeGremlin) -> None:
    gremlin = make_gremlin(cancel_too_late=True)
    submit_and_die(gremlin)
    gremlin.stop()
    assert_paid_once(gremlin)
    assert "plan" in gremlin.again().text().lower()
    assert_paid_once(gremlin)


def test_a_call_stopped_before_it_was_sent_is_never_sent(gremlin: BatchGremlin) -> None:
    dead = gremlin.again(faults=ProcessFaults("before list"))
    with until_killed():
        dead.ask()
    assert gremlin.stop() == 0
    assert gremlin.simulator.requests == {}


def test_what_was_stopped_is_asked_again_by_a_rescue(gremlin: BatchGremlin) -> None:
    submit_and_die(gremlin)
    gremlin.stop()
    gremlin.again().text()
    assert len(gremlin.ours) == 2
    assert gremlin.cost == gremlin.billed > 0


def test_a_stop_survives_an_api_that_is_down(gremlin: BatchGremlin) -> None:
    submit_and_die(gremlin)
    gremlin.simulator.fault("retrieve", "error", status=500, times=3)
    gremlin.simulator.fault("cancel", "drop", times=2)
    gremlin.stop()
    assert isinstance(gremlin.record.status, CallFailed)
    assert gremlin.simulator.batches[0].cancel_initiated_at is not None


def test_a_stop_between_the_steps_of_a_stop_ends_the_same(make_gremlin: MakeGremlin) -> None:
    for step in range(1, 40):
        gremlin = make_gremlin(latency=1000.0)
        submit_and_die(gremlin)
        stopping = gremlin.woken(faults=ProcessFaults(step))
        try:
            stopping.stop()
        except Killed:
            gremlin.stop()
            assert isinstance(gremlin.record.status, CallFailed)
            assert gremlin.record.status.kind == "canceled"
            continue
        return
    raise AssertionError("a stop has more steps than that?")


# ── keys ────────────────────────────────────────────────────────────────────────────────────────────────────────────

KEYS = {"sk-ant-first-key-000": "ours", "sk-ant-rotated-key-1": "ours", "sk-ant-stranger-0002": "theirs"}


def test_a_rotated_key_goes_on(make_gremlin: MakeGremlin) -> None:
    gremlin = make_gremlin({"key": "sk-ant-first-key-000"}, keys=KEYS)
    submit_and_die(gremlin)
    gremlin.again(key="sk-ant-rotated-key-1").text()
    assert_paid_once(gremlin)


def test_another_workspaces_key_sends_nothing_and_the_right_one_goes_on(make_gremlin: MakeGremlin) -> None:
    gremlin = make_gremlin({"key": "sk-ant-first-key-000"}, keys=KEYS)
    submit_and_die(gremlin)
    assert "cannot be seen with this key" in undecided(gremlin.again(key="sk-ant-stranger-0002"))
    assert len(gremlin.simulator.batches) == 1
    gremlin.again(spawn=3).text()
    assert_paid_once(gremlin)


@pytest.mark.parametrize("key", ["claude", "sk-1234", "plan"])
def test_a_key_whose_letters_are_in_a_reply_and_an_id_takes_nothing_out_of_them(
    make_gremlin: MakeGremlin, key: str
) -> None:
    gremlin = make_gremlin({"key": key, "gremlin_id": f"{key}-1"}, model=ScriptedModel([f"KEY = '{key}'"]))
    assert gremlin.text() == f"KEY = '{key}'"
    assert_paid_once(gremlin)


def test_the_key_is_in_no_file_and_no_line(make_gremlin: MakeGremlin) -> None:
    key = "sk-ant-canary-0123456789"
    gremlin = make_gremlin({"key": key}, keys={key: "ours"})
    gremlin.simulator.fault("retrieve", "error", status=500, message=f"your key {key} is fine")
    gremlin.simulator.fault("create", "error", status=429, message=f"slow down, {key}")
    gremlin.text()
    assert key not in gremlin.everything_written()
    assert not any(key in wait.why for wait in gremlin.waits)


def test_files_of_a_call_are_for_their_owner_only(gremlin: BatchGremlin) -> None:
    gremlin.text()
    modes = {path.stat().st_mode & 0o777 for path in gremlin.paths.calls.iterdir()}
    assert modes == {0o600}
    assert gremlin.paths.calls.stat().st_mode & 0o777 == 0o700


# ── an upgraded program ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_record_of_an_older_program_is_taken_up(gremlin: BatchGremlin) -> None:
    submit_and_die(gremlin)
    path = gremlin.paths.calls / "plan.a1.t1.r1.json"
    old = json.loads(path.read_text())
    for key in ("anew", "torn", "fetches", "looked_since", "suspects", "waste", "notes"):
        del old[key]
    path.write_text(json.dumps({**old, "a_field_of_old": 1}))
    gremlin.text()
    assert_paid_once(gremlin)


def test_a_prompt_of_any_bytes_can_be_asked_and_taken_up_again(gremlin: BatchGremlin) -> None:
    text = "caf\udce9 \x00 \ud800 🍊"
    with until_killed():
        answer = gremlin.ask(text)
    assert isinstance(answer, Answer)
    assert gremlin.again().text(text=text) == answer.text


def test_an_error_with_an_empty_script_is_just_a_failure(make_gremlin: MakeGremlin) -> None:
    gremlin = make_gremlin(model=ScriptedModel([ModelError("invalid_request_error", "prompt is too long")]))
    outcome = outcome_of(gremlin)
    assert outcome == Failed("task", "invalid_request_error: prompt is too long")


def test_intervals_of_a_fraction_of_a_second_are_honoured(make_gremlin: MakeGremlin) -> None:
    quick = BatchSettings(poll_initial=0.05, poll_max=0.2, retry_initial=0.05, retry_max=0.1, http_timeout=5)
    gremlin = make_gremlin({"batch": quick}, latency=1.0)
    gremlin.simulator.fault("create", "error", status=429, times=2)
    gremlin.text()
    assert max(gremlin.waited) <= 0.2
