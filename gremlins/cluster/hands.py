"""A gremlin of the cluster in the hands of a command: taken, its folder and its commits brought here, given back."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from gremlins.clock import Clock
from gremlins.cluster import rows
from gremlins.cluster.database import PATIENCE, ClusterDb, check_version
from gremlins.cluster.documents import PostgresDocuments
from gremlins.cluster.host_copy import HostCopy, bring, decode_state, kept, lay_out
from gremlins.config import load_settings
from gremlins.errors import Conflict, GremlinsError, NotFound
from gremlins.files import keeper_of, make_private_dir
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

HAND_OVER = 15.0
"""Seconds for a worker to give back a gremlin."""
PLACES = "hands"
"""No worktree is made for a command. A folder of this name never holds one."""


def open_patiently(home: Home) -> ClusterDb:
    """The database, of this version, tried again when it goes away. Raises NotReady, ClusterAway."""
    db = ClusterDb(home.cluster)
    check_version(db)
    db.patience = PATIENCE
    return db


def host_name(home: Home) -> str:
    """The name of a host with its state root: two on one machine are two hosts."""
    return f"{socket.gethostname()}-{sha256(str(home.root).encode()).hexdigest()[:8]}"


class RefPlace(NamedTuple):
    """The repository that gets a gremlin's branch: the person's own clone, or the mirror of this host.

    `name` tells one place from another: what was done to the refs in one is not in the others.
    """

    project: Path
    checkout: Path | None
    worktree: Path
    name: str


def find_place(home: Home, gremlin_id: str, remote: str, base: str, cwd: Path) -> RefPlace:
    """The clone around `cwd`, if it is one of the gremlin's project, else the mirror."""
    clone, host = persons_clone(cwd, remote), host_name(home)
    if clone is None:
        project = mirror(home, remote, sha256_objects=len(base) == 64)
        return RefPlace(project, None, home.worktree(gremlin_id), host)
    project = find_project(clone)
    own = sha256(str(project).encode()).hexdigest()[:8]
    return RefPlace(project, clone, home.root / PLACES / gremlin_id, f"{host}-{own}")


def persons_clone(cwd: Path, remote: str) -> Path | None:
    """The working tree around `cwd`, if it is one of the project at this address."""
    try:
        tree = find_root(cwd)
        return tree if project_of(address_of(Git(tree))) == project_of(remote) else None
    except (GremlinsError, OSError):
        return None


@contextlib.contextmanager
def at_hand(home: Home, gremlin_id: str, clock: Clock, *, in_clone: bool = False) -> Iterator[None]:
    """Have the gremlin here for the block, alone, its branch in the clone that the person is in, or in the mirror of
    this host. Without a cluster it always is.

    in_clone: only in a clone. Raises Conflict while a worker has it.
    """
    if not home.cluster or keeper_of(home.gremlin(gremlin_id).root) is not None:
        yield
        return
    with contextlib.closing(open_patiently(home)) as db:
        place = _place(db, home, gremlin_id)
        if in_clone and place.checkout is None:
            remote = db.value("SELECT remote FROM gremlin WHERE id = %(id)s", {"id": gremlin_id})
            raise Conflict(
                f"this is no clone of {remote}, the project of {gremlin_id}", hint="go to yours, and try again there"
            )
        stale = load_settings(None, home, os.environ).settings.cluster.stale
        taken = _take_over(db, gremlin_id, place.name, stale, clock)
        copy = HostCopy(db, taken, Owner(gremlin_id, ""))
        record = _laid_out(db, home, gremlin_id, place, clock)
        copy.owner = Owner.of(record)
        say = Journal(home.gremlin(gremlin_id).log, clock)
        try:
            with kept(copy, home):
                bring(copy, record, place.worktree, elsewhere=taken.host != place.name, say=say)
                yield
                if copy.goes_on:
                    copy.sync(home.gremlin(gremlin_id).root)
        finally:
            if copy.goes_on:
                rows.wake(db, gremlin_id, fence=taken.fence)


def _take_over(db: ClusterDb, gremlin_id: str, host: str, stale: float, clock: Clock) -> rows.Taken:
    """Take it, once its worker has given it back: that comes a moment after the record says that it is over."""
    deadline = clock.monotonic() + HAND_OVER
    while True:
        try:
            return rows.take_over(db, gremlin_id, host=host, stale=stale)
        except Conflict:
            if clock.monotonic() > deadline:
                raise
            clock.sleep(0.1)


def _place(db: ClusterDb, home: Home, gremlin_id: str) -> RefPlace:
    remote = db.value("SELECT remote FROM gremlin WHERE id = %(id)s", {"id": gremlin_id})
    if remote is None:
        raise NotFound(f"no gremlin `{gremlin_id}`")
    base = decode_state(PostgresDocuments(db, gremlin_id, 0).read(STATE), gremlin_id).base
    return find_place(home, gremlin_id, remote, base, Path.cwd())


def _laid_out(db: ClusterDb, home: Home, gremlin_id: str, place: RefPlace, clock: Clock) -> Gremlin:
    paths = home.gremlin(gremlin_id)
    make_private_dir(paths.root)
    with GremlinLock.acquire(paths.lock, "keeper", clock=clock):
        return lay_out(db, home, gremlin_id, project=place.project, checkout=place.checkout)


def bring_here(home: Home, gremlin_id: str, clock: Clock, *, commits: bool = False) -> None:
    """Bring the folder of a gremlin up to date, to read it; with `commits` its branch too. Where a process here works
    on it, both are."""
    if not home.cluster or keeper_of(home.gremlin(gremlin_id).root) is not None:
        return
    with contextlib.closing(open_patiently(home)) as db:
        place = _place(db, home, gremlin_id)
        try:
            record = _laid_out(db, home, gremlin_id, place, clock)
        except Conflict:
            return
        if commits:
            host = db.value("SELECT host FROM gremlin WHERE id = %(id)s", {"id": gremlin_id})
            taken = rows.Taken(gremlin_id, 0, "", "", host)
            copy = HostCopy(db, taken, Owner.of(record))
            bring(copy, record, place.worktree, elsewhere=host != place.name, say=lambda _line: None)


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
        with kept(copy, home):
            yield uid
        rows.wake(db, gremlin_id, fence=taken.fence)
    except BaseException:  # Ctrl-C too: a launch that fails leaves no row
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
