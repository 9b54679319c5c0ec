"""Landing: a gremlin's branch becomes one commit of a person's branch, prepared aside and moved in at once.

Everything that can fail is done aside first: the merge, the commit, the checks. What is left then is short, and is done
as git does it itself: hold `index.lock`, so that no other git works in the tree; write the files; move the branch, only
if it still is where it was; rename the new index into place; drop the lock.

A kill -9 between any two of these leaves, in the repository itself, who was at it and what it was doing: the lock
carries our name and a kernel lock that dies with its holder and its git, and two refs name the commits before and
after. Whoever lands next there finds that, proves file by file that what differs is ours, and sets it right. What
cannot be proven ours is left alone, and said.
"""

from __future__ import annotations

import contextlib
import fcntl
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
    """The target has all of it already."""


@dataclass(frozen=True)
class Landed:
    """What came of it. `sha` is the commit that holds the work, on `target_branch`."""

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
) -> Landed:
    """Bring a gremlin's branch onto a branch of a person: the current one of `repo`, or `into`.

    base: the commit the gremlin's branch began at. token: unique to this landing; a target whose history holds it is
    not touched again. Raises Conflict, with nothing changed, where the state does not allow it.
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
    """One landing: its inputs, and what is made of them aside."""

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

    def done(self) -> Landed | None:
        """What an earlier try landed, if it came so far."""
        if self.mode == "ff":
            landed = self.tip != self.base and self.git.is_ancestor(self.tip, self.old)
            return self._landed(self.tip, self.base) if landed else None
        found = self.git.find_trailer(f"{LANDING_TRAILER}: {self.token}", f"{self.base}..{self.old}")
        return self._landed(found, f"{found}^") if found else None

    def _landed(self, sha: Sha, before: str) -> Landed:
        return Landed(sha, self.target, len(self.git.changed_paths(before, sha)))

    def move_ref(self) -> Landed:
        """Onto a branch that is checked out nowhere: one ref, moved only from where it was."""
        old = self.old
        new = self.prepare(old)
        try:
            self.git.update_ref(f"refs/heads/{self.target}", new, old, reason=f"gremlins: land {self.branch}")
        except HostGitError:
            raise
        except GitError:
            raise Conflict(f"{self.target} has moved meanwhile", hint="land again") from None
        return self._landed(new, old)

    def move_in(self, tree: _Tree) -> Landed:
        """Onto a branch that a person has checked out."""
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
        """The commit to move to, built aside; the branch's own tip where it is only wound forward."""
        tip = self.tip
        if not self.git.differs(self.base, tip):
            raise NothingToLand(f"nothing to land: {self.branch} changes no file")
        if self.mode == "ff":
            if not self.git.is_ancestor(old, tip):
                raise Conflict(
                    f"{self.target} has commits of its own and cannot be wound forward to {self.branch}",
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


# --- the merge, aside


def merge_aside(git: Git, ours: Sha, theirs: Sha, base: Sha) -> Sha:
    """The tree of a merge of two commits; no file, index or ref is touched. Raises Conflict that names the files."""
    common = git.merge_base(ours, theirs)
    if common is None or not git.is_ancestor(base, common):
        # The gremlin began at a commit that the target does not have: another branch, or one amended since. Only what
        # the gremlin did may land, so its base is made the common ancestor of two commits that stand for the real ones.
        ours, theirs = (git.commit_tree(git.tree(tip), [base], "stand-in") for tip in (ours, theirs))
        common = base
    done = git.attempt("merge-tree", "--write-tree", "--name-only", "--no-messages", "-z", ours, theirs)
    if done.returncode not in (0, 1):
        if "usage: git merge-tree" not in done.output:
            raise error_of(("merge-tree",), done)
        return _merge_in_scratch(git, ours, theirs, common)  # git before 2.38
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
    """The same with an index and a folder of their own, for older gits."""
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


# --- a person's tree

_SIGNATURE = b"gremlins landing\n"
_DRAFT = "index.lock.gremlins-"
DRAFT_AGE = 60.0
"""Seconds after which a draft of a lock is nobody's any more."""


class _Tree:
    """A working tree whose `index.lock` is ours: no other git changes its index or its files meanwhile."""

    def __init__(self, git: Git, git_dir: Path, fd: int, *, inherited: bool) -> None:
        self.git = git
        self.index = git_dir / "index"
        self.scratch = git_dir / "index.gremlins"
        self.fd = fd
        self.exclusive = inherited
        """Whether no other git can have been here since the landing that is to be set right began: it left its lock."""
        name = hashlib.sha256(os.fsencode(git_dir)).hexdigest()[:16]
        self.before = f"refs/gremlins/landing/{name}/before"
        self.after = f"refs/gremlins/landing/{name}/after"

    @classmethod
    @contextlib.contextmanager
    def locked(cls, git: Git, clock: Clock) -> Iterator[_Tree]:
        """Take `index.lock`, a dead landing's included. Raises Conflict while anything else has it."""
        git_dir = git.git_dir()
        path = git_dir / "index.lock"
        fd, inherited = _take(path, clock)
        try:
            yield cls(git, git_dir, fd, inherited=inherited)
        finally:
            # The kernel lock goes after the name: nobody can find our name without finding us alive. A person may have
            # removed the file, and another git made its own.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.stat(path), os.fstat(fd)):
                    path.unlink()
            os.close(fd)

    # --- forward

    def refuse_obstacles(self, old: Sha, new: Sha) -> None:
        """Raise Conflict where a file that git does not track, ignored ones included, is in the way of a new one."""
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
        """Files, branch, index: all or, if git refuses, nothing."""
        with _undisturbed():
            self._mark(old, new)
            shutil.copy2(self.index, self.scratch)
            try:
                # A file that was only touched must not pass for a changed one; 1: some did change, as git will say.
                self.git.answer("update-index", "-q", "--refresh", env={"GIT_INDEX_FILE": str(self.scratch)})
                # With two trees git checks every file first, and writes only then.
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
        """Both refs or none: from here on a crash can be understood."""
        self.git.raw("update-ref", "--stdin", input=f"update {self.before} {old}\nupdate {self.after} {new}\n")

    def _unmark(self) -> None:
        (self.scratch.with_name("index.gremlins.lock")).unlink(missing_ok=True)
        self.scratch.unlink(missing_ok=True)
        self.git.raw("update-ref", "--stdin", input=f"delete {self.before}\ndelete {self.after}\n")

    # --- back

    def repair(self) -> None:
        """Set right what an interrupted landing left here. Raises Conflict where others have changed it since."""
        old, new = self.git.try_commit(self.before), self.git.try_commit(self.after)
        if old is None or new is None:
            return
        head = self.git.head()
        if head == new:
            self._finish(old, new)
        elif head == old or self.exclusive:
            self._take_back(old, new)
        self._unmark()  # any other HEAD without our lock: a person has gone on from there

    def _finish(self, old: Sha, new: Sha) -> None:
        """The branch has moved, so every file was there: only the index may still be the old one."""
        if not self.git.raw("diff-index", "--cached", "--name-only", "-z", old):
            with self.git.scratch_index(new) as env:
                self.git.answer("update-index", "-q", "--refresh", env=env)
                shutil.copy2(env["GIT_INDEX_FILE"], self.scratch)
            os.replace(self.scratch, self.index)

    def _take_back(self, old: Sha, new: Sha) -> None:
        """The branch has not moved: files that are ours to take back become what they were."""
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
        """Whether a file on disk is the one of a tree (None: whether there is none)."""
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
        """The new file, no file (git removes before it writes), or, under a lock that no other git could take
        meanwhile, the beginning of the new one.
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
    """Hold `index.lock` by our name: (descriptor, whether it was a dead landing's)."""
    until = clock.monotonic() + patience
    while True:
        for attempt in (_make, _inherit):
            fd = attempt(path)
            if fd is not None:
                _sweep_drafts(path, clock)
                return fd, attempt is _inherit
        if clock.monotonic() >= until:
            break
        clock.sleep(0.05)  # an editor's background git holds it for a moment; a killed landing's git goes on to its end
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
    """A new lock, signed and held before anybody can see it."""
    draft = path.with_name(f"{_DRAFT}{os.getpid()}")
    fd = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, _SIGNATURE)
        os.fsync(fd)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
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
    """Remove locks that were never seen, of landings that died a while ago; a living one has its for milliseconds."""
    for draft in path.parent.glob(f"{_DRAFT}*"):
        with contextlib.suppress(OSError):
            if clock.now().timestamp() - draft.stat().st_mtime > DRAFT_AGE:
                draft.unlink()


def _inherit(path: Path) -> int | None:
    """The lock of a landing whose process, and its git, are dead. None while they are not, or it is no landing's."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    with contextlib.suppress(BlockingIOError):
        if os.read(fd, len(_SIGNATURE) + 1) == _SIGNATURE:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(fd).st_nlink:  # not given up between our two calls
                return fd
    os.close(fd)
    return None


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Signals wait: the few steps in here belong together, and they are short."""
    held = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
