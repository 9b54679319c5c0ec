"""Runs git: a scrubbed environment, typed results, errors with hints. Changes no file of a worktree."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, NewType

from gremlins.clock import SystemClock
from gremlins.errors import Conflict, GitError, GremlinsError, NotReady, did_you_mean
from gremlins.files import read_file
from gremlins.processes.children import Completed, TimedOut, TooMuchOutput, command_env, run
from gremlins.text import ESCAPE_SEQUENCE

Sha = NewType("Sha", str)
"""The full name of a commit or tree."""

OPERATIONS = {
    "MERGE_HEAD": "merge",
    "CHERRY_PICK_HEAD": "cherry-pick",
    "REVERT_HEAD": "revert",
    "rebase-merge": "rebase",
    "rebase-apply": "rebase",
    "sequencer": "cherry-pick or revert",
}
"""Files in a git directory while an operation waits for a person."""

HEAD_NAMES = {
    "rebase-merge/head-name": "rebase",
    "rebase-merge/update-refs": "rebase",
    "rebase-apply/head-name": "rebase",
    "BISECT_START": "bisect",
}
"""Files in a git directory that name the branches which an operation will set or return to."""

QUIET = {
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",  # would start a daemon that outlives us
    "core.quotePath": "false",
    "core.splitIndex": "false",
    "core.fsync": "committed",  # objects of a landing must be on disk before its branch is deleted
    "core.filesRefLockTimeout": "5000",  # ms; gremlins share one repository's refs
    "core.packedRefsTimeout": "5000",
    "commit.gpgSign": "false",
    "tag.gpgSign": "false",
    "gc.auto": "0",  # would run in the background
    "maintenance.auto": "false",
    "submodule.recurse": "false",
    "protocol.ext.allow": "never",  # an address `ext::COMMAND`: a partial clone would run it for a missing file
    "core.safecrlf": "false",  # would refuse an agent's line ends
    "advice.detachedHead": "false",
}
"""Turns off a person's hooks, signing, daemons and background work."""

PATIENCE = 3600.0
"""Seconds. A checkout may fetch large files; but git waits for ever where a command made a pipe of `.gitignore`."""

MOST_SHORT_TEXT = 2**20
"""Bytes of a file in a git directory that we read ourselves."""

MOST_IN_ARGV = 50_000
"""Characters of file names that are handed to git as arguments; with more, everything is listed."""

_KEPT = re.compile(r"GIT_(CONFIG_(?!PARAMETERS).*|SSH.*|ASKPASS|EXEC_PATH|SSL_.*|PROXY_COMMAND|ALLOW_PROTOCOL)")
"""The `GIT_*` variables that locate git and its settings, not a repository."""

_HOST_TROUBLE = re.compile(
    r"\.lock': File exists|unable to lock|No space left on device|Disk quota exceeded|Too many open files"
    r"|Cannot allocate memory|Resource temporarily unavailable|Input/output error|Read-only file system"
    r"|Could not resolve host|unable to access '|early EOF|unexpected disconnect|RPC failed|remote end hung up"
    r"|Connection (reset|refused|timed out|closed)|Could not read from remote repository|from promisor remote",
    re.IGNORECASE,
)


_HALF_MADE = re.compile(r"failed to read .*worktrees/[^/]+/commondir")
"""git reads the entries of all worktrees, and ends at one that another git is just writing, with nothing done yet."""
HALF_MADE_TRIES = 40
HALF_MADE_PAUSE = 0.05

_FILTER_TROUBLE = re.compile(r"^(?:fatal|error): (.+: (?:clean|smudge) filter .+ failed)$", re.MULTILINE)

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


class HostGitError(GitError):
    """git failed because of the machine: a lock held by another process, no space, no file handles, no network."""


class UnknownRef(GremlinsError):
    """The name stands for no commit of this repository."""


@dataclass(frozen=True)
class Identity:
    """Author and committer of a commit."""

    name: str
    email: str


FALLBACK_IDENTITY = Identity("gremlins", "gremlins@localhost")


