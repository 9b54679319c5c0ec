"""The ticks of dispatching that a worker runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from gremlins.clock import Clock, SystemClock
from gremlins.cluster import ticks
from gremlins.cluster.database import ClusterDb
from gremlins.cluster.documents import FencedOut
from gremlins.cluster.ticks import Dispatching
from gremlins.errors import GremlinsError
from gremlins.fleet.dispatch.cluster_tick import ProjectTicks, policy_of, said_of
from gremlins.paths import Home
from gremlins.pipeline.freezing import FrozenLaunch
from gremlins.repository.remote_work import mirror

AGAIN = 30.0
"""Seconds until the next tick, after one that ended in an error."""


@dataclass
class Ticks:
    """Runs ticks. Between two of them a project's connections are kept, while its launch stays the same."""

    home: Home
    env: Mapping[str, str]
    host: str
    stale: float
    warn: Callable[[str], None]
    clock: Clock = field(default_factory=SystemClock)
    _made: dict[str, tuple[Dispatching, ProjectTicks]] = field(default_factory=dict)

    def run(self, db: ClusterDb, project: str, worker: int) -> None:
        """Does nothing where the tick is not due, or another one is under way."""
        taken = ticks.take(db, project, host=self.host, worker=worker, stale=self.stale)
        known = ticks.look(db, project)
        if taken is None or known is None:
            return
        seconds, said = AGAIN, None
        try:
            of_project = self._of_project(known)
            said = said_of(of_project.tick(taken))
            seconds = of_project.policy.interval
        except FencedOut as error:
            self.warn(str(error))
        except (GremlinsError, OSError) as error:
            said = str(error)
            self.warn(f"a tick of {project}: {error}")
        ticks.end(db, taken, seconds=seconds, said=said)

    def close(self) -> None:
        for _, of_project in self._made.values():
            of_project.close()

    def _of_project(self, known: Dispatching) -> ProjectTicks:
        before = self._made.get(known.project)
        if before is not None:
            if (before[0].launch, before[0].options) == (known.launch, known.options):
                return before[1]
            before[1].close()
        assert known.launch is not None
        place = mirror(self.home, known.remote, sha256_objects=known.sha256)
        launch = FrozenLaunch.model_validate_json(known.launch)
        made = ProjectTicks(self.home, known.project, place, launch, policy_of(known), self.env, self.clock)
        self._made[known.project] = (known, made)
        return made
