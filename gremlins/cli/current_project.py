"""The current project for the bead and dispatch verbs: its settings and the store."""

from __future__ import annotations

import getpass
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gremlins.clock import Clock, SystemClock
from gremlins.cluster.ticks import Dispatching, look
from gremlins.config import REPO_CONFIG, load_settings
from gremlins.fleet.beads.edit import BeadEditor
from gremlins.fleet.beads.store.opened import open_store
from gremlins.fleet.beads.store.writes import SqlStore
from gremlins.fleet.dispatch.cluster_observer import ClusterObserver, observer_of
from gremlins.fleet.dispatch.locks import loop_lock, running_loop
from gremlins.fleet.dispatch.observation import Observation
from gremlins.fleet.dispatch.observer import Observer
from gremlins.fleet.dispatch.ownership import settle_for_retry
from gremlins.fleet.dispatch.policy import CurrentSettings, Policy
from gremlins.fleet.dispatch.spending import Spending
from gremlins.fleet.start_point import StartPoint
from gremlins.paths import Home
from gremlins.repository.git import Git
from gremlins.repository.project import find_project, main_tree
from gremlins.repository.remote_work import address_of, project_of

if TYPE_CHECKING:
    from gremlins.fleet.dispatch.preflight import Readiness


@dataclass(frozen=True)
class Here:
    """The project of a folder: its path, in a cluster its remote. `root`: the working tree that its settings and
    pipelines are read from."""

    home: Home
    project: str
    root: Path
    clock: Clock

    @classmethod
    def find(cls) -> Here:
        """Raises NotReady outside of a repository."""
        return cls.at(Path.cwd(), Home.from_env(), SystemClock())

    @classmethod
    def at(cls, folder: Path, home: Home, clock: Clock) -> Here:
        """Raises NotReady outside of a repository; in a cluster, also in one without a remote."""
        project = find_project(folder)
        name = project_of(address_of(Git(folder))) if home.cluster else str(project)
        return cls(home, name, main_tree(folder, project), clock)

    @cached_property
    def settings(self) -> CurrentSettings:
        files = (self.root / REPO_CONFIG, self.home.config)
        return CurrentSettings(files, lambda: load_settings(self.root, self.home, os.environ))

    @cached_property
    def policy(self) -> Policy:
        """The settings, as the running loop's options override them: every verb gets the loop's judgement."""
        return self.policy_with()

    def policy_with(self, **options: Any) -> Policy:
        """With options of a command line that are not None."""
        if (known := self.dispatching) is not None:
            from gremlins.fleet.dispatch.cluster_tick import policy_of  # the launcher's modules

            return policy_of(known, **options)
        loop = running_loop(loop_lock(self.home, self.project))
        given = {name: value for name, value in options.items() if value is not None}
        return Policy.of(self.settings().settings, **{**(loop.options if loop is not None else {}), **given})

    @cached_property
    def dispatching(self) -> Dispatching | None:
        """The way the cluster's workers dispatch the project; None if they do not."""
        if not isinstance(self.observer, ClusterObserver):
            return None
        known = look(self.observer.db, self.project)
        return known if known is not None and known.on else None

    @cached_property
    def store(self) -> SqlStore:
        return open_store(self.home)

    @cached_property
    def observer(self) -> Observer:
        return observer_of(self.home, self.clock, self.settings().settings.live.idle_timeout)

    @cached_property
    def beads(self) -> BeadEditor:
        settle_ended = partial(settle_for_retry, observe=self.observer.observe, policy=self.policy)
        return BeadEditor(self.store, self.project, self.clock, person(), settle_ended)

    # what `ReadOnlyFleet` asks for

    def observe(self, gremlin_id: str) -> Observation | None:
        return self.observer.observe(gremlin_id)

    def scopes(self) -> tuple[str, ...]:
        """Only asked in earnest where a credential's breaker is open: it takes the launcher's modules to tell."""
        if not any(e.open and ":" in e.scope for e in self.store.episodes(self.project)):
            return ()
        return self.readiness(lambda: self.policy).scopes()

    def start_point(self, gremlin_ids: tuple[str, ...]) -> StartPoint:
        return self.observer.start_point(gremlin_ids)

    def spending(self) -> Spending:
        return self.observer.spending()

    def first_call_usd(self) -> float:
        return self.readiness(lambda: self.policy).first_call_usd()

    def fault(self) -> str | None:
        return None if self.home.cluster else self.readiness(lambda: self.policy).fault()

    def readiness(self, policy: Callable[[], Policy]) -> Readiness:
        from gremlins.fleet.dispatch.preflight import Readiness

        return Readiness(self.home, self.root, self.clock, lambda: dict(os.environ), self.settings.checked, policy)


def person() -> str:
    """The login name, recorded as the author of a request."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "a person"
