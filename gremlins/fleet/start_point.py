"""The start of a gremlin that needs the work of others: at HEAD, with that work merged in which HEAD lacks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from gremlins.errors import Conflict, NotFound
from gremlins.paths import Home
from gremlins.records.gremlin import Finished, Gremlin, Landed, read_record
from gremlins.repository.git import Git, Sha
from gremlins.repository.merging import holds, merge_aside


@dataclass(frozen=True)
class StartPoint:
    """The place where a gremlin starts. `commit` None: at HEAD."""

    commit: str | None = None
    unlanded: tuple[str, ...] = ()
    """The gremlins whose branches it holds, because HEAD does not have their work."""
    conflict: str | None = None
    """The reason their branches cannot be merged; then it starts nowhere."""


def start_point(home: Home, gremlin_ids: Sequence[str]) -> StartPoint:
    """The start point after the work of these gremlins. Raises GremlinsError if it cannot be looked at."""
    found = {record.id: (record, tip) for gremlin_id in gremlin_ids for record, tip in _missing(home, gremlin_id)}
    branches = list(found.values())
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


def _missing(home: Home, gremlin_id: str) -> list[tuple[Gremlin, Sha]]:
    """A gremlin and the tip of its work, if HEAD does not have that; one without changes has those it started from."""
    try:
        record = read_record(str(home.gremlin(gremlin_id).root))
    except NotFound:  # removed: it has landed, or a person threw it away
        return []
    git = Git(Path(record.project))
    tip = _tip(git, record)
    if tip is None:
        return []
    if not git.differs(record.base, tip):
        return [found for other in record.builds_on for found in _missing(home, other)]
    return [] if _in_head(git.path, git.head(), tip, git.commit(record.base)) else [(record, tip)]


def _tip(git: Git, record: Gremlin) -> Sha | None:
    """The last commit of its work. None: HEAD has that, or it has made none. Raises Conflict if the commit is gone."""
    status, branch = record.status, git.try_commit(f"refs/heads/{record.branch}")
    if isinstance(status, Landed):
        sha = git.try_commit(status.sha)
        if sha is not None and (
            git.is_ancestor(sha, "HEAD") or not git.text("for-each-ref", "--count=1", "--contains", sha)
        ):
            return None  # the latter: a person has rewritten the branch since
        branch, known = None, status.tip
    else:
        known = status.evidence.tip if isinstance(status, Finished) else None
    tip = branch or (git.try_commit(known) if known else None)
    if tip is None and known is not None:
        raise Conflict(f"HEAD does not have the work of {record.id}, and its commit {known[:12]} is gone")
    return tip


@lru_cache(maxsize=1024)
def _in_head(repo: Path, head: Sha, tip: Sha, base: Sha) -> bool:
    return holds(Git(repo), head, tip, base)


def refuse_before(home: Home, record: Gremlin) -> None:
    """Raise Conflict while the work that a gremlin started from has not landed."""
    found = [each for gremlin_id in record.builds_on for each, _ in _missing(home, gremlin_id)]
    waiting = [each.id for each in found if not isinstance(each.status, Landed)]
    if waiting:
        raise Conflict(
            f"{record.id} builds on the work of {', '.join(waiting)}, which has not landed",
            hint=f"`gremlins land {waiting[0]}` first",
        )
