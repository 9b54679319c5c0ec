"""`cluster adopt`: a gremlin of this host alone goes over to the cluster, or back. Nothing is asked or paid again."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
from collections.abc import Mapping
from pathlib import Path

from msgspec.structs import replace

from gremlins.clock import Clock
from gremlins.cluster import rows
from gremlins.cluster.database import ClusterDb
from gremlins.cluster.documents import FolderDocuments, PostgresDocuments
from gremlins.cluster.hands import host_name, open_patiently, persons_clone
from gremlins.cluster.host_copy import WORK, HostCopy, bring, decode_state
from gremlins.cluster.needs import queue_of
from gremlins.config import load_settings
from gremlins.errors import Conflict, NotFound
from gremlins.files import make_private_dir
from gremlins.fleet.status import look
from gremlins.launcher import needs_of
from gremlins.paths import LOG, STATE, Home
from gremlins.pipeline.freezing import read_frozen
from gremlins.processes.ending import end_worktree_processes
from gremlins.processes.locks import GremlinLock, holder_of
from gremlins.processes.spawn import spawn_runner
from gremlins.records.format import encoded
from gremlins.records.gremlin import Gremlin, Parked, Running, RunStore
from gremlins.records.spend import Owner
from gremlins.repository.folder import keep_files, remove
from gremlins.repository.git import Git
from gremlins.repository.project import find_project
from gremlins.repository.remote_work import GremlinRefs, address_of, forget_work, stored_address
from gremlins.repository.worktree import Worktree, side_worktrees

PATIENCE = 15.0
"""Seconds for a waiter to end."""


def adopt(home: Home, gremlin_id: str, clock: Clock) -> bool:
    """Take a gremlin over to the cluster. True: it goes on there by itself. Raises Conflict while it is at work.

    It counts as the cluster's once its folder is moved to `adopted/`; a kill before that leaves it as it was, one right
    after that as a gremlin that a rescue takes up.
    """
    local = home._replace(cluster="")
    paths, store = local.gremlin(gremlin_id), RunStore(local, clock)
    with contextlib.closing(open_patiently(home)) as db:
        waits = _end_waiter(local, gremlin_id, clock)
        with GremlinLock.acquire(paths.lock, "keeper", clock=clock, patience=PATIENCE):
            record = store.read(gremlin_id)
            end_worktree_processes(paths, clock)
            trees = _worktrees(record)
            for tree in trees:
                keep_files(tree)
            remote = stored_address(address_of(Git(Path(record.project))))
            needs = queue_of(needs_of(read_frozen(paths.frozen).pipeline))
            taken = rows.create(db, gremlin_id, uid=record.uid, remote=remote, needs=needs)
            _hand_over(db, taken, record, FolderDocuments(paths.root))
            adopted = home.root / "adopted"
            make_private_dir(adopted)
            paths.root.rename(Path(tempfile.mkdtemp(prefix=f"{gremlin_id}-", dir=adopted)) / gremlin_id)
        for tree in trees:
            remove(tree)
        if waits:
            rows.wake(db, gremlin_id)
        return waits


def _end_waiter(local: Home, gremlin_id: str, clock: Clock) -> bool:
    """End the process of one that waits; the record stays as it is. True if it goes on by itself. Raises Conflict."""
    row = look(local, gremlin_id, clock)
    status = row.record.status
    asleep = isinstance(status, Parked) or (isinstance(status, Running) and status.asleep)
    if row.seen.holder is not None and not asleep:
        raise Conflict(f"{gremlin_id} is {row.life.state}: it can be taken over when it is parked or over")
    if row.seen.holder is not None and row.seen.holder.pid:
        with contextlib.suppress(ProcessLookupError):
            os.kill(row.seen.holder.pid, signal.SIGTERM)
        deadline = clock.monotonic() + PATIENCE
        while holder_of(local.gremlin(gremlin_id).lock) is not None:
            if clock.monotonic() > deadline:
                raise Conflict(f"the process of {gremlin_id} does not end (pid {row.seen.holder.pid})")
            clock.sleep(0.05)
    return asleep


def _worktrees(record: Gremlin) -> list[Worktree]:
    if not record.branch:
        return []
    own = Worktree(Path(record.project), Path(record.worktree), record.branch, record.base)
    return [*side_worktrees(own), own]


def _hand_over(db: ClusterDb, taken: rows.Taken, record: Gremlin, folder: FolderDocuments) -> None:
    """Every document, the record last: before it is there its commits are on the remote."""
    copy = HostCopy(db, taken, Owner.of(record))
    copy.pushes(GremlinRefs(record.id, record.uid, record.base), Git(Path(record.project)), None)
    documents = folder.all()
    log = documents.pop(LOG, b"")
    db.run("DELETE FROM line WHERE gremlin = %(id)s", {"id": record.id})  # of an attempt that was killed
    if log:
        copy.append(LOG, log)
    for name in sorted(documents.keys() - {STATE}):
        copy.write(name, documents[name])
    copy.write(STATE, encoded(record))


def give_back(home: Home, gremlin_id: str, clock: Clock, env: Mapping[str, str]) -> bool:
    """Bring a gremlin of the cluster back to this host alone, in the clone that the person is in. True: it goes on.

    It is this host's once its folder is there; a kill before that leaves it the cluster's, one that a rescue takes up.
    """
    local = home._replace(cluster="")
    with contextlib.closing(open_patiently(home)) as db:
        found = db.rows("SELECT remote, due IS NOT NULL FROM gremlin WHERE id = %(id)s", {"id": gremlin_id})
        if not found:
            raise NotFound(f"no gremlin `{gremlin_id}` in the cluster")
        (remote, waits), clone = found[0], persons_clone(Path.cwd(), found[0][0])
        if clone is None:
            raise Conflict(f"this is no clone of {remote}", hint="go to yours, and say it there")
        stale = load_settings(None, home, env).settings.cluster.stale
        taken = rows.take_over(db, gremlin_id, host=f"{host_name(home)}-back", stale=stale)
        project = find_project(clone)
        paths = local.gremlin(gremlin_id)
        db.run("UPDATE gremlin SET due = NULL, account = NULL WHERE id = %(id)s", {"id": gremlin_id})
        documents = PostgresDocuments(db, gremlin_id, taken.fence).all()
        documents.pop(WORK, None)
        record = replace(
            decode_state(documents[STATE], gremlin_id),
            project=str(project),
            checkout="" if clone == project else str(clone),
            worktree=str(local.worktree(gremlin_id)),
        )
        if not paths.state.exists():
            _write_folder(local, gremlin_id, {**documents, STATE: encoded(record)})
        elif RunStore(local, clock).read(gremlin_id).uid != record.uid:
            raise Conflict(f"this host has another gremlin `{gremlin_id}` of its own")
        copy = HostCopy(db, taken, Owner.of(record))
        bring(copy, record, Path(record.worktree), elsewhere=True, say=lambda _line: None)
        rows.remove(db, taken)
        db.run("DELETE FROM spending WHERE uid = %(uid)s", {"uid": record.uid})
        forget_work(Git(project), GremlinRefs(record.id, record.uid, record.base))
        if waits and not record.over():
            spawn_runner(paths, GremlinLock.acquire(paths.lock, "runner", clock=clock), env)
            return True
        return False


def _write_folder(local: Home, gremlin_id: str, documents: Mapping[str, bytes]) -> None:
    """The folder of a gremlin of this host, whole or not at all."""
    draft = local.gremlins / f".{gremlin_id}.draft"
    folder = FolderDocuments(draft)
    for name in ("calls", "artifacts"):
        make_private_dir(draft / name)
    for name, content in documents.items():
        folder.write(name, content)
    with contextlib.suppress(FileNotFoundError):
        (local.gremlin(gremlin_id).root).rmdir()
    draft.rename(local.gremlin(gremlin_id).root)
