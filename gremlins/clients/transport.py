"""Requests to the API: GET and POST on one account, the SDK's way out, and the failures that answers mean."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from gremlins.clients.account import Account
from gremlins.clients.exchange import Broken, Phase, exchange
from gremlins.clients.route import DIRECT, Route
from gremlins.errors import GremlinsError

if TYPE_CHECKING:
    import httpx2

API_VERSION = "2026-10-21"


class ApiFailure(GremlinsError):
    """A request that failed.

    `phase`: unsent (it never reached the server), ambiguous (it may have), answered (the server said no: `status`,
    `type`, `error_code`, `retry_after` in seconds). `is_tls`: the server could not be trusted. `is_page`: the
    answer is an HTML page, so that no API is there.
    """

    def __init__(
        self,
        message: str,
        *,
        phase: Phase,
        status: int | None = None,
        type: str = "",
        error_code: str | None = None,
        retry_after: str | None = None,
        server_time: datetime | None = None,
        is_tls: bool = False,
        is_page: bool = False,
    ) -> None:
        super().__init__(message)
        self.phase = phase
        self.status = status
        self.type = type
        self.error_code = error_code
        self.retry_after = retry_after
        self.server_time = server_time
        self.is_tls = is_tls
        self.is_page = is_page

    @property
    def is_final(self) -> bool:
        """True if asking again would get the same answer: a 4xx that is neither a rate limit nor a timeout."""
        return self.status is not None and 400 <= self.status < 500 and self.status not in (408, 409, 425, 429)


@dataclass(frozen=True)
class HttpReply:
    """An answer with a 2xx status. `server_time` is its Date header."""

    status: int
    body: bytes = field(repr=False)
    headers: Mapping[str, str]

    @property
    def server_time(self) -> datetime | None:
        return date_header(self.headers)

    def json(self) -> dict[str, Any]:
        """The body as a JSON object. Raises ApiFailure when it is none."""
        try:
            value = json.loads(self.body)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise self.unexpected("a JSON object")
        return value

    def unexpected(self, what: str) -> ApiFailure:
        """The failure of a success whose body is not `what`. It carries the status: the server did answer."""
        is_page = _is_page(self.body, self.headers)
        message = "the server answered with " + ("an HTML page" if is_page else f"something that is not {what}")
        return ApiFailure(message, phase="ambiguous", status=self.status, server_time=self.server_time, is_page=is_page)


class Transport(Protocol):
    """One HTTP exchange. Raises ApiFailure; never follows a redirect."""

    def __call__(self, method: str, url: str, headers: Mapping[str, str], timeout: float) -> HttpReply: ...


def http_transport(
    method: str, url: str, headers: Mapping[str, str], timeout: float, *, route: Route = DIRECT
) -> HttpReply:
    """The real transport."""
    body = b"" if method == "POST" else None
    try:
        answer = exchange(method, url, headers, body, timeout=timeout, route=route)
    except Broken as broken:
        raise ApiFailure(str(broken), phase=broken.phase, is_tls=broken.is_tls) from None
    if answer.status >= 300:
        raise failure_from_answer(answer.status, answer.body, answer.headers)
    return HttpReply(answer.status, answer.body, answer.headers)


def sdk_client(account: Account, timeout: float) -> httpx2.Client:
    """An HTTP client for the SDK that sends as everything else is sent: the same route, deadline and limits."""
    import httpx2  # loaded by the SDK already

    class Exchanges(httpx2.BaseTransport):
        """Passes a request of the SDK to `exchange`."""

        def handle_request(self, request: httpx2.Request) -> httpx2.Response:
            headers = {**dict(request.headers), "accept-encoding": "identity", "connection": "close"}
            try:
                answer = exchange(
                    request.method, str(request.url), headers, request.read(), timeout=timeout, route=account.route
                )
            except Broken as broken:
                kind = httpx2.ConnectError if broken.phase == "unsent" else httpx2.ReadError
                raise kind(str(broken), request=request) from None
            told = {k: v for k, v in answer.headers.items() if k not in _OF_THE_WIRE}
            return httpx2.Response(answer.status, headers=told, content=answer.body, request=request)

    return httpx2.Client(transport=Exchanges(), follow_redirects=False, trust_env=False)


_OF_THE_WIRE = frozenset({"content-encoding", "content-length", "transfer-encoding", "connection"})


def _is_page(body: bytes, headers: Mapping[str, str]) -> bool:
    lower = {name.lower(): value for name, value in headers.items()}
    return "html" in lower.get("content-type", "") or body.lstrip()[:1] == b"<"


def date_header(headers: Mapping[str, str]) -> datetime | None:
    """The server's clock, whole seconds, or None."""
    try:
        return parsedate_to_datetime({k.lower(): v for k, v in headers.items()}["date"]).astimezone(UTC)
    except (KeyError, ValueError, TypeError):
        return None


def failure_from_answer(status: int, body: bytes, headers: Mapping[str, str]) -> ApiFailure:
    """The failure an error answer means, decided on the `.type` string of its body, never on its words."""
    lower = {k.lower(): v for k, v in headers.items()}
    kind, message, code = "", "", None
    try:
        error = json.loads(body)["error"]
        kind, message = str(error["type"]), str(error.get("message") or "")
        details = error.get("details")
        code = details.get("error_code") if isinstance(details, dict) else None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        message = body[:300].decode("utf-8", "replace").strip()
    text = " ".join(message.split())[:500] or http.client.responses.get(status, "no reason given")
    if 300 <= status < 400:
        text = "it redirects elsewhere, and a redirect is never followed (is ANTHROPIC_BASE_URL right?)"
    return ApiFailure(
        f"HTTP {status} {kind}: {text}" if kind else f"HTTP {status}: {text}",
        phase="answered",
        status=status,
        type=kind,
        error_code=code if isinstance(code, str) else None,
        retry_after=lower.get("retry-after"),
        server_time=date_header(lower),
        is_page=not kind and _is_page(body, lower),
    )


def connection_failure(error: BaseException) -> ApiFailure:
    """The failure that a connection error of the SDK means. Its cause tells the phases apart (measured with 2.11)."""
    import httpx2  # loaded by the SDK already

    cause = error.__cause__
    never_sent = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.UnsupportedProtocol)
    unsent = isinstance(cause, never_sent)
    what = "cannot reach the API" if unsent else "the connection broke before the reply was whole"
    why = str(cause) or type(cause or error).__name__
    return ApiFailure(f"{what} ({why})", phase="unsent" if unsent else "ambiguous")


class Wire:
    """GET and POST on one account."""

    def __init__(self, account: Account, *, timeout: float = 60, transport: Transport | None = None) -> None:
        self.account = account
        self.timeout = timeout
        self._transport = transport or partial(http_transport, route=account.route)

    def call(self, method: str, path: str, *, timeout: float | None = None) -> HttpReply:
        """One request to `path` on our own base URL. Raises ApiFailure, with the secret taken out of its words."""
        headers = {
            "user-agent": "gremlins",
            "accept": "application/json",
            "accept-encoding": "identity",
            "anthropic-version": API_VERSION,
            **self.account.headers,
        }
        try:
            return self._transport(method, self.account.base_url + path, headers, timeout or self.timeout)
        except ApiFailure as failure:
            self.redacted(failure)
            raise

    def redacted(self, failure: ApiFailure) -> ApiFailure:
        """The failure, without secrets in its message."""
        failure.message = self.account.redactor.message(failure.message)
        failure.args = (failure.message,)
        return failure
