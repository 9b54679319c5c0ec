"""`relocate`: tells gremlins and beads where their repository is now."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from gremlins.clock import Clock
from gremlins.errors import Conflict, CorruptRecord, NotFound
from gremlins.files import write_atomic
from gremlins.fleet.beads.store.sqlite import SqliteStore
from gremlins.fleet.dispatch.locks import loop_lock, loop_pid
from gremlins.fleet.observe import ids
from gremlins.paths import Home
from gremlins.processes.locks import GremlinLock
from gremlins.records.format import encoded
from gremlins.records.gremlin import Gremlin, Parked, Relocation, Running, RunStore
from gremlins.repository.git import Git
from gremlins.repository.project import find_project
from gremlins.repository.trust import carry_over


@dataclass(frozen=True)
class Relocated:
    """The ids that were told, the number of beads, and a sentence for each gremlin that was left alone."""

    project: Path
    gremlins: tuple[str, ...]
    beads: int
    left: tuple[str, ...]


def relocate(home: Home, old: Path, here: Path, clock: Clock) -> Relocated:
    """The repository that was at `old` is the one of the folder `here`.

    Raises Conflict, with nothing changed, if another repository is at `old`, if none of its gremlins' commits are
    here, or if a bead of the same id is here already; NotReady outside of a repository.
    """
    new = find_project(here)
    names = {str(place) for place in (old, old.resolve(), old / new.name, old.resolve() / new.name)}
    _refuse_another_repository(old, new)
    for name in names - {str(new)}:
        if (pid := loop_pid(loop_lock(home, name))) is not None:
            raise Conflict(f"a dispatch loop runs for {name} (pid {pid})", hint="end it with SIGTERM first")
    store, git = RunStore(home, clock), Git(new)
    meant = [record for record in _records(store) if names & {record.project, record.checkout}]
    known = [record for record in meant if git.try_commit(record.base) is not None]
    if meant and not known:
        raise Conflict(
            f"{new} is not the repository that was at {old}: it has none of the commits its gremlins began at",
            hint="go to the repository that was moved, and say it there",
        )
    beads = 0
    if home.beads.exists():
        with SqliteStore(home.beads) as store_of_beads:
            beads = store_of_beads.rename_project(sorted(names - {str(new)}), str(new))
    carry_over(home, names - {str(new)}, str(new))
    trees = [place.path for place in git.checkouts()]
    left = [f"{record.id} began at a commit that is not here" for record in meant if record not in known]
    told = []
    for record in known:
        moved = Relocation(str(new), _checkout(record, new, trees))
        if (why := _tell(store, record, moved)) is not None:
            left.append(why)
        else:
            told.append(record)
    _repair(git, told)
    return Relocated(new, tuple(record.id for record in told), beads, tuple(left))


def _refuse_another_repository(old: Path, new: Path) -> None:
    if not old.is_dir() or Git(old).in_repository("--git-dir") is None:
        return
    found, top = find_project(old), Git(old).attempt("rev-parse", "--show-toplevel").stdout_bytes
    if found != new and old in (found, Path(os.fsdecode(top.rstrip(b"\n")))):
        raise Conflict(f"{old} is a repository of its own, {found}", hint=f"go there, or name the place before {new}")


def _records(store: RunStore) -> Iterable[Gremlin]:
    for gremlin_id in sorted(ids(store.home)):
        try:
            yield store.read(gremlin_id)
        except (CorruptRecord, NotFound):
            continue  # `doctor` reports it


def _checkout(record: Gremlin, new: Path, trees: list[Path]) -> str:
    """Its working tree, moved along with the repository; empty where that is the project's path or not to be found."""
    if not record.checkout:
        return ""
    before, after = Path(record.project), new
    while before.name == after.name and before != before.parent:
        before, after = before.parent, after.parent
    tree = Path(record.checkout)
    if tree.is_relative_to(before):
        tree = after / tree.relative_to(before)
    return str(tree) if tree in trees else ""


def _tell(store: RunStore, record: Gremlin, moved: Relocation) -> str | None:
    """Write it into the record, or beside it for a process that waits. Returns why neither was possible."""
    paths = store.paths(record.id)
    try:
        lock = GremlinLock.acquire(paths.lock, "keeper", clock=store.clock)
    except Conflict:
        waits = isinstance(record.status, Parked) or (isinstance(record.status, Running) and record.status.asleep)
        if not waits:
            return f"{record.id} is at work; relocate again when it is over"
        write_atomic(paths.relocation, encoded(moved))
        return None
    with lock:
        record = store.read(record.id)
        store.write(replace(record, project=moved.project, checkout=moved.checkout), lock)
        paths.relocation.unlink(missing_ok=True)
    return None


def _repair(git: Git, records: list[Gremlin]) -> None:
    """Connect their worktrees with the repository again. Git names what it cannot mend; a rescue checks it anew."""
    worktrees = [record.worktree for record in records if os.path.isdir(record.worktree)]
    if worktrees:
        git.attempt("worktree", "repair", *worktrees)
