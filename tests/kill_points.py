"""The points at which a process may die, and the one counter that ends it at one of them.

A point is a file opened for writing, a write, fsync, rename or removal, a program started, a connection made, a request
sent, the first bytes of its answer. There are three ways to use them:

- A process of the installed command: `KILL_TRACE` names a file that all processes of a scenario share. Each point is a
  line of it, so the numbers go on from process to process. The process that reaches point `KILL_AT`, a number or its
  words, ends there by SIGKILL.
- `killed_at` and `killed_everywhere`: an action in a forked child.
- A process that a test only simulates calls `KillPoints.reach` itself, and `Killed` is raised in place of the signal.

Only the standard library is imported: this module is also loaded into the waiter, which has nothing else.
"""

from __future__ import annotations

import os
import signal
import stat
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from typing import Any

TRACE, AT = "KILL_TRACE", "KILL_AT"
LINE = 120
"""Bytes of one line of the trace: its size tells how many points there were."""
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
AUDITED = {
    "os.rename": "rename",
    "os.remove": "remove",
    "os.mkdir": "mkdir",
    "os.rmdir": "rmdir",
    "os.truncate": "truncate",
    "os.link": "link",
    "os.symlink": "symlink",
    "os.exec": "exec",
    "os.posix_spawn": "spawn",
    "subprocess.Popen": "start",
    "socket.connect": "connect",
}
"""Audit events: they come before the deed, and C code raises them too."""
ENDED, FAILED = 0, 1


class Killed(BaseException):
    """Stands for SIGKILL in a simulated process. Not an Exception: the code under test must not handle it."""


def kill_this_process(_what: str, kill: Callable[[int, int], None] = os.kill) -> None:
    kill(os.getpid(), signal.SIGKILL)


def raise_killed(what: str) -> None:
    raise Killed(what)


