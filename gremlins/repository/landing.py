"""Lands a gremlin's branch as one commit of a person's branch.

Merge, commit and checks come first and touch no file. Then, as git does it: hold `index.lock`, write the files, move
the branch if it has not moved, rename the new index into place, drop the lock.

After a kill -9 the repository still says what was going on: the lock carries our signature and a kernel lock that dies
with its holder, and two refs name the commits before and after. The next landing there proves file by file that the
differences are ours and repairs them. Differences that are not proven ours are left alone and reported.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from gremlins.clock import Clock, SystemClock
from gremlins.errors import Conflict, GitError, did_you_mean
from gremlins.processes.locks import try_flock
from gremlins.repository.git import (
    Git,
    HostGitError,
    Sha,
    TreeEntry,
    UnknownRef,
    error_of,
    refuse_operation,
    split_names,
)

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
    place = next((found.path for found in git.checkouts() if found.branch == target), None)
    landing = _Landing(git, branch, git.commit(base), target, message, token, mode)
    if place is None:
        return landing.done() or landing.move_ref()
    if not place.is_dir():
        raise Conflict(f"{target} is checked out in {place}, which is gone", hint="`git worktree prune` forgets it")
    with _Tree.locked(Git(place), clock or SystemClock()) as tree:
        tree.repair()
        return landing.done() or landing.move_in(tree)


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
    def tip(self) -> Sha:
        return self.git.commit(f"refs/heads/{self.branch}")

    @property
    def old(self) -> Sha:
        return self.git.commit(f"refs/heads/{self.target}")

    def done(self) -> LandedCommit | None:
        """The commit of an earlier try, if it got that far."""
        if self.mode == "ff":
            landed = self.tip != self.base and self.git.is_ancestor(self.tip, self.old)
            return self._landed(self.tip, self.base) if landed else None
        found = self.git.find_trailer(f"{LANDING_TRAILER}: {self.token}", f"{self.base}..{self.old}")
        return self._landed(found, f"{found}^") if found else None

    def _landed(self, sha: Sha, before: str) -> LandedCommit:
        return LandedCommit(sha, self.target, len(self.git.changed_paths(before, sha)))

    def move_ref(self) -> LandedCommit:
        """Land on a branch that is checked out nowhere: move its ref if it has not moved."""
        old = self.old
        new = self.prepare(old)
        try:
            self.git.update_ref(f"refs/heads/{self.target}", new, old, reason=f"gremlins: land {self.branch}")
        except HostGitError:
            raise
        except GitError:
            raise Conflict(f"{self.target} has moved meanwhile", hint="land again") from None
        return self._landed(new, old)

    def move_in(self, tree: _Tree) -> LandedCommit:
        """Land on a branch that a person has checked out."""
        refuse_operation(tree.git)
        dirty = tree.git.dirty_paths()
        if dirty:
            raise Conflict(
                f"{tree.git.path} has uncommitted changes: {_some(dirty)}", hint="commit or stash them first"
            )
        old = self.old
        new = self.prepare(old)
        tree.refuse_obstacles(old, new)
        tree.move(self.target, old, new, reason=f"gremlins: land {self.branch}")
        return self._landed(new, old)

    def prepare(self, old: Sha) -> Sha:
        """The commit to move to: a new squash commit, or the gremlin's tip for a fast-forward."""
        tip = self.tip
        if not self.git.differs(self.base, tip):
            raise NothingToLand(f"nothing to land: {self.branch} changes no file")
        if self.mode == "ff":
            if not self.git.is_ancestor(old, tip):
                raise Conflict(
                    f"{self.target} has commits of its own and cannot be fast-forwarded to {self.branch}",
                    hint="land with --squash",
                )
            return tip
        tree = merge_aside(self.git, old, tip, self.base)
        if tree == self.git.tree(old):
            raise NothingToLand(f"nothing to land: {self.target} has all of it already")
        return self.git.commit_tree(tree, [old], self._full_message())

    def _full_message(self) -> str:
        lines = [line for line in self.message.strip().splitlines() if not line.startswith("Gremlins-")]
        gremlin = self.branch.rpartition("/")[2]
        return "\n".join([*lines, "", f"{ID_TRAILER}: {gremlin}", f"{LANDING_TRAILER}: {self.token}"])


def _some(paths: Sequence[str]) -> str:
    shown = ", ".join(os.fsencode(path).decode(errors="replace") for path in paths[:5])
    return shown + (f" and {len(paths) - 5} more" if len(paths) > 5 else "")


# --- the merge


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


def _merge_conflict(names: Sequence[str]) -> Conflict:
    return Conflict(
        f"it conflicts with what is there by now: {_some(sorted(set(names)))}",
        hint="merge the branch by hand, or bring the target's changes into the gremlin's branch and land again",
    )


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


# --- the person's working tree

_SIGNATURE = b"gremlins landing\n"
_DRAFT = "index.lock.gremlins-"
DRAFT_AGE = 60.0
"""Seconds after which a draft of a lock has no owner."""


