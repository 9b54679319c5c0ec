"""The beads of a project go over from this host to the cluster, or back."""

from __future__ import annotations

from pathlib import Path

from gremlins.cluster import ticks
from gremlins.cluster.hands import open_patiently
from gremlins.errors import Conflict
from gremlins.fleet.beads.store.opened import open_store
from gremlins.fleet.beads.store.transfer import hand_over
from gremlins.fleet.dispatch.locks import loop_lock, loop_pid
from gremlins.fleet.observe import ids
from gremlins.paths import Home
from gremlins.repository.git import Git
from gremlins.repository.project import find_project
from gremlins.repository.remote_work import address_of, project_of


def hand_beads_over(home: Home, folder: Path, *, back: bool) -> int:
    """All beads of the project around `folder`. Returns their number.

    Raises Conflict while it is dispatched, or while a gremlin that works on a bead is not where the beads go.
    """
    local = home._replace(cluster="")
    here, there = str(find_project(folder)), project_of(address_of(Git(folder)))
    if not back and not local.beads.exists():
        return 0
    if (pid := loop_pid(loop_lock(local, here))) is not None:
        raise Conflict(f"a dispatch loop runs here (pid {pid})", hint="`GREMLINS_CLUSTER__URL= gremlins dispatch stop`")
    db = open_patiently(home)
    try:
        known = ticks.look(db, there)
    finally:
        db.close()
    if back and known is not None and known.on:
        raise Conflict("the cluster's workers dispatch this project", hint="`gremlins dispatch stop` first")
    with open_store(local) as of_host, open_store(home) as of_cluster:
        source, project, target, name = (
            (of_cluster, there, of_host, here) if back else (of_host, here, of_cluster, there)
        )
        present = set(ids(local if back else home))
        for work in source.under_way(project).works:
            attempt = work.unsettled
            if attempt is not None and attempt.gremlin_id not in present:
                raise Conflict(
                    f"{attempt.gremlin_id} works on {work.id} and was not taken over: the beads stay",
                    hint="say it again when it is parked or over",
                )
        return hand_over(source, project, target, name)
