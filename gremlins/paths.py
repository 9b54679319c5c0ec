"""Paths of the state root and everything below it. Only finding the state root touches the disk."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from stat import S_ISDIR
from typing import NamedTuple

from gremlins.errors import NotReady
from gremlins.files import read_file

GREMLIN_ID = re.compile(r"[a-z0-9-]{1,64}")

STATE, FROZEN, STOP, WAIT = "state.json", "frozen.json", "stop.json", "wait.json"
RELOCATION = "relocation.json"
CLUSTER_VARIABLE = "GREMLINS_CLUSTER__URL"
LOCK, ACTIVITY, LOG, CALLS = "lock", "activity", "log", "calls"
"""Names in a gremlin's folder, for lists: with ten thousand gremlins `Path` itself takes a second."""


class GremlinPaths(NamedTuple):
    """The folder of one gremlin."""

    root: Path

    @property
    def state(self) -> Path:
        return self.root / STATE

    @property
    def frozen(self) -> Path:
        """Pipeline, prompts and settings of the launch."""
        return self.root / FROZEN

    @property
    def lock(self) -> Path:
        """Held by the process that may write the record; see `gremlins.processes.locks`."""
        return self.root / LOCK

    @property
    def work_lock(self) -> Path:
        """Inherited by agents and commands, so that those of a dead gremlin can be found."""
        return self.root / "work.lock"

    @property
    def stop(self) -> Path:
        """The request to stop, not part of the record."""
        return self.root / STOP

    @property
    def relocation(self) -> Path:
        """The place of its repository now, told while its process waited."""
        return self.root / RELOCATION

    @property
    def wait(self) -> Path:
        """The wait of a parked process and its polls. Made again if lost."""
        return self.root / WAIT

    @property
    def activity(self) -> Path:
        """Touched at each output of a live agent; its age shows a stall."""
        return self.root / ACTIVITY

    @property
    def log(self) -> Path:
        return self.root / LOG

    @property
    def output(self) -> Path:
        """Stdout and stderr of the process."""
        return self.root / "output"

    @property
    def temporary(self) -> Path:
        """Temporary files of the process, emptied at each start: a killed one cannot remove them."""
        return self.root / "tmp"

    @property
    def calls(self) -> Path:
        return self.root / CALLS

    @property
    def artifacts(self) -> Path:
        return self.root / "artifacts"


class Home(NamedTuple):
    """`$GREMLINS_HOME`. `cluster`: the address of the database that holds the fleet of several hosts, or nothing."""

    root: Path
    cluster: str = ""

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> Home:
        """`GREMLINS_HOME`, or the platform's user state folder. Raises NotReady if that is no folder, or if others
        can write to it."""
        env = os.environ if env is None else env
        named = env.get("GREMLINS_HOME")
        if named:
            home = cls(Path(named).expanduser().absolute())
        else:
            from platformdirs import user_state_path  # 25 ms

            home = cls(user_state_path("gremlins"))
        home._refuse_unusable()
        cluster = env[CLUSTER_VARIABLE].strip() if CLUSTER_VARIABLE in env else home._configured_cluster()
        return home._replace(cluster=cluster) if cluster else home

    def _configured_cluster(self) -> str:
        """`cluster.url` of the person's own file. A file that is wrong is reported where settings are read."""
        try:
            text = read_file(self.config)
        except OSError:
            return ""
        if b"cluster" not in text:
            return ""
        import tomllib  # 8 ms that most need not pay

        with contextlib.suppress(ValueError, RecursionError, AttributeError):
            found = tomllib.loads(text.decode()).get("cluster", {}).get("url", "")
            return found if isinstance(found, str) else ""
        return ""

    def _refuse_unusable(self) -> None:
        """Its content decides which commands run."""
        with contextlib.suppress(FileNotFoundError, PermissionError):
            mode = self.root.stat().st_mode
            if not S_ISDIR(mode):
                raise NotReady(f"the state root {self.root} is no folder", hint="name a folder in GREMLINS_HOME")
            if mode & 0o022:
                raise NotReady(f"others can write to the state root {self.root}", hint=f"chmod go-w {self.root}")

    @property
    def _fleet(self) -> Path:
        """Copies of a cluster's gremlins lie apart from the gremlins of this host alone."""
        return self.root / "cluster" if self.cluster else self.root

    @property
    def gremlins(self) -> Path:
        return self._fleet / "gremlins"

    @property
    def worktrees(self) -> Path:
        return self._fleet / "worktrees"

    @property
    def config(self) -> Path:
        return self.root / "config.toml"

    @property
    def beads(self) -> Path:
        return self.root / "beads.db"

    @property
    def spend(self) -> Path:
        """The cost of removed gremlins, one JSON object a line."""
        return self.root / "spend.jsonl"

    @property
    def polls(self) -> Path:
        """Answers and locks of the shared poll, one folder per account."""
        return self.root / "polls"

    @property
    def mirrors(self) -> Path:
        """Clones of projects whose gremlins may come from other hosts."""
        return self.root / "mirrors"

    @property
    def crashes(self) -> Path:
        return self.root / "crashes"

    def gremlin(self, gremlin_id: str) -> GremlinPaths:
        return GremlinPaths(self.gremlins / gremlin_id)

    def worktree(self, gremlin_id: str) -> Path:
        return self.worktrees / gremlin_id