class _Tree:
    """A working tree whose `index.lock` we hold, so that no other git changes its index or files."""

    def __init__(self, git: Git, git_dir: Path, fd: int, *, inherited: bool) -> None:
        self.git = git
        self.index = git_dir / "index"
        self.scratch = git_dir / "index.gremlins"
        self.fd = fd
        self.exclusive = inherited
        """True if no other git can have worked here since the interrupted landing began: its lock was still there."""
        name = hashlib.sha256(os.fsencode(git_dir)).hexdigest()[:16]
        self.before = f"refs/gremlins/landing/{name}/before"
        self.after = f"refs/gremlins/landing/{name}/after"

    @classmethod
    @contextlib.contextmanager
    def locked(cls, git: Git, clock: Clock) -> Iterator[_Tree]:
        """Take `index.lock`, also from a dead landing. Raises Conflict while another process holds it."""
        git_dir = git.git_dir()
        path = git_dir / "index.lock"
        fd, inherited = _take(path, clock)
        try:
            yield cls(git, git_dir, fd, inherited=inherited)
        finally:
            # The kernel lock is freed after the file, so that our signature is never seen without its holder. A person
            # may have removed the file, and another git made its own.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.stat(path), os.fstat(fd)):
                    path.unlink()
            os.close(fd)

    # --- forward

    def refuse_obstacles(self, old: Sha, new: Sha) -> None:
        """Raise Conflict if an untracked file, ignored or not, is in the way of a new one."""
        have, want = self.git.ls_tree(old), self.git.ls_tree(new)
        leaving = {path.casefold() for path in have.keys() - want.keys()}  # `Readme` may become `README`
        arriving = [path for path in want if path not in have and path.casefold() not in leaving]
        obstacles = {found for path in arriving if (found := self._in_the_way(path, have))}
        if obstacles:
            raise Conflict(
                f"untracked files are in the way: {_some(sorted(obstacles))}",
                hint="move them away or commit them first",
            )

    def _in_the_way(self, path: str, have: dict[str, TreeEntry]) -> str | None:
        place = self.git.path / path
        for parent in reversed(Path(path).parents[:-1]):
            there = self.git.path / parent
            if parent.as_posix() not in have and (there.is_symlink() or (there.exists() and not there.is_dir())):
                return parent.as_posix()
        if not os.path.lexists(place):
            return None
        if place.is_dir() and not place.is_symlink():
            inside = (file.relative_to(self.git.path).as_posix() for file in place.rglob("*") if not file.is_dir())
            return next((name for name in inside if name not in have), None)
        return path

    def move(self, target: str, old: Sha, new: Sha, *, reason: str) -> None:
        """Move files, branch and index; if git refuses, nothing has changed."""
        with _undisturbed():
            self._mark(old, new)
            shutil.copy2(self.index, self.scratch)
            try:
                # So that a touched file does not count as changed. Exit code 1: some files have changed.
                self.git.answer("update-index", "-q", "--refresh", env={"GIT_INDEX_FILE": str(self.scratch)})
                # With two trees git checks every file before it writes one.
                self.git.raw(
                    "read-tree", "-m", "-u", old, new,
                    env={"GIT_INDEX_FILE": str(self.scratch)}, pass_fds=[self.fd], shielded=True,
                )  # fmt: skip
                self.git.update_ref(f"refs/heads/{target}", new, old, reason=reason)
            except GitError as error:
                self.exclusive = True
                self._take_back(old, new)
                self._unmark()
                if isinstance(error, HostGitError):
                    raise
                raise Conflict(
                    f"git would not move {target}: {error.message}", hint="see to it and land again"
                ) from error
            os.replace(self.scratch, self.index)
            self._unmark()

    def _mark(self, old: Sha, new: Sha) -> None:
        """Write both refs at once: after a crash they say what was being done."""
        self.git.raw("update-ref", "--stdin", input=f"update {self.before} {old}\nupdate {self.after} {new}\n")

    def _unmark(self) -> None:
        (self.scratch.with_name("index.gremlins.lock")).unlink(missing_ok=True)
        self.scratch.unlink(missing_ok=True)
        self.git.raw("update-ref", "--stdin", input=f"delete {self.before}\ndelete {self.after}\n")

    # --- back

    def repair(self) -> None:
        """Repair the tree after an interrupted landing. Raises Conflict if files have changed since."""
        old, new = self.git.try_commit(self.before), self.git.try_commit(self.after)
        if old is None or new is None:
            return
        head = self.git.head()
        if head == new:
            self._finish(old, new)
        elif head == old or self.exclusive:
            self._take_back(old, new)
        self._unmark()  # at any other HEAD without our lock, a person has continued from there

    def _finish(self, old: Sha, new: Sha) -> None:
        """The branch has moved, so the files are in place; replace the index if it is still the old one."""
        if not self.git.raw("diff-index", "--cached", "--name-only", "-z", old):
            with self.git.scratch_index(new) as env:
                self.git.answer("update-index", "-q", "--refresh", env=env)
                shutil.copy2(env["GIT_INDEX_FILE"], self.scratch)
            os.replace(self.scratch, self.index)

    def _take_back(self, old: Sha, new: Sha) -> None:
        """The branch has not moved: restore the files that the landing changed."""
        paths = self.git.changed_paths(old, new)
        have, want = self.git.ls_tree(old), self.git.ls_tree(new)
        touched = [path for path in paths if not self._is(path, have.get(path))]
        if not touched:
            return
        foreign = [path for path in touched if not self._is_ours(path, want)]
        if foreign or self.git.raw("diff-index", "--cached", "--name-only", "-z", old):
            raise Conflict(
                f"a landing was interrupted, and files have changed since: {_some(foreign or touched)}",
                hint=f"in {self.git.path}, `git diff` shows them, `git show {new[:12]}` what was to land",
            )
        for path in touched:
            if path not in have and os.path.lexists(self.git.path / path):
                (self.git.path / path).unlink()
        with self.git.scratch_index(old) as env:
            names = b"".join(os.fsencode(path) + b"\0" for path in touched if path in have)
            self.git.raw("checkout-index", "--force", "--quiet", "-z", "--stdin", input=names, env=env)

    def _is(self, path: str, entry: TreeEntry | None) -> bool:
        """True if the file on disk equals the entry (None: if there is no file)."""
        place = self.git.path / path
        if not os.path.lexists(place) or (place.is_dir() and not place.is_symlink()):
            return entry is None
        if entry is None:
            return False
        if place.is_symlink():
            return entry.mode == "120000" and self._blob(os.fsencode(os.readlink(place))) == entry.sha
        runnable = entry.mode == "100755"
        return bool(place.stat().st_mode & 0o100) == runnable and self._blob(place.read_bytes(), path) == entry.sha

    def _blob(self, content: bytes, path: str | None = None) -> Sha:
        where = ["--no-filters"] if path is None else [f"--path={path}"]
        return Sha(self.git.raw("hash-object", "--stdin", *where, input=content).decode().strip())

    def _is_ours(self, path: str, want: dict[str, TreeEntry]) -> bool:
        """True for the new file, for no file (git removes before it writes), and, if no other git can have worked
        here, for the beginning of the new file.
        """
        entry = want.get(path)
        place = self.git.path / path
        if self._is(path, entry) or not os.path.lexists(place) or (place.is_dir() and not place.is_symlink()):
            return True
        if not self.exclusive or entry is None or place.is_symlink():
            return False
        whole = self.git.raw("cat-file", "--filters", f"--path={path}", entry.sha)
        return whole.startswith(place.read_bytes())


