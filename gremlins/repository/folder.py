"""The folder of a gremlin's worktree: made, restored, removed.

Before anything is written into it, git must take it for what it is. Before it is removed it is asked: what a person
or an agent has there and no commit holds is kept under a ref, or the removal is refused.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gremlins.errors import Conflict, GitError, NotReady
from gremlins.files import make_private_dir
from gremlins.repository.git import Git, Sha, error_of, short_text
from gremlins.repository.worktree import (
    MADE_AGAIN,
    Worktree,
    changed_files,
    interrupted_ref,
    staged_apart,
    tree_of_files,
)

PATIENCE = 300.0
"""Seconds for one look at a worktree. Pipes that a command made in it would hold git for ever."""

# --- making


def create(repo: Path, path: Path, branch: str, commit: str) -> Worktree:
    """Make the worktree on a new branch at `commit`, or finish one after a crash.

    Raises Conflict if the branch exists with commits of its own, UnknownRef if `commit` names none, NotReady if git
    would work elsewhere than in the worktree.
    """
    git = Git(repo)
    base = git.commit(commit)
    made = Worktree(repo, path, branch, base)
    found = git.try_commit(f"refs/heads/{branch}")
    if found is not None and found != base:
        raise Conflict(
            f"the branch {branch} exists already",
            hint=f"take another id, or remove it: git -C {repo} branch -D {branch}",
        )
    if found is None and _has_content(path):
        raise Conflict(f"{path} is there already, with files in it", hint="move it away, or take another id")
    if found is None or not is_whole(made):
        _check_out(made, new=found is None)
    return made


def refuse_lost(worktree: Worktree) -> None:
    """Raises Conflict if the repository is not at its path, or has no such branch: nothing can go on there."""
    repo, git = worktree.repo, Git(worktree.repo)
    moved = f"if it was moved, go to where it is now and say `gremlins relocate {repo}`"
    if not repo.is_dir() or git.in_repository("--git-dir") is None:
        raise Conflict(f"its repository is not at {repo} any more", hint=moved)
    if git.try_commit(worktree.ref) is None:
        raise Conflict(
            f"the branch {worktree.branch} is gone from {repo}",
            hint=f"`git -C {repo} reflog --all` may still know it; if the repository there is another one, {moved[3:]}",
        )


def restore(worktree: Worktree) -> str | None:
    """Check out a worktree again that is gone or incomplete. Raises Conflict if repository or branch is gone.

    Returns the ref that keeps the files which an incomplete one had.
    """
    refuse_lost(worktree)
    return None if is_whole(worktree) else _check_out(worktree, new=False)


def is_whole(worktree: Worktree) -> bool:
    """True if git knows the worktree, works in it and nowhere else, and its checkout was completed."""
    git_dir = _own_git_dir(worktree.path)
    if git_dir is None or _misled(worktree) is not None:
        return False
    # git writes the index after the files; older versions of ours had git fill the folder under this lock.
    return (git_dir / "index").is_file() and _lock_reason(git_dir) != _BEING_MADE


def _check_out(worktree: Worktree, *, new: bool) -> str | None:
    git, path, kept = Git(worktree.repo), worktree.path, None
    make_private_dir(path.parent)
    args = [str(path), worktree.branch]
    if new and not os.path.lexists(path):
        # Forced twice: git may still know a folder of this name that is gone, and may have locked it while making it.
        args = ["--force", "--force", *args]
    else:
        _refuse_locked(git, path)
        kept = keep_files(worktree)
        _discard(git, path)
    if new:  # not by `worktree add -b`, which cannot be run again once it has made the branch
        git.update_ref(worktree.ref, worktree.base, "", reason="gremlins: launched")
    git.raw("worktree", "add", "--quiet", "--no-checkout", *args)
    _lead_git_here(worktree)
    worktree.git.raw("reset", "--hard", "--quiet")
    return kept


def _lead_git_here(worktree: Worktree) -> None:
    """Prove that git in the folder works on it: a `core.worktree` shared by all worktrees would name another.

    Raises NotReady.
    """
    if _misled(worktree) is not None:
        own = _own_git_dir(worktree.path)
        shared = worktree.git.answer("config", "--bool", "extensions.worktreeConfig") == "true"
        if shared and own is not None and own.parent.name == "worktrees":
            worktree.git.raw("config", "--worktree", "core.worktree", str(worktree.path))
    if (why := _misled(worktree)) is not None:
        raise NotReady(
            f"git in {worktree.path} would work elsewhere: {why}",
            hint=f"`git -C {worktree.repo} config --show-origin --get-all core.worktree` shows what leads it there",
        )


def _misled(worktree: Worktree) -> str | None:
    """The place that git would work in instead of the worktree; None if folder, git directory and index are its own."""
    own = _own_git_dir(worktree.path)
    shown = Git(worktree.path).in_repository("--show-toplevel", "--absolute-git-dir", "--git-path", "index")
    if own is None or shown is None:
        return "it is no worktree"
    found = [Path(os.fsdecode(line)).resolve() for line in shown.splitlines()]
    meant = [worktree.path.resolve(), own.resolve(), own.resolve() / "index"]
    if own.parent.name != "worktrees":
        return str(own)
    return next((str(place) for place, right in zip(found, meant, strict=False) if place != right), None)


def _own_git_dir(path: Path) -> Path | None:
    """The git directory that a worktree's `.git` file names; None if it is no such file or leads nowhere."""
    named = short_text(path / ".git")
    if named is None:
        return None
    return found if (found := path / named.removeprefix("gitdir: ")).is_dir() else None


