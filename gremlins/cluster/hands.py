"""A gremlin of the cluster in the hands of a command: taken, its folder and its commits brought here, given back."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from gremlins.clock import Clock, SystemClock
from gremlins.cluster import rows
from gremlins.cluster.database import PATIENCE, ClusterDb, check_version
from gremlins.cluster.documents import PostgresDocuments
from gremlins.cluster.host_copy import MARK, HostCopy, bring, decode_state, is_copy, kept, lay_out
from gremlins.config import load_settings
from gremlins.errors import Conflict, GremlinsError, NotFound
from gremlins.files import make_private_dir, write_atomic
from gremlins.paths import STATE, STOP, Home
from gremlins.processes.locks import GremlinLock
from gremlins.records.format import encoded
from gremlins.records.gremlin import Gremlin
from gremlins.records.journal import Journal
from gremlins.records.spend import Owner
from gremlins.records.stop_request import StopRequest
from gremlins.repository.git import Git, find_root
from gremlins.repository.project import find_project
from gremlins.repository.remote_work import GremlinRefs, address_of, forget_work, mirror, project_of, stored_address

PLACES = "hands"
"""No worktree is made for a command. A folder of this name never holds one."""


def open_patiently(home: Home) -> ClusterDb:
    """The database, of this version, tried again when it goes away. Raises NotReady, ClusterAway."""
    db = ClusterDb(home.cluster)
    check_version(db)
    db.patience = PATIENCE
    return db


@contextlib.contextmanager
def at_hand(home: Home, gremlin_id: str, *, cwd: Path | None = None, clock: Clock | None = None) -> Iterator[None]:
    """Have the gremlin here for the block, alone. Without a cluster it always is.

    In the person's own clone of its project, its branch is brought there. Raises Conflict while a worker has it.
    """
    if not home.cluster:
        yield
        return
    db = open_patiently(home)
    taken = rows.take_over(db, gremlin_id, stale=_stale(home))
    copy = HostCopy(db, taken, Owner(gremlin_id, ""))
    try:
        record = _laid_out(db, home, gremlin_id, taken.remote, cwd or Path.cwd(), clock or SystemClock())
        copy.owner = Owner.of(record)
        say = Journal(home.gremlin(gremlin_id).log, clock or SystemClock())
        with kept(copy, home):
            bring(copy, record, home.root / PLACES / gremlin_id, elsewhere=True, say=say)
            yield
        if copy.goes_on:
            copy.sync(home.gremlin(gremlin_id).root)
    finally:
        if copy.goes_on:
            rows.wake(db, gremlin_id, fence=taken.fence)
        else:
            rows.give_back(db, taken)
        db.close()


def _stale(home: Home) -> float:
    return load_settings(None, home, os.environ).settings.cluster.stale


def _laid_out(db: ClusterDb, home: Home, gremlin_id: str, remote: str, cwd: Path, clock: Clock) -> Gremlin:
    clone, content = persons_clone(cwd, remote), PostgresDocuments(db, gremlin_id, 0).read(STATE)
    base = decode_state(content, gremlin_id).base
    project = find_project(clone) if clone is not None else mirror(home, remote, sha256_objects=len(base) == 64)
    paths = home.gremlin(gremlin_id)
    make_private_dir(paths.root)
    with GremlinLock.acquire(paths.lock, "keeper", clock=clock):
        return lay_out(db, home, gremlin_id, project=project, checkout=clone)


def persons_clone(cwd: Path, remote: str) -> Path | None:
    """The working tree around `cwd`, if it is one of the project at this address."""
    try:
        tree = find_root(cwd)
        return tree if project_of(address_of(Git(tree))) == project_of(remote) else None
    except (GremlinsError, OSError):
        return None


def bring_here(home: Home, gremlin_id: str, *, cwd: Path | None = None, clock: Clock | None = None) -> None:
    """Bring the folder of a gremlin up to date, to read it. Where a process here works on it, it is."""
    if not home.cluster:
        return
    db = open_patiently(home)
    remote = db.value("SELECT remote FROM gremlin WHERE id = %(id)s", {"id": gremlin_id})
    if remote is None:
        raise NotFound(f"no gremlin `{gremlin_id}`")
    with contextlib.suppress(Conflict), contextlib.closing(db):
        _laid_out(db, home, gremlin_id, remote, cwd or Path.cwd(), clock or SystemClock())


@contextlib.contextmanager
def launching(home: Home, gremlin_id: str, repo: Path, base: str, needs: str) -> Iterator[str]:
    """Make a row for a new gremlin, keep what is written into its folder, and let a worker begin. Yields its uid.

    Its base commit is pushed to the project's remote first. A launch that fails leaves nothing.
    """
    uid, git = secrets.token_hex(8), Git(repo)
    db = open_patiently(home)
    taken = rows.create(db, gremlin_id, uid=uid, remote=stored_address(address_of(git)), needs=needs)
    copy = HostCopy(db, taken, Owner(gremlin_id, uid))
    copy.pushes(GremlinRefs(gremlin_id, uid, base), git, None)
    try:
        write_atomic(home.gremlin(gremlin_id).root / MARK, b"{}\n")
        with kept(copy, home):
            yield uid
        rows.wake(db, gremlin_id, fence=taken.fence)
    except BaseException:
        with contextlib.suppress(GremlinsError):
            rows.remove(db, taken)
        raise
    finally:
        db.close()


def request_stop(home: Home, gremlin_id: str, stop: StopRequest) -> None:
    """Put the request beside the record, which its process alone writes, and wake what waits."""
    db = open_patiently(home)
    with contextlib.closing(db):
        db.run(
            "INSERT INTO document (gremlin, name, content, fence) SELECT id, %(name)s, %(content)s, fence FROM gremlin "
            "WHERE id = %(id)s ON CONFLICT (gremlin, name) DO UPDATE SET content = excluded.content, at = now()",
            {"id": gremlin_id, "name": STOP, "content": encoded(stop)},
        )
        rows.wake(db, gremlin_id)
        db.value("SELECT pg_notify('gremlins_stop', %(id)s)", {"id": gremlin_id})


def removed(home: Home, record: Gremlin) -> None:
    """Take a gremlin that was removed here out of the cluster, and its refs off the remote."""
    if not home.cluster:
        return
    db = open_patiently(home)
    with contextlib.closing(db):
        remote = db.value("SELECT remote FROM gremlin WHERE id = %(id)s", {"id": record.id})
        db.run("DELETE FROM gremlin WHERE id = %(id)s", {"id": record.id})
        if remote is not None:
            place = mirror(home, remote, sha256_objects=len(record.base) == 64)
            forget_work(Git(place), GremlinRefs(record.id, record.uid, record.base))


def is_elsewhere(home: Home, gremlin_id: str) -> bool:
    """True if the folder here is a copy of a gremlin of a cluster."""
    return is_copy(home.gremlin(gremlin_id).root)
