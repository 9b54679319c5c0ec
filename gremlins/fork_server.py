"""Forks runners for a crowd of gremlins that wake up at once. It has imported everything, so none of them has to.

A waiter that finds every turn taken starts it, and it ends by itself soon after the crowd has gone. The waiter hands
its descriptors and variables over; the fork goes on in its place. Linux only.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
from pathlib import Path
from typing import Any, NoReturn

from gremlins import runner
from gremlins.clients.batch.waiter import HANDOVER_PATIENCE, surroundings
from gremlins.processes.children import close_memory
from gremlins.processes.interrupt import SIGNALS

LATER = ("anthropic", "genai_prices", "gremlins.clients.claude", "gremlins.clients.registry", "gremlins.records.claims")
"""Modules that a runner imports when it needs them."""
IDLE = 10.0
"""Seconds without an order after which it ends."""
LARGEST_ORDER = 1 << 20
DESCRIPTORS = 16


def main(argv: list[str]) -> int:
    """`fork_server FOLDER LOCK_FD`: serve until nothing comes any more. The lock says that it is there."""
    folder, lock = Path(argv[0]), int(argv[1])
    _close_all_but({lock})
    os.set_inheritable(lock, False)
    close_memory()
    for module in LATER:
        importlib.import_module(module)
    at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    with contextlib.suppress(FileNotFoundError):
        os.unlink("fork_server", dir_fd=at)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(f"/proc/self/fd/{at}/fork_server")
        listener.listen(128)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel clears its forks away
        gc.collect()
        gc.freeze()
        serve(listener, [sys.executable, "-P", "-m", "gremlins.runner"])
    return 0


def _close_all_but(kept: set[int]) -> None:
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) not in kept:
            with contextlib.suppress(OSError):  # the listing itself
                os.close(int(name))


def serve(listener: socket.socket, argv: list[str]) -> None:
    """Fork a runner for each order that could have come from a process like this one."""
    here = json.loads(json.dumps(surroundings()))
    while select.select([listener], [], [], IDLE)[0]:
        line = listener.accept()[0]
        line.settimeout(HANDOVER_PATIENCE)
        fds: list[int] = []
        with line, contextlib.suppress(OSError, ValueError, LookupError, TypeError):
            data, fds, _, _ = socket.recv_fds(line, LARGEST_ORDER, DESCRIPTORS)
            order = json.loads(data)
            if order["argv"][:-1] == argv and order["at"] == here and len(fds) == 3 + len(order["names"]):
                _fork(line, order, fds)
        for fd in fds:
            os.close(fd)


def _fork(line: socket.socket, order: dict[str, Any], fds: list[int]) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # the runner lets them in once it handles them
    if os.fork() == 0:
        _become(line, order, fds)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def _become(line: socket.socket, order: dict[str, Any], fds: list[int]) -> NoReturn:
    """In the fork: take the waiter's place, once it has said so, and run."""
    code = 1
    try:
        _close_all_but({line.fileno(), *fds})
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        for number, fd in enumerate(fds[:3]):
            os.dup2(fd, number)
            os.close(fd)
        os.environ.clear()
        os.environ.update(order["env"], **dict(zip(order["names"], map(str, fds[3:]), strict=True)))
        line.send(str(os.getpid()).encode())
        if line.recv(8) == b"go":
            line.close()
            code = runner.main(order["argv"][-1:])
    except BaseException:  # noqa: BLE001 # the last handler of this process
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
