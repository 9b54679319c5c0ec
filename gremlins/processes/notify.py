"""Telling a person: the command of the setting `notify`, called with one JSON document on its standard input.

It can neither block nor harm: it runs in a session of its own below a supervisor that kills it when it takes too long,
inherits no descriptor of ours and no credential, and nobody waits for it. This file is also that supervisor, run as a
script without site-packages; so it imports nothing but the standard library at its top.
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
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gremlins.records.gremlin import Gremlin

TIMEOUT = 30.0
"""Seconds a command may take before it and what it started are killed."""
START_TIMEOUT = 10.0
"""Seconds for the supervisor to detach itself; it takes hundredths of one."""
LONGEST = 4000
"""Characters of a text that are passed on."""


def notify(
    setting: Sequence[str] | str | None,
    event: Mapping[str, Any],
    env: Mapping[str, str],
    cwd: Path,
    *,
    timeout: float = TIMEOUT,
) -> None:
    """Call the command, a list as it is and a string in a shell, and leave it alone. Never raises for its sake."""
    from gremlins.processes.children import command_env  # not at the top: the supervisor cannot see the package

    if not setting:
        return
    argv = ["/bin/sh", "-c", setting] if isinstance(setting, str) else list(setting)
    with contextlib.suppress(OSError, ValueError, subprocess.TimeoutExpired), tempfile.TemporaryFile() as document:
        document.write(json.dumps(dict(event), ensure_ascii=False, default=str).encode() + b"\n")
        document.seek(0)
        supervisor = subprocess.Popen(
            [sys.executable, "-I", "-S", str(Path(__file__)), str(timeout), *argv],
            cwd=cwd if cwd.is_dir() else "/",
            env=command_env(env),
            stdin=document,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        supervisor.wait(START_TIMEOUT)  # only until it has forked: so it is never a zombie of a dispatcher's


def event_of(record: Gremlin, at: datetime) -> dict[str, Any] | None:
    """What a person is told of how a gremlin has ended; None where there is nothing to tell.

    `event` is finished, bailed, dead or detached (its batch is outstanding, and it takes a person to go on).
    """
    from msgspec.structs import asdict

    from gremlins.clock import rfc3339
    from gremlins.records.gremlin import Bailed, FailedGremlin, Finished, Interrupted, Parked

    status = record.status
    match status:
        case Finished():
            kind, reason = "finished", ""
        case Bailed():
            kind, reason = "bailed", f"{status.kind}: {status.detail}"
        case FailedGremlin():
            kind, reason = "dead", status.reason
        case Interrupted():
            kind, reason = "dead", f"ended by {status.signal}"
        case Parked() if status.failure is not None:
            kind, reason = "detached", status.reason or ""
        case _:
            return None
    return {
        "event": kind,
        "gremlin": record.id,
        "id": record.id,
        "title": record.title,
        "pipeline": record.pipeline,
        "project": record.project,
        "branch": record.branch,
        "bead": record.bead_id,
        "stage": record.stage,
        "reason": reason[:LONGEST] or None,
        "exit_code": status.exit_code if isinstance(status, FailedGremlin) else None,
        "cost": asdict(record.cost),
        "at": rfc3339(at),
    }


def supervise(timeout: float, argv: Sequence[str]) -> None:
    """Step out of the caller's sight, run the command, and end it with all it started when its time is up."""
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
