"""`diff`: the change of a gremlin's branch against its base, printed by git itself."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from gremlins.clock import Clock
from gremlins.errors import Conflict, GremlinsError
from gremlins.paths import Home
from gremlins.records.gremlin import Gremlin, Landed, RunStore
from gremlins.repository.git import Git, git_env
from gremlins.repository.protected import protected


def to_compare(home: Home, gremlin_id: str, clock: Clock) -> Gremlin:
    """Its record, with its commits in a repository of this host. Raises NotFound, CorruptRecord."""
    if home.cluster:
        from gremlins.cluster.hands import bring_here  # only where there is one

        bring_here(home, gremlin_id, clock, commits=True)
    return RunStore(home, clock).read(gremlin_id)


def show_diff(record: Gremlin, options: Sequence[str], paths: Sequence[str], env: Mapping[str, str]) -> int:
    """Run `git diff` with the person's colours and pager. Returns its exit code. Raises Conflict, GremlinsError."""
    if not Path(record.project).is_dir():
        raise GremlinsError(
            f"the repository of {record.id} is not at {record.project}",
            hint="if it has moved: `gremlins relocate OLD` in its new place",
        )
    old, new = ends(record)
    pager = {"GIT_PAGER": env["GIT_PAGER"]} if "GIT_PAGER" in env else {}
    argv = ["git", "diff", *options, old, new, "--", *paths]
    return subprocess.run(argv, cwd=_folder(record), env={**git_env(env), **pager}, check=False).returncode


def protected_changes(record: Gremlin) -> list[str]:
    """A sentence for each protected path that the branch changes. Raises Conflict."""
    return protected(Git(Path(record.project)).changed_paths(*ends(record)))


def ends(record: Gremlin) -> tuple[str, str]:
    """Base and tip of the branch; of a landed one what is left: its last tip, or the commit it landed as."""
    git, status = Git(Path(record.project)), record.status
    tip = git.try_commit(f"refs/heads/{record.branch}")
    if isinstance(status, Landed):
        tip = git.try_commit(status.tip) if status.tip else tip
        if tip is None and git.try_commit(status.sha) is not None:
            return f"{status.sha}^", status.sha
    if tip is None or git.try_commit(record.base) is None:
        raise Conflict(
            f"the branch {record.branch} or its base is not in {record.project} any more",
            hint=f"`gremlins show {record.id}` tells what is known of it",
        )
    return record.base, tip


def _folder(record: Gremlin) -> Path:
    """The current folder if it belongs to the gremlin's repository, so that paths mean what they say there."""
    project, here = Git(Path(record.project)), Path(os.getcwd())
    where = Git(here).in_repository("--path-format=absolute", "--git-common-dir")
    same = where is not None and Path(os.fsdecode(where.rstrip(b"\n"))).resolve() == project.common_dir()
    return here if same else project.path
