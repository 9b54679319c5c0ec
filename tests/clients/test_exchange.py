"""Every exchange with the API is bounded in time and bytes, takes one route, and says if it may have been taken.

GET goes through our own code, POST through the real SDK; both over real sockets.
"""

from __future__ import annotations

import gc
import gzip
import json
import os
import socket
import tracemalloc
import warnings
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gremlins.clients.account import Account, find_account
from gremlins.clients.batch.api import AnthropicBatchApi, Batch
from gremlins.clients.key_proof import list_models
from gremlins.clients.transport import ApiFailure
from gremlins.errors import NotReady
from gremlins.simulator import Simulator
from tests.clients.odd_server import CERTIFICATE, OddServer, Play, dripping, endless, http

KEY = "a-key-0123456789"
BATCH = json.dumps({"id": "msgbatch_1", "type": "message_batch", "processing_status": "in_progress"}).encode()
OK = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"


def get(api: AnthropicBatchApi) -> Batch:
    return api.retrieve("msgbatch_1")


def post(api: AnthropicBatchApi) -> Batch:
    return api.create("g_1", {"model": "m", "max_tokens": 1, "messages": []})


BOTH = pytest.mark.parametrize("send", [get, post])
Ask = Callable[[AnthropicBatchApi], Batch]


def api_at(url: str, timeout: float = 30.0, **env: str) -> AnthropicBatchApi:
    account = find_account({"ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_KEY": KEY, **env})
    return AnthropicBatchApi(account, timeout=timeout)


def failure(send: Ask, play: bytes | Play, timeout: float = 30.0) -> ApiFailure:
    with OddServer(play).running() as server, pytest.raises(ApiFailure) as caught:
        send(api_at(server.url, timeout))
    assert len(server.requests) <= 1
    return caught.value


NOT_WHOLE: dict[str, bytes | Play] = {
    "nothing": b"",
    "a status line in drops": dripping(b""),
    "headers in drops": dripping(b"HTTP/1.1 200 OK\r\nx-odd: "),
    "a header a drop": dripping(b"HTTP/1.1 200 OK\r\n", b"x: y\r\n"),
    "a body in drops": dripping(http(b"", length=10**6)),
    "a body without a length in drops": dripping(OK.encode() + b"\r\n"),
    "chunks in drops": dripping(OK.encode() + b"transfer-encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    "half a body": http(BATCH[:20], length=len(BATCH)),
    "half a chunk": OK.encode() + b"transfer-encoding: chunked\r\n\r\nff\r\nx",
    "not HTTP": b"SSH-2.0-OpenSSH_9.2\r\n",
    "half a gzip": http(gzip.compress(BATCH)[:30], "content-encoding: gzip"),
    "not the gzip it says": http(BATCH, "content-encoding: gzip"),
    "brotli": http(b"\x0b\x02\x80hello\x03", "content-encoding: br"),
    "an HTML page": http(b"<html>log in</html>", "content-type: text/html"),
    "no JSON": http(b"[1, 2"),
    "deep JSON": http(b"[" * 100_000),
    "long digits": http(b'{"id": ' + b"9" * 100_000 + b"}"),
    "no batch": http(b"{}"),
}


@BOTH
@pytest.mark.parametrize("play", NOT_WHOLE.values(), ids=NOT_WHOLE.keys())
def test_an_answer_that_is_not_whole_is_ambiguous_and_has_an_end(send: Ask, play: bytes | Play) -> None:
    assert failure(send, play, 0.3 if callable(play) else 30).phase == "ambiguous"


ERRORS: dict[str, bytes | Play] = {
    "whole": http(b'{"type": "error", "error": {"type": "x", "message": "no"}}', status="503 No"),
    "in drops": dripping(http(b"", status="503 No", length=10**6)),
    "a chunk a drop": dripping(b"HTTP/1.1 503 No\r\ntransfer-encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    "half": http(b"{", status="503 No", length=1000),
    "endless": endless(b"HTTP/1.1 503 No\r\n\r\n", b"x" * 2**20),
    "not the gzip it says": http(b"no", "content-encoding: gzip", status="503 No"),
    "a page": http(b"<html>Bad Gateway</html>", status="503 No"),
}


@BOTH
@pytest.mark.parametrize("play", ERRORS.values(), ids=ERRORS.keys())
def test_an_error_has_its_status_however_its_body_comes(send: Ask, play: bytes | Play) -> None:
    found = failure(send, play, 0.3 if callable(play) else 30)
    if callable(play) and found.phase != "answered":  # a machine too busy to read the status within the deadline
        found = failure(send, play, 5)
    assert (found.phase, found.status) == ("answered", 503)
    assert len(found.message) < 700


LINES = st.sampled_from(
    [
        *("content-type: application/json", "content-length: 7", "content-length: -1", "content-length: 9e9"),
        *("transfer-encoding: chunked", "content-encoding: gzip", "content-encoding: \x00", "location: ///", "x"),
        *("request-id: \x1b[2J", "retry-after: -1e999", "retry-after: nan", "date: never", "connection: upgrade"),
    ]
)
STATUS = st.integers(0, 999).map(lambda code: f"HTTP/1.1 {code} \x1b[31m") | st.sampled_from(
    ["HTTP/9.9 200", "", "200"]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["id", "type", "error", "message", "processing_status", "request_counts", "results_url"])
            | st.text(max_size=5),
            inner,
            max_size=5,
        )
    ),
    max_leaves=9,
)
BODY = st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()) | st.just(gzip.compress(BATCH)[:30])


