"""Lands a gremlin's branch as one commit of a person's branch. Merge, commit and checks come first, aside."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from gremlins.clock import Clock, SystemClock
from gremlins.errors import Conflict, GitError, did_you_mean
from gremlins.repository.git import Git, HostGitError, Sha, UnknownRef, refuse_operation, some_of
from gremlins.repository.merging import MergeConflict, merge_aside, squashed_as
from gremlins.repository.persons_tree import PersonsTree

Mode = Literal["squash", "ff"]

ID_TRAILER = "Gremlins-Id"
LANDING_TRAILER = "Gremlins-Landing"


class NothingToLand(Conflict):
    """The target contains the branch's changes already."""


@dataclass(frozen=True)
class LandedCommit:
    """The commit that holds the work, on `target_branch`."""

    sha: Sha
    target_branch: str
    files_changed: int
    by_hand: bool = False
    """The target had it already: a person merged it."""
    left: tuple[str, ...] = ()
    """Things that could not be cleared away after the landing."""


def land(
    repo: Path,
    branch: str,
    base: str,
    *,
    message: str,
    token: str,
    mode: Mode = "squash",
    into: str | None = None,
    clock: Clock | None = None,
) -> LandedCommit:
    """Land a gremlin's branch on the current branch of `repo`, or on `into`.

    base: the commit the gremlin's branch began at. token: unique to this landing; if the target's history contains it,
    nothing is changed again. Raises Conflict, with nothing changed, if the state does not allow it.
    """
    git = Git(repo)
    target = _target(git, branch, into)
    place = _checked_out(git, target)
    landing = _Landing(git, branch, git.commit(base), target, message, token, mode)
    if place is None:
        return landing.done() or landing.move_ref()
    own = Git(place)
    if not PersonsTree(own, own.git_dir(), -1, inherited=False).is_busy():
        if (done := landing.done()) is not None:
            return done
        _refuse_unclean(own)  # a person at work there does not meet our lock
    with PersonsTree.locked(own, clock or SystemClock()) as tree:
        tree.repair()
        return landing.done() or landing.move_in(tree)


def try_landing(
    repo: Path, branch: str, base: str, *, token: str, mode: Mode = "squash", into: str | None = None
) -> LandedCommit:
    """The landing that `land` would make, with nothing changed; its commit exists nowhere. Raises as `land` does."""
    with _objects_aside(Git(repo)) as git:
        target = _target(git, branch, into)
        place = _checked_out(git, target)
        landing = _Landing(git, branch, git.commit(base), target, "", token, mode)
        if (done := landing.done()) is not None:
            return done
        if place is None:
            return landing.prepare(landing.old)
        own = Git(place, told=git.told)
        if (lock := own.git_dir() / "index.lock").exists():
            raise Conflict(f"another git is at work there: {lock} exists", hint="wait for it")
        return landing.check(PersonsTree(own, own.git_dir(), -1, inherited=False))


@contextlib.contextmanager
def _objects_aside(git: Git) -> Iterator[Git]:
    """git whose new objects go to a temporary folder."""
    with TemporaryDirectory(prefix="gremlins-landing-") as folder:
        theirs = str(git.common_dir() / "objects").replace("\\", "\\\\").replace('"', '\\"')
        told = {"GIT_OBJECT_DIRECTORY": folder, "GIT_ALTERNATE_OBJECT_DIRECTORIES": f'"{theirs}"'}
        yield Git(git.path, told=told)


def _refuse_unclean(git: Git) -> None:
    refuse_operation(git)
    if dirty := git.dirty_paths():
        raise Conflict(f"{git.path} has uncommitted changes: {some_of(dirty)}", hint="commit or stash them first")


def _checked_out(git: Git, target: str) -> Path | None:
    """The working tree that has the branch; None if none has. Raises Conflict if it is gone or the branch in use."""
    used = git.in_use(target)
    if used is not None:
        raise Conflict(
            f"a {used.operation} of {target} is in progress in {used.path}",
            hint=f"finish or abort the {used.operation} first",
        )
    place = next((found.path for found in git.checkouts() if found.branch == target), None)
    if place is not None and place == git.common_dir():
        raise Conflict(
            f"{target} is checked out in a working tree that git cannot find from {git.path}",
            hint="launch and land from that working tree, or switch it to another branch",
        )
    if place is not None and not place.is_dir():
        raise Conflict(f"{target} is checked out in {place}, which is gone", hint="`git worktree prune` forgets it")
    return place


