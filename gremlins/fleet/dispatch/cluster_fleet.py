"""The `Fleet` of a cluster, as a tick on one of its hosts sees it: rows that workers take, commits on the remote."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cached_property

from gremlins.cluster import rows
from gremlins.cluster.database import ClusterAway
from gremlins.config import LoadedSettings
from gremlins.errors import GremlinsError
from gremlins.fleet.dispatch.cluster_observer import BranchOnRemote, ClusterObserver
from gremlins.fleet.dispatch.local_fleet import LocalFleet
from gremlins.fleet.dispatch.observation import LandingRefused, SpawnFailed, SpawnOrder
from gremlins.fleet.dispatch.policy import Policy
from gremlins.fleet.dispatch.preflight import Readiness
from gremlins.fleet.start_point import StartPoint, merged
from gremlins.launcher import LaunchRequest, Prepared
from gremlins.pipeline.freezing import FrozenLaunch
from gremlins.processes.locks import GremlinLock
from gremlins.records.gremlin import Landed, Mode
from gremlins.repository.git import Git, Sha
from gremlins.repository.merging import holds
from gremlins.repository.remote_work import RemoteTrouble, fetch_head, fetch_work
from gremlins.stages.spec import AgentStage, walk


@dataclass
class FrozenReadiness(Readiness):
    """Prepares launches from a pipeline and settings that a person has said: no working tree is asked. `project` is
    this host's mirror."""

    launched: FrozenLaunch = field(kw_only=True)

    def _asking(self, policy: Policy) -> list[AgentStage]:
        return [spec for _, spec in walk(self.launched.pipeline.stages) if isinstance(spec, AgentStage)]

    def _prepare(self, pipeline: str, mode: str | None) -> Prepared:
        request = LaunchRequest(pipeline=pipeline, cwd=self.project, task="a bead", mode=_mode(mode))
        loaded = LoadedSettings(self.launched.settings, {})
        return Prepared(request, self.project, self.project, loaded, self.launched.pipeline)


def _mode(mode: str | None) -> Mode | None:
    return "batch" if mode == "batch" else "live" if mode == "live" else None


@dataclass
class ClusterFleet(LocalFleet):
    """Gremlins of one project. `project` is this host's mirror. One object is of one tick: the remote is asked once."""

    observer: ClusterObserver

    @cached_property
    def head(self) -> Sha:
        return fetch_head(Git(self.project))

    def start_point(self, gremlin_ids: tuple[str, ...]) -> StartPoint:
        """At the branch of the remote, with what has not landed merged in. What has landed must be there."""
        found = [branch for name in gremlin_ids if (branch := self.observer.branch_of(name)) is not None]
        try:
            return self._after(found)
        except (GremlinsError, OSError) as error:
            return StartPoint(conflict=str(error))

    def _after(self, found: Collection[BranchOnRemote]) -> StartPoint:
        git, head = Git(self.project), self.head
        branches = []
        for each in found:
            status = each.record.status
            if isinstance(status, Landed):
                if (sha := git.try_commit(status.sha)) is None or not git.is_ancestor(sha, head):
                    why = f"{each.record.id} has landed as {status.sha[:12]}, which is not on the remote yet"
                    return StartPoint(None, (each.record.id,), f"{why}: `git push`")
                continue
            fetch_work(git, each.work)
            if not holds(git, head, git.commit(each.tip), git.commit(each.record.base)):
                branches.append((each.record, each.tip))
        done = merged(git, head, branches)
        return done if branches else StartPoint(head)

    def spawn(self, order: SpawnOrder) -> None:
        try:
            super().spawn(order)
        except SpawnFailed as error:
            raise _of_the_host(error) from error

    def rescue(self, gremlin_id: str) -> None:
        try:
            super().rescue(gremlin_id)
        except SpawnFailed as error:
            raise _of_the_host(error) from error

    def _is_there(self, gremlin_id: str) -> bool:
        if self.observer.observe(gremlin_id) is not None:
            return True
        paths = self.home.gremlin(gremlin_id)
        if paths.root.exists():  # its launch was killed before the record was written: another begins
            with GremlinLock.acquire(paths.lock, "keeper", clock=self.clock):
                shutil.rmtree(paths.root)
        return False

    def kill(self, gremlin_id: str) -> None:
        rows.take_away(self.observer.db, gremlin_id)

    def landing_state(self, gremlin_id: str) -> object:
        return None

    def land(self, gremlin_id: str) -> str:
        raise LandingRefused("a worker has no clone to land in")

    def catch_up(self, gremlin_id: str) -> bool:
        return False


def _of_the_host(error: SpawnFailed) -> SpawnFailed:
    """A remote or a database that is away is no fault of the bead's."""
    away = isinstance(error.__cause__, RemoteTrouble | ClusterAway)
    return SpawnFailed(error.reason, "host") if away else error
