"""Brings a gremlin's branch up to its project: a merge with conflict markers, which the gremlin then resolves."""

from __future__ import annotations

from gremlins.errors import GremlinsError
from gremlins.repository.git import Sha
from gremlins.repository.merging import marked, merge_with_markers
from gremlins.repository.worktree import Worktree, interrupted_ref, reset_to, save_interrupted


def merge_into(worktree: Worktree, onto: str) -> None:
    """Merge a commit of the project into the branch, unless it is there already. Files in no commit are kept aside."""
    git, tip = worktree.git, worktree.tip()
    if git.is_ancestor(onto, tip):
        return
    found = merge_with_markers(git, tip, Sha(onto))
    if found is None:
        raise GremlinsError(f"{onto[:12]} cannot be merged into {worktree.branch}", hint="merge it by hand")
    merged = git.commit_tree(found[0], [tip, onto], f"Merge {onto[:12]}, with its conflicts")
    save_interrupted(worktree, interrupted_ref(worktree))
    reset_to(worktree, merged)


def unresolved(worktree: Worktree) -> tuple[str, ...]:
    """Files with conflict markers that are left of a merge with its base."""
    git, tip, onto = worktree.git, worktree.tip(), worktree.base
    for line in git.text("rev-list", "--merges", "--parents", f"{onto}..{tip}").splitlines():
        _, ours, *theirs = line.split()
        if theirs == [onto] and (found := merge_with_markers(git, Sha(ours), Sha(onto))) is not None:
            return marked(git, tip, found[1])
    return ()
