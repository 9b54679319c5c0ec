"""State roots with many gremlins: ours written by our own record store, the other system's by its own code."""

from __future__ import annotations

import subprocess
from pathlib import Path

from gremlins.paths import Home
from gremlins.records.gremlin import Bailed, FailedGremlin, Parked, Status, Stopped
from tests.fleet.records import Root, ago, call, parked_call, record

TITLE = "Fix the parser: it drops the last line of a file without a line break"


def make_fleet(folder: Path, count: int) -> Path:
    """Gremlins that are all shown: dead, bailed, stopped and detached, each with a call and a log."""
    root = Root(Home(folder))
    for number in range(count):
        gremlin = record(f"fix-the-parser-{number:06x}", _status(number), title=TITLE, task=TITLE)
        root.put(gremlin, call(), log="2026-11-21T12:00:00Z  plan: begins\n")
    return folder


def _status(number: int) -> Status:
    endings: tuple[Status, ...] = (
        FailedGremlin(since=ago(60), stage="verify", failure="task", reason="`make test` ended with 2", exit_code=2),
        Bailed(since=ago(60), stage="plan", kind="unclear", detail="which of the two is meant?"),
        Stopped(since=ago(60), by="a person", reason="stop"),
        Parked(since=ago(60), calls=(parked_call(number),)),
    )
    return endings[number % len(endings)]


OTHER_FLEET = """
import pathlib, sys
from gremlins.executor.state import StateData
root, count, title = pathlib.Path(sys.argv[1]) / "state", int(sys.argv[2]), sys.argv[3]
root.mkdir(parents=True)
for number in range(count):
    name = f"fix-the-parser-{number:06x}"
    folder = root / name
    (folder / "artifacts").mkdir(parents=True)
    StateData(
        gremlin_id=name, kind="local", project_root="/repo", workdir="/w", setup_kind="worktree-detached",
        status="running", started_at="2026-11-21T12:00:00Z", instructions=title, description=title,
        client="claude:sonnet", pipeline_path="/repo/.gremlins/pipelines/local.yaml", stage="verify", pid=None,
        exit_code=2,
    ).persist(folder)
    (folder / "finished").touch()
    (folder / "log").write_text("plan: begins\\n")
"""


def make_other_fleet(python: Path, folder: Path, count: int) -> Path:
    """As many gremlins of the other system, all dead with an exit code, written by its own code."""
    folder.mkdir(parents=True)
    subprocess.run([str(python), "-c", OTHER_FLEET, str(folder), str(count), TITLE], check=True, cwd="/")
    return folder
