"""Starts a gremlin's process, detached in its own session, and hands it the gremlin's lock."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping

from gremlins.errors import GremlinsError
from gremlins.files import keeper_of
from gremlins.paths import GremlinPaths
from gremlins.processes.credentials import CREDENTIALS_FD_VARIABLE, hand_on, split
from gremlins.processes.locks import LOCK_FD_VARIABLE, GremlinLock


def spawn_runner(paths: GremlinPaths, lock: GremlinLock, env: Mapping[str, str]) -> int:
    """Start the runner with the lock and close our descriptor of it. Returns the pid. Raises GremlinsError.

    env: the environment of now, so that a rotated key reaches the runner. In a cluster a worker starts it: 0.
    """
    if (kept := keeper_of(paths.root)) is not None:
        kept[0].start()
        lock.release()
        return 0
    home = str(paths.root.parent.parent)  # absolute: the child has another working directory
    public, secret = split(env)
    credentials = hand_on(secret)
    ours = {"GREMLINS_HOME": home, LOCK_FD_VARIABLE: str(lock.fd), CREDENTIALS_FD_VARIABLE: str(credentials)}
    out = os.open(paths.output, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    lock.sign("runner", None)
    try:
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", "gremlins.runner", paths.root.name],
            cwd="/",
            env={**public, **ours},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            pass_fds=(lock.fd, credentials),
            start_new_session=True,
        )
    except OSError as error:
        raise GremlinsError(f"the process could not be started: {error.strerror}") from error
    finally:
        os.close(out)
        os.close(credentials)
    child.returncode = 0  # it outlives us: no warning that it was not reaped
    lock.release()
    return child.pid