@dataclass(frozen=True)
class TreeEntry:
    """One file of a tree. mode: `100644`, `100755`, `120000` (symbolic link) or `160000` (submodule)."""

    mode: str
    sha: Sha
    path: str


@dataclass(frozen=True)
class InUse:
    """An operation in a worktree that will set a branch when it ends: a `rebase` or `bisect`."""

    operation: str
    path: Path


@dataclass(frozen=True)
class Checkout:
    """A worktree of the repository. `branch` is None if its HEAD is detached."""

    path: Path
    branch: str | None
    bare: bool = False


def git_env(base: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment for git, its filters and helpers: the person's settings, no credential, no variable that names
    another repository, no prompts.
    """
    source = command_env(os.environ if base is None else base)
    kept = {name: value for name, value in source.items() if not name.startswith("GIT_") or _KEPT.fullmatch(name)}
    return kept | {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0", "GIT_EDITOR": "true"}


class Git:
    """git in one directory. Every method raises GitError; HostGitError if the cause is the machine."""

    def __init__(
        self,
        path: Path,
        *,
        env: Mapping[str, str] | None = None,
        told: Mapping[str, str] | None = None,
        patience: float = PATIENCE,
    ) -> None:
        """told: `GIT_*` variables that tell every call where its files are, in place of what git would find.
        patience: seconds for a call that names no other timeout.
        """
        self.path = path
        self.told = told or {}
        self.patience = patience
        self._base = env

    def attempt(
        self,
        *args: str,
        input: bytes | str | IO[bytes] | None = None,
        env: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
        shielded: bool = False,
        timeout: float | None = None,
        check: Callable[[], None] | None = None,
    ) -> Completed:
        """Run git; any exit code is a result. Raises NotReady if git is not installed."""
        for _ in range(HALF_MADE_TRIES):
            done = self._attempt(args, input, env, pass_fds, shielded, timeout, check)
            if done.returncode == 0 or not _HALF_MADE.search(done.stderr):
                break
            SystemClock().sleep(HALF_MADE_PAUSE)
        return done

    def _attempt(
        self,
        args: Sequence[str],
        input: bytes | str | IO[bytes] | None,
        env: Mapping[str, str] | None,
        pass_fds: Sequence[int],
        shielded: bool,
        timeout: float | None,
        check: Callable[[], None] | None,
    ) -> Completed:
        options = [part for key, value in QUIET.items() for part in ("-c", f"{key}={value}")]
        try:
            return run(
                ["git", *options, *args],
                cwd=self.path,
                env={**git_env(self._base), **self.told, **(env or {})},
                input=input,
                pass_fds=pass_fds,
                shielded=shielded,
                timeout=self.patience if timeout is None else timeout,
                check=check,
            )
        except FileNotFoundError:
            if not self.path.is_dir():
                raise GremlinsError(f"{self.path} is not a folder") from None
            raise NotReady("git is not installed", hint="install git 2.30 or newer") from None
        except TimedOut as error:
            raise HostGitError(["git", *args], -9, str(error)) from None
        except TooMuchOutput as error:
            raise GitError(["git", *args], -9, f"{error.strerror}") from None

    def raw(
        self,
        *args: str,
        input: bytes | str | IO[bytes] | None = None,
        env: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
        shielded: bool = False,
    ) -> bytes:
        """Standard output. Raises GitError."""
        done = self.attempt(*args, input=input, env=env, pass_fds=pass_fds, shielded=shielded)
        if done.returncode:
            raise error_of(args, done)
        return done.stdout_bytes

    def text(self, *args: str, input: bytes | str | None = None, env: Mapping[str, str] | None = None) -> str:
        """Standard output as text, without the final newline."""
        return self.raw(*args, input=input, env=env).decode(errors="replace").rstrip("\n")

    def names(self, *args: str, env: Mapping[str, str] | None = None) -> list[str]:
        """Paths printed with `-z`, decoded as by `os.fsdecode`."""
        return split_names(self.raw(*args, env=env))

    def answer(self, *args: str, env: Mapping[str, str] | None = None) -> str | None:
        """Standard output if git said yes (exit code 0), None if it said no (1). Raises GitError for other codes."""
        done = self.attempt(*args, env=env)
        if done.returncode > 1 or done.returncode < 0:
            raise error_of(args, done)
        return done.stdout.strip() if done.returncode == 0 else None

    def in_repository(self, *questions: str) -> bytes | None:
        """Output of `git rev-parse`, None outside any repository."""
        done = self.attempt("rev-parse", *questions)
        if "dubious ownership" in done.stderr:
            advice = done.stderr.strip().splitlines()[-1].strip()
            raise NotReady(f"git does not trust {self.path}: it belongs to another user", hint=f"if you do: {advice}")
        if done.returncode and "not a git repository" not in done.stderr:
            raise error_of(("rev-parse", *questions), done)
        return None if done.returncode else done.stdout_bytes

    # --- the repository

    def git_dir(self) -> Path:
        """This worktree's own git directory: index, HEAD, locks."""
        return self.place("--absolute-git-dir")

    def common_dir(self) -> Path:
        """The git directory that all worktrees share: objects, refs, configuration."""
        return (self.path / self.place("--git-common-dir")).resolve()

    def place(self, question: str) -> Path:
        """A path by `git rev-parse`."""
        return Path(os.fsdecode(self.raw("rev-parse", question).rstrip(b"\n")))

    def commit(self, ref: str) -> Sha:
        """The commit a name stands for. Raises UnknownRef."""
        found = self.try_commit(ref)
        if found is None:
            hint = did_you_mean(ref, self.ref_names(), otherwise="`git branch -a` lists what there is")
            raise UnknownRef(f"unknown ref `{ref}` in {self.path}", hint=hint)
        return found

    def try_commit(self, ref: str) -> Sha | None:
        """The commit a name stands for, or None."""
        args = ("rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}")
        done = self.attempt(*args)
        if done.returncode == 1 or (done.returncode == 128 and not done.stderr):  # 128: `main@{9999}`
            return None
        if done.returncode:
            raise error_of(args, done)
        return Sha(done.stdout.strip())

    def head(self) -> Sha:
        """The commit checked out. Raises NotReady in a repository without one."""
        found = self.try_commit("HEAD")
        if found is None:
            raise NotReady(
                f"{self.path} has no commits yet", hint="commit something first: a gremlin starts from a commit"
            )
        return found

    def tree(self, ref: str) -> Sha:
        """The tree of a commit."""
        return Sha(self.text("rev-parse", "--verify", "--end-of-options", f"{ref}^{{tree}}"))

    def ref_names(self) -> list[str]:
        """Branches and tags, by their short names."""
        return self.text("for-each-ref", "--format=%(refname:short)", "refs/heads", "refs/tags", "refs/remotes").split()

    def branch(self) -> str | None:
        """The branch checked out; None if HEAD is detached."""
        return self.answer("symbolic-ref", "--quiet", "--short", "HEAD")

    def branch_exists(self, branch: str) -> bool:
        return self.try_commit(f"refs/heads/{branch}") is not None

    def checkouts(self) -> list[Checkout]:
        """Every worktree of the repository, the main one first, including those whose folder is gone."""
        found = []
        for block in self.raw("worktree", "list", "--porcelain").decode(errors="surrogateescape").split("\n\n"):
            lines = dict(line.partition(" ")[::2] for line in block.splitlines())
            if "worktree" in lines:
                branch = lines.get("branch", "").removeprefix("refs/heads/") or None
                found.append(Checkout(Path(lines["worktree"]), branch, "bare" in lines))
        if found and not found[0].bare and self.git_dir().resolve() == self.common_dir():
            # git takes the folder of the git directory for the main worktree, which may be elsewhere.
            top = self.attempt("rev-parse", "--show-toplevel")
            if top.returncode == 0:
                found[0] = Checkout(Path(os.fsdecode(top.stdout_bytes.rstrip(b"\n"))), found[0].branch)
        return found

    def in_use(self, branch: str) -> InUse | None:
        """The rebase or bisect, in any worktree, that will set or return to a branch when it ends."""
        common = self.common_dir()
        for git_dir in (common, *sorted((common / "worktrees").glob("*"))):
            for name, operation in HEAD_NAMES.items():
                named = (short_text(git_dir / name) or "").split()
                if branch in (word.removeprefix("refs/heads/") for word in named):
                    own = short_text(git_dir / "gitdir")
                    return InUse(operation, Path(own.strip()).parent if own else self.checkouts()[0].path)
        return None

    def identity(self) -> Identity:
        """The configured identity, else `gremlins <gremlins@localhost>`; never git's guess from the host name."""
        name, email = self.answer("config", "--get", "user.name"), self.answer("config", "--get", "user.email")
        return Identity(name, email) if name and email else FALLBACK_IDENTITY

    # --- the working tree

    def operation(self) -> str | None:
        """`merge`, `rebase` and the like while one is in progress."""
        git_dir = self.git_dir()
        return next((what for name, what in OPERATIONS.items() if (git_dir / name).exists()), None)

    def dirty_paths(self) -> list[str]:
        """Tracked files that differ from HEAD, staged or not."""
        shown = self.names(
            "status", "--porcelain", "-z", "--no-renames", "--untracked-files=no", "--ignore-submodules=dirty"
        )
        return [line[3:] for line in shown]

    def uncommitted(self) -> list[str]:
        """Files of the tree that are in no commit: changed ones, and new ones (a new folder is one name)."""
        shown = self.names(
            "status", "--porcelain", "-z", "--no-renames", "--untracked-files=normal", "--ignore-submodules=dirty",
            "--", ":(top)", ":(top,exclude).gremlins",
        )  # fmt: skip
        return [line[3:] for line in shown]

    def untracked(self, *, env: Mapping[str, str] | None = None) -> list[str]:
        """Files neither tracked nor ignored. A nested repository is one name that ends with `/`."""
        return self.names("ls-files", "--others", "--exclude-standard", "-z", env=env)

    # --- content

    def ls_files(self) -> list[str]:
        """The tracked files without submodules, each once, in git's order."""
        lines = self.names("ls-files", "--stage", "-z")
        return list(
            dict.fromkeys(path for meta, _, path in (line.partition("\t") for line in lines) if meta[:6] != "160000")
        )

    def empty_submodules(self) -> list[str]:
        """The submodules of which the worktree has no files: git does not fill those of a new worktree."""
        found = ((path, self.path / path) for path in self.submodules())
        return [path for path, place in found if not place.is_dir() or not any(place.iterdir())]

    def submodules(self, *, env: Mapping[str, str] | None = None) -> list[str]:
        """The paths of other repositories that the index names."""
        lines = (line.partition("\t") for line in self.names("ls-files", "--stage", "-z", env=env))
        return [path for meta, _, path in lines if meta[:6] == "160000"]

    def ls_tree(self, ref: str, paths: Iterable[str] = ()) -> dict[str, TreeEntry]:
        """The files of a commit or tree by path: all, or those among `paths` (literal names)."""
        wanted = set(paths)
        few = wanted if sum(map(len, wanted)) < MOST_IN_ARGV else ()
        listed = self.raw("ls-tree", "-r", "-z", "--full-tree", ref, "--", *few, env={"GIT_LITERAL_PATHSPECS": "1"})
        found = {}
        for line in split_names(listed):
            meta, _, path = line.partition("\t")
            mode, _, sha = meta.split()
            if few or not wanted or path in wanted:
                found[path] = TreeEntry(mode, Sha(sha), path)
        return found

    def changed_paths(self, old: str, new: str) -> list[str]:
        """The paths that differ between two commits or trees; a rename counts as both paths."""
        return self.names("diff-tree", "-r", "-z", "--no-renames", "--name-only", "--no-commit-id", old, new)

    def differs(self, old: str, new: str) -> bool:
        """True if the trees of two commits differ."""
        return self.tree(old) != self.tree(new)

    def diff(self, old: str, new: str, *, paths: Sequence[str] = (), context: int = 3) -> str:
        """The difference as a patch, independent of the person's diff settings."""
        done = self.raw(
            "diff-tree", "-r", "-p", "-M", "--no-commit-id", "--no-ext-diff", "--no-textconv", "--no-color",
            "--src-prefix=a/", "--dst-prefix=b/", f"-U{context}", old, new, "--", *paths,
            env={"GIT_LITERAL_PATHSPECS": "1"},
        )  # fmt: skip
        return done.decode(errors="replace")

    def diff_stat(self, old: str, new: str) -> str:
        return self.text("diff-tree", "-r", "-M", "--stat=100", "--no-commit-id", "--no-color", old, new)

    def count_changes(self, old: str, new: str) -> tuple[int, int, int]:
        """Files, added and deleted lines between two commits; a binary file has no lines."""
        rows = self.text("diff-tree", "-r", "-M", "--numstat", "--no-commit-id", old, new).splitlines()
        lines = [row.split("\t")[:2] for row in rows]
        added, deleted = (sum(int(pair[side]) for pair in lines if pair[side] != "-") for side in (0, 1))
        return len(lines), added, deleted

    def is_ancestor(self, old: str, new: str) -> bool:
        """True if the history of `new` contains `old`; a commit is its own ancestor."""
        return self.answer("merge-base", "--is-ancestor", old, new) is not None

    def merge_base(self, one: str, other: str) -> Sha | None:
        """The best common ancestor of two commits, None if there is none."""
        found = self.answer("merge-base", one, other)
        return Sha(found) if found else None

    def find_trailer(self, trailer: str, span: str) -> Sha | None:
        """The newest commit of a span (`base..HEAD`) whose message has this line, `Key: value`."""
        word = trailer.encode(errors="surrogateescape").decode(errors="replace")
        shown = self.raw(
            "log", "-z", "--no-show-signature", "--no-color", "--fixed-strings", f"--grep={word}",
            "--format=%H%n%B", span, "--",
        )  # fmt: skip
        for entry in split_names(shown):
            sha, _, message = entry.partition("\n")
            if word in message.splitlines():
                return Sha(sha)
        return None

    # --- writing objects and refs, never the working tree

    def commit_tree(self, tree: str, parents: Sequence[str], message: str, *, identity: Identity | None = None) -> Sha:
        """Write a commit object, unsigned and without hooks. No branch moves."""
        who = identity or self.identity()
        env = {
            "GIT_AUTHOR_NAME": who.name, "GIT_AUTHOR_EMAIL": who.email,
            "GIT_COMMITTER_NAME": who.name, "GIT_COMMITTER_EMAIL": who.email,
        }  # fmt: skip
        args = [part for parent in parents for part in ("-p", parent)]
        return Sha(self.text("commit-tree", tree, *args, input=plain_text(message).rstrip("\n") + "\n", env=env))

    def update_ref(self, ref: str, new: str, old: str | None = None, *, reason: str = "gremlins") -> None:
        """Set a ref. With `old`, only if it still has that value (empty: only if it does not exist)."""
        self.raw("update-ref", "--create-reflog", "-m", reason, ref, new, *([] if old is None else [old]))

    def delete_ref(self, ref: str) -> None:
        """Delete a ref; a missing one is no error."""
        self.raw("update-ref", "-d", ref)

    @contextlib.contextmanager
    def scratch_index(self, tree: str) -> Iterator[Mapping[str, str]]:
        """A temporary index with the files of `tree`, as environment for git.

        It starts as a copy of the worktree's index, so that git need not read every file to find changes.
        """
        with TemporaryDirectory(prefix="gremlins-index-") as folder:
            index = Path(folder) / "index"
            with contextlib.suppress(FileNotFoundError):  # none yet: git starts with an empty one
                shutil.copy2(self.git_dir() / "index", index)
            env = {"GIT_INDEX_FILE": str(index)}
            self.raw("read-tree", "--reset", tree, env=env)
            yield env

    def write_tree(self, env: Mapping[str, str]) -> Sha:
        return Sha(self.text("write-tree", env=env))


def error_of(args: Sequence[str], done: Completed) -> GitError:
    """The error of a git that failed. Its message is git's `fatal:` or `error:` line, or a filter's own words."""
    kind = HostGitError if _HOST_TROUBLE.search(done.stderr) else GitError
    error = kind(["git", *args], done.returncode, done.output)
    lines = done.stderr.splitlines()
    said = next((line for line in lines if line.startswith(("fatal: ", "error: "))), None)
    if (filtered := _FILTER_TROUBLE.search(done.stderr)) is not None:
        own = [line for line in lines if not line.startswith(("fatal: ", "error: ", "warning: "))]
        cause = next((line.strip() for line in [*own, *lines] if filtered[1] not in line), None)
        said = f"fatal: {filtered[1]}" + (f": {cause.removeprefix('error: ')}" if cause else "")
        error.hint = "install or unlock what the filter needs; `git config --get-regexp ^filter` shows its commands"
    if said:
        error.message = f"git {args[0]}: {said.partition(': ')[2]}"
        error.args = (error.message,)
    return error


def plain_text(text: str) -> str:
    """A text without what would move a cursor, hide or reorder words, or cannot be encoded."""
    text = ESCAPE_SEQUENCE.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
    return _CONTROL.sub("", text).encode(errors="replace").decode()


def short_text(path: Path) -> str | None:
    """The text of a file of git's own, stripped. None if there is none, or it is no file, or too long to be one."""
    try:
        return os.fsdecode(read_file(path, MOST_SHORT_TEXT)).strip()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EINVAL, errno.EFBIG, errno.ENXIO):
            return None
        raise


