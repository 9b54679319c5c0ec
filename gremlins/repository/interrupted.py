"""Snapshots the worktree around a project's commands; restores it if they were killed.

While commands run, a ref holds the tree from before them. If the ref exists later, the commands never ended.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from gremlins.repository.worktree import (
    BRANCH_PREFIX,
    Worktree,
    checkout_difference,
    interrupted_ref,
    save_interrupted,
    tree_of_files,
)


@contextlib.contextmanager
def snapshot_around_commands(worktree: Worktree) -> Iterator[None]:
    """Keep the snapshot ref while commands run; delete it only if they end without an exception."""
    git, ref = worktree.git, _snapshot_ref(worktree)
    if git.try_commit(ref) is not None:  # a parallel branch runs commands in the same tree
        yield
        return
    tip = worktree.tip()
    tree = tree_of_files(git, tip) if git.dirty_paths() or git.untracked() else git.tree(tip)
    git.update_ref(ref, git.commit_tree(tree, [tip], "As the commands found it"), reason="gremlins: commands begin")
    yield
    git.delete_ref(ref)


def undo_killed_commands(worktree: Worktree) -> str | None:
    """Restore the tree from before killed commands. Returns the ref that keeps their changes, if there were any.

    No process may be at work in the worktree any more.
    """
    git, ref = worktree.git, _snapshot_ref(worktree)
    snapshot = git.try_commit(ref)
    if snapshot is None:
        return None
    start = git.commit(f"{snapshot}^")
    kept = None
    if worktree.tip() != start or git.head() != start or tree_of_files(git, start) != git.tree(snapshot):
        name = interrupted_ref(worktree)
        kept = name if save_interrupted(worktree, name, to=start) is not None else None
        checkout_difference(git, start, snapshot)
    git.delete_ref(ref)
    return kept


def _snapshot_ref(worktree: Worktree) -> str:
    return f"refs/gremlins/{worktree.branch.removeprefix(BRANCH_PREFIX)}/commands"
