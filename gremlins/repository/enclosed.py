"""Commands in the sandbox, with a git directory of their own. Their commits come to the gremlin's branch afterwards.

That directory is a copy of refs, settings and the worktree's index, with the repository's objects behind it, read-only:
what commands do to it is theirs alone. Git never runs with the copy's settings outside the sandbox.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from gremlins.config import SandboxSettings
from gremlins.errors import GremlinsError
from gremlins.files import read_file
from gremlins.paths import Home
from gremlins.processes.sandbox import check_sandbox, shell_command, why_not
from gremlins.repository.git import Git, Sha

OBJECTS = "objects-of-the-project"
"""Below the copy: where the sandbox shows the repository's objects."""
_COPIED = ("HEAD", "config", "shallow", "info")
_OF_A_WORKTREE = (b"refs/bisect/", b"refs/rewritten/", b"refs/worktree/")
LARGEST_INDEX = 512 * 2**20
"""Bytes."""
MOST_STASHES = 100
_SHA = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")


@contextlib.contextmanager
def enclosed(
    command: str, settings: SandboxSettings, worktree: Path, env: Mapping[str, str], log: Callable[[str], None]
) -> Iterator[list[str]]:
    """The argv of a shell command in a worktree, inside the sandbox where the settings ask for it and there is one.

    Raises NotReady if one is required and there is none; GremlinsError when commits cannot be brought home.
    """
    check_sandbox(settings, env)
    if why_not(settings, env):
        yield ["/bin/sh", "-c", command]
        return
    home = Home.from_env(env)
    walls = partial(shell_command, command, settings, worktree=worktree, state=home.root, env=env)
    if not (worktree / ".git").is_file():
        yield walls(instead={}, readable={})
        return
    with _private_git(worktree, log) as private:
        behind = {private.common / name: private.common / name for name in ("modules", "lfs")}
        behind[private.common / OBJECTS] = private.common / "objects"
        yield walls(instead={private.common: private.copy}, readable=behind)


@dataclass(frozen=True)
class PrivateGit:
    """common: the repository's git directory. copy: what commands see in its place."""

    common: Path
    copy: Path


@contextlib.contextmanager
def _private_git(worktree: Path, log: Callable[[str], None]) -> Iterator[PrivateGit]:
    """Make the copy in a new folder, bring new commits home, and remove it.

    Raises GremlinsError when the commits cannot be brought home.
    """
    git = Git(worktree)
    common, own = git.common_dir(), git.git_dir()
    private = PrivateGit(common, Path(tempfile.mkdtemp(prefix="gremlins-git-")))
    branch, before = git.text("symbolic-ref", "--quiet", "HEAD").strip(), git.head()
    try:
        _copy(git, private, own, branch)
        yield private
        _bring_home(git, private, own, branch, before, log)
    finally:
        shutil.rmtree(private.copy, ignore_errors=True)


def _copy(git: Git, private: PrivateGit, own: Path, branch: str) -> None:
    for name in _COPIED:
        source = private.common / name
        with contextlib.suppress(FileNotFoundError):
            if source.is_dir():
                shutil.copytree(source, private.copy / name, ignore=shutil.ignore_patterns("*.lock"))
            else:
                shutil.copy(source, private.copy / name)
    # Other gremlins change refs meanwhile, so git names them all at once, whichever way they are stored.
    refs = git.raw("for-each-ref", "--format=%(objectname) %(refname)").splitlines(keepends=True)
    shared = [line for line in refs if not line.partition(b" ")[2].startswith(_OF_A_WORKTREE)]
    (private.copy / "packed-refs").write_bytes(b"".join(shared))
    copied = private.copy / own.relative_to(private.common)
    shutil.copytree(own, copied, ignore=shutil.ignore_patterns("logs", "*.lock", "reftable"))
    if (private.common / "reftable").exists():
        git.raw("config", "--file", str(private.copy / "config"), "--unset-all", "extensions.refstorage")
        (copied / "HEAD").write_text(f"ref: {branch}\n")
    for name in ("refs", OBJECTS, "modules", "lfs", "objects/info"):
        (private.copy / name).mkdir(parents=True, exist_ok=True)
    (private.copy / "objects" / "info" / "alternates").write_text(f"{private.common / OBJECTS}\n")