def some_of(paths: Sequence[str]) -> str:
    """The first few names of a list, for a message."""
    shown = ", ".join(os.fsencode(path).decode(errors="replace") for path in paths[:5])
    return shown + (f" and {len(paths) - 5} more" if len(paths) > 5 else "")


def split_names(raw: bytes) -> list[str]:
    """Split NUL-terminated names, decoded as by `os.fsdecode`."""
    return [name for name in raw.decode(errors="surrogateescape").split("\0") if name]


def find_root(start: Path, *, env: Mapping[str, str] | None = None) -> Path:
    """The top of the working tree around `start`. Raises NotReady: no repository, a bare one, or no commit."""
    git = Git(start, env=env)
    bare = NotReady(f"{start} is a bare repository or a .git folder", hint="go to a working tree of it")
    try:
        shown = git.in_repository("--is-bare-repository", "--is-inside-git-dir", "--show-toplevel")
    except GitError as error:
        if "must be run in a work tree" in error.output:
            raise bare from None
        raise
    if shown is None:
        raise NotReady(
            f"{start} is not in a git repository",
            hint="gremlins work on git repositories: go to yours, or make one with `git init`",
        )
    *inside, top = shown.split(b"\n", 2)
    if inside != [b"false", b"false"]:
        raise bare
    root = readable_path(top.removesuffix(b"\n"))
    Git(root, env=env).head()
    return root


def readable_path(raw: bytes) -> Path:
    """A path that a record can hold. Raises NotReady if it is not UTF-8."""
    try:
        return Path(raw.decode())
    except UnicodeDecodeError:
        shown = raw.decode(errors="backslashreplace")
        raise NotReady(f"the path {shown} is not UTF-8", hint="rename the folder whose name is not") from None


def refuse_operation(git: Git) -> None:
    """Raise Conflict while a merge, rebase or the like waits for a person."""
    found = git.operation()
    if found:
        raise Conflict(f"a {found} is in progress in {git.path}", hint=f"finish or abort the {found} first")
