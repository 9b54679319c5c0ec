"""The rules of the batch endpoints, over real HTTP."""

from __future__ import annotations

from typing import Any

import pytest

from gremlins.clock import FakeClock
from gremlins.simulator import ModelError, ModelReply, ScriptedModel, Simulator
from tests.simulator.conftest import Client, Start, params

NOTHING_YET = {"succeeded": 0, "errored": 0, "canceled": 0, "expired": 0}
DAY = 86_400


def test_a_new_batch_is_in_progress_and_says_when_it_expires(api: Client) -> None:
    batch = api.post("/v1/messages/batches", {"requests": [{"custom_id": "a", "params": params()}]}).json
    assert batch["type"] == "message_batch"
    assert batch["processing_status"] == "in_progress"
    assert batch["created_at"] == "2026-11-21T10:00:00.000000Z"
    assert batch["expires_at"] == "2026-11-22T10:00:00.000000Z"
    assert batch["request_counts"] == {"processing": 1, **NOTHING_YET}
    assert batch["results_url"] is batch["ended_at"] is batch["cancel_initiated_at"] is None


def test_counts_say_nothing_until_the_whole_batch_has_ended(start: Start, clock: FakeClock) -> None:
    api = Client(start(latency=60).url)
    batch_id = api.create("a", "b")
    clock.advance(59)
    assert api.batch(batch_id)["request_counts"] == {"processing": 2, **NOTHING_YET}
    clock.advance(1)
    ended = api.batch(batch_id)
    assert ended["processing_status"] == "ended"
    assert ended["request_counts"] == {"processing": 0, **NOTHING_YET, "succeeded": 2}
    assert ended["ended_at"] == "2026-11-21T10:01:00.000000Z"


def test_results_are_refused_before_the_end(start: Start, clock: FakeClock) -> None:
    api = Client(start(latency=60).url)
    batch_id = api.create()
    assert api.get(f"/v1/messages/batches/{batch_id}/results").error == (400, "invalid_request_error")


def test_results_carry_full_messages_billed_as_batch(api: Client, sim: Simulator) -> None:
    batch_id = api.create(("a", params("x" * 400)))
    result = api.result(batch_id)
    message = result["message"]
    assert result["type"] == "succeeded"
    assert message["content"][0]["type"] == "text"
    assert message["stop_reason"] == "end_turn"
    assert message["usage"]["service_tier"] == "batch"
    assert message["usage"]["input_tokens"] >= 100
    assert [(item.tier, item.custom_id) for item in sim.billed] == [("batch", "a")]


def test_results_do_not_keep_the_order_of_the_requests(api: Client) -> None:
    names = [f"r{number}" for number in range(40)]
    got = [line["custom_id"] for line in api.results(api.create(*names))]
    assert sorted(got) == sorted(names)
    assert got != names


def test_the_results_url_is_absolute_and_works(api: Client) -> None:
    url = api.batch(api.create())["results_url"]
    assert url.startswith(api.url)
    assert api.get(url).status == 200


def test_the_results_url_may_point_elsewhere(start: Start) -> None:
    api = Client(start(results_base="https://elsewhere.example").url)
    assert api.batch(api.create())["results_url"].startswith("https://elsewhere.example/v1/messages/batches/msgbatch_")


def test_results_are_gone_after_29_days(api: Client, clock: FakeClock) -> None:
    batch_id = api.create()
    clock.advance(29 * DAY - 1)
    assert api.results(batch_id)
    clock.advance(1)
    archived = api.batch(batch_id)
    assert (archived["archived_at"], archived["results_url"]) == ("2026-12-20T10:00:00.000000Z", None)
    assert api.get(f"/v1/messages/batches/{batch_id}/results").error == (404, "not_found_error")


def test_a_batch_expires_after_24_hours_unbilled(start: Start, clock: FakeClock) -> None:
    sim = start(latency=float("inf"))
    api = Client(sim.url)
    batch_id = api.create()
    clock.advance(DAY)
    assert api.batch(batch_id)["request_counts"]["expired"] == 1
    assert api.result(batch_id) == {"type": "expired"}
    assert sim.billed == []


