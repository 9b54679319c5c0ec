"""A project with quick settings and beads in it, and the dispatch loop as a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gremlins.clock import SystemClock
from gremlins.fleet.beads.store.interface import Query
from gremlins.fleet.beads.store.sqlite import SqliteStore
from gremlins.fleet.dispatch.locks import loop_lock, loop_pid
from gremlins.fleet.dispatch.observer import Observer
from gremlins.fleet.dispatch.policy import Policy
from gremlins.fleet.dispatch.view import bead_json, history_json, with_buckets
from gremlins.paths import Home
from tests.acceptance.sandbox import Sandbox
from tests.time_limit import DEADLINE

QUICK = """
[dispatch]
pipeline = "work"
interval = 0.5
backoff_initial = 0.001
backoff_max = 0.001
"""
"""Backoffs are over before the next command starts, however quick the machine is."""


def command(text: str) -> str:
    """A pipeline that runs one command."""
    return f"evidence: none\nstages:\n  - {{type: exec, name: work, cmds: ['{text}']}}\n"


PIPELINES = {
    "work": command("echo done"),
    "fails": command("echo the reason; exit 7"),
    "waits": command('until test -e "$MAY_END"; do sleep 0.05; done'),
    "hangs": command("sleep 600"),
    "dies": command("kill -9 $PPID"),
    "asks": "mode: batch\nevidence: none\nstages:\n  - plan\n  - {type: exec, name: work, cmds: ['true']}\n",
    "talks": "mode: batch\nstages:\n  - {type: agent, name: talk, prompt: .gremlins/talk.md}\n",
    "changes": command("echo new > new.txt && git add -A && git commit -qm new").replace("none", "commits"),
}


def settle_in(sandbox: Sandbox) -> Sandbox:
    """A repository with quick settings and a few pipelines, committed."""
    sandbox.env["MAY_END"] = str(sandbox.home.parent / "may-end")
    sandbox.repo.write({".gremlins/config.toml": QUICK, ".gremlins/talk.md": "Say something about it.\n"})
    for name, text in PIPELINES.items():
        sandbox.pipeline(name, f"name: {name}\n{text}")
    sandbox.repo.commit({}, "how we work")
    return sandbox


def let_end(sandbox: Sandbox) -> None:
    """The command of the pipeline `waits` may end now."""
    Path(sandbox.env["MAY_END"]).touch()


def create(sandbox: Sandbox, title: str, *more: str) -> str:
    return sandbox.ok("bead", "create", title, "--silent", *more).strip()


class Project(Observer):
    """Observes gremlins as `bead show --json` does."""

    def scopes(self) -> tuple[str, ...]:
        return ()

    def first_call_usd(self) -> float:
        return 0.0

    def fault(self) -> None:
        return None


def bead(sandbox: Sandbox, bead_id: str) -> dict[str, Any]:
    """The object of `bead show --json`, read without starting a process."""
    clock = SystemClock()
    with SqliteStore(sandbox.home / "beads.db") as store:
        found = store.bead(str(sandbox.repo.path), bead_id)
        assert found is not None
        sight = Project(Home(sandbox.home), clock, 360.0)
        [bucketed] = with_buckets(store, sight, str(sandbox.repo.path), Policy(), [found], clock.now().timestamp())
        shown = bead_json(bucketed)
        shown["gremlins"] |= history_json(bucketed, store.events(str(sandbox.repo.path), bead_id))
        return shown


def statuses(sandbox: Sandbox) -> dict[str, str]:
    """The status of each bead, read without starting a process."""
    with SqliteStore(sandbox.home / "beads.db") as store:
        return {found.id: found.status for found in store.beads(str(sandbox.repo.path), Query())}


def once(sandbox: Sandbox, *more: str, code: int = 0, **options: Any) -> dict[str, Any]:
    ran = sandbox.run("dispatch", "--once", "--json", *more, **options)
    assert ran.code == code, ran.err
    return dict(ran.json())


@dataclass
class LoopProcess:
    """`gremlins dispatch` at work. The process may be a fork client: signals go to the holder of the loop's lock."""

    sandbox: Sandbox
    process: subprocess.Popen[str]
    out: str = ""
    err: str = ""

    @property
    def pid(self) -> int | None:
        return loop_pid(loop_lock(Home(self.sandbox.home), str(self.sandbox.repo.path)))

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send the signal and wait for its end. Returns its exit code."""
        self.sandbox.wait_for(lambda: self.process.poll() is not None or self.pid is not None, "the loop")
        if (pid := self.pid) is not None:
            os.kill(pid, number)
        self.out, self.err = self.process.communicate(timeout=DEADLINE)
        return self.process.returncode


@contextmanager
def loop(sandbox: Sandbox, *more: str, env: Mapping[str, str] | None = None) -> Iterator[LoopProcess]:
    """The loop as a process of its own. Ended with SIGTERM if the test has not ended it."""
    process = subprocess.Popen(
        [sandbox.interpreter, "-m", "gremlins", "dispatch", *more],
        cwd=sandbox.repo.path,
        env={**sandbox.env, **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    running = LoopProcess(sandbox, process)
    try:
        yield running
    finally:
        if process.poll() is None:
            running.end()