def _target(git: Git, branch: str, into: str | None) -> str:
    target = into or git.branch()
    if target is None:
        raise Conflict(f"HEAD is detached in {git.path}", hint="switch to a branch, or name one: --into BRANCH")
    if not git.branch_exists(target):
        branches = [name for name in git.ref_names() if git.branch_exists(name)]
        raise UnknownRef(f"no branch `{target}` in {git.path}", hint=did_you_mean(target, branches))
    if target == branch:
        raise Conflict(f"{branch} is the gremlin's own branch", hint="switch to yours, or name it: --into BRANCH")
    return target


@dataclass(frozen=True)
class _Landing:
    """One landing: its inputs, and the commit made from them."""

    git: Git
    branch: str
    base: Sha
    target: str
    message: str
    token: str
    mode: Mode

    @property
    def name(self) -> str:
        """The gremlin's id."""
        return self.branch.rpartition("/")[2]

    @property
    def tip(self) -> Sha:
        return self.git.commit(f"refs/heads/{self.branch}")

    @property
    def old(self) -> Sha:
        return self.git.commit(f"refs/heads/{self.target}")

    def done(self) -> LandedCommit | None:
        """The commit of an earlier try, if it got that far, or of a merge by hand."""
        tip, old = self.tip, self.old
        if self.git.differs(self.base, tip) and self.git.is_ancestor(tip, old):
            return self._landed(tip, self.base, by_hand=self.mode != "ff")
        found = self.git.find_trailer(f"{LANDING_TRAILER}: {self.token}", f"{self.base}..{old}")
        return self._landed(found, f"{found}^") if found else None

    def _landed(self, sha: Sha, before: str, **more: Any) -> LandedCommit:
        return LandedCommit(sha, self.target, len(self.git.changed_paths(before, sha)), **more)

    def move_ref(self) -> LandedCommit:
        """Land on a branch that is checked out nowhere: move its ref if it has not moved."""
        old = self.old
        found = self.prepare(old)
        if not found.by_hand:
            try:
                self.git.update_ref(f"refs/heads/{self.target}", found.sha, old, reason=f"gremlins: land {self.branch}")
            except HostGitError:
                raise
            except GitError:
                raise Conflict(f"{self.target} has moved meanwhile", hint="land again") from None
        return found

    def move_in(self, tree: PersonsTree) -> LandedCommit:
        """Land on a branch that a person has checked out."""
        old = self.old
        found = self.check(tree)
        if found.by_hand:
            return found
        return replace(found, left=tree.move(self.target, old, found.sha, reason=f"gremlins: land {self.branch}"))

    def check(self, tree: PersonsTree) -> LandedCommit:
        """The landing that the tree allows. Raises Conflict."""
        _refuse_unclean(tree.git)
        old = self.old
        found = self.prepare(old)
        if not found.by_hand:
            tree.refuse_obstacles(old, found.sha)
            tree.refuse_hidden(old, found.sha)
            tree.refuse_failing_filters(old, found.sha)
        return found

    def prepare(self, old: Sha) -> LandedCommit:
        """The commit to move to: a new squash commit, the gremlin's tip for a fast-forward, or one made by hand."""
        tip = self.tip
        if not self.git.differs(self.base, tip):
            raise NothingToLand(f"nothing to land: {self.branch} changes no file")
        refusal: Conflict | None = None
        if self.mode == "ff":
            if self.git.is_ancestor(old, tip):
                return self._landed(tip, old)
            why = f"{self.target} has commits of its own and cannot be fast-forwarded to {self.branch}"
            refusal = Conflict(why, hint="land with --squash")
        else:
            try:
                tree = self._merged(old, tip)
            except Conflict as conflict:
                steps = f"`git merge {self.branch}` on {self.target}, resolve it and commit"
                refusal = MergeConflict(conflict.message, hint=f"{steps}; `gremlins land {self.name}` then records it")
            else:
                if tree != self.git.tree(old):
                    return self._landed(self.git.commit_tree(tree, [old], self._full_message()), old)
        same = squashed_as(self.git, old, tip, self.base)
        if same is None and refusal is not None:
            raise refusal
        return self._landed(same, f"{same}^", by_hand=True) if same else self._landed(old, old, by_hand=True)

    def _merged(self, old: Sha, tip: Sha) -> Sha:
        """The tree of the merge. If a person squashed the branch as it was earlier, only what followed is merged."""
        try:
            return merge_aside(self.git, old, tip, self.base)
        except MergeConflict:
            for line in self.git.text("rev-list", "--first-parent", f"{self.base}..{tip}").split()[1:]:
                if squashed_as(self.git, old, Sha(line), self.base) is not None:
                    return merge_aside(self.git, old, tip, Sha(line))
            raise

    def _full_message(self) -> str:
        lines = [line for line in self.message.strip().splitlines() if not line.startswith("Gremlins-")]
        return "\n".join([*lines, "", f"{ID_TRAILER}: {self.name}", f"{LANDING_TRAILER}: {self.token}"])