@settings(max_examples=1000 if os.environ.get("GREMLINS_SOAK") else 25, suppress_health_check=list(HealthCheck))
@given(post_it=st.booleans(), status=STATUS, lines=st.lists(LINES, max_size=3), body=BODY)
def test_whatever_a_server_answers_it_ends_as_a_batch_or_a_failure_soak(
    post_it: bool, status: str, lines: list[str], body: bytes
) -> None:
    head = "".join(f"{line}\r\n" for line in (status, *lines))
    with OddServer(f"{head}\r\n".encode() + body).running() as server:
        found: Batch | ApiFailure
        try:
            found = (post if post_it else get)(api_at(server.url))
        except ApiFailure as failed:
            found = failed
        assert found.phase in ("ambiguous", "answered") if isinstance(found, ApiFailure) else found.id
        assert KEY not in str(found)
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    "make",
    [
        lambda: endless(OK.encode() + b"\r\n", b"x" * 2**20),
        lambda: http(gzip.compress(b" " * 200 * 2**20, 1), "content-encoding: gzip"),
        lambda: http(gzip.compress(gzip.compress(b" " * 300 * 2**20, 1)), "content-encoding: gzip, gzip"),
    ],
    ids=["endless", "a gzip of 200 MB", "a gzip of a gzip"],
)
@BOTH
def test_a_large_answer_is_refused_in_little_memory(send: Ask, make: Callable[[], bytes | Play]) -> None:
    play = make()
    tracemalloc.start()
    try:
        assert failure(send, play, 60).phase == "ambiguous"
        assert tracemalloc.get_traced_memory()[1] < 150 * 2**20
    finally:
        tracemalloc.stop()


@BOTH
@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (BATCH, "identity"),
        (gzip.compress(BATCH), "gzip"),
        (gzip.compress(BATCH[:9]) + gzip.compress(BATCH[9:]), "x-gzip"),
        (zlib.compress(BATCH), "deflate"),
    ],
    ids=["plain", "gzip", "two members", "deflate"],
)
def test_a_body_is_decoded_although_no_compression_was_asked_for(send: Ask, body: bytes, encoding: str) -> None:
    with OddServer(http(body, f"content-encoding: {encoding}")).running() as server:
        assert send(api_at(server.url)).id == "msgbatch_1"
    assert b"accept-encoding: identity" in server.requests[0].lower()


