"""Starting a gremlin's process: detached, in a session of its own, with its lock already in its hands."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping

from gremlins.errors import GremlinsError
from gremlins.paths import GremlinPaths
from gremlins.processes.locks import LOCK_FD_VARIABLE, GremlinLock


def spawn_runner(paths: GremlinPaths, lock: GremlinLock, env: Mapping[str, str]) -> int:
    """Start the runner and hand it the lock; our own copy is closed. Returns the pid.

    The environment is the caller's of this moment, so that a rotated key reaches it. Raises GremlinsError.
    """
    home = str(paths.root.parent.parent)  # ours may have been relative, and the child starts elsewhere
    child_env = {**env, "GREMLINS_HOME": home, LOCK_FD_VARIABLE: str(lock.fd)}
    out = os.open(paths.output, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    lock.sign("runner", None)
    try:
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", "gremlins.runner", paths.root.name],
            cwd="/",
            env=child_env,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            pass_fds=(lock.fd,),
            start_new_session=True,
        )
    except OSError as error:
        raise GremlinsError(f"the process could not be started: {error.strerror}") from error
    finally:
        os.close(out)
    child.returncode = 0  # it outlives us on purpose; nobody here waits for it
    lock.release()
    return child.pid
