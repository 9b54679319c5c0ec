"""An agent's process from start to end: its own group, bounded reading, an idle watchdog, and nothing left behind."""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import IO, Literal

from gremlins.clients.base import Session
from gremlins.clock import SystemClock
from gremlins.processes import children as proc

LINE_LIMIT = 8 * 2**20
"""Bytes of one line. A longer one is dropped while it is read, so that it never fills the memory."""
STDERR_TAIL = 16 * 2**10
CHUNK = 2**16
ACTIVITY_EVERY = 1.0
"""Seconds between two signs of life that are passed on."""
LINGER = 5.0
"""Seconds an agent may take to exit after its result."""
MARK = "AGENT_RUN"
"""Variable that marks every process an agent starts, those that left its group too."""

Hear = Callable[[bytes], bool]
"""Takes one line of output; True when it was a sign of life."""


@dataclass(frozen=True)
class Launch:
    """A program to start. `stdin` is the whole prompt: secrets and prompts are never arguments."""

    argv: Sequence[str]
    cwd: Path
    env: Mapping[str, str] = field(repr=False)
    stdin: bytes = field(repr=False, default=b"")


@dataclass(frozen=True)
class Exit:
    """The end of a process. idle: the watchdog ended it; lingered: it had finished but did not exit."""

    how: Literal["exited", "idle", "lingered"]
    returncode: int
    stderr: str = ""
    dropped: int = 0
    """LineBuffer that were longer than any event."""


def bound_to_us(argv: Sequence[str]) -> list[str]:
    """The program, wrapped so that the kernel ends it with this process; else its spending would go unwatched.

    Only on Linux with util-linux's `setpriv`; elsewhere a rescue ends what is left.
    """
    wrapper = _setpriv()
    return [wrapper, "--pdeathsig", "TERM", "--", *argv] if wrapper else list(argv)


@cache
def _setpriv() -> str | None:
    found = shutil.which("setpriv")
    try:
        works = found and proc.run([found, "--pdeathsig", "TERM", "--", "true"], cwd=Path("/"), timeout=10)
    except (OSError, proc.TimedOut):
        return None
    return found if works and works.returncode == 0 else None


class NotStarted(Exception):
    """The program could not be started at all."""


class LineBuffer:
    """Bytes to lines, in bounded memory."""

    def __init__(self, limit: int = LINE_LIMIT) -> None:
        self._limit = limit
        self._parts: list[bytes] = []
        self._size = 0
        self._skipping = False
        self.dropped = 0

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        *whole, rest = chunk.split(b"\n")
        for line in whole:
            self._add(line)
            yield from self.close()
        self._add(rest)

    def close(self) -> Iterator[bytes]:
        """The line as far as it came: the last one of a stream may have no end."""
        line = b"".join(self._parts)
        skipped, self._skipping = self._skipping, False
        self._parts, self._size = [], 0
        if not skipped and line.strip():
            yield line

    def _add(self, part: bytes) -> None:
        if self._skipping or not part:
            return
        if self._size + len(part) > self._limit:
            self._skipping, self._parts, self._size = True, [], 0
            self.dropped += 1
            return
        self._parts.append(part)
        self._size += len(part)


def drive(session: Session, launch: Launch, hear: Hear, *, finished: Callable[[], bool]) -> Exit:
    """Run an agent to its end; it and everything it started have then ended. Raises NotStarted, and the exceptions of
    `hear` and `session.check`.
    """
    run_id = uuid.uuid4().hex
    child = _start(session, launch, run_id)
    try:
        return _Following(session, child, hear, finished).run()
    finally:
        end(child, run_id)


def _start(session: Session, launch: Launch, run_id: str) -> subprocess.Popen[bytes]:
    pass_fds = () if session.work_fd is None else (session.work_fd,)
    with tempfile.TemporaryFile() as stdin:  # a file, not a pipe: an agent that never reads cannot block us
        stdin.write(launch.stdin)
        stdin.seek(0)
        try:
            return proc.start(
                bound_to_us(launch.argv),
                cwd=launch.cwd,
                env={**launch.env, MARK: run_id},
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=pass_fds,
            )
        except OSError as error:
            raise NotStarted(error.strerror or str(error)) from error


