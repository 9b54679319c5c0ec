"""A `kilo serve` of our own or one that runs already: its process, its HTTP calls, and the feed of its events."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import queue
import re
import secrets
import select
import shutil
import socket
import subprocess
import tempfile
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, Any
from urllib.parse import urlsplit

from gremlins.clients.base import Session
from gremlins.clients.live.process import LINE_LIMIT, MARK, bound_to_us, end
from gremlins.errors import NotReady
from gremlins.processes import children as proc

BIN_VARIABLE = "GREMLINS_KILO_BIN"
RUNNING_VARIABLE = "GREMLINS_KILO_SERVER"
START_PATIENCE = 120.0
"""Seconds: its first start on a machine unpacks and migrates."""
CALL_TIMEOUT = 20.0
USER = "kilo"


class KiloFailure(Exception):
    """The server did not do what it was asked. `status` is the HTTP status, where it answered at all."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Kilo:
    """A server that listens."""

    address: str
    user: str
    password: str = field(repr=False)

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """One request and its JSON answer. Raises KiloFailure."""
        connection = self._connect(CALL_TIMEOUT)
        try:
            connection.request(method, path, None if body is None else json.dumps(body), self._headers())
            answer = connection.getresponse()
            data = answer.read(LINE_LIMIT * 4)
            if answer.status >= 300:
                said = " ".join(data[:300].decode("utf-8", "replace").split())
                raise KiloFailure(f"kilo answered {method} {path} with {answer.status}: {said}", answer.status)
            return json.loads(data) if data.strip() else None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise KiloFailure(f"kilo's server cannot be talked to: {error or type(error).__name__}") from None
        finally:
            connection.close()

    def feed(self, path: str) -> EventFeed:
        """Follow the server's events from now on. Raises KiloFailure."""
        connection = self._connect(CALL_TIMEOUT)
        try:
            connection.request("GET", path, headers={**self._headers(), "accept": "text/event-stream"})
            stream = connection.sock  # http.client forgets it once the answer has begun
            answer = connection.getresponse()
            if answer.status != 200:
                raise KiloFailure(f"kilo answered GET {path} with {answer.status}", answer.status)
            stream.settimeout(None)  # silence is the watchdog's business
            return EventFeed(connection, answer, stream)
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise KiloFailure(f"kilo's server cannot be talked to: {error}") from None

    def _connect(self, timeout: float) -> http.client.HTTPConnection:
        parts = urlsplit(self.address)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        return kind(parts.hostname or "127.0.0.1", parts.port, timeout=timeout)

    def _headers(self) -> dict[str, str]:
        token = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        return {"content-type": "application/json", "authorization": f"Basic {token}"}


class EventFeed:
    """Server-sent events, read by a thread, so that a wait for them can end with a signal too."""

    def __init__(
        self, connection: http.client.HTTPConnection, answer: http.client.HTTPResponse, stream: socket.socket
    ) -> None:
        self._connection = connection
        self._answer = answer
        self._socket = stream
        self._events: queue.Queue[tuple[bytes, dict[str, Any]] | None] = queue.Queue(maxsize=1000)
        self._wake, self._woken = os.pipe()
        self._thread = threading.Thread(target=self._read, name="kilo-events", daemon=True)
        self._thread.start()

    def next(self, timeout: float, interrupt_fd: int | None) -> tuple[bytes, dict[str, Any]] | None:
        """The next event, raw and parsed; None after so many seconds, or when a signal came.

        Raises KiloFailure once the feed is over.
        """
        waiting = [self._wake] if interrupt_fd is None else [self._wake, interrupt_fd]
        ready = select.select(waiting, [], [], max(0.0, timeout))[0]
        if self._wake not in ready:
            return None
        os.read(self._wake, 1)
        event = self._events.get_nowait()
        if event is None:
            raise KiloFailure("kilo's server ended in the middle")
        return event

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(timeout=5)
        self._answer.close()
        self._connection.close()
        os.close(self._wake)
        os.close(self._woken)

    def _read(self) -> None:
        with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
            while line := self._answer.readline(LINE_LIMIT):
                event = _event(line)
                if event is not None:
                    self._put((line, event))
        self._put(None)

    def _put(self, event: tuple[bytes, dict[str, Any]] | None) -> None:
        with contextlib.suppress(queue.Full, OSError):
            self._events.put(event, timeout=60)
            os.write(self._woken, b"!")


def _event(line: bytes) -> dict[str, Any] | None:
    if not line.startswith(b"data:"):
        return None
    try:
        value = json.loads(line[5:])
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and isinstance(value.get("type"), str) else None


def find_kilo(env: Mapping[str, str]) -> str:
    """The binary. Raises NotReady when there is none."""
    name = env.get(BIN_VARIABLE) or "kilo"
    found = shutil.which(name, path=env.get("PATH"))
    if found is None:
        raise NotReady(
            f"no `{name}` that can be run: calls of `kilo:` need the Kilo CLI",
            hint=f"npm install -g @kilocode/cli, or name a running server in {RUNNING_VARIABLE}",
        )
    return found


@contextmanager
def server(session: Session, env: Mapping[str, str]) -> Iterator[Kilo]:
    """A server to talk to: the person's own where one is named, else a new one, ended on the way out."""
    if running := session.env.get(RUNNING_VARIABLE):
        user = session.env.get("KILO_SERVER_USERNAME") or USER
        yield Kilo(running.rstrip("/"), user, session.env.get("KILO_SERVER_PASSWORD", ""))
        return
    run_id, password = uuid.uuid4().hex, secrets.token_urlsafe(24)
    ours = {**env, MARK: run_id, "KILO_SERVER_USERNAME": USER, "KILO_SERVER_PASSWORD": password}
    with tempfile.TemporaryFile() as output:
        try:
            child = proc.start(
                bound_to_us([find_kilo(session.env), "serve", "--hostname", "127.0.0.1", "--port", "0"]),
                cwd=session.worktree,
                env=ours,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=() if session.work_fd is None else (session.work_fd,),
            )
        except OSError as error:
            raise KiloFailure(f"`kilo serve` cannot be started: {error.strerror or error}") from None
        try:
            yield Kilo(_address(session, child, output), USER, password)
        finally:
            end(child, run_id)


def _address(session: Session, child: subprocess.Popen[bytes], output: IO[bytes]) -> str:
    """The new server's address, once it prints it. Raises KiloFailure."""
    until = session.clock.monotonic() + START_PATIENCE
    while True:
        session.check()
        said = os.pread(output.fileno(), 65536, 0).decode("utf-8", "replace")
        if found := re.search(r"listening on (https?://\S+)", said):
            return found[1]
        if child.poll() is not None or session.clock.monotonic() > until:
            last = " ".join((said.strip().splitlines() or ["it said nothing"])[-1].split())[:300]
            raise KiloFailure(f"`kilo serve` did not start: {last}")
        session.clock.sleep(0.05)
