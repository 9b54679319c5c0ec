"""`gremlins dispatch` where a cluster is configured: its workers run the ticks."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any

from gremlins.cli.current_project import Here
from gremlins.cluster import ticks
from gremlins.cluster.database import ClusterDb
from gremlins.cluster.hands import host_name, open_patiently
from gremlins.cluster.needs import queue_of
from gremlins.cluster.ticks import TakenTick
from gremlins.errors import Conflict
from gremlins.fleet.dispatch.cluster_tick import ProjectTicks, refuse_landing, said_of
from gremlins.fleet.dispatch.locks import ONCE_PATIENCE
from gremlins.fleet.dispatch.policy import Policy
from gremlins.fleet.dispatch.tick import LoopEvent, TickReport
from gremlins.fleet.times import span
from gremlins.launcher import needs_of
from gremlins.pipeline.freezing import FrozenLaunch
from gremlins.repository.git import Git
from gremlins.repository.remote_work import address_of, mirror, stored_address

PAUSE = 0.2


def switch_on(here: Here, options: Mapping[str, Any]) -> Policy:
    """Let the workers dispatch the project, with pipeline and settings as they are here now."""
    policy, launch = _frozen(here, options)
    with closing(open_patiently(here.home)) as db:
        ticks.switch_on(
            db,
            here.project,
            remote=stored_address(address_of(Git(here.root))),
            sha256=_sha256(here),
            launch=launch.model_dump_json(by_alias=True).encode(),
            options=json.dumps(dict(options)),
            queue=queue_of(needs_of(launch.pipeline)),
        )
    return policy


def switch_off(here: Here) -> bool:
    """False: the workers did not dispatch it."""
    with closing(open_patiently(here.home)) as db:
        return ticks.switch_off(db, here.project)


@contextmanager
def ticked(
    here: Here, options: Mapping[str, Any], say: Callable[[LoopEvent], None], *, everything: bool
) -> Iterator[tuple[ProjectTicks, TickReport]]:
    """One tick here, with pipeline and settings as they are here, while no worker runs one."""
    policy, launch = _frozen(here, options)
    address = address_of(Git(here.root))
    place = mirror(here.home, address, sha256_objects=_sha256(here))
    env = dict(os.environ)
    with (
        closing(open_patiently(here.home)) as db,
        closing(ProjectTicks(here.home, here.project, place, launch, policy, env, here.clock, say)) as project,
    ):
        taken = _take(db, here, stored_address(address))
        said = None
        try:
            report = project.tick(taken, everything=everything)
            said = said_of(report)
            yield project, report
        finally:
            ticks.end(db, taken, seconds=policy.interval, said=said)


def _take(db: ClusterDb, here: Here, remote: str) -> TakenTick:
    deadline = here.clock.monotonic() + ONCE_PATIENCE
    stale = here.settings().settings.cluster.stale
    while True:
        found = ticks.take(db, here.project, host=host_name(here.home), worker=None, stale=stale, remote=remote)
        if found is not None:
            return found
        if here.clock.monotonic() > deadline:
            raise Conflict("a tick of this project is under way", hint="`gremlins dispatch status` says where")
        here.clock.sleep(PAUSE)


def _frozen(here: Here, options: Mapping[str, Any]) -> tuple[Policy, FrozenLaunch]:
    """Raises NotReady, NotFound, ConfigError, Untrusted."""
    policy = Policy.of(here.settings().settings, **options)
    refuse_landing(policy)
    return policy, here.readiness(lambda: policy).launch()


def _sha256(here: Here) -> bool:
    return len(Git(here.root).head()) == 64


def loop_words(here: Here) -> str:
    """The dispatcher of the project in words, and the time of its latest tick."""
    known = here.dispatching
    if known is None:
        return "loop: none runs; `gremlins dispatch` lets the cluster's workers do it"
    if known.ticked_at is None:
        return "loop: the cluster's workers; no tick yet"
    ago = span((here.clock.now() - known.ticked_at).total_seconds())
    return f"loop: the cluster's workers; last tick {ago} ago on {known.host}" + (
        f"; nothing is started: {known.said}" if known.said else ""
    )
