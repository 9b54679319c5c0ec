"""Everything that can be made to go wrong does so, as often as asked, and nothing else does."""

from __future__ import annotations

from http.client import HTTPException, IncompleteRead, RemoteDisconnected
from typing import Any

import pytest

from gremlins.clock import FakeClock
from gremlins.errors import GremlinsError
from gremlins.simulator import Fault, Simulator
from tests.simulator.conftest import Client, Start, params

CREATE = {"requests": [{"custom_id": "one", "params": params()}]}


def test_a_connection_dropped_before_accepting_leaves_no_batch(api: Client, sim: Simulator) -> None:
    sim.fault("create", "drop")
    with pytest.raises(RemoteDisconnected):
        api.create()
    assert sim.batches == []
    assert api.create()


def test_a_reply_dropped_after_accepting_leaves_a_batch(api: Client, sim: Simulator) -> None:
    sim.fault("create", "drop", when="after")
    with pytest.raises(RemoteDisconnected):
        api.create("mine")
    assert sim.custom_ids == ["mine"]


@pytest.mark.parametrize(("status", "kind"), [(500, "api_error"), (529, "overloaded_error"), (429, "rate_limit_error")])
@pytest.mark.parametrize(("when", "batches"), [("before", 0), ("after", 1)])
def test_an_error_may_come_before_or_after_accepting(
    api: Client, sim: Simulator, status: int, kind: str, when: Any, batches: int
) -> None:
    sim.fault("create", "error", status=status, when=when)
    assert api.post("/v1/messages/batches", CREATE).error == (status, kind)
    assert len(sim.batches) == batches


@pytest.mark.parametrize("after", [None, 7, "Sat, 21 Nov 2026 10:01:00 GMT"])
def test_a_429_comes_with_or_without_a_time(api: Client, sim: Simulator, after: Any) -> None:
    sim.fault("retrieve", "error", status=429, retry_after=after)
    headers = api.get("/v1/messages/batches/x").headers
    assert headers.get("retry-after") == (None if after is None else str(after))


def test_an_error_has_the_words_it_was_given(api: Client, sim: Simulator) -> None:
    details = {"error_code": "enforced_spend_limit_reached"}
    sim.fault("messages", "error", status=400, error="billing_error", message="No credit.", details=details)
    reply = api.post("/v1/messages", params())
    assert reply.status == 400
    assert reply.json["error"] == {"type": "billing_error", "message": "No credit.", "details": details}


def test_a_slow_reply_comes_in_the_end(api: Client, sim: Simulator) -> None:
    sim.fault("create", "slow", when="after", seconds=0.05)
    assert api.create()


@pytest.mark.parametrize(("when", "batches"), [("before", 0), ("after", 1)])
def test_a_client_that_gives_up_on_a_slow_reply_may_have_a_batch(
    api: Client, sim: Simulator, when: Any, batches: int
) -> None:
    api.timeout = 0.1
    sim.fault("create", "hang", when=when)
    with pytest.raises(TimeoutError):
        api.create()
    assert len(sim.batches) == batches


def test_stopping_ends_what_hangs(start: Start) -> None:
    sim = start()
    api = Client(sim.url)
    sim.fault("list", "hang")
    api.timeout = 0.05
    with pytest.raises(TimeoutError):
        api.listed()
    sim.stop()
    with pytest.raises(ConnectionRefusedError):
        api.listed()


def test_a_fault_strikes_as_often_as_told_after_as_many_as_told(api: Client, sim: Simulator) -> None:
    sim.fault("list", "error", skip=1, times=2)
    assert [api.get("/v1/messages/batches").status for _ in range(5)] == [200, 500, 500, 200, 200]
    assert len(sim.faults.struck()) == 2


def test_a_fault_may_last_until_it_is_taken_back(api: Client, sim: Simulator) -> None:
    sim.fault("list", "error", times=0)
    assert {api.get("/v1/messages/batches").status for _ in range(5)} == {500}
    sim.faults.clear()
    assert api.get("/v1/messages/batches").status == 200


def test_a_fault_may_be_meant_for_some_requests_only(api: Client, sim: Simulator) -> None:
    sim.fault("create", "error", match="second")
    assert api.create("first")
    assert api.post("/v1/messages/batches", {"requests": [{"custom_id": "second", "params": {}}]}).status == 500


def test_a_fault_on_everything_strikes_any_endpoint(api: Client, sim: Simulator) -> None:
    sim.fault("*", "error", times=2)
    assert api.get("/v1/models").status == api.get("/v1/messages/batches").status == 500


def test_a_new_batch_may_show_up_late_in_the_list(api: Client, sim: Simulator, clock: FakeClock) -> None:
    sim.fault("create", "late", seconds=30)
    batch_id = api.create()
    assert api.listed() == []
    assert api.batch(batch_id)["id"] == batch_id
    clock.advance(30)
    assert api.listed() == [batch_id]


