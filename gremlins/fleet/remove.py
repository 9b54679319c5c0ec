"""`rm` and `clean`: nothing is removed before what it holds is safe; costs outlive both."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from gremlins.clock import Clock
from gremlins.cluster.hands import at_hand, removed
from gremlins.cluster.overview import remote_name
from gremlins.errors import Conflict, GremlinsError
from gremlins.fleet.status import look
from gremlins.fleet.stop import await_stop, request_stop
from gremlins.paths import Home
from gremlins.processes.ending import end_worktree_processes
from gremlins.processes.locks import GremlinLock
from gremlins.records.gremlin import Bailed, Finished, Gremlin, Landed, RunStore
from gremlins.records.spend import archive
from gremlins.repository.folder import is_whole, refuse_to_remove, remove, unsaved
from gremlins.repository.git import Git, Sha, some_of
from gremlins.repository.merging import holds
from gremlins.repository.worktree import BRANCH_PREFIX, SIDE, Worktree, side_worktrees

NO_QUESTION = frozenset({"no_evidence", "empty_implementation"})
"""Bails by a rule of ours that ask a person nothing."""
GIVING_UP = 15.0
"""Seconds beyond `batch.stop_wait`, in which a silent API is given up."""
GRAVE = ".{}.removed"
"""Move a gremlin's folder aside first, so that it is gone at once however long deleting takes."""


SQUASHED_INTO = 12
"""The newest of a person's branches are searched for a squash merge; each takes a few calls of git."""


class NotLanded(Conflict):
    """The gremlin has commits that no branch of a person holds."""


def remove_gremlin(
    home: Home,
    gremlin_id: str,
    *,
    force: bool,
    clock: Clock,
    env: Mapping[str, str],
    settle_bead: Callable[[str], None],
    stop_wait: float = 30.0,
) -> tuple[str, ...]:
    """Remove a gremlin, its worktree and branch. Raises Conflict when something of it would be lost, unless forced.

    Returns the refs that still keep interrupted work.

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
    store, paths = RunStore(home, clock), home.gremlin(gremlin_id)
    with at_hand(home, gremlin_id, clock), GremlinLock.acquire(paths.lock, "keeper", clock=clock):
        record = store.read(gremlin_id)
        if not force:
            refuse_to_lose(record)
        end_worktree_processes(paths, clock)
        kept = _remove(home, record, settle_bead, force=force)
    removed(home, record)
    return kept


def _stop_first(home: Home, gremlin_id: str, clock: Clock, env: Mapping[str, str], wait: float) -> None:
    request = partial(
        request_stop, home, gremlin_id, by="rm --force", why="to be removed", clock=clock, env=env, give_up=True
    )
    request()
    result = await_stop(home, gremlin_id, clock=clock, wait=wait + GIVING_UP, env=env, renew=request)
    if result.verdict == "pending":
        raise GremlinsError(
            f"{gremlin_id} has not stopped: {result.pending_on}", hint="it is asked to stop; try again when it has"
        )


def refuse_to_lose(record: Gremlin) -> None:
    """Raises Conflict when something would be lost with the gremlin, or nothing tells whether it would.

    NotLanded: its branch holds changes that are in no other branch.
    """
    git = _repository(record)
    if git is None:
        raise Conflict(
            f"its repository is not at {record.project}, so what {record.id} has there cannot be looked at",
            hint=f"if it was moved, go to where it is now and say `gremlins relocate {record.project}`; "
            f"`gremlins rm --force {record.id}` removes what is here",
        )
    count = _unlanded_commits(git, record)
    if count:
        raise NotLanded(
            f"{record.id} has {count} commit{'s' if count > 1 else ''} that have not landed",
            hint=f"`gremlins land {record.id}`, or `gremlins rm --force {record.id}` to throw them away",
        )
    for worktree in _worktrees(record):
        found = unsaved(worktree)
        if names := (*found.files, *found.repositories):
            raise Conflict(
                f"files in the worktree of {record.id} are in no commit: {some_of(names)} (in {worktree.path})",
                hint=f"commit them or move them away, or `gremlins rm --force {record.id}` to throw them away",
            )


def _repository(record: Gremlin) -> Git | None:
    """The repository that the gremlin was made in; None if it is not there any more, or another is."""
    repo = Path(record.project)
    if not repo.is_dir() or Git(repo).in_repository("--git-dir") is None:
        return None
    return Git(repo) if Git(repo).try_commit(record.base) is not None else None


def _unlanded_commits(git: Git, record: Gremlin) -> int:
    """Number of the gremlin's commits that are in no branch of a person. Raises Conflict if its branch is gone."""
    own = _worktree(record)
    tip, start = git.try_commit(own.ref), record.base
    tips = [tip, *(git.try_commit(side.ref) for side in side_worktrees(own))]
    if is_whole(own) and own.git.branch() is None:  # HEAD is detached: no branch has what was committed there
        tips.append(own.git.head())
    if isinstance(record.status, Landed):
        start = record.status.tip or record.base
        tips = tips if record.status.tip else []
    elif tip is None:
        tips.append(_known_tip(git, record))
    made = list(filter(None, tips))
    count = int(git.text("rev-list", "--count", *made, f"^{start}")) if made else 0
    return 0 if count and all(_is_held(git, each, Sha(record.base)) for each in made) else count


