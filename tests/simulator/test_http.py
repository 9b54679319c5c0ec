"""HTTP itself: headers, unknown paths, kept connections, many at once."""

from __future__ import annotations

import http.client
import json
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from gremlins.clock import FakeClock
from gremlins.errors import GremlinsError
from gremlins.simulator import Simulator
from tests.simulator.conftest import Client, Start, params


def test_every_answer_has_an_id_a_date_and_the_organization(api: Client, clock: FakeClock) -> None:
    for reply in (api.get("/v1/models"), api.get("/v1/nowhere"), api.post("/v1/messages", {})):
        assert reply.headers["request-id"].startswith("req_")
        assert reply.headers["date"] == "Sat, 21 Nov 2026 10:00:00 GMT"
        assert reply.headers["anthropic-organization-id"]


def test_the_simulator_may_live_in_another_time_than_the_machine(start: Start) -> None:
    sim = start(clock_offset=-3600)
    assert Client(sim.url).get("/v1/models").headers["date"] == "Sat, 21 Nov 2026 09:00:00 GMT"
    sim.advance(60)
    assert Client(sim.url).get("/v1/models").headers["date"] == "Sat, 21 Nov 2026 09:01:00 GMT"


@pytest.mark.parametrize("path", ["/v1/nowhere", "/", "/v1/messages/batches/a/b/c"])
def test_an_unknown_path_is_404_in_the_apis_words(api: Client, path: str) -> None:
    assert api.post(path, {}).error == (404, "not_found_error")


def test_the_wrong_method_is_405(api: Client) -> None:
    assert api.get("/v1/messages").error == (405, "invalid_request_error")


def test_the_probe_some_clients_begin_with_is_answered(api: Client) -> None:
    assert api.call("HEAD", "/").status == 200


def test_the_version_header_is_required(api: Client) -> None:
    connection = http.client.HTTPConnection(*api.url.removeprefix("http://").split(":"))
    connection.request("GET", "/v1/models", headers={"x-api-key": "k"})
    assert connection.getresponse().status == 400
    connection.close()


def test_models_are_listed_and_described(api: Client) -> None:
    listed = api.get("/v1/models").json
    first = listed["data"][0]
    assert listed["first_id"] == first["id"]
    assert api.get(f"/v1/models/{first['id']}").json == first
    assert api.get("/v1/models/gpt-3").error == (404, "not_found_error")


def test_tokens_are_counted_alike_everywhere(api: Client) -> None:
    asked = params("how many is this?")
    counted = api.post("/v1/messages/count_tokens?beta=true", asked).json["input_tokens"]
    assert counted == api.post("/v1/messages?beta=true", asked).json["usage"]["input_tokens"]


def test_a_live_message_is_billed_as_standard(api: Client, sim: Simulator) -> None:
    message = api.post("/v1/messages", params()).json
    assert message["usage"]["service_tier"] == "standard"
    assert [item.tier for item in sim.billed] == ["standard"]


def test_a_live_bad_request_is_refused_at_once(api: Client) -> None:
    assert api.post("/v1/messages", {"model": "claude-opus-5"}).error == (400, "invalid_request_error")
    assert api.post("/v1/messages", params() | {"model": "gpt-3"}).error == (404, "not_found_error")


def test_a_connection_serves_many_requests(api: Client, sim: Simulator) -> None:
    connection = http.client.HTTPConnection(*api.url.removeprefix("http://").split(":"))
    head = {"x-api-key": "k", "anthropic-version": "2023-06-01"}
    for _ in range(3):
        connection.request("GET", "/v1/models", headers=head)
        assert connection.getresponse().read()
    kept = connection.sock
    connection.request("GET", "/v1/nowhere", headers=head)
    connection.getresponse().read()
    assert connection.sock is kept
    connection.close()


def test_a_body_may_come_in_chunks(api: Client) -> None:
    connection = http.client.HTTPConnection(*api.url.removeprefix("http://").split(":"))
    raw = json.dumps(params()).encode()
    head = {"x-api-key": "k", "anthropic-version": "2023-06-01"}
    connection.request("POST", "/v1/messages", iter([raw[:50], raw[50:]]), head, encode_chunked=True)
    assert connection.getresponse().status == 200
    connection.close()


def test_200_connections_are_served_at_once(api: Client, sim: Simulator) -> None:
    host, port = api.url.removeprefix("http://").split(":")
    held = [socket.create_connection((host, int(port)), timeout=10) for _ in range(200)]
    with ThreadPoolExecutor(16) as pool:
        statuses = list(pool.map(lambda _: api.get("/v1/models").status, range(50)))
    for connection in held:
        connection.sendall(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")
    answers = [connection.recv(15) for connection in held]
    for connection in held:
        connection.close()
    assert set(statuses) == {200}
    assert set(answers) == {b"HTTP/1.1 200 OK"}


def test_it_comes_back_on_the_same_port_with_its_batches(start: Start) -> None:
    sim = start()
    api = Client(sim.url)
    batch_id = api.create()
    sim.stop()
    sim.start()
    assert api.listed() == [batch_id]


def test_a_port_that_is_taken_is_a_clear_error(start: Start, sim: Simulator) -> None:
    with pytest.raises(GremlinsError, match=r"cannot listen on 127\.0\.0\.1:"):
        start(port=int(sim.url.rsplit(":", 1)[1]))


def test_counters_tell_what_was_asked(api: Client, sim: Simulator) -> None:
    batch_id = api.create("a", "b")
    api.batch(batch_id)
    api.batch(batch_id)
    assert sim.requests == {"create": 1, "retrieve": 2}
    assert sim.custom_ids == ["a", "b"]
    assert sim.batches[0].key == "sk-test"
    assert sim.batches[0].requests[0].params == params()
