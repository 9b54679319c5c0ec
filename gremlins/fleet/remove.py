"""`rm` and `clean`: nothing is removed before what it holds is safe; costs outlive both."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from gremlins.clock import Clock
from gremlins.errors import Conflict, CorruptRecord, GremlinsError
from gremlins.fleet.status import Row, look
from gremlins.fleet.stop import await_stop, request_stop
from gremlins.paths import Home
from gremlins.processes.ending import end_worktree_processes
from gremlins.processes.locks import GremlinLock
from gremlins.records.gremlin import Gremlin, Landed, RunStore
from gremlins.records.spend import archive
from gremlins.repository.git import Git
from gremlins.repository.worktree import SIDE, Worktree, has_uncommitted, remove, side_worktrees

GRAVE = ".{}.removed"
"""Move a gremlin's folder aside first, so that it is gone at once however long deleting takes."""


def remove_gremlin(
    home: Home,
    gremlin_id: str,
    *,
    force: bool,
    clock: Clock,
    env: Mapping[str, str],
    settle_bead: Callable[[str], None],
    stop_wait: float = 30.0,
) -> None:
    """Remove a gremlin, its worktree and branch. Raises Conflict when something of it would be lost, unless forced.

    settle_bead: records what the gremlin did for its bead, before its record is removed.
    """
    row = look(home, gremlin_id, clock)
    state = row.life.state
    if state in ("running", "parked", "detached", "stopping", "stalled"):
        if not force:
            raise Conflict(
                f"{gremlin_id} is {state}",
                hint=f"`gremlins stop {gremlin_id}` first, or `gremlins rm --force {gremlin_id}`",
            )
        _stop_first(home, gremlin_id, clock, env, stop_wait)
    store = RunStore(home, clock)
    with GremlinLock.acquire(home.gremlin(gremlin_id).lock, "keeper", clock=clock):
        record = store.read(gremlin_id)
        if not force:
            refuse_to_lose_commits(record)
        end_worktree_processes(home.gremlin(gremlin_id), clock)
        _remove(home, record, settle_bead, delete_branch=True)


def _stop_first(home: Home, gremlin_id: str, clock: Clock, env: Mapping[str, str], wait: float) -> None:
    request = partial(request_stop, home, gremlin_id, by="rm --force", why="to be removed", clock=clock, env=env)
    request()
    result = await_stop(home, gremlin_id, clock=clock, wait=wait, renew=request)
    if result.verdict == "pending":
        reason = result.row.life.reason or "its batch has not ended yet"
        raise GremlinsError(
            f"{gremlin_id} has not stopped: {reason}", hint="it is asked to stop; try again when it has"
        )


def refuse_to_lose_commits(record: Gremlin) -> None:
    """Raises Conflict when the branch holds changes that are in no other branch."""
    count = unlanded_commits(record)
    if count:
        raise Conflict(
            f"{record.id} has {count} commit{'s' if count > 1 else ''} that have not landed",
            hint=f"`gremlins land {record.id}`, or `gremlins rm --force {record.id}` to throw them away",
        )


def unlanded_commits(record: Gremlin) -> int:
    """Number of the branch's commits that have not landed. 0 if repository or branch is gone."""
    repo = Path(record.project)
    if not repo.is_dir():
        return 0
    git = Git(repo)
    tip = git.try_commit(f"refs/heads/{record.branch}")
    if isinstance(record.status, Landed):
        return _count(git, [tip], record.status.tip)
    sides = [git.try_commit(side.ref) for side in side_worktrees(_worktree(record))]
    return _count(git, [tip, *sides], record.base)


def _count(git: Git, tips: Sequence[str | None], start: str | None) -> int:
    if tips[0] is None or start is None or git.try_commit(start) is None:
        return 0
    return int(git.text("rev-list", "--count", *filter(None, tips), f"^{start}"))


def _worktree(record: Gremlin) -> Worktree:
    return Worktree(Path(record.project), Path(record.worktree), record.branch, record.base)


def is_clutter(row: Row, record: Gremlin) -> bool:
    """Gremlins that `clean` takes: landed, or over without commits and without uncommitted changes."""
    if not row.record.over() or row.seen.holder is not None or unlanded_commits(record):
        return False
    return not has_uncommitted(_worktree(record))


def clean(
    home: Home, *, older_than: float, clock: Clock, settle_bead: Callable[[str], None]
) -> tuple[list[str], list[GremlinsError]]:
    """Remove clutter that ended more than so many seconds ago. Returns the ids, and what could not be removed."""
    from gremlins.fleet.observe import ids

    store, removed, problems = RunStore(home, clock), [], []
    _sweep_graves(home)
    for gremlin_id in sorted(ids(home)):
        try:
            row = look(home, gremlin_id, clock)
            ended = row.record.ended_at or row.record.updated_at
            record = store.read(gremlin_id)
            if (clock.now() - ended).total_seconds() >= older_than and is_clutter(row, record):
                with GremlinLock.acquire(home.gremlin(gremlin_id).lock, "keeper", clock=clock):
                    _remove(home, record, settle_bead, delete_branch=True)
                removed.append(gremlin_id)
        except (CorruptRecord, Conflict, GremlinsError) as error:
            problems.append(error)
    return removed, problems


def _remove(home: Home, record: Gremlin, settle_bead: Callable[[str], None], *, delete_branch: bool) -> None:
    """Its bead and costs first, then worktree and branch, the record last: a crash in between can be removed again."""
    paths = home.gremlin(record.id)
    settle_bead(record.id)
    archive(home, record)
    if Path(record.project).is_dir():
        for side in side_worktrees(_worktree(record)):
            remove(side.repo, side.path, side.branch, delete_branch=delete_branch)
        remove(Path(record.project), Path(record.worktree), record.branch, delete_branch=delete_branch)
        _drop_refs(record)
    shutil.rmtree(record.worktree, ignore_errors=True)
    _sweep_graves(home)
    grave = paths.root.with_name(GRAVE.format(record.id))
    paths.root.rename(grave)
    shutil.rmtree(grave, ignore_errors=True)  # another removal may be sweeping it


def _sweep_graves(home: Home) -> None:
    """Delete what a killed removal left behind."""
    for grave in home.gremlins.glob(GRAVE.format("*")):
        shutil.rmtree(grave, ignore_errors=True)


def _drop_refs(record: Gremlin) -> None:
    """The gremlin's own refs (starts of stages, interrupted work)."""
    git = Git(Path(record.project))
    own = f"refs/gremlins/{record.id}"
    for ref in git.text("for-each-ref", "--format=%(refname)", "refs/gremlins/").split():
        if ref.startswith((f"{own}/", f"{own}{SIDE}")):
            git.delete_ref(ref)
