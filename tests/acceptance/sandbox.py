"""The machine of acceptance tests: a real repository, the installed command, and the simulator on a socket."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gremlins.clock import SystemClock
from gremlins.fleet.status import as_json, look
from gremlins.paths import Home
from gremlins.processes.children import holders
from gremlins.processes.locks import holder_of, work_lock_is_free
from gremlins.simulator import Simulator
from tests.conftest import Repo
from tests.time_limit import DEADLINE, wait_until


@dataclass(frozen=True)
class Ran:
    """The exit code and output of a command."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


@dataclass
class Sandbox:
    """A repository, a state root and the environment of one test. `env` is what the person has exported."""

    repo: Repo
    home: Path
    simulator: Simulator
    env: dict[str, str] = field(default_factory=dict)
    interpreter: str = sys.executable

    def __post_init__(self) -> None:
        self.env = {
            **os.environ,
            "GREMLINS_HOME": str(self.home),
            "ANTHROPIC_BASE_URL": self.simulator.url,
            "ANTHROPIC_API_KEY": self.simulator.key,
            "GREMLINS_BATCH__POLL_INITIAL": "0.1",
            "GREMLINS_BATCH__POLL_MAX": "0.3",
            "GREMLINS_BATCH__RETRY_INITIAL": "0.1",
            "GREMLINS_BATCH__RETRY_MAX": "0.3",
            "GREMLINS_BATCH__RECONCILE_GRACE": "0.3",
            "GREMLINS_SANDBOX__MODE": "off",  # commands of tests meet in files outside the worktree
            "PYTHONDONTWRITEBYTECODE": "1",
            **self.env,
        }

    def run(
        self, *words: str, env: Mapping[str, str] | None = None, cwd: Path | None = None, umask: int = 0o022
    ) -> Ran:
        """The installed command, in the person's repository."""
        done = subprocess.run(
            [self.interpreter, "-m", "gremlins", *words],
            cwd=cwd or self.repo.path,
            env={**self.env, **(env or {})},
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
            stdin=subprocess.DEVNULL,
            umask=umask,
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    def ok(self, *words: str, **more: Any) -> str:
        """Run a command that must succeed. Returns its output."""
        done = self.run(*words, **more)
        assert done.code == 0, f"gremlins {' '.join(words)}: {done.err}\n{self.logs()}"
        return done.out

    def pipeline(self, name: str, text: str) -> None:
        self.repo.write({f".gremlins/pipelines/{name}.yaml": text})

    def state(self, gremlin_id: str) -> dict[str, Any]:
        """Its object in `status --json`."""
        found = self.run("status", gremlin_id, "--json")
        assert found.code == 0, found.err
        return dict(found.json()[0])

    def life(self, gremlin_id: str) -> str:
        return str(self.state(gremlin_id)["liveness"]["state"])

    def peek(self, gremlin_id: str) -> dict[str, Any]:
        """The same object, read without starting a process."""
        return as_json(look(Home(self.home), gremlin_id, SystemClock()))

    def until(self, gremlin_id: str, *states: str) -> dict[str, Any]:
        """Wait until the gremlin is in one of these states. Returns its object in `status --json`."""
        seen: dict[str, Any] = {}

        def is_there() -> bool:
            seen.update(self.peek(gremlin_id))
            return seen["liveness"]["state"] in states

        self.wait_for(is_there, f"{gremlin_id} {' or '.join(states)}")
        return seen

    def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for something that a real process does."""
        wait_until(condition, what, self.logs)

    def kill(self, gremlin_id: str) -> None:
        """kill -9, and wait until the kernel has released its lock.

        A process that is just being replaced names its successor a moment later: the one that holds the lock is killed.
        """
        lock = self.home / "gremlins" / gremlin_id / "lock"
        killed: list[int] = []

        def is_dead() -> bool:
            holder = holder_of(lock)
            if holder is not None and holder.pid:
                killed.append(holder.pid)
                _kill(holder.pid)
            return holder is None and bool(killed)

        self.wait_for(is_dead, "its death")

    def artifact(self, gremlin_id: str, name: str) -> str:
        return (self.home / "gremlins" / gremlin_id / "artifacts" / name).read_text()

    def logs(self) -> str:
        """The logs of all gremlins, for the message of a failing test."""
        parts = []
        for folder in sorted((self.home / "gremlins").glob("*")):
            for name in ("log", "output"):
                if (folder / name).is_file():
                    parts.append(f"--- {folder.name}/{name}\n{(folder / name).read_text()[-3000:]}")
        return "\n".join(parts)

    def close(self) -> None:
        """End all processes that the test has left."""
        for folder in (self.home / "gremlins").glob("*"):
            self.wait_for(lambda folder=folder: _is_at_rest(folder), "the end of all processes")  # type: ignore[misc]


def _is_at_rest(folder: Path) -> bool:
    """Kill the gremlin's process and its commands. True once there are none; one that just starts has no pid yet."""
    holder = holder_of(folder / "lock")
    if holder is not None:
        if holder.pid:
            _kill(holder.pid)
        return False
    if work_lock_is_free(folder / "work.lock"):
        return True
    for pid in holders(folder / "work.lock"):
        _kill(pid)
    return False


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
