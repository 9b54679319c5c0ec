"""`gremlins relocate`."""

from __future__ import annotations

import os
from pathlib import Path

import typer

from gremlins.cli.out import note, say
from gremlins.clock import SystemClock
from gremlins.paths import Home


def relocate(old: str = typer.Argument(..., help="The path where the repository was.")) -> int:
    """The repository that was at OLD is the one of the current folder: tell its gremlins and beads."""
    from gremlins.fleet.relocate import relocate as tell  # sqlite and the records: only for the verbs that act

    place = Path(os.path.normpath(Path(old).expanduser().absolute()))
    done = tell(Home.from_env(), place, Path.cwd(), SystemClock())
    for sentence in done.left:
        note(f"warning: {sentence}")
    gremlins = f"{_count(len(done.gremlins), 'gremlin')}{''.join(f' {name}' for name in done.gremlins)}"
    say(f"{place} is {done.project} now: told {gremlins}, and {_count(done.beads, 'bead')}")
    return 0


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