def test_cancelling_takes_its_time_and_is_not_billed(start: Start, clock: FakeClock) -> None:
    sim = start(latency=60, cancel_latency=5)
    api = Client(sim.url)
    batch_id = api.create()
    canceling = api.post(f"/v1/messages/batches/{batch_id}/cancel").json
    assert canceling["processing_status"] == "canceling"
    assert canceling["cancel_initiated_at"] == "2026-11-21T10:00:00.000000Z"
    assert api.batch(batch_id)["request_counts"] == {"processing": 1, **NOTHING_YET}
    clock.advance(5)
    assert api.batch(batch_id)["processing_status"] == "ended"
    assert api.result(batch_id) == {"type": "canceled"}
    assert sim.billed == []


def test_cancelling_twice_changes_nothing(start: Start, clock: FakeClock) -> None:
    api = Client(start(latency=60, cancel_latency=5).url)
    batch_id = api.create()
    first = api.post(f"/v1/messages/batches/{batch_id}/cancel").json
    clock.advance(1)
    assert api.post(f"/v1/messages/batches/{batch_id}/cancel").json == first


def test_what_is_canceled_too_late_succeeds_and_is_billed(start: Start) -> None:
    sim = start(latency=60, cancel_too_late=True)
    api = Client(sim.url)
    batch_id = api.create()
    api.post(f"/v1/messages/batches/{batch_id}/cancel")
    assert api.result(batch_id)["type"] == "succeeded"
    assert len(sim.billed) == 1


def test_an_ended_batch_cannot_be_canceled(api: Client) -> None:
    batch_id = api.create()
    api.batch(batch_id)
    assert api.post(f"/v1/messages/batches/{batch_id}/cancel").error == (400, "invalid_request_error")


def test_only_an_ended_batch_can_be_deleted(start: Start, clock: FakeClock) -> None:
    api = Client(start(latency=60).url)
    batch_id = api.create()
    assert api.call("DELETE", f"/v1/messages/batches/{batch_id}").error == (400, "invalid_request_error")
    clock.advance(60)
    deleted = api.call("DELETE", f"/v1/messages/batches/{batch_id}").json
    assert deleted == {"id": batch_id, "type": "message_batch_deleted"}
    assert api.get(f"/v1/messages/batches/{batch_id}").error == (404, "not_found_error")
    assert api.listed() == []


def test_a_model_may_answer_with_an_error(start: Start) -> None:
    failure = ModelError("overloaded_error", "Overloaded", {"error_code": "x"})
    api = Client(start(model=ScriptedModel([failure])).url)
    batch_id = api.create()
    error = api.result(batch_id)["error"]
    assert error["type"] == "error"
    assert error["error"] == {"type": "overloaded_error", "message": "Overloaded", "details": {"error_code": "x"}}
    assert error["request_id"].startswith("req_")
    assert api.batch(batch_id)["request_counts"]["errored"] == 1


def test_a_reply_longer_than_max_tokens_is_cut_off(start: Start) -> None:
    api = Client(start(model=ScriptedModel([ModelReply("word " * 100)])).url)
    message = api.result(api.create(("a", params(max_tokens=10))))["message"]
    assert message["stop_reason"] == "max_tokens"
    assert len(message["content"][0]["text"]) == 40
    assert message["usage"]["output_tokens"] == 10


