"""Merges aside, without changing a file or branch, and finds what a person merged by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from gremlins.errors import Conflict
from gremlins.repository.git import Git, Sha, error_of, some_of, split_names


class MergeConflict(Conflict):
    """Both sides have changed the same lines or files."""


def merge_aside(git: Git, ours: Sha, theirs: Sha, base: Sha) -> Sha:
    """The tree of a merge of two commits. Changes no file, index or ref. Raises Conflict, which names the files."""
    common = git.merge_base(ours, theirs)
    if common is None or not git.is_ancestor(base, common):
        # The target does not contain the gremlin's base (another branch, or amended since). Only the gremlin's own
        # changes may land, so two stand-in commits get its base as their common ancestor.
        ours, theirs = (git.commit_tree(git.tree(tip), [base], "stand-in") for tip in (ours, theirs))
        common = base
    done = git.attempt("merge-tree", "--write-tree", "--name-only", "--no-messages", "-z", ours, theirs)
    if done.returncode not in (0, 1):
        if "usage: git merge-tree" not in done.output:
            raise error_of(("merge-tree",), done)
        return _merge_in_scratch(git, ours, theirs, common)
    tree, *names = split_names(done.stdout_bytes)
    if done.returncode == 1:
        raise _merge_conflict(names)
    return Sha(tree)


def _merge_conflict(names: Sequence[str]) -> MergeConflict:
    return MergeConflict(
        f"it conflicts with what is there by now: {some_of(sorted(set(names)))}",
        hint="merge the branch by hand, or bring the target's changes into the gremlin's branch and land again",
    )


def merge_with_markers(git: Git, tip: Sha, target: Sha) -> tuple[Sha, tuple[str, ...]] | None:
    """The tree of a merge, and the files in which both versions stand between conflict markers.

    None where a conflict is none of text (a file that one side has removed), and for git before 2.38.
    """
    done = git.attempt("merge-tree", "--write-tree", "--name-only", "--no-messages", "-z", tip, target)
    if done.returncode not in (0, 1):
        return None
    tree, *names = split_names(done.stdout_bytes)
    paths = tuple(sorted(set(names)))
    return (Sha(tree), paths) if paths == marked(git, tree, paths) else None


def marked(git: Git, tree: str, paths: Sequence[str]) -> tuple[str, ...]:
    """Those of these files that have a conflict marker."""
    if not paths:
        return ()
    literal = [f":(literal){path}" for path in paths]
    done = git.attempt("grep", "-z", "-l", "-I", "-e", "^<<<<<<< ", "-e", "^>>>>>>> ", tree, "--", *literal)
    return tuple(sorted(name.removeprefix(f"{tree}:") for name in split_names(done.stdout_bytes)))


def _merge_in_scratch(git: Git, ours: Sha, theirs: Sha, base: Sha) -> Sha:
    """The same with a temporary index and folder, for git before 2.38."""
    with TemporaryDirectory(prefix="gremlins-merge-") as folder:
        work = Path(folder) / "work"
        work.mkdir()
        env = {
            "GIT_DIR": str(git.git_dir()),
            "GIT_WORK_TREE": str(work),
            "GIT_INDEX_FILE": str(Path(folder) / "index"),
        }
        inside = Git(work)
        inside.raw("read-tree", ours, env=env)
        inside.raw("checkout-index", "--all", "--quiet", env=env)
        inside.answer("update-index", "-q", "--refresh", env=env)
        done = inside.attempt("merge-recursive", base, "--", ours, theirs, env=env)
        unmerged = inside.names("diff", "--name-only", "--diff-filter=U", "-z", env=env)
        if unmerged:
            raise _merge_conflict(unmerged)
        if done.returncode:
            raise error_of(("merge-recursive",), done)
        return inside.write_tree(env)


def holds(git: Git, target: Sha, tip: Sha, base: Sha) -> bool:
    """True if `target` has all that `base..tip` changes: merged, or squashed into a commit or several."""
    if git.is_ancestor(tip, target):
        return True
    if not git.differs(base, tip):
        return False
    try:
        if merge_aside(git, target, tip, base) == git.tree(target):
            return True
    except Conflict:
        pass
    return squashed_as(git, target, tip, base) is not None


def squashed_as(git: Git, target: Sha, tip: Sha, base: Sha) -> Sha | None:
    """The commit of `target` that makes the same change as all of `base..tip` together."""
    common = git.merge_base(target, tip) or base
    whole = git.commit_tree(git.tree(tip), [common], "stand-in")
    shown = git.text("rev-list", "--cherry-mark", "--left-right", "--no-merges", f"{target}...{whole}").split()
    same = [Sha(line[1:]) for line in shown if line[0] == "=" and line[1:] != whole]
    return next((sha for sha in same if git.is_ancestor(sha, target)), None)