class _Following:
    """One agent's output as it comes."""

    def __init__(
        self, session: Session, child: subprocess.Popen[bytes], hear: Hear, finished: Callable[[], bool]
    ) -> None:
        self.session = session
        self.child = child
        self.hear = hear
        self.finished = finished
        self.lines = LineBuffer()
        self.stderr = b""
        self.heard_at = self.passed_on_at = session.clock.monotonic()
        self.done_at: float | None = None
        self.selector = selectors.DefaultSelector()

    def run(self) -> Exit:
        assert self.child.stdout is not None
        assert self.child.stderr is not None
        with self.selector:
            for stream in (self.child.stdout, self.child.stderr):
                os.set_blocking(stream.fileno(), False)
                self.selector.register(stream, selectors.EVENT_READ)
            if self.session.interrupt_fd is not None:
                self.selector.register(self.session.interrupt_fd, selectors.EVENT_READ)
            return self._follow(self.child.stdout)

    def _follow(self, stdout: IO[bytes]) -> Exit:
        while True:
            self.session.check()
            wait = self._patience()
            if wait <= 0:
                return self._exit("lingered" if self.done_at is not None else "idle")
            ready = self.selector.select(min(wait, 0.5))
            for key, _ in ready:
                if not isinstance(key.fileobj, int):
                    self._read(key.fileobj, is_stdout=key.fileobj is stdout)  # type: ignore[arg-type]
            if self.done_at is None and self.finished():
                self.done_at = self.session.clock.monotonic()
            if (not ready and self.child.poll() is not None) or not self._open():
                # Its end of the pipe may be held open by something it left behind; that is not waited for.
                return self._exit("exited")

    def _patience(self) -> float:
        """Seconds left before it counts as stalled, or as hanging after its last word."""
        now = self.session.clock.monotonic()
        if self.done_at is not None:
            return self.done_at + LINGER - now
        return self.heard_at + self.session.settings.live.idle_timeout - now

    def _open(self) -> bool:
        return any(not isinstance(key.fileobj, int) for key in self.selector.get_map().values())

    def _read(self, stream: IO[bytes], *, is_stdout: bool) -> None:
        try:
            chunk = os.read(stream.fileno(), CHUNK)
        except BlockingIOError:
            return
        if not chunk:
            self.selector.unregister(stream)
        if not is_stdout:
            self.stderr = (self.stderr + chunk)[-STDERR_TAIL:]
            return
        for line in self.lines.feed(chunk) if chunk else self.lines.close():
            if self.hear(line):
                self._sign_of_life()

    def _sign_of_life(self) -> None:
        self.heard_at = self.session.clock.monotonic()
        if self.heard_at - self.passed_on_at >= ACTIVITY_EVERY:
            self.passed_on_at = self.heard_at
            self.session.activity()

    def _exit(self, how: Literal["exited", "idle", "lingered"]) -> Exit:
        if how == "exited":
            try:
                self.child.wait(timeout=LINGER)
            except subprocess.TimeoutExpired:
                how = "lingered"
        for line in self.lines.close():
            self.hear(line)
        code = self.child.poll()
        text = self.stderr.decode("utf-8", "replace").strip()
        return Exit(how, -1 if code is None else code, text, self.lines.dropped)


def end(child: subprocess.Popen[bytes], run_id: str, *, grace: float = 5.0, streams: bool = True) -> None:
    """End an agent's process group and every process with its mark, reap it, and close its `streams`."""
    clock = SystemClock()  # not the session's: that one is cut short by the very signal this answers
    for group in {child.pid, *marked_groups(run_id)}:
        if proc.group_alive(group):
            proc.terminate_group(group, clock=clock, grace=grace)
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(timeout=grace)
    for stream in (child.stdout, child.stderr):
        if stream is not None and streams:
            stream.close()


def marked_groups(run_id: str) -> set[int]:
    """Process groups with a member that an agent started. Empty where the system cannot say (only Linux can)."""
    wanted = f"{MARK}={run_id}".encode()
    found: set[int] = set()
    with contextlib.suppress(OSError):
        for name in os.listdir(proc.PROC):
            if name.isdigit():
                with contextlib.suppress(OSError, ValueError):
                    if wanted in (proc.PROC / name / "environ").read_bytes().split(b"\0"):
                        found.add(os.getpgid(int(name)))
    return found - {os.getpgrp()}
