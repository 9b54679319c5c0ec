"""`create` sends one request through the SDK, and classifies each way in which it can fail."""

from __future__ import annotations

from collections.abc import Iterator

import httpx2
import pytest
import respx

from gremlins.clients.account import Account
from gremlins.clients.batch.api import AnthropicBatchApi
from gremlins.clients.transport import ApiFailure

KEY = "a-key-0123456789"
API = AnthropicBatchApi(
    Account("http://api.test", KEY, {"authorization": f"Bearer {KEY}"}), timeout=5, http_client=httpx2.Client()
)
BATCH = {"id": "msgbatch_1", "type": "message_batch", "processing_status": "in_progress"}


def failure_of_create() -> ApiFailure:
    with pytest.raises(ApiFailure) as caught:
        API.create("g_1", {"model": "m", "max_tokens": 1, "messages": []})
    return caught.value


@pytest.fixture
def route() -> Iterator[respx.Route]:
    with respx.mock:
        yield respx.post("http://api.test/v1/messages/batches")


@pytest.mark.parametrize(
    ("error", "phase"),
    [
        (httpx2.ConnectError, "unsent"),
        (httpx2.ConnectTimeout, "unsent"),
        (httpx2.PoolTimeout, "unsent"),
        (httpx2.ReadTimeout, "ambiguous"),
        (httpx2.WriteError, "ambiguous"),
        (httpx2.RemoteProtocolError, "ambiguous"),
    ],
)
def test_a_connection_error_says_if_the_batch_may_exist(route: respx.Route, error: type[Exception], phase: str) -> None:
    route.side_effect = error("broken")
    assert failure_of_create().phase == phase
    assert route.call_count == 1


@pytest.mark.parametrize("status", [400, 401, 429, 500, 529])
def test_an_error_answer_is_never_sent_again_and_hides_the_key(route: respx.Route, status: int) -> None:
    error = {"type": "error", "error": {"type": "some_error", "message": f"{KEY} may not"}}
    route.respond(status, json=error, headers={"retry-after": "7"})
    failure = failure_of_create()
    assert (failure.phase, failure.status, failure.type, failure.retry_after) == ("answered", status, "some_error", "7")
    assert "*** may not" in failure.message
    assert route.call_count == 1


def test_a_redirect_is_not_followed(route: respx.Route) -> None:
    elsewhere = respx.route(host="elsewhere.test")
    route.respond(307, headers={"location": "http://elsewhere.test/"})
    assert failure_of_create().status == 307
    assert not elsewhere.called


def test_a_reply_that_is_no_batch_is_ambiguous(route: respx.Route) -> None:
    route.respond(200, json={"ok": True})
    assert failure_of_create().phase == "ambiguous"


def test_a_batch_is_returned_with_its_request_id(route: respx.Route) -> None:
    route.respond(200, json=BATCH, headers={"request-id": "req_1"})
    batch = API.create("g_1", {"model": "m", "max_tokens": 1, "messages": []})
    assert (batch.id, batch.request_id) == ("msgbatch_1", "req_1")
    assert route.calls.last.request.headers["authorization"] == f"Bearer {KEY}"
