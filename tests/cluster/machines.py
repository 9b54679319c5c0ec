"""Hosts of a cluster on one machine: each has a state root, a clone and a worker of its own. For tests, demo and bench.

A host that goes off loses every process at once. What it shares with the others is the database and the remote.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from gremlins.clock import SystemClock
from gremlins.fleet.status import as_json, look, survey
from gremlins.paths import Home
from gremlins.simulator import Simulator
from tests.acceptance.sandbox import Ran
from tests.conftest import Repo
from tests.time_limit import DEADLINE, wait_until


def soak(test: Callable[..., None]) -> Any:
    """Leave a long test to `make soak`."""
    in_it = pytest.mark.skipif("GREMLINS_SOAK" not in os.environ, reason="long: `make soak` runs it")
    return pytest.mark.soak(in_it(test))


PROMPT = ".gremlins/prompts/summary.md"
ASK = f"evidence: none\nstages:\n  - {{type: agent, name: summary, prompt: {PROMPT}, mode: batch}}\n"
QUICK = {
    "GREMLINS_BATCH__POLL_INITIAL": "0.2",
    "GREMLINS_BATCH__POLL_MAX": "0.5",
    "GREMLINS_BATCH__RETRY_INITIAL": "0.2",
    "GREMLINS_BATCH__RETRY_MAX": "0.5",
    "GREMLINS_BATCH__RECONCILE_GRACE": "0.3",
    "GREMLINS_SANDBOX__MODE": "off",
    "PYTHONDONTWRITEBYTECODE": "1",
}


@dataclass
class Machine:
    """One host. `prefix`: words before each command, to run it elsewhere than here. `python` runs its commands."""

    name: str
    place: Path
    repo: Repo
    env: dict[str, str]
    prefix: tuple[str, ...] = ()
    python: str = sys.executable
    worker: subprocess.Popen[bytes] | None = None

    def run(self, *words: str, env: Mapping[str, str] | None = None) -> Ran:
        """The installed command, in the clone of this host."""
        done = subprocess.run(
            [*self.prefix, self.python, "-m", "gremlins", *words],
            cwd=self.repo.path, env={**self.env, **(env or {})}, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, check=False, timeout=DEADLINE,
        )  # fmt: skip
        return Ran(done.returncode, done.stdout, done.stderr)

    def ok(self, *words: str, env: Mapping[str, str] | None = None) -> str:
        done = self.run(*words, env=env)
        assert done.code == 0, f"{self.name}: gremlins {' '.join(words)}: {done.err}\n{self.said()}"
        return done.out

    def states(self) -> dict[str, str]:
        """The liveness of every gremlin, as this host sees it."""
        found = survey(Home.from_env(self.env), SystemClock(), everything=True, hidden=frozenset())
        return {row.record.id: row.life.state for row in found.rows}

    def show(self, gremlin_id: str) -> dict[str, Any]:
        """Its object in `status --json`."""
        return as_json(look(Home.from_env(self.env), gremlin_id, SystemClock()))

    # --- its worker

    def work(self, *words: str, python: str = sys.executable) -> None:
        """Start its worker. Forks of a server, by `python`, are not among its `processes`: then it only ends."""
        assert self.worker is None or self.worker.poll() is not None
        with (self.place / "worker.log").open("ab") as log:
            self.worker = subprocess.Popen(
                [*self.prefix, python, "-m", "gremlins", "worker", *words],
                cwd=self.repo.path, env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip

    def processes(self) -> list[psutil.Process]:
        """Its worker and all that this has started."""
        with suppress(psutil.NoSuchProcess):
            if self.worker is not None and self.worker.poll() is None:
                own = psutil.Process(self.worker.pid)
                return [own, *own.children(recursive=True)]
        return []

    def freeze(self) -> None:
        """SIGSTOP, as a virtual machine that is paused."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def go_off(self) -> None:
        """SIGKILL to everything at once: the power is off."""
        frozen = self.processes()
        self.freeze()
        for process in {*frozen, *self.processes()}:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._gone()

    def end(self) -> None:
        """SIGTERM to its worker, as systemd does, and wait."""
        if self.worker is not None and self.worker.poll() is None:
            self.worker.terminate()
            self._gone()

    def _gone(self) -> None:
        if self.worker is not None:
            self.worker.wait(DEADLINE)

    def _signal(self, number: signal.Signals) -> None:
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def said(self) -> str:
        """The end of its worker's output, for the message of a failure."""
        logs = [self.place / "worker.log", *self.place.glob("state/cluster/gremlins/*/log")]
        logs += self.place.glob("state/cluster/gremlins/*/output")
        texts = ((log, log.read_text(errors="replace")[-3000:]) for log in logs if log.exists())
        return "\n".join(f"--- {log.relative_to(self.place.parent)}\n{text}" for log, text in texts)


@dataclass
class Cluster:
    """Hosts that share a database, a remote and the API."""

    place: Path
    url: str
    simulator: Simulator
    env: dict[str, str] = field(default_factory=dict)
    python: str = sys.executable
    machines: list[Machine] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.remote = Repo(self.place / "remote.git")
        self.remote.path.mkdir(parents=True)
        self.remote.git("init", "--quiet", "--bare", "--initial-branch=main", ".")

    def found(self, files: Mapping[str, str], **pipelines: str) -> None:
        """The project's first commit, on the remote."""
        seed = Repo(self.place / "seed")
        seed.path.mkdir()
        seed.git("init", "--quiet", "--initial-branch=main")
        more = {f".gremlins/pipelines/{name}.yaml": text for name, text in pipelines.items()}
        seed.commit({PROMPT: "Say in one line what this project does.\n", **files, **more}, "first")
        seed.git("push", "--quiet", str(self.remote.path), "main")

    def machine(self, name: str, **env: str) -> Machine:
        """A new host, with a clone of its own."""
        place = self.place / name
        repo = Repo(place / "clone")
        repo.path.mkdir(parents=True)
        repo.git("clone", "--quiet", self.remote.path.as_uri(), ".")
        own = {
            **{key: value for key, value in os.environ.items() if not key.startswith("GREMLINS_")},
            **QUICK,
            "GREMLINS_HOME": str(place / "state"),
            "GREMLINS_CLUSTER__URL": self.url,
            **self.simulator.env,
            **self.env,
            **env,
        }
        made = Machine(name, place, repo, own, python=self.python)
        if not self.machines:
            made.ok("cluster", "init")
        made.ok("trust")
        self.machines.append(made)
        return made

    def until(self, condition: Callable[[], bool], what: str) -> None:
        wait_until(condition, what, lambda: "\n".join(machine.said() for machine in self.machines))

    def end(self) -> None:
        """End every process of every host."""
        for machine in self.machines:
            machine.thaw()
            machine.go_off()