class KillPoints:
    """Counts the points that a process reaches, and ends it at one, given by number (from 1) or by words."""

    def __init__(
        self,
        at: int | str | None = None,
        *,
        end: Callable[[str], None] = raise_killed,
        trace: str = "",
        only: Collection[str] = (),
    ) -> None:
        self.at = at
        self.end = end
        self.only = only
        """First words of the points that count; all count if it is empty."""
        self.reached: list[str] = []
        self.fd = os.open(trace, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600) if trace else None
        self.write, self.fstat = os.write, os.fstat
        self.waiting: dict[int, str] = {}
        """What sockets have sent that have not received yet: only the first bytes of an answer are a point."""

    def reach(self, what: str) -> None:
        if self.only and what.split(maxsplit=1)[0] not in self.only:
            return
        number = self._note(what)
        if self.at is not None and str(self.at) in (what, str(number)):
            self.end(what)

    def _note(self, what: str) -> int:
        if self.fd is None:
            self.reached.append(what)
            return len(self.reached)
        line = f"{os.getpid()} {what}".encode("ascii", "replace").replace(b"\n", b" ")[: LINE - 1]
        self.write(self.fd, line.ljust(LINE - 1) + b"\n")
        return self.fstat(self.fd).st_size // LINE

    # ── in a process of its own ───────────────────────────────────────────────────────────────────────────────────

    def install(self, *, beside_children: bool = True) -> None:
        """From now on, this process reaches a point with each thing it does outside its memory.

        `beside_children`: also just after a program was started, which then goes on alone.
        """
        for name in ("fsync", "pwrite", "write"):
            setattr(os, name, self._of_files(name, getattr(os, name)))
        if beside_children and "subprocess" in sys.modules:
            self._watch_programs()
        if "socket" in sys.modules:
            self._watch_sockets()
        sys.addaudithook(self._hear)

    def _hear(self, event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = args
            if isinstance(flags, int) and flags & WRITING and not str(path).startswith(("/dev/", "/proc/")):
                self.reach(f"open {_short(path)}")
        elif event in AUDITED:
            self.reach(f"{AUDITED[event]} {_words(event, args)}")

    def _of_files(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def counted(fd: int, *args: Any) -> Any:
            if not stat.S_ISFIFO(self.fstat(fd).st_mode):
                self.reach(name)
            return real(fd, *args)

        return counted

    def _watch_programs(self) -> None:
        popen = sys.modules["subprocess"].Popen
        real = popen.__init__

        def begin(self_: Any, *args: Any, **more: Any) -> None:
            real(self_, *args, **more)
            self.reach("started")

        popen.__init__ = begin

    def _watch_sockets(self) -> None:
        kind = sys.modules["socket"].socket
        for name in ("send", "sendall", "recv", "recv_into"):
            setattr(kind, name, self._of_sockets(name, getattr(kind, name)))

    def _of_sockets(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def counted(sock: Any, *args: Any, **more: Any) -> Any:
            if name.startswith("send"):
                line = _first_line(args[0])
                self.reach(f"send {line}")
                self.waiting.setdefault(sock.fileno(), line)
            elif line := self.waiting.pop(sock.fileno(), ""):
                self.reach(f"answer to {line}")
            return real(sock, *args, **more)

        return counted


def _short(path: object) -> str:
    return "/".join(os.fsdecode(path).split("/")[-2:]) if isinstance(path, str | bytes | os.PathLike) else str(path)


def _words(event: str, args: tuple[Any, ...]) -> str:
    if event == "subprocess.Popen":
        return " ".join(_short(word) for word in args[1][:6])
    if event == "socket.connect":
        return str(args[1])
    if event in ("os.exec", "os.posix_spawn"):
        return " ".join(_short(word) for word in args[1][:5])
    return " ".join(_short(arg) for arg in args[:2])


def _first_line(data: object) -> str:
    return bytes(data[:60]).split(b"\r")[0].decode("ascii", "replace") if isinstance(data, bytes | memoryview) else ""


def install_from(env: Any) -> None:
    """Install the points if the environment asks for it."""
    if env.get(TRACE):
        KillPoints(env.get(AT), end=kill_this_process, trace=env[TRACE]).install()


# ── in a forked child ─────────────────────────────────────────────────────────────────────────────────────────────


def killed_at(at: int, action: Callable[[], Any], *, only: Collection[str] = ()) -> bool:
    """Run the action in a forked child that is killed at that point. False if the action ended before."""
    return _fork(KillPoints(at, end=kill_this_process, only=only), action) != ENDED


def count_points(action: Callable[[], Any], *, only: Collection[str] = ()) -> int:
    """Run the action to its end in a forked child. Returns how many points it has."""
    import tempfile

    with tempfile.NamedTemporaryFile() as file:
        assert _fork(KillPoints(end=kill_this_process, trace=file.name, only=only), action) == ENDED
        return os.stat(file.name).st_size // LINE


def killed_everywhere(prepare: Callable[[], Callable[[], Any]], check: Callable[[bool], None]) -> int:
    """Prepare, kill the action at one point, check; for every point there is. Returns how many there are."""
    at = 0
    while True:
        at += 1
        killed = killed_at(at, prepare())
        check(killed)
        if not killed:
            return at - 1


def steps(stride: int, most: int = 80) -> range:
    """Numbers of points to be killed at, from 1: all in the soak, one in `stride` in the suite."""
    return range(1, most, 1 if os.environ.get("GREMLINS_SOAK") else stride)


def _fork(points: KillPoints, action: Callable[[], Any]) -> int:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads, which the child does not use
        pid = os.fork()
    if pid == 0:
        leave = os._exit
        try:
            points.install(beside_children=False)  # the checks would race with a program that goes on alone
            action()
            leave(ENDED)
        except BaseException:  # noqa: BLE001 # the child must not go on as a second pytest
            sys.excepthook(*sys.exc_info())
        finally:
            leave(FAILED)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (ENDED, -signal.SIGKILL), "the action failed in the child"
    return code


if __name__ == "__main__":  # `kill_points.py SCRIPT ARGS…`: run a script of the standard library with its points
    import runpy

    del sys.argv[0]
    install_from(os.environ)
    runpy.run_path(sys.argv[0], run_name="__main__")