def _known_tip(git: Git, record: Gremlin) -> Sha:
    """The last commit of a branch that is gone, by its record. Raises Conflict if nothing tells it."""
    tip = record.status.evidence.tip if isinstance(record.status, Finished) else None
    found = None if tip is None else git.try_commit(tip)
    if found is None:
        raise Conflict(
            f"the branch {record.branch} is not in {record.project}, so nothing tells what {record.id} had committed",
            hint=f"is it a clone of the repository? `gremlins rm --force {record.id}` removes what is here",
        )
    return found


def _is_held(git: Git, tip: Sha, base: Sha) -> bool:
    """True if a person's branch has all that `base..tip` changes, by a merge or a squash merge."""
    if _persons_refs(git, f"--contains={tip}"):
        return True
    newest = _persons_refs(git, f"--no-merged={base}")[:SQUASHED_INTO]
    return any(holds(git, git.commit(name), tip, base) for name in newest)


def _persons_refs(git: Git, which: str) -> list[str]:
    """Branches and tags that are no gremlin's, the newest first."""
    kinds = ("refs/heads", "refs/remotes", "refs/tags")
    shown = git.text("for-each-ref", "--format=%(refname)", "--sort=-committerdate", which, *kinds)
    return [name for name in shown.split() if f"/{BRANCH_PREFIX}" not in name]


def _worktree(record: Gremlin) -> Worktree:
    return Worktree(Path(record.project), Path(record.worktree), record.branch, record.base)


def _worktrees(record: Gremlin) -> list[Worktree]:
    """Those of its parallel branches, and its own."""
    own = _worktree(record)
    return [*side_worktrees(own), own]


def _asks(record: Gremlin) -> bool:
    """True if it has bailed with a question to a person."""
    return isinstance(record.status, Bailed) and record.status.kind not in NO_QUESTION


def clean(
    home: Home, *, older_than: float, clock: Clock, settle_bead: Callable[[str], None], project: Path | None = None
) -> tuple[dict[str, tuple[str, ...]], list[GremlinsError]]:
    """Remove what ended more than so many seconds ago and has landed, by hand or not, or is over without commits.

    project: of this one only. What has bailed with a question stays.
    Returns the ids, each with the refs that still keep interrupted work; and what was not removed, and why.
    """
    from gremlins.fleet.observe import ids

    store, gone, problems = RunStore(home, clock), dict[str, tuple[str, ...]](), []
    _sweep_graves(home)
    for gremlin_id in sorted(ids(home)):
        try:
            row = look(home, gremlin_id, clock)
            ended = row.record.ended_at or row.record.updated_at
            old = (clock.now() - ended).total_seconds() >= older_than
            if project is not None and not _is_of(home, row.record, project):
                continue
            if not old or _asks(row.record) or not row.record.over() or row.seen.holder is not None:
                continue
            paths = home.gremlin(gremlin_id)
            with at_hand(home, gremlin_id, clock), GremlinLock.acquire(paths.lock, "keeper", clock=clock):
                record = store.read(gremlin_id)
                refuse_to_lose(record)
                gone[gremlin_id] = _remove(home, record, settle_bead)
            removed(home, record)
        except NotLanded:
            continue
        except GremlinsError as error:
            error.message = error.message if gremlin_id in error.message else f"{gremlin_id}: {error.message}"
            problems.append(error)
    return gone, problems


def _is_of(home: Home, record: Gremlin, project: Path) -> bool:
    """True if a gremlin is of the project in this folder."""
    if home.cluster:
        return remote_name(record.project) == remote_name(project)
    return Path(record.project) == project


def _remove(home: Home, record: Gremlin, settle_bead: Callable[[str], None], *, force: bool = False) -> tuple[str, ...]:
    """Its bead and costs first, then worktree and branch, the record last: a crash in between can be removed again."""
    git = _repository(record)
    worktrees = _worktrees(record) if git is not None else []
    for worktree in worktrees:
        refuse_to_remove(worktree)
    settle_bead(record.id)
    if not home.cluster:  # which keeps its own books
        archive(home, record)
    for worktree in worktrees:
        remove(worktree, delete_branch=True, force=force)
    kept = () if git is None else _drop_refs(git, record, all_of_them=force)
    if git is None:
        shutil.rmtree(record.worktree, ignore_errors=True)
    bury(home, record.id)
    return kept


def remove_copy(home: Home, record: Gremlin) -> tuple[str, ...]:
    """Remove what this host has of a gremlin that the cluster has no more. Returns the refs that still keep work."""
    return _remove(home, record, lambda _id: None)


def bury(home: Home, gremlin_id: str) -> None:
    """Remove its folder."""
    _sweep_graves(home)
    root = home.gremlin(gremlin_id).root
    grave = root.with_name(GRAVE.format(gremlin_id))
    root.rename(grave)
    shutil.rmtree(grave, ignore_errors=True)  # another removal may be sweeping it


def _sweep_graves(home: Home) -> None:
    """Delete what a killed removal left behind."""
    for grave in home.gremlins.glob(GRAVE.format("*")):
        shutil.rmtree(grave, ignore_errors=True)


def _drop_refs(git: Git, record: Gremlin, *, all_of_them: bool) -> tuple[str, ...]:
    """Delete the gremlin's own refs. Those of interrupted work stay unless told: they may hold a person's files."""
    kept, own = [], f"refs/gremlins/{record.id}"
    for ref in git.text("for-each-ref", "--format=%(refname)", "refs/gremlins/").split():
        if not ref.startswith((f"{own}/", f"{own}{SIDE}")):
            continue
        if "/interrupted-" in ref and not all_of_them:
            kept.append(ref)
        else:
            git.delete_ref(ref)
    return tuple(kept)