def test_a_list_may_be_empty_by_mistake(api: Client, sim: Simulator) -> None:
    batch_id = api.create()
    sim.fault("list", "empty")
    assert api.get("/v1/messages/batches").json == {"data": [], "has_more": False, "first_id": None, "last_id": None}
    assert api.listed() == [batch_id]


def test_one_batch_may_take_longer(api: Client, sim: Simulator, clock: FakeClock) -> None:
    sim.fault("create", "latency", seconds=60)
    slow, quick = api.create(), api.create()
    assert [api.batch(item)["processing_status"] for item in (slow, quick)] == ["in_progress", "ended"]
    clock.advance(60)
    assert api.batch(slow)["processing_status"] == "ended"


def test_results_may_be_cut_short(api: Client, sim: Simulator) -> None:
    batch_id = api.create()
    sim.fault("results", "truncate", keep=0.5)
    with pytest.raises(IncompleteRead):
        api.results(batch_id)
    assert api.results(batch_id)


@pytest.mark.parametrize(
    ("do", "names"),
    [
        ("missing", []),
        ("foreign", ["foreign"]),
        ("duplicate", ["one", "one"]),
        ("extra", ["foreign", "one"]),
    ],
)
def test_results_may_hold_other_lines_than_they_should(api: Client, sim: Simulator, do: str, names: list[str]) -> None:
    batch_id = api.create("one")
    sim.fault("results", do)
    assert sorted(line["custom_id"] for line in api.results(batch_id)) == names
    assert [line["custom_id"] for line in api.results(batch_id)] == ["one"]


def test_an_answer_may_be_no_json(api: Client, sim: Simulator) -> None:
    sim.fault("retrieve", "garbage")
    reply = api.get("/v1/messages/batches/x")
    assert (reply.status, reply.headers["content-type"]) == (200, "text/html")


@pytest.mark.parametrize("kind", ["overloaded_error", "invalid_request_error", "a_kind_nobody_knows"])
def test_a_request_may_end_errored(api: Client, sim: Simulator, kind: str) -> None:
    sim.fault("outcome", "errored", error=kind, message="so it is", details={"error_code": "e"})
    result = api.result(api.create())
    assert result["type"] == "errored"
    assert result["error"]["error"] == {"type": kind, "message": "so it is", "details": {"error_code": "e"}}
    assert sim.billed == []


@pytest.mark.parametrize(("do", "count"), [("expired", "expired"), ("canceled", "canceled"), ("unknown", "errored")])
def test_a_request_may_end_otherwise(api: Client, sim: Simulator, do: str, count: str) -> None:
    sim.fault("outcome", do, match="^unlucky")
    batch_id = api.create("unlucky", "lucky")
    kinds = {line["custom_id"]: line["result"]["type"] for line in api.results(batch_id)}
    assert kinds["lucky"] == "succeeded"
    assert kinds["unlucky"] == ("postponed" if do == "unknown" else do)
    assert api.batch(batch_id)["request_counts"][count] == 1


def test_a_single_request_may_succeed_in_spite_of_cancelling(start: Start) -> None:
    sim = start(latency=60)
    api = Client(sim.url)
    sim.fault("outcome", "late_success", match="^quick")
    batch_id = api.create("quick", "slow")
    api.post(f"/v1/messages/batches/{batch_id}/cancel")
    kinds = {line["custom_id"]: line["result"]["type"] for line in api.results(batch_id)}
    assert kinds == {"quick": "succeeded", "slow": "canceled"}


@pytest.mark.parametrize("do", ["max_tokens", "refusal", "pause_turn"])
def test_a_reply_may_stop_for_another_reason(api: Client, sim: Simulator, do: str) -> None:
    sim.fault("outcome", do)
    sim.fault("messages", do)
    message = api.result(api.create())["message"]
    assert message["stop_reason"] == api.post("/v1/messages", params()).json["stop_reason"] == do
    assert len(sim.billed) == 2


def test_a_reply_may_be_empty(api: Client, sim: Simulator) -> None:
    sim.fault("outcome", "no_text")
    assert api.result(api.create())["message"]["content"] == []


def test_a_dropped_request_is_counted_without_an_answer(api: Client, sim: Simulator) -> None:
    sim.fault("models", "drop")
    with pytest.raises(HTTPException):
        api.get("/v1/models")
    assert [(seen.endpoint, seen.status) for seen in sim.seen] == [("models", None)]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"on": "creat", "do": "drop"}, "did you mean `create`?"),
        ({"on": "create", "do": "dorp"}, "did you mean `drop`?"),
        ({"on": "create", "do": "missing"}, "known are drop"),
        ({"on": "create", "do": "drop", "tims": 2}, "did you mean `times`?"),
    ],
)
def test_a_mistyped_fault_is_refused_with_the_nearest_name(given: dict[str, Any], says: str) -> None:
    with pytest.raises(GremlinsError) as caught:
        Fault.from_json(given)
    assert says in (caught.value.hint or "")