@BOTH
def test_a_port_where_nothing_listens_was_never_sent_to(send: Ask) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    with pytest.raises(ApiFailure) as caught:
        send(api_at(url))
    assert caught.value.phase == "unsent"


@BOTH
def test_a_server_without_a_trusted_certificate_was_never_sent_to_and_a_trusted_one_is(send: Ask) -> None:
    with OddServer(http(BATCH), tls=True).running() as server:
        with pytest.raises(ApiFailure) as caught:
            send(api_at(server.url, 10))
        assert (caught.value.phase, server.requests) == ("unsent", [])
        assert send(api_at(server.url, 10, SSL_CERT_FILE=str(CERTIFICATE))).id == "msgbatch_1"


@BOTH
@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
def test_get_and_post_take_the_same_proxy_and_the_same_exceptions(send: Ask, variable: str) -> None:
    with OddServer(http(BATCH)).running() as proxy, OddServer(http(BATCH)).running() as direct:
        where = {variable: f"http://me:pass@127.0.0.1:{proxy.port}"}
        assert send(api_at(direct.url, **where)).id == "msgbatch_1"
        assert f"{direct.url}/v1/messages/batches" in proxy.heads[0]
        assert b"basic bwu6cgfzcw==" in proxy.requests[0].lower()
        assert direct.requests == []
        for exceptions in ("127.0.0.1", "example.org, 127.0.0.1", f"127.0.0.1:{direct.port}", "*"):
            send(api_at(direct.url, NO_PROXY=exceptions, **where))
        assert (len(proxy.requests), len(direct.requests)) == (1, 4)


@BOTH
def test_a_tunnel_is_asked_for_and_its_refusal_sends_nothing(send: Ask) -> None:
    with OddServer(http(b"", status="407 Who are you")).running() as proxy:
        with pytest.raises(ApiFailure) as caught:
            send(api_at("https://api.test", 10, HTTPS_PROXY=proxy.url))
        assert caught.value.phase == "unsent"
        assert [head.rpartition(" ")[0] for head in proxy.heads] == ["CONNECT api.test:443"]


@BOTH
def test_a_tunnel_that_opens_in_drops_has_an_end_and_sends_nothing(send: Ask) -> None:
    with OddServer(dripping(b"HTTP/1.1 200 OK\r\nx: ")).running() as proxy, warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # Python leaves the half-made TLS socket to the collector
        with pytest.raises(ApiFailure) as caught:
            send(api_at("https://api.test", 0.3, HTTPS_PROXY=proxy.url))
        phase = caught.value.phase
        del caught
        gc.collect()
    assert phase == "unsent"


# ── the environment is proven first ──────────────────────────────────────────────────────────────────────────────

