"""One HTTP exchange within a deadline and a byte limit, with the standard library: 0.05 s and 19 MB, where the SDK's
own takes seconds and 75 MB. Never follows a redirect, which would carry the key to the host it names."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
import zlib
from base64 import b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import SplitResult, urlsplit

from gremlins.clients.route import Route, proxy_credentials
from gremlins.clock import SystemClock
from gremlins.processes.interrupt import start_without_signals

BODY_LIMIT = 64 * 2**20
"""Bytes of an answer, decoded. Our batches hold one request, whose reply is far below a megabyte."""
ERROR_LIMIT = 64 * 2**10
"""Bytes of an error's body that are read."""
READ_SIZE = 256 * 1024

Phase = Literal["unsent", "ambiguous", "answered"]


class Broken(Exception):
    """An exchange without a whole answer. `phase`: unsent (it never reached the server) or ambiguous (it may have)."""

    def __init__(self, message: str, phase: Phase, *, is_tls: bool = False) -> None:
        super().__init__(message)
        self.phase = phase
        self.is_tls = is_tls


@dataclass(frozen=True)
class RawAnswer:
    """Any answer, its body decoded. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


def exchange(
    method: str, url: str, headers: Mapping[str, str], body: bytes | None, *, timeout: float, route: Route
) -> RawAnswer:
    """Send a request and read the whole answer, all of it within `timeout` seconds. Raises Broken."""
    target = urlsplit(url)
    asked = target._replace(scheme="", netloc="").geturl() or "/"
    connection, more = _connection(target, route, timeout)
    with contextlib.closing(connection), _Deadline(connection, timeout) as deadline:
        try:
            connection.connect()
        except ssl.SSLError as error:
            reason = getattr(error, "verify_message", "") or error.reason or str(error)
            raise Broken(f"TLS: {reason}", "unsent", is_tls=True) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            why = f"no connection within {timeout:g} s" if deadline.passed else _why(error)
            raise Broken(f"cannot reach {target.netloc}: {why}", "unsent") from None
        deadline.watch(connection)
        try:
            connection.request(method, url if more is not None else asked, body, {**headers, **(more or {})})
            with contextlib.closing(connection.getresponse()) as answer:
                return _read(answer, deadline)
        except (OSError, http.client.HTTPException, zlib.error, ValueError) as error:
            if deadline.passed:
                raise Broken(f"{target.netloc} did not answer within {timeout:g} s", "ambiguous") from None
            raise Broken(f"the connection to {target.netloc} broke ({_why(error)})", "ambiguous") from None


def _why(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(text.split())[:200] or type(error).__name__


def _connection(
    target: SplitResult, route: Route, timeout: float
) -> tuple[http.client.HTTPConnection, dict[str, str] | None]:
    """A connection that is not open yet, and the further headers of a request to a proxy that reads it whole."""
    secure, host, port = target.scheme == "https", target.hostname or "", target.port
    proxy = urlsplit(route.proxy) if route.proxy else None

    def to(name: str, number: int | None) -> http.client.HTTPConnection:
        if secure:
            return http.client.HTTPSConnection(name, number, timeout=timeout, context=route.tls)
        return http.client.HTTPConnection(name, number, timeout=timeout)

    if proxy is None:
        return to(host, port), None
    if proxy.scheme != "http":
        connection = to(host, port)
        connection._create_connection = _through_socks(proxy)  # type: ignore[attr-defined] # as urllib3 does
        return connection, None
    known = proxy_credentials(proxy)
    login = {"Proxy-Authorization": "Basic " + b64encode(":".join(known).encode()).decode()} if known else {}
    connection = to(proxy.hostname or "", proxy.port or 80)
    if not secure:
        return connection, login
    connection.set_tunnel(host, port, login)
    return connection, None


def _through_socks(proxy: SplitResult) -> object:
    import socks  # type: ignore[import-untyped] # the extra `socks`; find_route has looked for it

    user, password = proxy_credentials(proxy) or (None, None)

    def connect(address: tuple[str, int], timeout: float, source: object = None) -> socket.socket:
        made: socket.socket = socks.create_connection(
            address,
            timeout,
            proxy_type=socks.SOCKS5,
            proxy_addr=proxy.hostname,
            proxy_port=proxy.port or 1080,
            proxy_rdns=True,
            proxy_username=user,
            proxy_password=password,
        )
        return made

    return connect


class _Deadline:
    """Cuts a connection once its time is over: a socket's own timeout begins anew with every byte."""

    def __init__(self, connection: http.client.HTTPConnection, seconds: float) -> None:
        self._clock = SystemClock()
        self._until = self._clock.monotonic() + seconds
        self._connection = connection
        self._socket: socket.socket | None = None
        self._timer = threading.Timer(seconds, self._cut)
        self._timer.daemon = True

    @property
    def passed(self) -> bool:
        return self._clock.monotonic() >= self._until

    def watch(self, connection: http.client.HTTPConnection) -> None:
        """Keep the open socket: `http.client` forgets it once the answer has begun."""
        self._socket = connection.sock
        if self.passed:
            self._cut()

    def _cut(self) -> None:
        found = self._socket or self._connection.sock
        with contextlib.suppress(OSError):
            if found is not None:
                socket.socket.shutdown(found, socket.SHUT_RDWR)  # not SSLSocket's, which talks first

    def __enter__(self) -> _Deadline:
        start_without_signals(self._timer)
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()


def _read(answer: http.client.HTTPResponse, deadline: _Deadline) -> RawAnswer:
    headers = {name.lower(): value for name, value in answer.headers.items()}
    is_error, parts, size = answer.status >= 300, [], 0
    limit = ERROR_LIMIT if is_error else BODY_LIMIT
    try:
        for part in _decoded(_pieces(answer), headers.get("content-encoding", "")):
            parts.append(part)
            size += len(part)
            if size > limit:
                break
        if deadline.passed:
            raise TimeoutError
    except (OSError, http.client.HTTPException, zlib.error, ValueError):
        if not is_error:  # the status of an error says enough
            raise
    if size > limit and not is_error:
        raise ValueError(f"the answer is larger than {limit >> 20} MB")
    return RawAnswer(answer.status, headers, b"".join(parts)[:limit])


def _pieces(answer: http.client.HTTPResponse) -> Iterator[bytes]:
    while part := answer.read1(READ_SIZE):
        yield part
    if answer.length:  # read1 takes an early end of the connection for the end of the body
        raise http.client.IncompleteRead(b"", answer.length)


def _decoded(pieces: Iterator[bytes], encoding: str) -> Iterator[bytes]:
    """The body in pieces, without its compression, which a gateway may use unasked."""
    kind = encoding.strip().lower()
    if kind in ("", "identity"):
        yield from pieces
        return
    if kind not in ("gzip", "x-gzip", "deflate"):
        raise ValueError(f"it is compressed as {kind[:40]!r}, which was not asked for")
    reader = zlib.decompressobj(32 + zlib.MAX_WBITS)  # reads both forms
    for data in pieces:
        part = b"?"
        while data or part:
            if reader.eof and data:  # a further member
                reader = zlib.decompressobj(32 + zlib.MAX_WBITS)
            part = reader.decompress(data, READ_SIZE)
            data = reader.unconsumed_tail or reader.unused_data
            yield part
    if not reader.eof:
        raise http.client.IncompleteRead(b"")