def _take(path: Path, clock: Clock, patience: float = 2.0) -> tuple[int, bool]:
    """Hold a signed `index.lock`. Returns its descriptor, and True if it was a dead landing's."""
    until = clock.monotonic() + patience
    while True:
        for attempt in (_make, _inherit):
            fd = attempt(path)
            if fd is not None:
                _sweep_drafts(path, clock)
                return fd, attempt is _inherit
        if clock.monotonic() >= until:
            break
        clock.sleep(0.05)  # an editor's git holds it briefly; a killed landing's git still runs to its end
    if _is_signed(path):
        raise Conflict(f"another landing is at work in {path.parent}", hint="wait for it to end")
    raise Conflict(
        f"another git is at work there: {path} exists",
        hint="wait for it; if no git is running, remove that file and land again",
    )


def _is_signed(path: Path) -> bool:
    try:
        return path.read_bytes() == _SIGNATURE
    except FileNotFoundError:
        return False


def _make(path: Path) -> int | None:
    """Make a lock that is signed and held before it gets its name. None: the name is taken."""
    draft = path.with_name(f"{_DRAFT}{os.getpid()}")
    fd = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, _SIGNATURE)
        os.fsync(fd)
        try_flock(fd)
        os.link(draft, path)
    except OSError as error:
        os.close(fd)
        if isinstance(error, FileExistsError):
            return None
        raise
    finally:
        draft.unlink(missing_ok=True)
    return fd


def _sweep_drafts(path: Path, clock: Clock) -> None:
    """Remove drafts of landings that died; a live landing has its draft for milliseconds."""
    for draft in path.parent.glob(f"{_DRAFT}*"):
        with contextlib.suppress(OSError):
            if clock.now().timestamp() - draft.stat().st_mtime > DRAFT_AGE:
                draft.unlink()


def _inherit(path: Path) -> int | None:
    """Take over the lock of a landing whose process and git are dead. None: they live, or it is another git's."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    signed = os.read(fd, len(_SIGNATURE) + 1) == _SIGNATURE
    if signed and try_flock(fd) and os.fstat(fd).st_nlink:  # not removed between our two calls
        return fd
    os.close(fd)
    return None


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Block signals during the block."""
    held = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
