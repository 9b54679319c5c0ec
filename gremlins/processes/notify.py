"""Runs the command of the setting `notify`, with one JSON document on its standard input.

The command runs in its own session below a supervisor that kills it after a timeout. It inherits no descriptor and no
credential, and no process waits for it. This file is also the supervisor, run as a script without site-packages; so
it imports only the standard library at its top.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

TIMEOUT = 30.0
"""Seconds a command may take before it and what it started are killed."""
START_TIMEOUT = 10.0
"""Seconds for the supervisor to detach; it takes some 10 ms."""


def notify(
    setting: Sequence[str] | str | None,
    event: Mapping[str, Any],
    env: Mapping[str, str],
    cwd: Path,
    *,
    timeout: float = TIMEOUT,
) -> None:
    """Start the command (a list directly, a string in a shell) and return. A command that cannot run is ignored."""
    # Not at the top: the supervisor cannot see the package.
    from gremlins.processes.children import close_memory, command_env

    if not setting:
        return
    argv = ["/bin/sh", "-c", setting] if isinstance(setting, str) else list(setting)
    with contextlib.suppress(OSError, ValueError, subprocess.TimeoutExpired), tempfile.TemporaryFile() as document:
        document.write(json.dumps(dict(event), ensure_ascii=False, default=str).encode() + b"\n")
        document.seek(0)
        close_memory()
        supervisor = subprocess.Popen(
            [sys.executable, "-I", "-S", str(Path(__file__)), str(timeout), *argv],
            cwd=cwd if cwd.is_dir() else "/",
            env=command_env(env),
            stdin=document,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        supervisor.wait(START_TIMEOUT)  # until it has forked, so that it is never our zombie


def supervise(timeout: float, argv: Sequence[str]) -> None:
    """Detach from the caller, run the command, and kill its whole group after `timeout` seconds."""
    if os.fork():
        os._exit(0)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    with contextlib.suppress(OSError):
        child = subprocess.Popen(argv, start_new_session=True)
        try:
            child.wait(timeout)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()


if __name__ == "__main__":
    supervise(float(sys.argv[1]), sys.argv[2:])