# -- what is refused, and when


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        [],
        {},
        {"requests": []},
        {"requests": [{"params": {}}]},
        {"requests": [{"custom_id": "a"}]},
        {"requests": [{"custom_id": "", "params": {}}]},
        {"requests": [{"custom_id": "a b", "params": {}}]},
        {"requests": [{"custom_id": "a" * 65, "params": {}}]},
        {"requests": [{"custom_id": "a\n", "params": {}}]},
        {"requests": [{"custom_id": "a", "params": {}}, {"custom_id": "a", "params": {}}]},
        {"requests": [{"custom_id": "a", "params": {}, "more": 1}]},
    ],
)
def test_a_malformed_envelope_is_refused_at_once(api: Client, sim: Simulator, body: Any) -> None:
    assert api.post("/v1/messages/batches", body).error == (400, "invalid_request_error")
    assert sim.batches == []


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1_000_000}, "max_tokens"),
        ({"stream": True}, "stream"),
        ({"speed": "fast"}, "speed"),
        ({"fallbacks": []}, "fallbacks"),
        ({"thread": {}}, "thread"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": ""}]}, "messages.0"),
        ({"nonsense": 1}, "nonsense"),
        ({"output_config": {"format": {"type": "json"}}}, "output_config.format.type"),
        (
            {"output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}},
            "additionalProperties",
        ),
    ],
)
def test_bad_params_are_an_errored_result_at_the_end(api: Client, wrong: dict[str, Any], says: str) -> None:
    result = api.result(api.create(("a", params() | wrong)))
    assert result["type"] == "errored"
    assert result["error"]["error"]["type"] == "invalid_request_error"
    assert says in result["error"]["error"]["message"]


def test_missing_params_are_an_errored_result_too(api: Client) -> None:
    error = api.result(api.create(("a", {})))["error"]["error"]
    assert error == {"type": "invalid_request_error", "message": "model: Field required"}


@pytest.mark.parametrize("key", ["temperature", "top_p", "top_k"])
def test_sampling_parameters_are_refused_by_the_newer_api_version_only(api: Client, key: str) -> None:
    asked = ("a", params() | {key: 1})
    assert api.result(api.create(asked))["type"] == "succeeded"
    api.version = "2026-10-21"
    assert key in api.result(api.create(asked))["error"]["error"]["message"]


def test_an_unknown_model_is_not_found_at_the_end(api: Client) -> None:
    error = api.result(api.create(("a", params() | {"model": "gpt-3"})))["error"]["error"]
    assert error == {"type": "not_found_error", "message": "model: gpt-3"}


def test_a_model_without_batch_support_says_so_in_both_places(start: Start) -> None:
    api = Client(start(no_batch_models={"claude-opus-5"}).url)
    assert api.get("/v1/models/claude-opus-5").json["capabilities"]["batch"] == {"supported": False}
    assert api.get("/v1/models/claude-opus-5-5").json["capabilities"]["batch"] == {"supported": True}
    error = api.result(api.create(("a", params() | {"model": "claude-opus-5"})))["error"]["error"]
    assert error["type"] == "invalid_request_error"


# -- lists


def test_the_list_is_newest_first_without_custom_ids(api: Client) -> None:
    made = [api.create("very-special-name") for _ in range(3)]
    reply = api.get("/v1/messages/batches")
    assert [batch["id"] for batch in reply.json["data"]] == made[::-1]
    assert reply.json["has_more"] is False
    assert (reply.json["first_id"], reply.json["last_id"]) == (made[2], made[0])
    assert b"very-special-name" not in reply.body


def test_pages_go_back_in_time_by_after_id(api: Client) -> None:
    made = [api.create() for _ in range(5)][::-1]
    first = api.get("/v1/messages/batches?limit=2").json
    assert ([item["id"] for item in first["data"]], first["has_more"]) == (made[:2], True)
    second = api.get(f"/v1/messages/batches?limit=2&after_id={first['last_id']}").json
    assert ([item["id"] for item in second["data"]], second["has_more"]) == (made[2:4], True)
    third = api.get(f"/v1/messages/batches?limit=2&after_id={second['last_id']}").json
    assert ([item["id"] for item in third["data"]], third["has_more"]) == (made[4:], False)


def test_pages_come_forward_in_time_by_before_id(api: Client) -> None:
    made = [api.create() for _ in range(5)][::-1]
    page = api.get(f"/v1/messages/batches?limit=2&before_id={made[4]}").json
    assert ([item["id"] for item in page["data"]], page["has_more"]) == (made[2:4], True)
    page = api.get(f"/v1/messages/batches?limit=2&before_id={made[2]}").json
    assert ([item["id"] for item in page["data"]], page["has_more"]) == (made[:2], False)


