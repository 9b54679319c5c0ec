"""The start of a gremlin that needs the work of others: at HEAD, with their branches that have not landed merged in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gremlins.errors import Conflict, NotFound
from gremlins.paths import Home
from gremlins.records.gremlin import Gremlin, Landed, read_record
from gremlins.repository.git import Git, Sha
from gremlins.repository.merging import merge_aside


@dataclass(frozen=True)
class StartPoint:
    """The place where a gremlin starts. `commit` None: at HEAD."""

    commit: str | None = None
    unlanded: tuple[str, ...] = ()
    """The gremlins whose branches it holds, because they have not landed."""
    conflict: str | None = None
    """The reason their branches cannot be merged; then it starts nowhere."""


def start_point(home: Home, gremlin_ids: Sequence[str]) -> StartPoint:
    """The start point after the work of these gremlins. Raises GremlinsError if it cannot be looked at."""
    branches = [found for gremlin_id in gremlin_ids if (found := unlanded(home, gremlin_id)) is not None]
    if not branches:
        return StartPoint()
    git = Git(Path(branches[0][0].project))
    return merged(git, git.commit("HEAD"), branches)


def merged(git: Git, commit: Sha, branches: Sequence[tuple[Gremlin, str]]) -> StartPoint:
    """The commit with these branches merged in."""
    names = tuple(record.id for record, _ in branches)
    for record, tip in branches:
        if git.is_ancestor(commit, tip):
            commit = git.commit(tip)
            continue
        try:
            tree = merge_aside(git, commit, git.commit(tip), git.commit(record.base))
        except Conflict as conflict:
            return StartPoint(None, names, f"the work of {', '.join(names)} cannot be merged: {conflict.message}")
        commit = git.commit_tree(tree, [commit, tip], f"Merge branch '{record.branch}'")
    return StartPoint(commit, names)


def unlanded(home: Home, gremlin_id: str) -> tuple[Gremlin, str] | None:
    """A gremlin's record and the tip of its branch, if that holds changes that have not landed."""
    try:
        record = read_record(str(home.gremlin(gremlin_id).root))
    except NotFound:  # removed: it has landed, or a person threw it away
        return None
    git = Git(Path(record.project))
    tip = git.try_commit(f"refs/heads/{record.branch}")
    if isinstance(record.status, Landed) or tip is None or not git.differs(record.base, tip):
        return None
    return None if git.is_ancestor(tip, "HEAD") else (record, tip)


def refuse_before(home: Home, record: Gremlin) -> None:
    """Raise Conflict while the work that a gremlin started from has not landed."""
    waiting = [gremlin_id for gremlin_id in record.builds_on if unlanded(home, gremlin_id) is not None]
    if waiting:
        raise Conflict(
            f"{record.id} builds on the work of {', '.join(waiting)}, which has not landed",
            hint=f"`gremlins land {waiting[0]}` first",
        )
