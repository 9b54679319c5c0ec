"""Runs gremlins inside the test's own process: the real launcher, runner, stages, git and SDK, and the simulator on a
socket. The clock only moves when a gremlin sleeps; in place of becoming the waiter it moves the clock."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gremlins.clients.base import Wait
from gremlins.clients.registry import make_client
from gremlins.clock import FakeClock, no_jitter
from gremlins.config import BatchSettings
from gremlins.launcher import LaunchRequest, _make, new_id, prepare
from gremlins.paths import GremlinPaths, Home
from gremlins.processes.interrupt import Interrupt
from gremlins.processes.limited import RunLimited
from gremlins.processes.locks import GremlinLock
from gremlins.records.calls import CallRecord, Ledger
from gremlins.records.gremlin import Gremlin, Parked, Queued, Running, RunStore
from gremlins.runner import Run
from gremlins.simulator import Simulator
from tests.conftest import Repo

MOST_WAITS = 200


def run_in_this_process(module: str, order: Mapping[str, Any], **_: Any) -> Any:
    """The same work, without the start of a child: tests/processes/test_limited.py proves that."""
    return json.loads(json.dumps(importlib.import_module(module).work(json.loads(json.dumps(order)))))


@dataclass(repr=False)  # with its waits it grows beyond what a report of drawn examples may hold
class InProcessSandbox:
    """One repository, one state root, one simulator."""

    repo: Repo
    home: Home
    simulator: Simulator
    clock: FakeClock = field(default_factory=FakeClock)
    waits: list[Wait] = field(default_factory=list)
    run_limited: RunLimited = run_in_this_process

    @property
    def env(self) -> dict[str, str]:
        quick = {"GREMLINS_BATCH__RECONCILE_GRACE": "1", "GREMLINS_BATCH__RETRY_INITIAL": "1"}
        return {**os.environ, **self.simulator.env, **quick}

    def make(self, stages: str, task: str = "Do it.", env: Mapping[str, str] | None = None, **request: Any) -> str:
        """A gremlin with its worktree, not yet run. `stages` is a pipeline's YAML."""
        self.repo.write({".gremlins/pipelines/work.yaml": stages})
        env = {**self.env, **(env or {})}
        asked = LaunchRequest(pipeline="work", cwd=self.repo.path, task=task, **request)
        prepared = prepare(asked, self.home, env)
        store = RunStore(self.home, self.clock)
        gremlin_id = asked.gremlin_id or new_id(asked, self.home)
        with store.claim(gremlin_id) as lock:
            _make(prepared, gremlin_id, "uid-of-a-test", self.home, store, lock, self.clock)
        return gremlin_id

    def run(self, gremlin_id: str, env: Mapping[str, str] | None = None, waits: int = MOST_WAITS) -> Gremlin:
        """Run it to its end, or until it has waited so often."""
        paths = self.home.gremlin(gremlin_id)
        for _ in range(waits):
            with GremlinLock.acquire(paths.lock, "runner") as lock:
                run = self.process(gremlin_id, lock, env)
                with _exported({**self.env, **(env or {})}):
                    run.go()
                run.close()
            record = self.read(gremlin_id)
            if not isinstance(record.status, Parked | Running | Queued) or getattr(record.status, "reason", None):
                break
        return self.read(gremlin_id)

    def process(self, gremlin_id: str, lock: GremlinLock, env: Mapping[str, str] | None = None) -> Run:
        known = {**self.env, **(env or {})}
        return Run(
            self.home,
            gremlin_id,
            lock,
            self.clock,
            known,
            self._move_clock,
            make_client,
            Interrupt(),
            no_jitter,
            run_limited=self.run_limited,
        )

    def _move_clock(
        self, paths: GremlinPaths, wait: Wait, settings: BatchSettings, lock: GremlinLock, env: Mapping[str, str]
    ) -> None:
        self.waits.append(wait)
        seconds = max(0.0, (wait.until - self.clock.now()).total_seconds())
        self.clock.advance(seconds)
        self.simulator.advance(seconds)

    def read(self, gremlin_id: str) -> Gremlin:
        return RunStore(self.home, self.clock).read(gremlin_id)

    def calls(self, gremlin_id: str) -> list[CallRecord]:
        return Ledger(self.home.gremlin(gremlin_id)).records()

    def artifact(self, gremlin_id: str, name: str) -> str:
        return (self.home.gremlin(gremlin_id).artifacts / name).read_text()

    def worktree(self, gremlin_id: str) -> Path:
        return self.home.worktree(gremlin_id)

    def log(self, gremlin_id: str) -> str:
        return self.home.gremlin(gremlin_id).log.read_text()


class _exported:  # a context manager used like a function
    """Sets the variables that the SDK reads by itself."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self.env = {k: v for k, v in env.items() if k.startswith("ANTHROPIC_")}
        self.before: dict[str, str | None] = {}

    def __enter__(self) -> None:
        self.before = {name: os.environ.get(name) for name in self.env}
        os.environ.update(self.env)

    def __exit__(self, *_: object) -> None:
        for name, value in self.before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