def test_an_empty_list_has_no_edges(api: Client) -> None:
    reply = api.get("/v1/messages/batches")
    assert reply.json == {"data": [], "has_more": False, "first_id": None, "last_id": None}


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=x", "after_id=nobody", "before_id=nobody"])
def test_a_wrong_page_is_refused(api: Client, query: str) -> None:
    assert api.get(f"/v1/messages/batches?{query}").error == (400, "invalid_request_error")


def test_a_page_holds_20_unless_told(api: Client) -> None:
    for _ in range(21):
        api.create()
    assert len(api.listed()) == 20
    assert len(api.listed("limit=1000")) == 21


# -- keys and workspaces


def test_a_batch_is_seen_by_its_workspace_only(start: Start) -> None:
    url = start(keys={"key-a": "work", "key-b": "work", "key-c": "play"}).url
    mine, ours, theirs = (Client(url, key) for key in ("key-a", "key-b", "key-c"))
    batch_id = mine.create()
    assert ours.listed() == [batch_id]
    assert ours.result(batch_id)["type"] == "succeeded"
    assert theirs.listed() == []
    assert theirs.get(f"/v1/messages/batches/{batch_id}").error == (404, "not_found_error")
    assert theirs.post(f"/v1/messages/batches/{batch_id}/cancel").error == (404, "not_found_error")
    assert theirs.get(f"/v1/messages/batches?after_id={batch_id}").error == (400, "invalid_request_error")


def test_both_ways_to_send_a_key_are_taken(start: Start) -> None:
    url = start(keys={"right": "default"}).url
    bearer = Client(url, "", headers={"authorization": "Bearer right"})
    assert Client(url, "right").get("/v1/models").status == bearer.get("/v1/models").status == 200


@pytest.mark.parametrize(
    ("key", "answer"), [("", (401, "authentication_error")), ("no", (401, "authentication_error"))]
)
def test_a_refused_key_is_401(start: Start, key: str, answer: tuple[int, str]) -> None:
    api = Client(start(keys={"right": "default"}).url, key)
    assert api.get("/v1/models").error == answer


def test_a_forbidden_key_is_403(start: Start) -> None:
    api = Client(start(forbidden_keys={"odd"}).url, "odd")
    assert api.get("/v1/messages/batches").error == (403, "permission_error")


def test_batch_endpoints_share_one_rate_limit(start: Start, clock: FakeClock) -> None:
    api = Client(start(batch_rate_limit=3).url)
    batch_id = api.create()
    api.listed()
    api.batch(batch_id)
    refused = api.get("/v1/messages/batches")
    assert refused.error == (429, "rate_limit_error")
    assert refused.headers["retry-after"] == "20"
    assert api.get("/v1/models").status == 200
    clock.advance(20)
    assert api.listed() == [batch_id]


# -- outliving the process


def test_batches_outlive_the_simulator_when_they_are_kept_in_a_file(
    start: Start, clock: FakeClock, tmp_path: Any
) -> None:
    file = tmp_path / "state.jsonl"
    first = start(state_file=file, latency=60)
    api = Client(first.url, key="sk-very-secret")
    ended, running = api.create("a"), ""
    clock.advance(60)
    before = api.results(ended)
    running = api.create("b")
    first.stop()
    again = Client(start(state_file=file).url)
    assert again.listed() == [running, ended]
    assert again.results(ended) == before
    assert again.batch(running)["processing_status"] == "in_progress"
    clock.advance(60)
    assert again.result(running)["type"] == "succeeded"
    assert "sk-very-secret" not in file.read_text()


def test_a_line_that_was_cut_off_by_a_kill_is_left_out(start: Start, tmp_path: Any) -> None:
    file = tmp_path / "state.jsonl"
    first = start(state_file=file)
    batch_id = Client(first.url).create()
    first.stop()
    with file.open("a") as out:
        out.write('{"id": "msgbatch_half')
    second = start(state_file=file)
    assert Client(second.url).listed() == [batch_id]
    another = Client(second.url).create()
    second.stop()
    assert Client(start(state_file=file).url).listed() == [another, batch_id]
