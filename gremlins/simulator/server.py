"""HTTP over real sockets: threads that keep connections alive, and faults played on the wire."""

from __future__ import annotations

import contextlib
import select
import socket
import sys
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn
from typing import Any
from urllib.parse import unquote

from gremlins.simulator.routes import Call, HttpAnswer

IDLE_SECONDS = 75.0
"""Seconds that a kept-alive connection may be silent."""
LOOK_AGAIN = 0.1
"""Seconds between two looks whether a client that is kept hanging is still there."""

Respond = Callable[[Call], HttpAnswer]


class _Gone(Exception):
    """The connection is to be closed without another word."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = IDLE_SECONDS
    disable_nagle_algorithm = True
    wbufsize = 64 * 1024
    server: HttpServer

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is printed: the simulator keeps its own record of requests."""

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except (_Gone, ConnectionError, TimeoutError):
            self.close_connection = True

    def _serve(self) -> None:
        path, _, query = self.path.partition("?")
        headers = {name.lower(): value for name, value in self.headers.items()}
        call = Call(self.command, unquote(path), query, headers, self._body(headers))
        answer = self.server.respond(call)
        if answer.wait:
            self._pause(answer.wait)
        if answer.wire is not None and answer.wire.do in ("drop", "hang"):
            if answer.wire.do == "hang":
                self._pause(None)
            raise _Gone
        if answer.stream is not None:
            self._send_stream(answer)
        else:
            self._send(answer)

    do_GET = do_POST = do_DELETE = do_HEAD = do_PUT = do_PATCH = do_OPTIONS = _serve

    def _body(self, headers: dict[str, str]) -> bytes:
        if headers.get("transfer-encoding", "").lower() == "chunked":
            return self._chunked_body()
        length = int(headers.get("content-length") or 0)
        body = self.rfile.read(length)
        if len(body) < length:
            raise _Gone
        return body

    def _chunked_body(self) -> bytes:
        parts = []
        while size := int(self.rfile.readline().split(b";")[0] or b"0", 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass  # trailers
        return b"".join(parts)

    def _head(self, answer: HttpAnswer, **more: str) -> None:
        lines = [f"HTTP/1.1 {answer.status} {_phrase(answer.status)}", f"Content-Type: {answer.content_type}"]
        lines += [f"{name}: {value}" for name, value in {**answer.headers, **more}.items()]
        self.wfile.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace"))

    def _send(self, answer: HttpAnswer) -> None:
        self._head(answer, **{"Content-Length": str(len(answer.body))})
        body = b"" if self.command == "HEAD" else answer.body
        if answer.wire is not None and answer.wire.do == "truncate":
            self.wfile.write(body[: int(len(body) * answer.wire.keep)])
            self.wfile.flush()
            raise _Gone
        self.wfile.write(body)
        self.wfile.flush()

    def _send_stream(self, answer: HttpAnswer) -> None:
        assert answer.stream is not None
        self._head(answer, **{"Transfer-Encoding": "chunked", "Cache-Control": "no-cache"})
        for part in answer.stream:
            if part is None:
                self._pause(None)
                raise _Gone
            self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()

    def _pause(self, seconds: float | None) -> None:
        """Wait; None is until the client hangs up. Ends early when the server or the client goes."""
        self.wfile.flush()
        rounds = None if seconds is None else max(1, round(seconds / LOOK_AGAIN))
        step = LOOK_AGAIN if rounds is None or seconds is None else seconds / rounds
        while rounds is None or rounds > 0:
            if self.server.stopping.wait(step) or _hung_up(self.connection):
                raise _Gone
            rounds = None if rounds is None else rounds - 1


def _hung_up(connection: socket.socket) -> bool:
    readable, _, _ = select.select([connection], [], [], 0)
    try:
        return bool(readable) and connection.recv(1, socket.MSG_PEEK) == b""
    except OSError:
        return True


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Overloaded" if status == 529 else "Error"


class HttpServer(ThreadingMixIn, TCPServer):
    """One thread per connection. `close` ends them all and waits for them."""

    allow_reuse_address = True
    request_queue_size = 1024
    daemon_threads = True

    def __init__(self, address: tuple[str, int], respond: Respond) -> None:
        self.respond = respond
        self.stopping = threading.Event()
        self._lock = threading.Lock()
        self._connections: set[socket.socket] = set()
        self._workers: set[threading.Thread] = set()
        super().__init__(address, _Handler)

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        worker = threading.Thread(
            target=self._work, args=(request, client_address), name="simulator-connection", daemon=True
        )
        with self._lock:
            self._connections.add(request)
            self._workers.add(worker)
        worker.start()

    def _work(self, request: Any, client_address: Any) -> None:
        try:
            self.process_request_thread(request, client_address)
        finally:
            with self._lock:
                self._connections.discard(request)
                self._workers.discard(threading.current_thread())

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up in the middle is no news; anything else is a bug and goes on up."""
        if not isinstance(sys.exception(), (ConnectionError, TimeoutError)):
            raise

    def close(self) -> None:
        """Stop taking connections, end those there are, and wait for their threads."""
        self.stopping.set()
        self.shutdown()
        self.server_close()
        with self._lock:
            connections, workers = list(self._connections), list(self._workers)
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for worker in workers:
            worker.join(timeout=5)
