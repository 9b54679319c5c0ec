"""`gremlins clean`."""

from __future__ import annotations

import contextlib
import re
from functools import partial
from pathlib import Path

import typer

from gremlins.cli.out import note, say
from gremlins.clock import SystemClock
from gremlins.errors import NotReady
from gremlins.paths import Home


def clean(
    older_than: str = typer.Option("0s", "--older-than", metavar="7d", help="Only what ended so long ago."),
    everything: bool = typer.Option(False, "--all", help="Of every repository, not of the current one only."),
) -> int:
    """Remove what has landed, and what is over without commits. One that asks you something stays."""
    from gremlins.fleet.dispatch.ownership import settle_attempt
    from gremlins.fleet.remove import clean as sweep  # pydantic: only for the verbs that act
    from gremlins.repository.project import find_project

    home, clock = Home.from_env(), SystemClock()
    settle_bead = partial(settle_attempt, home, clock=clock)
    project = None
    if not everything:
        with contextlib.suppress(NotReady):  # outside of a repository every one is meant
            project = find_project(Path.cwd())
    removed, problems = sweep(
        home, older_than=_seconds(older_than), clock=clock, settle_bead=settle_bead, project=project
    )
    for name, kept in removed.items():
        say(f"{name}: removed")
        for ref in kept:
            note(f"kept: {ref} (`git update-ref -d {ref}` drops it)")
    for error in problems:
        note(f"warning: not removed: {error.message}")
    if not removed:
        say("nothing to clean" + ("" if project is None else " in this repository; `--all` looks at every one"))
    return 0


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhdw]?)", text.strip())
    if not found:
        raise typer.BadParameter("is a number and one of s, m, h, d, w: 7d", param_hint="--older-than")
    return float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}[found[2]]
