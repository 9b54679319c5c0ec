"""A tick of dispatching in a cluster: of a worker, or of a person, one at a time for a project."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from gremlins.clock import Clock
from gremlins.cluster import ticks
from gremlins.cluster.hands import open_patiently
from gremlins.cluster.ticks import Dispatching, TakenTick
from gremlins.config import LoadedSettings
from gremlins.errors import NotFound, NotReady
from gremlins.fleet.beads.bead import task_of
from gremlins.fleet.beads.store.postgres import PostgresStore
from gremlins.fleet.dispatch.cluster_fleet import ClusterFleet, FrozenReadiness
from gremlins.fleet.dispatch.cluster_observer import ClusterObserver
from gremlins.fleet.dispatch.policy import Policy
from gremlins.fleet.dispatch.tick import Dispatcher, LoopEvent, TickReport
from gremlins.paths import Home
from gremlins.pipeline.freezing import FrozenLaunch
from gremlins.processes.notify import notify


@dataclass
class DatabaseClock:
    """The clock of this host, set by the database's: ticks of several hosts have one time."""

    host: Clock
    ahead: timedelta = timedelta()

    def set_by(self, there: datetime) -> None:
        self.ahead = there - self.host.now()

    def now(self) -> datetime:
        return self.host.now() + self.ahead

    def monotonic(self) -> float:
        return self.host.monotonic()

    def sleep(self, seconds: float) -> None:
        self.host.sleep(seconds)


@dataclass
class ProjectTicks:
    """The ticks of one project that one process runs, of one launch. For one thread at a time."""

    home: Home
    project: str
    mirror: Path
    """This host's clone of it."""
    launch: FrozenLaunch
    policy: Policy
    env: Mapping[str, str]
    host_clock: Clock
    say: Callable[[LoopEvent], None] = lambda event: None
    store: PostgresStore = field(init=False)
    readiness: FrozenReadiness = field(init=False)
    dispatcher: Dispatcher = field(init=False)

    def __post_init__(self) -> None:
        self.clock = DatabaseClock(self.host_clock)
        self.store = PostgresStore(open_patiently(self.home))
        loaded = LoadedSettings(self.launch.settings, {})
        self.readiness = FrozenReadiness(
            self.home, self.mirror, self.clock, lambda: self.env, lambda: loaded, lambda: self.policy,
            launched=self.launch,
        )  # fmt: skip
        self.observer = ClusterObserver(self.home, self.clock, self.launch.settings.live.idle_timeout)
        self.dispatcher = Dispatcher(
            self.store,
            self._fleet(),
            self.clock,
            self.project,
            lambda: self.policy,
            task=self._task,
            tell=lambda notice: notify(self.policy.notify, notice.payload, self.env, self.mirror),
            say=self.say,
        )

    def tick(self, taken: TakenTick, *, everything: bool = False) -> TickReport:
        """Raises FencedOut where another tick was taken meanwhile; then this one has changed nothing since."""
        self.store.db.guard = partial(ticks.keep, tick=taken)
        self.clock.set_by(self.store.db.value("SELECT now()").astimezone(UTC))
        self.dispatcher.fleet = self._fleet()
        return self.dispatcher.tick(everything=everything)

    def close(self) -> None:
        self.store.close()
        self.observer.close()

    def _fleet(self) -> ClusterFleet:
        return ClusterFleet(self.home, self.mirror, self.clock, lambda: self.env, self.readiness, self.observer)

    def _task(self, bead_id: str) -> tuple[str, str]:
        bead = self.store.bead(self.project, bead_id)
        if bead is None:
            raise NotFound(f"no bead `{bead_id}`")
        return bead.issue.title, task_of(bead.issue)


def policy_of(known: Dispatching, **options: object) -> Policy:
    """The policy that the workers dispatch a project by, overridden by options that are not None."""
    assert known.launch is not None
    settings = FrozenLaunch.model_validate_json(known.launch).settings
    given = {name: value for name, value in options.items() if value is not None}
    return Policy.of(settings, **{**json.loads(known.options), **given})


def refuse_landing(policy: Policy) -> None:
    """Raises NotReady where work is to land before its bead closes."""
    if policy.land:
        raise NotReady(
            "in a cluster `dispatch` does not land: a worker has no clone of yours",
            hint="leave `--land` and `dispatch.land` out; `gremlins land` lands what is done, from your clone",
        )


def said_of(report: TickReport) -> str | None:
    """The reason a tick could start nothing."""
    return None if report.missing is None else report.missing.reason
