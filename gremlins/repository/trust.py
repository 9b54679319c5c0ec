"""Trust in what a repository brings for gremlins: settings, pipelines and prompts, which name commands that run here.

A file of `.gremlins/` is used without a question where the person wrote it, or has said yes to its content:

- it is not in the history of the current branch (new here), or
- the last commit that changed it was made in this repository by `git commit`, author and committer the same; or
- it is a change, not committed yet, of such a file.

Everything else came from outside (a clone, a pull, a merge, a landed gremlin) and is asked about once for each content.
Yes is kept in `trust.json` beside the state, by project.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from gremlins.clock import SystemClock
from gremlins.errors import Conflict, CorruptRecord
from gremlins.files import make_private_dir, read_file, write_atomic
from gremlins.paths import Home
from gremlins.processes.locks import locked
from gremlins.repository.git import Git

FOLDER = ".gremlins"
BESIDE = (".worktreeinclude",)
"""Files of the root that are asked about too: this one says which ignored files of a person are copied."""
PATIENCE = 10.0
"""Seconds to wait for another process that writes `trust.json`."""
MOST_BYTES = 4 * 1024 * 1024
MOST_FILES = 1000


class Untrusted(Conflict):
    """A repository brings files for gremlins that the person has not said yes to."""

    def __init__(self, files: Sequence[BroughtFile]) -> None:
        names = ", ".join(file.path for file in files[:3]) + (f" and {len(files) - 3} more" if len(files) > 3 else "")
        super().__init__(
            f"this repository brings settings, pipelines or prompts that you have not said yes to: {names}",
            hint="`gremlins trust --show` shows them, `gremlins trust` or `launch --trust` says yes",
        )
        self.files = tuple(files)


@dataclass(frozen=True)
class BroughtFile:
    """A file of `.gremlins/`. `path` is relative to the repository's root; `digest` is of path and content."""

    path: str
    content: bytes

    @property
    def digest(self) -> str:
        return _digest(self.path, self.content)


def _digest(path: str, content: bytes) -> str:
    return hashlib.sha256(path.encode(errors="surrogateescape") + b"\0" + content).hexdigest()


def brought_files(root: Path) -> list[BroughtFile]:
    """The files to ask about: `.gremlins/` and those beside it. Raises Conflict if they are too many or too big."""
    found: list[BroughtFile] = []
    left = MOST_BYTES
    included = [path for name in BESIDE if (path := root / name).is_file()]
    for path in [*included, *sorted(_walk(root / FOLDER))]:
        left -= path.stat().st_size
        if left < 0 or len(found) == MOST_FILES:
            raise Conflict(f"{root / FOLDER} holds more than {MOST_FILES} files or {MOST_BYTES // 2**20} MB")
        found.append(BroughtFile(path.relative_to(root).as_posix(), read_file(path)))
    return found


def _walk(folder: Path) -> Iterator[Path]:
    """Every regular file, through links too: a pipeline or prompt may be read through one."""
    for where, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if name != ".git"]
        yield from (path for name in names if (path := Path(where, name)).is_file())


def check_trust(root: Path, project: Path, home: Home) -> None:
    """Raises Untrusted if files of `.gremlins/` came from outside and have not been said yes to."""
    if asked := asked_about(root, project, home):
        raise Untrusted(asked)


def asked_about(root: Path, project: Path, home: Home) -> list[BroughtFile]:
    """The files of a working tree to ask about. What is found to be the person's own is remembered as trusted."""
    files = brought_files(root)
    if not files:
        return []
    known = _read(home).get(str(project), [])
    new = [file for file in files if file.digest not in known]
    history = _History(root, frozenset(known))
    own = [file for file in new if history.is_own(file)]
    if own:
        with contextlib.suppress(OSError):  # then git is asked again next time
            _remember(home, str(project), own)
    return [file for file in new if file not in own]


def trust(root: Path, project: Path, home: Home) -> list[BroughtFile]:
    """Say yes to the files as they are now. Returns those that were asked about."""
    asked = asked_about(root, project, home)
    if asked:
        _remember(home, str(project), asked)
    return asked


@dataclass(frozen=True)
class _History:
    """Answers from git who brought a file."""

    root: Path
    known: frozenset[str]
    """Digests that have been said yes to."""

    @cached_property
    def git(self) -> Git:
        return Git(self.root)

    @cached_property
    def committed_here(self) -> frozenset[str]:
        """Commits that `git commit` made in this repository, those on branches of gremlins left out."""
        entries = self.git.attempt("log", "--walk-reflogs", "--all", "--format=%H%x00%gD%x00%gs")
        rows = (line.split("\0") for line in entries.stdout.splitlines())
        return frozenset(
            row[0]
            for row in rows
            if len(row) == 3
            and row[2].startswith("commit")
            and (row[1].startswith("HEAD@") or row[1].startswith("refs/heads/"))
            and not row[1].startswith("refs/heads/gremlins/")
        )

    def is_own(self, file: BroughtFile) -> bool:
        if not self._is_plain(file.path):
            return False  # a link, or a repository of its own: its history is not here
        last = self.git.attempt("log", "-1", "--format=%H%x00%ae%x00%ce", "--", f":(top,icase,literal){file.path}")
        if last.returncode:
            return False
        if not last.stdout.strip():
            return True
        commit, author, committer = last.stdout.strip().split("\0")
        if author == committer and commit in self.committed_here:
            return True
        below = self.git.attempt("cat-file", "blob", f"HEAD:{file.path}")
        return below.returncode == 0 and _digest(file.path, below.stdout_bytes) in self.known

    def _is_plain(self, path: str) -> bool:
        real = self.root.resolve()
        folders = [(real / path).parent, *(real / path).parents]
        inside = folders[: folders.index(real)]
        return (real / path).resolve() == real / path and not any((folder / ".git").exists() for folder in inside)


def _file(home: Home) -> Path:
    return home.root / "trust.json"


def _read(home: Home) -> dict[str, list[str]]:
    path = _file(home)
    try:
        kept: Any = json.loads(read_file(path))
        return {str(project): list(map(str, digests)) for project, digests in kept["projects"].items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptRecord(path, f"{error}; without it every repository is asked about again") from None


def carry_over(home: Home, old: Iterable[str], new: str) -> None:
    """Let the answers given under a project's old names hold under its new one."""
    known = _read(home)
    if digests := {digest for name in old for digest in known.get(name, [])}:
        _write(home, new, digests)


def _remember(home: Home, project: str, files: Iterable[BroughtFile]) -> None:
    make_private_dir(home.root)
    _write(home, project, {file.digest for file in files})


def _write(home: Home, project: str, digests: set[str]) -> None:
    with locked(home.root / "trust.lock", clock=SystemClock(), patience=PATIENCE) as mine:
        if not mine:
            raise Conflict(f"another process holds {home.root / 'trust.lock'}")
        kept = _read(home)
        kept[project] = sorted({*kept.get(project, []), *digests})
        write_atomic(_file(home), json.dumps({"schema": 1, "projects": kept}, indent=1) + "\n")
