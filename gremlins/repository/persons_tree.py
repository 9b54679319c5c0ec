"""A person's working tree while a landing moves it: locked as git does it, and set right again after a crash.

Hold `index.lock`, write the files, move the branch if it has not moved, rename the new index into place, drop the lock.
After a kill -9 the repository still says what was going on: the lock carries our signature and a kernel lock that dies
with its holder, and two refs name the commits before and after. The next landing there proves file by file that the
differences are ours and repairs them. Differences that are not proven ours are left alone and reported.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import signal
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from gremlins.clock import Clock
from gremlins.errors import Conflict, GitError
from gremlins.files import read_file
from gremlins.processes.locks import try_flock
from gremlins.repository.git import Git, HostGitError, Sha, TreeEntry, some_of, split_names

_SIGNATURE = b"gremlins landing\n"
_DRAFT = "index.lock.gremlins-"
DRAFT_AGE = 60.0
"""Seconds after which a draft of a lock has no owner."""


class PersonsTree:
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
    def locked(cls, git: Git, clock: Clock) -> Iterator[PersonsTree]:
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
                f"untracked files are in the way: {some_of(sorted(obstacles))}",
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

    def refuse_hidden(self, old: Sha, new: Sha) -> None:
        """Raise Conflict if a file to be changed differs from its commit, and git was told not to look at it."""
        hidden = self._hidden() & set(self.git.changed_paths(old, new))
        differing = self._differing(old, [path for path in hidden if self._stands(path)])
        if differing:
            raise Conflict(
                f"files that git was told not to look at have changes: {some_of(sorted(differing))}",
                hint="`git update-index --no-skip-worktree --no-assume-unchanged FILE` shows them to git again",
            )

    def refuse_failing_filters(self, old: Sha, new: Sha) -> None:
        """Write aside what goes through a filter. Raises Conflict if one fails, with nothing of the tree touched."""
        if self.git.answer("config", "--get-regexp", r"^filter\.") is None:
            return
        names = _nul(self.git.ls_tree(new, self.git.changed_paths(old, new)))
        with self.git.scratch_index(new) as env, TemporaryDirectory(prefix="gremlins-filters-") as folder:
            asked = self.git.raw("check-attr", "--cached", "-z", "--stdin", "filter", input=names, env=env)
            fields = split_names(asked)
            through = [path for path, value in zip(fields[::3], fields[2::3], strict=True) if value not in _NO_FILTER]
            try:
                self.git.raw("checkout-index", f"--prefix={folder}/", "-z", "--stdin", input=_nul(through), env=env)
            except HostGitError:
                raise
            except GitError as error:
                raise Conflict(f"its files cannot be written: {error.message}", hint=error.hint) from error

    def move(self, target: str, old: Sha, new: Sha, *, reason: str) -> tuple[str, ...]:
        """Move files, branch and index; if git refuses, nothing has changed. Returns what could not be cleared away."""
        with _undisturbed():
            self._mark(old, new)
            try:
                shutil.copy2(self.index, self.scratch)
                # So that a touched file does not count as changed. Exit code 1: some files have changed.
                self.git.answer("update-index", "-q", "--refresh", env={"GIT_INDEX_FILE": str(self.scratch)})
                # With two trees git checks every file before it writes one.
                self.git.raw(
                    "read-tree", "-m", "-u", old, new,
                    env={"GIT_INDEX_FILE": str(self.scratch)}, pass_fds=[self.fd], shielded=True,
                )  # fmt: skip
                self.git.update_ref(f"refs/heads/{target}", new, old, reason=reason)
            except (GitError, OSError) as error:
                self.exclusive = True
                self._take_back(old, new)
                self._unmark()
                if isinstance(error, HostGitError | OSError):
                    raise
                raise Conflict(
                    f"git would not move {target}: {error.message}", hint=error.hint or "see to it and land again"
                ) from error
            try:
                os.replace(self.scratch, self.index)
                self._unmark()
            except (GitError, OSError) as error:
                return (f"the index of {self.git.path} could not be brought up to date ({error}): land again",)
            return ()

    def _mark(self, old: Sha, new: Sha) -> None:
        """Write both refs at once: after a crash they say what was being done."""
        self.git.raw("update-ref", "--stdin", input=f"update {self.before} {old}\nupdate {self.after} {new}\n")

    def _unmark(self) -> None:
        (self.scratch.with_name("index.gremlins.lock")).unlink(missing_ok=True)
        self.scratch.unlink(missing_ok=True)
        self.git.raw("update-ref", "--stdin", input=f"delete {self.before}\ndelete {self.after}\n")

    # --- back

    def is_busy(self) -> bool:
        """True if another git or a landing is at work here, or a landing has died."""
        return self.index.with_name("index.lock").exists() or self.git.try_commit(self.before) is not None

    def repair(self) -> None:
        """Repair the tree after an interrupted landing.

        Raises Conflict once if files have changed since; they stay as they are, and block no other landing.
        """
        old, new = self.git.try_commit(self.before), self.git.try_commit(self.after)
        if old is None or new is None:
            return
        head, foreign = self.git.head(), set[str]()
        if head == new:
            self._finish(old, new)
        elif head == old or self.exclusive:
            foreign = self._take_back(old, new)
        self._unmark()  # at any other HEAD without our lock, a person has continued from there
        if foreign:
            raise Conflict(
                f"a landing was interrupted, and files have changed since: {some_of(sorted(foreign))}",
                hint=f"in {self.git.path}, `git diff` shows them, `git show {new[:12]}` what was to land",
            )

    def _finish(self, old: Sha, new: Sha) -> None:
        """The branch has moved, so the files are in place; replace the index if it is still the old one."""
        if not self.git.raw("diff-index", "--cached", "--name-only", "-z", old):
            with self.git.scratch_index(new) as env:
                self.git.answer("update-index", "-q", "--refresh", env=env)
                shutil.copy2(env["GIT_INDEX_FILE"], self.scratch)
            os.replace(self.scratch, self.index)

    def _take_back(self, old: Sha, new: Sha) -> set[str]:
        """The branch has not moved: restore the files that the landing changed. Returns those it leaves as they are,
        because they are not proven ours.
        """
        touched = self._differing(old, self.git.changed_paths(old, new))
        if not touched or self.git.raw("diff-index", "--cached", "--name-only", "-z", old):
            return touched  # staged since: a person goes on from there
        have, want = self.git.ls_tree(old), self.git.ls_tree(new)
        unlike_new = self._differing(new, touched)
        # No file is ours as well: git removes before it writes.
        foreign = {path for path in unlike_new if self._stands(path) and not self._is_beginning(path, want.get(path))}
        ours = touched - foreign
        for path in ours - have.keys():
            if self._stands(path):
                (self.git.path / path).unlink()
        with self._scratch(old) as env:
            names = _nul(path for path in ours if path in have)
            self.git.raw("checkout-index", "--force", "--quiet", "-z", "--stdin", input=names, env=env)
        return foreign

    def _differing(self, commit: Sha, paths: Collection[str]) -> set[str]:
        """Those of the paths whose file is not as in the commit, by the rules of `git add` and however hidden."""
        if not paths:
            return set()
        have = self.git.ls_tree(commit, paths)
        with self._scratch(commit) as env:
            self.git.answer("update-index", "-q", "--refresh", env=env)
            shown = set(self.git.names("diff-files", "--name-only", "-z", "--ignore-submodules=all", env=env))
        return {path for path in paths if (path in shown if path in have else self._stands(path))}

    @contextlib.contextmanager
    def _scratch(self, commit: Sha) -> Iterator[Mapping[str, str]]:
        """A scratch index of the commit that hides no file which is there."""
        shown = _nul(path for path in self._hidden() if self._stands(path))
        with self.git.scratch_index(commit) as env:
            for flag in ("--no-assume-unchanged", "--no-skip-worktree") if shown else ():
                self.git.attempt("update-index", flag, "-z", "--stdin", input=shown, env=env)  # some are not in it
            yield env

    def _hidden(self) -> set[str]:
        """Files with the flag skip-worktree (`S`) or assume-unchanged (a small letter)."""
        listed = self.git.names("ls-files", "-v", "-z")
        return {line[2:] for line in listed if line[0] == "S" or line[0].islower()}

    def _stands(self, path: str) -> bool:
        """True if there is a file or link, not a folder."""
        place = self.git.path / path
        return place.is_symlink() or (os.path.lexists(place) and not place.is_dir())

    def _is_beginning(self, path: str, entry: TreeEntry | None) -> bool:
        """True for the beginning of the new file, if no other git can have worked here."""
        place = self.git.path / path
        if not self.exclusive or entry is None or place.is_symlink():
            return False
        whole = self.git.raw("cat-file", "--filters", f"--path={path}", entry.sha)
        try:
            return whole.startswith(read_file(place, len(whole)))
        except OSError:  # longer, or no file
            return False


_NO_FILTER = {"unspecified", "unset", "set"}


def _nul(names: Iterable[str]) -> bytes:
    return b"".join(os.fsencode(name) + b"\0" for name in names)


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
        return read_file(path, len(_SIGNATURE)) == _SIGNATURE
    except OSError:  # gone, longer, no file
        return False


def _make(path: Path, link: Callable[[Path, Path], None] = os.link) -> int | None:
    """Make a lock that is signed and held before it gets its name. None: the name is taken."""
    draft = path.with_name(f"{_DRAFT}{os.getpid()}")
    fd = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, _SIGNATURE)
        os.fsync(fd)
        try_flock(fd)
        link(draft, path)
    except FileExistsError:
        os.close(fd)
        return None
    except OSError as error:
        os.close(fd)
        if error.errno in _NO_LINKS:
            return _make_in_place(path)
        raise
    finally:
        draft.unlink(missing_ok=True)
    return fd


_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}


def _make_in_place(path: Path) -> int | None:
    """The same on a file system without hard links, as git does it: a kill in here leaves a lock without an owner."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return None
    try_flock(fd)
    os.write(fd, _SIGNATURE)
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