# --- asking it


@dataclass(frozen=True)
class Unsaved:
    """Content of a worktree that would be lost with it. `repositories`: those inside it, which no ref can hold."""

    files: tuple[str, ...]
    repositories: tuple[str, ...] = ()


def unsaved(worktree: Worktree) -> Unsaved:
    """Files that are new or changed and in no commit; ignored files, and those that tools make again, do not count.

    Raises Conflict if it cannot be seen.
    """
    if not _has_content(worktree.path):
        return Unsaved(())
    with _looking(worktree) as (git, start):
        return _unsaved(git, start)


def keep_files(worktree: Worktree) -> str | None:
    """Keep what would be lost with the folder under `refs/gremlins/ID/interrupted-N`. None: there is nothing.

    Raises Conflict if it holds changed repositories or cannot be seen.
    """
    if not _has_content(worktree.path):
        return None
    with _looking(worktree) as (git, start):
        found = _unsaved(git, start)
        if found.repositories:
            raise Conflict(
                f"a repository inside {worktree.path} would be lost: {', '.join(found.repositories[:5])}",
                hint="move it elsewhere, or remove it",
            )
        head = git.commit("HEAD") if _has_own_index(git) else start
        if not found.files and git.is_ancestor(head, start):
            return None
        tree = tree_of_files(git, start, leave_out=MADE_AGAIN)
        parents = [start, head, *(staged_apart(git, head, tree) if _has_own_index(git) else ())]
        saved = git.commit_tree(tree, list(dict.fromkeys(parents)), f"Files of the worktree of {worktree.branch}")
        ref = interrupted_ref(worktree)
        git.update_ref(ref, saved, "0" * len(saved), reason="gremlins: files of a worktree")
        return ref


@contextlib.contextmanager
def _looking(worktree: Worktree) -> Iterator[tuple[Git, Sha]]:
    """git in the folder, told explicitly where it is, and the commit to compare with."""
    try:
        git = _git_in(worktree)
        start = git.try_commit(worktree.ref) or git.try_commit(worktree.base)
        if start is None:
            raise Conflict(
                f"{worktree.repo} knows neither {worktree.branch} nor {worktree.base[:12]}, so nothing tells what in "
                f"{worktree.path} is in no commit",
                hint="is it another repository or clone? look into the folder yourself",
            )
        yield git, start
    except GitError as error:
        raise Conflict(
            f"git cannot look into {worktree.path}: {error.message}", hint=error.hint or "see to it, then try again"
        ) from error


def _git_in(worktree: Worktree) -> Git:
    own = _own_git_dir(worktree.path)
    if own is None:  # git has forgotten the worktree
        common = Git(worktree.repo).common_dir()
        told = {**_told(common, worktree.path), "GIT_INDEX_FILE": str(common / _NO_INDEX)}
        return Git(worktree.path, told=told, patience=PATIENCE)
    return Git(worktree.path, told=_told(own, worktree.path), patience=PATIENCE)


def _told(git_dir: Path, path: Path) -> dict[str, str]:
    return {"GIT_DIR": str(git_dir), "GIT_WORK_TREE": str(path)}


_NO_INDEX = "index.gremlins-none"


def _has_own_index(git: Git) -> bool:
    return "GIT_INDEX_FILE" not in git.told


