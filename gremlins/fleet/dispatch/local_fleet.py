"""The `Fleet` of this machine: gremlins of one state root, started by the launcher, ended by signals."""

from __future__ import annotations

import contextlib
import shutil
import signal
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from gremlins.clock import Clock
from gremlins.errors import MACHINE_TROUBLE, Conflict, GremlinsError, NotReady
from gremlins.fleet.catch_up import catch_up
from gremlins.fleet.dispatch.observation import (
    LandingBusy,
    LandingRefused,
    Missing,
    Observation,
    SpawnFailed,
    SpawnOrder,
)
from gremlins.fleet.dispatch.observer import Observer
from gremlins.fleet.dispatch.preflight import Readiness
from gremlins.fleet.dispatch.spending import Spending
from gremlins.fleet.land import land
from gremlins.fleet.rescue import rescue
from gremlins.fleet.start_point import StartPoint
from gremlins.fleet.stop import request_stop
from gremlins.launcher import start
from gremlins.outcome import FailureClass
from gremlins.paths import Home
from gremlins.processes.children import holders, signal_process
from gremlins.processes.ending import wait_for_end
from gremlins.processes.locks import GremlinLock, holder_of
from gremlins.repository.folder import remove
from gremlins.repository.git import Git, HostGitError
from gremlins.repository.landing import NothingToLand
from gremlins.repository.merging import MergeConflict
from gremlins.repository.worktree import Worktree, branch_name

WHO = "dispatch"
TREE_KEPT = 0.2
"""Seconds for which the state of the tree is cached, so that many beads of one tick cost one look."""


@dataclass
class LocalFleet:
    """Gremlins of one project. `env` is read at every spawn, so that a rotated key reaches the next agent."""

    home: Home
    project: Path
    clock: Clock
    env: Callable[[], Mapping[str, str]]
    readiness: Readiness
    observer: Observer
    interrupt_fd: int | None = None
    _tree: tuple[float, tuple[object, ...]] | None = None

    def observe(self, gremlin_id: str) -> Observation | None:
        return self.observer.observe(gremlin_id)

    def scopes(self) -> tuple[str, ...]:
        return self.readiness.scopes()

    def start_point(self, gremlin_ids: tuple[str, ...]) -> StartPoint:
        return self.observer.start_point(gremlin_ids)

    def spending(self) -> Spending:
        return self.observer.spending()

    def first_call_usd(self) -> float:
        return self.readiness.first_call_usd()

    def fault(self) -> str | None:
        return self.readiness.fault()

    def preflight(self, *, fresh: bool) -> Missing | None:
        return self.readiness.check(fresh=fresh)

    def spawn(self, order: SpawnOrder) -> None:
        """Make and start a gremlin. An existing one is left alone; one that was made halfway is made again."""
        try:
            if self._is_there(order.gremlin_id):
                return
            start(self.readiness.prepared(order), self.home, self.env(), self.clock)
        except (GremlinsError, OSError) as error:
            raise SpawnFailed(_sentence(error), failure_of(error)) from error

    def _is_there(self, gremlin_id: str) -> bool:
        paths = self.home.gremlin(gremlin_id)
        if not paths.root.exists():
            return False
        if paths.state.exists() or holder_of(paths.lock) is not None:
            return True
        # Its launcher died before it wrote the record, so no process has run.
        with GremlinLock.acquire(paths.lock, "keeper", clock=self.clock):
            branch = branch_name(gremlin_id)
            if (tip := Git(self.project).try_commit(f"refs/heads/{branch}")) is not None:
                remove(Worktree(self.project, self.home.worktree(gremlin_id), branch, tip), delete_branch=True)
            shutil.rmtree(paths.root)
        return False

    def rescue(self, gremlin_id: str) -> None:
        """Start a process for a gremlin that has none. One that runs by now is left alone."""
        try:
            rescue(self.home, gremlin_id, clock=self.clock, env=self.env(), follow_unseen=True)
        except (GremlinsError, OSError) as error:
            seen = self.observe(gremlin_id)
            if (
                isinstance(error, Conflict)
                and seen is not None
                and (seen.alive or seen.state in ("finished", "landed"))
            ):
                return
            raise SpawnFailed(_sentence(error), failure_of(error)) from error

    def terminate(self, gremlin_id: str, reason: str) -> None:
        with contextlib.suppress(GremlinsError, OSError):  # removed or damaged: the next tick sees that
            request_stop(self.home, gremlin_id, by=WHO, why=reason, clock=self.clock, env=self.env())

    def kill(self, gremlin_id: str) -> None:
        """Send SIGKILL to its process group and to the processes it left running in its worktree."""
        paths = self.home.gremlin(gremlin_id)
        holder = holder_of(paths.lock)
        pids = [holder.pid] if holder is not None and holder.role == "runner" and holder.pid else []
        for pid in [*pids, *holders(paths.work_lock)]:
            signal_process(pid, signal.SIGKILL)

    def landing_state(self, gremlin_id: str) -> object:
        git, now = Git(self.project), self.clock.monotonic()
        try:
            if self._tree is None or now - self._tree[0] > TREE_KEPT:
                self._tree = (now, (git.branch(), git.try_commit("HEAD"), tuple(git.uncommitted())))
            return (*self._tree[1], git.try_commit(f"refs/heads/{branch_name(gremlin_id)}"))
        except (GremlinsError, OSError):
            return None

    def land(self, gremlin_id: str) -> str:
        if holder_of(self.home.gremlin(gremlin_id).lock) is not None:
            raise LandingBusy(gremlin_id)
        try:
            done = land(self.home, gremlin_id, clock=self.clock)
        except NothingToLand as error:  # already landed, by another process or by hand
            return f"done by gremlin {gremlin_id}; {error.message}"
        except (GremlinsError, OSError) as error:
            seen = self.observe(gremlin_id)
            if seen is not None and seen.state == "landed":
                return f"done and landed by gremlin {gremlin_id}"
            hint = f" ({error.hint})" if isinstance(error, GremlinsError) and error.hint else ""
            raise LandingRefused(f"{_sentence(error)}{hint}", conflict=isinstance(error, MergeConflict)) from error
        return f"done by gremlin {gremlin_id}, landed on {done.target} as {done.sha[:12]}"

    def catch_up(self, gremlin_id: str) -> bool:
        try:
            return catch_up(self.home, gremlin_id, clock=self.clock)
        except (GremlinsError, OSError):  # another process has it, or the disk is full: the bead is held
            return False

    def wait(self, gremlin_ids: Collection[str], seconds: float) -> None:
        locks = [self.home.gremlin(gremlin_id).lock for gremlin_id in gremlin_ids]
        wait_for_end(locks, seconds, self.clock, self.interrupt_fd)


def failure_of(error: BaseException) -> FailureClass:
    """The failure class of a failed start, from the error's type and errno."""
    if isinstance(error, NotReady):
        return "config"
    if isinstance(error, HostGitError):
        return "host"
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in MACHINE_TROUBLE:
            return "host"
        cause = cause.__cause__
    return "start"


def _sentence(error: GremlinsError | OSError) -> str:
    return error.message if isinstance(error, GremlinsError) else f"{error.strerror or error}"