WRONG: list[tuple[dict[str, str], str]] = [
    ({"ALL_PROXY": "socks5://127.0.0.1:1080"}, "ALL_PROXY names a SOCKS proxy"),
    ({"all_proxy": "socks5h://127.0.0.1:1080"}, "all_proxy names a SOCKS proxy"),
    ({"HTTP_PROXY": "socks4://127.0.0.1:1080"}, "HTTP_PROXY names a proxy of an unknown kind"),
    ({"HTTP_PROXY": "http://me:hunter22@:3128"}, "HTTP_PROXY is not the address"),
    ({"HTTP_PROXY": "http://me:hunter22@proxy:port"}, "HTTP_PROXY is not the address"),
    ({"HTTP_PROXY": "http://pro xy"}, "HTTP_PROXY is not the address"),
    ({"NO_PROXY": "localhost,[::1]"}, "NO_PROXY holds an IPv6 address"),
    ({"no_proxy": "10.0.0.0/8"}, "NO_PROXY holds an address range"),
    ({"SSL_CERT_FILE": "/nothing/here.pem"}, "SSL_CERT_FILE names no file"),
    ({"SSL_CERT_FILE": __file__}, "SSL_CERT_FILE holds no certificate"),
    ({"SSL_CERT_DIR": "/nothing/here"}, "SSL_CERT_DIR names no folder"),
    ({"ANTHROPIC_BASE_URL": "http://gw.test\r"}, "ANTHROPIC_BASE_URL holds a carriage return"),
    ({"ANTHROPIC_BASE_URL": "http://gw.test\n"}, "ANTHROPIC_BASE_URL holds a line break"),
    ({"ANTHROPIC_BASE_URL": '"http://gw.test"'}, "ANTHROPIC_BASE_URL holds a quote"),
    ({"ANTHROPIC_BASE_URL": "'http://gw.test'"}, "ANTHROPIC_BASE_URL holds a quote"),
    ({"ANTHROPIC_BASE_URL": "<http://gw.test>"}, "ANTHROPIC_BASE_URL holds the character"),
    ({"ANTHROPIC_BASE_URL": "[http://gw.test]"}, "ANTHROPIC_BASE_URL is not an address"),
    ({"ANTHROPIC_BASE_URL": "http://[gw.test]"}, "ANTHROPIC_BASE_URL is not an address"),
    ({"ANTHROPIC_BASE_URL": "http://[::1"}, "ANTHROPIC_BASE_URL is not an address"),
    ({"ANTHROPIC_BASE_URL": "http://gw.test/[x]"}, "ANTHROPIC_BASE_URL has brackets"),
    ({"ANTHROPIC_BASE_URL": "http://gw.test:port"}, "port is not a number"),
    ({"ANTHROPIC_BASE_URL": "http://gw.test:99999"}, "port is not a number"),
    ({"ANTHROPIC_BASE_URL": "http://gw.test:0"}, "no usable host and port"),
    ({"ANTHROPIC_BASE_URL": "http://"}, "no usable host and port"),
    ({"ANTHROPIC_BASE_URL": "gw.test"}, "does not begin with https://"),
    ({"ANTHROPIC_BASE_URL": "ftp://gw.test"}, "does not begin with https://"),
    ({"ANTHROPIC_BASE_URL": "http://gw.test/v1"}, "ends in /v1"),
    ({"ANTHROPIC_BASE_URL": "http://gw.test/api/v1/"}, "ends in /v1"),
    ({"ANTHROPIC_BASE_URL": "http://gw.test/?a=b"}, "a `?` or a `#`"),
    ({"ANTHROPIC_BASE_URL": "http://me:hunter22@gw.test"}, "a user or a password"),
    ({"ANTHROPIC_BASE_URL": "http://hunter22@gw.test"}, "a user or a password"),
    ({"ANTHROPIC_CUSTOM_HEADERS": "x-gate hunter22"}, "ANTHROPIC_CUSTOM_HEADERS is not valid: line 1"),
    ({"ANTHROPIC_CUSTOM_HEADERS": "a: b\nx gate: hunter22"}, "ANTHROPIC_CUSTOM_HEADERS is not valid: line 2"),
    ({"ANTHROPIC_CUSTOM_HEADERS": "x-gate: hunter22\rb: c"}, "the value in line 1"),
    ({"ANTHROPIC_CUSTOM_HEADERS": "x-gate: hünter22"}, "the value in line 1"),
    ({"ANTHROPIC_API_KEY": "hunter22\n"}, "key holds characters"),
]


@pytest.mark.parametrize(("env", "said"), WRONG, ids=["=".join(next(iter(env.items()))) for env, _ in WRONG])
def test_an_environment_that_can_only_fail_is_refused_with_the_variable_and_its_fault(
    env: dict[str, str], said: str
) -> None:
    with Simulator() as sim, pytest.raises(NotReady) as caught:
        find_account({**sim.env, **env})
    assert said in caught.value.message
    assert "hunter22" not in f"{caught.value.message} {caught.value.hint}"


