"""A process that dies by SIGKILL at one step of its own: every write, rename and fsync, everything sent and received,
every program started. Standard library only: it also lives in the waiter, which has nothing else.

`MORTAL_TRACE` names a file that all processes of one scenario share. Each step is a line of it, so their numbers go on
from process to process; whoever takes step `MORTAL_AT`, a number or its words, does not live to carry it out.
"""

from __future__ import annotations

import os
import signal
import stat
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

TRACE, AT = "MORTAL_TRACE", "MORTAL_AT"
WIDTH = 120
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
TOLD_BY_THE_INTERPRETER = {
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
"""Audit events: they see what C code does as well, and come before the deed."""


class Mortality:
    """Counts the steps of this process, and ends it at its hour."""

    def __init__(self, trace: str, at: str) -> None:
        self.fd = os.open(trace, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.at = at
        self.write, self.fstat, self.kill = os.write, os.fstat, os.kill
        self.waiting: set[int] = set()
        """Sockets that have asked and not been answered yet: only the first bytes of an answer are a step."""

    def step(self, what: str) -> None:
        line = f"{os.getpid()} {what}".encode("ascii", "replace").replace(b"\n", b" ")[: WIDTH - 1]
        self.write(self.fd, line.ljust(WIDTH - 1) + b"\n")
        if self.at in (what, str(self.fstat(self.fd).st_size // WIDTH)):
            self.kill(os.getpid(), signal.SIGKILL)

    def hear(self, event: str, args: tuple[Any, ...]) -> None:
        """An audit hook."""
        if event == "open":
            path, _, flags = args
            if isinstance(flags, int) and flags & WRITING and not str(path).startswith(("/dev/", "/proc/")):
                self.step(f"open {_short(path)}")
        elif event in TOLD_BY_THE_INTERPRETER:
            self.step(f"{TOLD_BY_THE_INTERPRETER[event]} {_words(event, args)}")

    def install(self) -> None:
        for name in ("fsync", "pwrite", "write"):
            setattr(os, name, self._of_files(name, getattr(os, name)))
        if "subprocess" in sys.modules:
            self._watch_programs()
        if "socket" in sys.modules:
            self._watch_sockets()
        sys.addaudithook(self.hear)

    def _of_files(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def counted(fd: int, *args: Any) -> Any:
            if not stat.S_ISFIFO(self.fstat(fd).st_mode):
                self.step(name)
            return real(fd, *args)

        return counted

    def _watch_programs(self) -> None:
        """A program that has just been started goes on alone when its parent dies here."""
        popen = sys.modules["subprocess"].Popen
        real = popen.__init__

        def begin(self_: Any, *args: Any, **more: Any) -> None:
            real(self_, *args, **more)
            self.step("it runs")

        popen.__init__ = begin

    def _watch_sockets(self) -> None:
        kind = sys.modules["socket"].socket
        for name in ("send", "sendall", "recv", "recv_into"):
            setattr(kind, name, self._of_sockets(name, getattr(kind, name)))

    def _of_sockets(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def counted(sock: Any, *args: Any, **more: Any) -> Any:
            if name.startswith("send"):
                self.step(f"{name} {_first_line(args[0])}")
                self.waiting.add(sock.fileno())
            elif sock.fileno() in self.waiting:
                self.step(name)
                self.waiting.discard(sock.fileno())
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
    """Make this process mortal where its environment says so."""
    if env.get(TRACE):
        Mortality(env[TRACE], env.get(AT) or "").install()


if __name__ == "__main__":  # `mortal.py SCRIPT ARGS…`: a script of the standard library, made mortal
    import runpy

    del sys.argv[0]
    install_from(os.environ)
    runpy.run_path(sys.argv[0], run_name="__main__")