def _unsaved(git: Git, start: Sha) -> Unsaved:
    with git.scratch_index(start) as env:
        _, files = changed_files(git, start, env, leave_out=MADE_AGAIN)
        nested = [name for name in git.untracked(env=env) if name.endswith("/") and not MADE_AGAIN.search(name)]
        foreign = [path for path in git.submodules(env=env) if _is_foreign(git, path)]
        nested += foreign
        # git looks into a submodule by the settings that it has itself: those of a command's making are not run.
        look = "dirty" if foreign else "none"
        shown = git.names(
            "status", "--porcelain=v2", "-z", "--no-renames", "-uno", f"--ignore-submodules={look}", env=env
        )
    if (git.path / ".git").is_dir():  # of its own, in place of the file that leads to ours
        nested.append(".git")
    # `1 XY SCMU …`: S is a submodule; C another commit, M changed files, U new ones.
    modules = [line.split(" ", 8)[8] for line in shown if line[5:6] == "S" and line[6:9] != "..."]
    staged = []
    if _has_own_index(git):
        staged = git.names("diff", "--cached", "--name-only", "--diff-filter=d", "--no-renames", "-z", "HEAD")
    return Unsaved(tuple(dict.fromkeys([*files, *staged])), (*nested, *modules))


def _is_foreign(git: Git, path: str) -> bool:
    """True for a repository at a submodule's place that git has not put there: its settings are not below ours."""
    place = git.path / path
    if not _has_content(place):
        return False
    named = _own_git_dir(place)
    return named is None or not any(
        named.resolve().is_relative_to(ours.resolve() / "modules") for ours in (git.git_dir(), git.common_dir())
    )


def _has_content(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink() and any(path.iterdir())


# --- removing


def remove(worktree: Worktree, *, delete_branch: bool = False, force: bool = False) -> str | None:
    """Remove a worktree, complete or not; a missing one is no error. The branch stays unless `delete_branch`.

    Returns the ref that keeps files in no commit; with `force` they are thrown away. Raises Conflict, with nothing
    changed, if the worktree is locked, what is in it cannot be kept, or the branch is in use elsewhere.
    """
    repo, path = worktree.repo, worktree.path
    if force and (not repo.is_dir() or Git(repo).in_repository("--git-dir") is None):
        _remove_folder(path)  # the repository itself is gone
        return None
    git = Git(repo)
    refuse_to_remove(worktree)
    kept = None if force else keep_files(worktree)
    _discard(git, path)
    if delete_branch:
        git.delete_ref(worktree.ref)
    return kept


def refuse_to_remove(worktree: Worktree) -> None:
    """Raise Conflict if a person has locked the worktree, or uses its branch elsewhere."""
    git = Git(worktree.repo)
    _refuse_locked(git, worktree.path)
    places = [place.path for place in git.checkouts() if place.branch == worktree.branch]
    elsewhere = next((place for place in places if place.resolve() != worktree.path.resolve()), None)
    if elsewhere is not None:
        raise Conflict(
            f"the branch {worktree.branch} is checked out in {elsewhere}", hint="switch to another branch there"
        )
    used = git.in_use(worktree.branch)
    if used is not None and used.path.resolve() != worktree.path.resolve():
        raise Conflict(
            f"the branch {worktree.branch} is in a {used.operation} in {used.path}", hint=f"end the {used.operation}"
        )


_BEING_MADE = "initializing"


def _refuse_locked(git: Git, path: Path) -> None:
    """Raise Conflict if a person has locked the worktree, whether its folder is there or not."""
    for own in sorted((git.common_dir() / "worktrees").glob("*")):
        reason = _lock_reason(own)
        if reason in (None, _BEING_MADE) or not _is_of(own, path):
            continue
        raise Conflict(
            f"the worktree {path} is locked" + (f": {reason}" if reason else ""),
            hint=f"`git -C {git.path} worktree unlock {path}` unlocks it",
        )


def _lock_reason(git_dir: Path) -> str | None:
    """The reason of a `git worktree lock`, which may be empty; None if it is not locked."""
    return short_text(git_dir / "locked")


def _is_of(git_dir: Path, path: Path) -> bool:
    """True if this git directory is that of a worktree at `path`."""
    named = short_text(git_dir / "gitdir")
    return named is not None and (git_dir / named).resolve() == (path / ".git").resolve()


def _discard(git: Git, path: Path) -> None:
    """Remove the folder, then git's entry for it. Not `worktree prune`, which would also drop entries of a person's
    worktrees on a disk that is not mounted now.
    """
    _remove_folder(path)
    args = ("worktree", "remove", "--force", "--force", str(path))
    done = git.attempt(*args)
    if done.returncode and "is not a working tree" not in done.stderr:
        raise error_of(args, done)


def _remove_folder(path: Path) -> None:
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    try:
        shutil.rmtree(path)
    except PermissionError:  # tools leave read-only folders behind, Go's module cache for one
        for folder, _, _ in os.walk(path):
            with contextlib.suppress(OSError):
                os.chmod(folder, stat.S_IRWXU)
        shutil.rmtree(path)
