"""HTTP to the API with the standard library, for all calls but create: 0.05 s and 19 MB, where the SDK takes seconds
and 75 MB. Never follows a redirect or an address out of a reply, which would leak the key."""

from __future__ import annotations

import http.client
import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal, Protocol

from gremlins.clients.account import Account
from gremlins.clock import SystemClock
from gremlins.errors import GremlinsError

API_VERSION = "2026-10-21"
RESULT_LIMIT = 300 * 2**20
"""Bytes. A batch holds at most 256 MB of requests; a body beyond this is not a result file."""

READ_SIZE = 256 * 1024

Phase = Literal["unsent", "ambiguous", "answered"]


class ApiFailure(GremlinsError):
    """A request that failed.

    `phase`: unsent (it never reached the server), ambiguous (it may have), answered (the server said no: `status`,
    `type`, `error_code`, `retry_after` in seconds).
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
    ) -> None:
        super().__init__(message)
        self.phase = phase
        self.status = status
        self.type = type
        self.error_code = error_code
        self.retry_after = retry_after
        self.server_time = server_time

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
            raise ApiFailure("the server answered with something that is not a JSON object", phase="ambiguous")
        return value


class Transport(Protocol):
    """One HTTP exchange. Raises ApiFailure; never follows a redirect."""

    def __call__(self, method: str, url: str, headers: Mapping[str, str], timeout: float) -> HttpReply: ...


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Refuses redirects: one would carry the key to the host it names."""

    def redirect_request(self, *_: object, **__: object) -> None:
        return None


def urllib_transport(method: str, url: str, headers: Mapping[str, str], timeout: float) -> HttpReply:
    """The real transport. Honours the proxy variables and SSL_CERT_FILE."""
    body = b"" if method == "POST" else None
    request = urllib.request.Request(url, data=body, method=method, headers=dict(headers))
    opener = urllib.request.build_opener(_NoRedirects)
    try:
        with opener.open(request, timeout=timeout) as answer:
            data = _read_all(answer, timeout)
            return HttpReply(answer.status, data, {k.lower(): v for k, v in answer.headers.items()})
    except urllib.error.HTTPError as error:
        with error:
            raise failure_from_answer(error.code, _read_some(error), dict(error.headers.items())) from None
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLError):
            raise ApiFailure(f"TLS: {error.reason.reason or error.reason}", phase="unsent") from None
        phase: Phase = "ambiguous" if isinstance(error.reason, TimeoutError) else "unsent"
        raise ApiFailure(f"cannot reach {_host(url)}: {error.reason}", phase=phase) from None
    except (OSError, http.client.HTTPException) as error:
        name = type(error).__name__
        raise ApiFailure(f"the connection to {_host(url)} broke ({name})", phase="ambiguous") from None


def _read_all(answer: http.client.HTTPResponse, timeout: float) -> bytes:
    """The whole body, within `timeout` seconds of its first byte: the socket's own timeout never ends a body that
    comes in drops. Raises ApiFailure, and what the socket raises."""
    clock = SystemClock()
    deadline, parts, size = clock.monotonic() + timeout, [], 0
    while part := answer.read1(READ_SIZE):
        parts.append(part)
        size += len(part)
        if size > RESULT_LIMIT:
            raise ApiFailure("the answer is larger than any result file", phase="ambiguous")
        if clock.monotonic() > deadline:
            raise TimeoutError("the answer did not end in time")
    if answer.length:  # read1 takes an early end of the connection for the end of the body
        raise http.client.IncompleteRead(b"", answer.length)
    return b"".join(parts)


def _read_some(error: urllib.error.HTTPError) -> bytes:
    try:
        return error.read(65536)
    except (OSError, http.client.HTTPException):
        return b""


def _host(url: str) -> str:
    return url.split("/")[2]


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
    )


def connection_failure(error: BaseException) -> ApiFailure:
    """The failure that a connection error of the SDK means. Its cause tells the phases apart (measured with 2.11)."""
    import httpx2  # loaded by the SDK already

    cause = error.__cause__
    never_sent = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.UnsupportedProtocol)
    unsent = isinstance(cause, never_sent)
    what = "cannot reach the API" if unsent else "the connection broke before the reply was whole"
    return ApiFailure(f"{what} ({type(cause or error).__name__})", phase="unsent" if unsent else "ambiguous")


class Wire:
    """GET and POST on one account."""

    def __init__(self, account: Account, *, timeout: float = 60, transport: Transport = urllib_transport) -> None:
        self.account = account
        self.timeout = timeout
        self._transport = transport

    def call(self, method: str, path: str, *, timeout: float | None = None) -> HttpReply:
        """One request to `path` on our own base URL. Raises ApiFailure, with the secret taken out of its words."""
        headers = {
            "user-agent": "gremlins",
            "accept": "application/json",
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