RIGHT: list[dict[str, str]] = [
    {"ANTHROPIC_BASE_URL": "https://gw.test/anthropic/"},
    {"ANTHROPIC_BASE_URL": "http://[::1]:8080"},
    {"NO_PROXY": "localhost,127.0.0.1,::1,.corp.example"},
    {"ALL_PROXY": "socks5://127.0.0.1:1080", "HTTP_PROXY": "http://127.0.0.1:3128"},
    {"ALL_PROXY": "socks5://127.0.0.1:1080", "NO_PROXY": "127.0.0.1"},
    {"HTTP_PROXY": "127.0.0.1:3128"},
    {"SSL_CERT_FILE": str(CERTIFICATE), "SSL_CERT_DIR": "/"},
    {"ANTHROPIC_CUSTOM_HEADERS": "x-a: b\r\n\n  X-Two : c:d  \n"},
]


@pytest.mark.parametrize("env", RIGHT, ids=["=".join(next(iter(env.items()))) for env in RIGHT])
def test_an_environment_that_works_is_not_refused(env: dict[str, str]) -> None:
    with Simulator() as sim:
        found = find_account({**sim.env, **env})
    assert not found.base_url.endswith("/")
    if "ANTHROPIC_CUSTOM_HEADERS" in env:
        assert (found.headers["x-a"], found.headers["x-two"]) == ("b", "c:d")


PROOFS: dict[str, tuple[bytes | Play, type[Exception]]] = {
    "a redirect": (http(b"", "location: http://127.0.0.1:1/", status="302 Found"), NotReady),
    "a page": (http(b"<!doctype html><p>Log in", "content-type: text/html"), NotReady),
    "a page that is not found": (http(b"<html>nginx</html>", "content-type: text/html", status="404 No"), NotReady),
    "a page of a gateway that is down": (http(b"<html>nginx</html>", status="502 Bad Gateway"), ApiFailure),
    "a gateway without models": (http(b'{"error": "no such route"}', status="404 No"), ApiFailure),
    "nothing": (b"", ApiFailure),
    "a refusal": (http(b"{}", status="401 No"), NotReady),
}


@pytest.mark.parametrize(("play", "kind"), PROOFS.values(), ids=PROOFS.keys())
def test_the_first_free_call_refuses_what_is_no_api(play: bytes | Play, kind: type[Exception]) -> None:
    with OddServer(play).running() as server, pytest.raises(kind):
        list_models(Account(server.url, KEY))


@pytest.mark.parametrize("status", ["404 Not Found", "405 Not Allowed"])
def test_a_gateway_that_shows_a_page_only_in_place_of_its_models_is_an_api(status: str) -> None:
    page = http(b"<!doctype html><pre>Cannot GET /v1/models", "content-type: text/html", status=status)

    def play(connection: socket.socket, _over: object) -> None:
        connection.sendall(page if b"/v1/models" in server.requests[-1] else http(b'{"data": []}'))

    with OddServer(play).running() as server, pytest.raises(ApiFailure):
        list_models(Account(server.url, KEY))


def test_the_first_free_call_refuses_a_server_that_cannot_be_trusted() -> None:
    with OddServer(http(b"{}"), tls=True).running() as server, pytest.raises(NotReady, match="TLS: "):
        list_models(Account(server.url, KEY))


@BOTH
@pytest.mark.parametrize("echo", [KEY, "s3cret-of-a-gateway", "Zm9vOmJhcg=="])
def test_what_a_server_echoes_of_our_secrets_is_not_said(send: Ask, echo: str) -> None:
    headers = "x-gate: s3cret-of-a-gateway\nx-other: Basic Zm9vOmJhcg=="
    answer: Any = {"type": "error", "error": {"type": "x", "message": f"who is {echo}?"}}
    with OddServer(http(json.dumps(answer).encode(), status="418 No")).running() as server:
        with pytest.raises(ApiFailure) as caught:
            send(api_at(server.url, ANTHROPIC_CUSTOM_HEADERS=headers))
        assert b"x-gate: s3cret-of-a-gateway" in server.requests[0].lower()
    assert echo not in str(caught.value)
    assert "who is ***" in caught.value.message
