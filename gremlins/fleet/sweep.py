"""A host's copies of gremlins that were removed from the cluster elsewhere: they are removed here too."""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from gremlins.clock import Clock
from gremlins.cluster.database import ClusterDb
from gremlins.cluster.overview import ids
from gremlins.errors import GremlinsError, NotFound
from gremlins.fleet.remove import bury, remove_copy
from gremlins.paths import GREMLIN_ID, Home
from gremlins.processes.ending import end_worktree_processes
from gremlins.processes.locks import GremlinLock
from gremlins.records.gremlin import Gremlin, RunStore
from gremlins.repository.git import Git
from gremlins.repository.remote_work import GremlinRefs


def sweep(home: Home, db: ClusterDb, clock: Clock, tell: Callable[[str], None]) -> None:
    """Remove folder, worktree and branch of each gremlin that the cluster had and has no more. Files in no commit, and
    what was kept of interrupted work, stay as refs of the mirror.

    The spending of a gremlin outlives it. A database that knows no spending of it, such as an older one that was
    restored, or another cluster's, does not tell that it was removed: its copy may be all there is, and stays.
    """
    here = [path.name for path in home.gremlins.iterdir()] if home.gremlins.is_dir() else []
    there = set(ids(db))  # after the folders: a row is made before them
    for name in sorted(set(here) - there):
        if GREMLIN_ID.fullmatch(name):
            try:
                kept = _sweep(home, db, name, clock)
            except GremlinsError as error:
                tell(f"warning: the copy of {name}, which was removed, stays here: {error}")
                continue
            if kept is not None:
                tell(f"{name} was removed elsewhere, and is here too{''.join(f'; {ref} is kept' for ref in kept)}")


def _sweep(home: Home, db: ClusterDb, gremlin_id: str, clock: Clock) -> tuple[str, ...] | None:
    """Returns the refs that are kept; None where the copy stays."""
    paths = home.gremlin(gremlin_id)
    with GremlinLock.acquire(paths.lock, "keeper", clock=clock):
        try:
            record = RunStore(home, clock).read(gremlin_id)
        except NotFound:
            bury(home, gremlin_id)
            return ()
        if not db.value("SELECT EXISTS (SELECT FROM spending WHERE uid = %(uid)s)", {"uid": record.uid}):
            return None
        end_worktree_processes(paths, clock)
        return remove_copy(home, _of_mirror(home, record))


def _of_mirror(home: Home, record: Gremlin) -> Gremlin:
    """The record with this host's mirror as its repository: in a person's own clone nothing is removed."""
    names = GremlinRefs(record.id, record.uid, record.base)
    mirrors = (mirror for mirror in home.mirrors.glob("*.git") if names.local(Git(mirror)))
    mirror = next(mirrors, home.mirrors / "none")
    return replace(record, project=str(mirror), checkout="", worktree=str(home.worktree(record.id)))
