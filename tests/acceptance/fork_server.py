"""Runs the installed command without its start-up: a server has imported everything, and each process is a fork of it.
Locks, signals and deaths are real; a process costs a tenth.

What the product starts as `sys.executable` is a few lines of shell that hand argv, environment and open files to the
server. The waiter is not forked: it is a fresh interpreter as always.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import importlib
import marshal
import os
import select
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from gremlins.clients.registry import known_providers
from gremlins.masking import find_secrets
from tests import kill_points

HERE = Path(__file__).parent
PRELOADED = (
    "anthropic",
    "ctypes",
    "encodings.idna",
    "genai_prices.data",
    "genai_prices.decompose",
    "genai_prices.validation",
    "importlib.readers",
    "typer._adapters",
    "yaml",
    "gremlins.runner",
    "gremlins.cli.main",
    "gremlins.cli.app",
    "gremlins.cli.bead.app",
    "gremlins.cli.ack",
    "gremlins.cli.clean",
    "gremlins.cli.cost",
    "gremlins.cli.fleet_view",
    "gremlins.cli.land",
    "gremlins.cli.log",
    "gremlins.cli.pipelines",
    "gremlins.cli.rescue",
    "gremlins.cli.rm",
    "gremlins.cli.stop",
    "gremlins.cli.dispatch.app",
    "gremlins.cli.launch",
    "gremlins.clients.batch.shared_poll",
    "gremlins.clients.claude",
    "gremlins.clients.live.claude_code",
    "gremlins.clients.live.engine",
    "gremlins.fleet.land",
    "gremlins.fleet.rescue",
    "gremlins.records.prices",
    "gremlins.records.claims",
    "gremlins.clients.batch.stopping",
    "gremlins.processes.limited",
    "gremlins.stages.context.aside",
    "gremlins.stages.table",
)
CLUSTER = (
    "gremlins.cli.cluster.app",
    "gremlins.cli.worker",
    "gremlins.cluster.database",
    "gremlins.cluster.hands",
    "gremlins.cluster.overview",
    "gremlins.fleet.adopt",
    "gremlins.worker.engine",
    "gremlins.worker.step",
    "gremlins.worker.tasks",
)
HIGH = 300
"""Descriptors are put aside above this number before they take their places."""


@dataclass
class ForkServer:
    """The process that all others are forked from. `python` takes the interpreter's place."""

    process: subprocess.Popen[bytes]
    python: str

    @classmethod
    def start(cls, folder: Path, *, runners_python: str | None = None) -> ForkServer:
        """`runners_python`: the interpreter of a gremlin's process; the bench measures what it becomes."""
        socket_path, python = folder / "socket_path", folder / "python"
        real = f"{_quoted(sys.executable)} -I -S"
        python.write_text(
            "#!/bin/sh\n"
            f'case "$*" in *waiter.py*) shift 2; exec {real} {_quoted(kill_points.__file__)} "$@";; esac\n'
            f'exec {real} {_quoted(str(HERE / "fork_client.py"))} {_quoted(str(socket_path))} "$@"\n'
        )
        python.chmod(0o755)
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.acceptance.fork_server",
                str(socket_path),
                str(python),
                runners_python or str(python),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=HERE.parents[1],
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        return cls(process, str(python))

    def close(self) -> None:
        """End the server and all processes forked from it."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(60)
        finally:
            self.process.kill()
        assert self.process.stdout is not None
        self.process.stdout.close()


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


# ── the server ────────────────────────────────────────────────────────────────────────────────────────────


class _Server:
    def __init__(self, socket_path: str, python: str, runners_python: str) -> None:
        self.pythons = {"gremlins.runner": runners_python}
        self.python = python
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(socket_path)
        self.listener.listen(64)
        self.children: dict[int, socket.socket] = {}
        self.read_end, write_end = os.pipe()
        os.set_blocking(self.read_end, False)
        os.set_blocking(write_end, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)

    def serve(self) -> None:
        """Serve until standard input is closed."""
        while True:
            ready, _, _ = select.select([self.listener, self.read_end, 0, *self.children.values()], [], [])
            for pid, line in self.children.items():
                if line in ready:  # its client was killed
                    os.kill(pid, signal.SIGKILL)
            if self.read_end in ready:
                os.read(self.read_end, 4096)
                self.report_ends()
            if self.listener in ready:
                self.fork(self.listener.accept()[0])
            if 0 in ready:
                break
        for pid in self.children:
            os.kill(pid, signal.SIGKILL)

    def report_ends(self) -> None:
        while self.children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            with self.children.pop(pid) as line, contextlib.suppress(OSError):
                line.sendall(str(status).encode())

    def fork(self, client: socket.socket) -> None:
        data, fds, _, _ = socket.recv_fds(client, 65536, 64)
        while len(data) < 8 + int.from_bytes(data[:8], "big"):
            more = client.recv(65536)
            if not more:  # the client was killed before it had ordered anything
                client.close()
                break
            data += more
        else:
            self._fork(client, marshal.loads(data[8:]), fds)
        for fd in fds:
            os.close(fd)

    def _fork(self, client: socket.socket, order: dict[str, Any], fds: list[int]) -> None:
        pid = os.fork()
        if pid == 0:
            for other in (client, self.listener, *self.children.values()):
                other.close()
            python = next((self.pythons[word] for word in order["words"] if word in self.pythons), self.python)
            _become(order, fds, python)
        self.children[pid] = client


def _become(order: dict[str, Any], fds: list[int], python: str) -> NoReturn:
    """In the child: take the place of the process that was ordered."""
    code = 70
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        aside = [fcntl.fcntl(fd, fcntl.F_DUPFD, HIGH) for fd in fds]
        for fd in fds:
            os.close(fd)
        for fd, number in zip(aside, order["fds"], strict=True):
            os.dup2(fd, number, inheritable=True)
            os.close(fd)
        os.setsid()
        os.chdir(order["cwd"])
        os.umask(order["umask"])
        os.environ.clear()
        os.environ.update(order["env"])
        sys.stdout = os.fdopen(1, "w", closefd=False)
        sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
        sys.executable = python
        code = _run(order["words"])
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else 1
    except BaseException:  # noqa: BLE001 # the last thing this process does is to say what went wrong
        sys.excepthook(*sys.exc_info())
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _run(words: list[str]) -> int:
    while words[0] != "-m":
        words = words[1:]
    _, module, *rest = words
    sys.argv = [module, *rest]
    kill_points.install_from(os.environ)
    if module == "gremlins":
        return int(importlib.import_module("gremlins.cli.main").run(rest))
    return int(importlib.import_module(module).main(rest))


def main(socket_path: str, python: str, runners_python: str) -> None:
    for name in PRELOADED:
        importlib.import_module(name)
    with contextlib.suppress(ImportError):  # the extra `cluster`
        for name in CLUSTER:
            importlib.import_module(name)
    find_secrets("")  # reads its rules
    known_providers()  # looks at every installed package
    server = _Server(socket_path, python, runners_python)
    gc.collect()
    gc.freeze()
    os.write(1, b"ready\n")
    server.serve()


if __name__ == "__main__":
    main(*sys.argv[1:])