def _tip(private: PrivateGit, own: Path, branch: str) -> Sha | None:
    """The commit that the commands left on the branch, if they are still on it."""
    head = _read(private.copy / own.relative_to(private.common) / "HEAD")
    found = _read(private.copy / branch) or _packed(private, branch)
    return Sha(found) if head == f"ref: {branch}" and _SHA.fullmatch(found) else None


def _packed(private: PrivateGit, branch: str) -> str:
    lines = (_bytes(private.copy / "packed-refs") or b"").decode(errors="replace").splitlines()
    return next((sha for sha, _, name in (line.partition(" ") for line in lines) if name == branch), "")


def _read(path: Path) -> str:
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            return file.read(4096).decode(errors="replace").strip()
    except OSError:
        return ""


def _bring_home(git: Git, private: PrivateGit, own: Path, branch: str, before: Sha, log: Callable[[str], None]) -> None:
    """Copy the new objects, then move the branch and replace the index, each only if all that it names is there.

    What commands have put aside by `git stash` is kept under refs of the gremlin.
    """
    after = _tip(private, own, branch) or before
    index = private.copy / own.relative_to(private.common) / "index"
    staged = _bytes(index) != _bytes(own / "index")
    stashes = _stashes(private)
    if after == before and not staged and not stashes:
        return
    _copy_objects(git, private)
    for stash in stashes:
        if git.try_commit(stash) is not None:
            ref = f"refs/gremlins/{branch.rpartition('/')[2]}/stash-{stash[:12]}"
            git.update_ref(ref, stash, reason="gremlins: a stash of commands")
            log(f"a stash that the commands made is kept as {ref}: `git stash apply {stash[:12]}`")
    if after != before:
        if git.try_commit(after) is None:
            raise GremlinsError(f"a commit that the commands made cannot be read: {after[:12]}")
        git.update_ref(branch, after, before, reason="gremlins: commits of commands")
    if _bytes(index) is None or git.attempt("write-tree", env={"GIT_INDEX_FILE": str(index)}).returncode:
        git.raw("reset", "--quiet", "--mixed")
    elif staged:
        shutil.copy(index, own / "index.commands")
        os.replace(own / "index.commands", own / "index")


def _stashes(private: PrivateGit) -> list[Sha]:
    """The stashes that commands have made and not taken back: the copy began without a log of any."""
    lines = (_bytes(private.copy / "logs" / "refs" / "stash") or b"").decode(errors="replace").splitlines()
    named = (line.split(" ", 2)[1:2] for line in lines[-MOST_STASHES:])
    return [Sha(sha) for found in named for sha in found if _SHA.fullmatch(sha)]


def _copy_objects(git: Git, private: PrivateGit) -> None:
    """Only plain files in plain folders count: links and pipes that a command made are left where they are."""
    kept, packs = private.copy / "objects-to-keep", []
    kept.mkdir()
    for folder in _plain_folder(private.copy / "objects"):
        for path in _plain_folder(folder):
            if path.is_symlink() or not path.is_file():
                continue
            if folder.name == "pack" and path.suffix == ".pack":
                packs.append(path)
            elif _SHA.fullmatch(folder.name + path.name):
                (kept / folder.name).mkdir(exist_ok=True)
                path.rename(kept / folder.name / path.name)
    names = "".join(f"{path.parent.name}{path.name}\n" for path in kept.glob("*/*"))
    if names:
        also = {"GIT_ALTERNATE_OBJECT_DIRECTORIES": str(kept)}
        git.raw("pack-objects", "-q", str(kept / "loose"), input=names, env=also)
    for pack in (*kept.glob("loose-*.pack"), *packs):
        with pack.open("rb") as file:
            git.raw("unpack-objects", "-q", *(["--strict"] if pack in packs else []), input=file)


def _plain_folder(path: Path) -> list[Path]:
    """The contents of a folder; nothing if it is a link or no folder."""
    return sorted(path.iterdir()) if path.is_dir() and not path.is_symlink() else []


def _bytes(path: Path) -> bytes | None:
    try:
        return None if path.is_symlink() else read_file(path, LARGEST_INDEX)
    except OSError:
        return None
