"""What a project's command had half made when it was killed: kept under a ref, and the tree as it was before.

While commands run, a ref holds the tree as they found it. Whoever finds that ref later knows that they never ended.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from gremlins.repository.git import Git
from gremlins.repository.worktree import (
    BRANCH_PREFIX,
    Worktree,
    interrupted_ref,
    save_interrupted,
    tree_of_files,
    write_back,
)


@contextlib.contextmanager
def remembering(worktree: Worktree) -> Iterator[None]:
    """Around commands. Left by an exception, a signal among them, they count as cut short."""
    git, ref = worktree.git, _ref(worktree)
    if git.try_commit(ref) is not None:  # a branch beside this one is at it, in the same tree
        yield
        return
    tip = worktree.tip()
    tree = tree_of_files(git, tip) if _is_dirty(git) else git.tree(tip)
    git.update_ref(ref, git.commit_tree(tree, [tip], "As the commands found it"), reason="gremlins: commands begin")
    yield
    git.delete_ref(ref)


def undo_half_made(worktree: Worktree) -> str | None:
    """Where commands were cut short, the tree as they found it. Returns the ref that keeps what they had made, if it
    was anything. Only for who knows that nothing is at work in the worktree any more.
    """
    git, ref = worktree.git, _ref(worktree)
    mark = git.try_commit(ref)
    if mark is None:
        return None
    start = git.commit(f"{mark}^")
    kept = None
    if worktree.tip() != start or git.head() != start or tree_of_files(git, start) != git.tree(mark):
        name = interrupted_ref(worktree)
        kept = name if save_interrupted(worktree, name, to=start) is not None else None
        write_back(git, start, mark)
    git.delete_ref(ref)
    return kept


def _is_dirty(git: Git) -> bool:
    return bool(git.dirty_paths() or git.untracked())


def _ref(worktree: Worktree) -> str:
    return f"refs/gremlins/{worktree.branch.removeprefix(BRANCH_PREFIX)}/commands"
