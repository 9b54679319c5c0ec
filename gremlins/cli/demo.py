"""`gremlins demo`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import typer

from gremlins.cli.out import dollars, say
from gremlins.clock import SystemClock
from gremlins.errors import Conflict, GremlinsError
from gremlins.paths import Home

DEMO_FOLDER = "demo"
DEMO_LATENCY = 2.5
"""Seconds the simulated batches take: long enough to be seen parked, short enough for half a minute in all."""


def demo(
    folder: str = typer.Option(DEMO_FOLDER, "--folder", help="Folder to make it in; removed and made anew."),
) -> int:
    """Fix a real bug in a small real repository, in batch mode, against the simulator."""
    from gremlins.simulator import Options, RulesModel, Simulator  # only here is it needed
    from gremlins.simulator.demo_repository import RULE

    root = _fresh(Path(folder).absolute())
    with Simulator(Options(latency=DEMO_LATENCY), model=RulesModel([RULE])) as simulator:
        env = _environment(root, simulator.url, simulator.key)
        return _play(root, env)


def _fresh(root: Path) -> Path:
    """The demo's folder, empty. Only a folder that an earlier demo made is ever removed."""
    marker = root / ".gremlins-demo"
    if root.exists():
        if not marker.is_file():
            raise Conflict(f"{root} exists and is not a demo's folder", hint="say --folder with another name")
        shutil.rmtree(root)
    root.mkdir(parents=True)
    marker.write_text("made by `gremlins demo`; it may be removed\n")
    return root


def _environment(root: Path, url: str, key: str) -> dict[str, str]:
    """The person's environment without their key, pointing at the simulator, with a state root of its own."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("ANTHROPIC_", "GREMLINS_"))}
    quick = {"GREMLINS_BATCH__POLL_INITIAL": "0.5", "GREMLINS_BATCH__POLL_MAX": "2"}
    return {
        **kept,
        **quick,
        "GREMLINS_HOME": str(root / "home"),
        "ANTHROPIC_BASE_URL": url,
        "ANTHROPIC_API_KEY": key,
    }


def _play(root: Path, env: dict[str, str]) -> int:
    from gremlins.cli.watch import watch_launch
    from gremlins.simulator.demo_repository import TASK, make_project, run_tests

    project, clock = root / "orchard", SystemClock()
    say("This is a demo. The repository, the git work, the processes and the HTTP are real; the model is SIMULATED.")
    make_project(project)
    say(f"\n$ cd {_shown(project)}")
    passed, line = run_tests(project)
    say(f"$ python -m unittest          # {'passes' if passed else 'fails'}: {line}")
    gremlin_id = _gremlins(project, env, "launch", "batch", TASK).strip()
    say(f"$ gremlins launch batch '{TASK}'\n{gremlin_id}\n")
    sys.stdout.flush()
    began = time.monotonic()
    watch_launch(Home(root / "home"), gremlin_id, clock)
    state, cost = _outcome(root, gremlin_id)
    if state != "finished":
        raise GremlinsError(f"the demo's gremlin is {state}", hint=f"its log is {root}/home/gremlins/{gremlin_id}/log")
    say(f"\n$ gremlins land {gremlin_id}\n{_gremlins(project, env, 'land', gremlin_id).strip()}")
    passed, line = run_tests(project)
    say(f"$ python -m unittest          # {'passes' if passed else 'fails'}: {line}")
    say(_git_show(project))
    if not passed:
        raise GremlinsError("the demo's tests fail after landing", hint=f"look at {project}")
    say(
        f"It took {time.monotonic() - began:.0f} s and would have cost {dollars(cost['total_usd'])} in batch mode, "
        f"{dollars(cost['total_usd'] + cost['saved_usd'])} live."
    )
    say(_for_real(project))
    return 0


def _gremlins(project: Path, env: dict[str, str], *words: str) -> str:
    """The installed command, as a person would run it."""
    done = subprocess.run(
        [sys.executable, "-m", "gremlins", *words],
        cwd=project,
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if done.returncode:
        raise GremlinsError(f"`gremlins {words[0]}` failed: {done.stderr.strip()}")
    return done.stdout


def _outcome(root: Path, gremlin_id: str) -> tuple[str, dict[str, float]]:
    from msgspec.structs import asdict

    from gremlins.fleet.status import look

    row = look(Home(root / "home"), gremlin_id, SystemClock())
    return row.life.shown, asdict(row.record.cost)


def _git_show(project: Path) -> str:
    done = subprocess.run(
        ["git", "-C", str(project), "show", "--format=%h %s", "--stat", "--patch", "--unified=1", "HEAD"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return "\n" + done.stdout.rstrip() + "\n"


def _shown(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _for_real(project: Path) -> str:
    key = (
        "your ANTHROPIC_API_KEY is set; "
        if os.environ.get("ANTHROPIC_API_KEY")
        else "export ANTHROPIC_API_KEY=…, then "
    )
    return (
        f"Nothing is left but the folder {_shown(project.parent)}/. For real, on a repository of yours: {key}\n"
        "  gremlins launch batch 'what to do' --wait   and then   gremlins land ID"
    )
