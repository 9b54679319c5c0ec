"""`gremlins show`."""

from __future__ import annotations

import typer

from gremlins.cli.completion import complete_ids
from gremlins.cli.out import dump, note, say
from gremlins.cli.show_page import page
from gremlins.clock import SystemClock
from gremlins.fleet.history import history
from gremlins.fleet.observe import resolve
from gremlins.paths import Home


def show(
    gremlin_id: str = typer.Argument(..., metavar="ID", autocompletion=complete_ids),
    json: bool = typer.Option(False, "--json", help="One JSON object: its status, and all that belongs to it."),
) -> int:
    """Tell all about one gremlin: stages, calls, batches, cost, artifacts, and why it ended."""
    home, clock = Home.from_env(), SystemClock()
    found = history(home, resolve(home, gremlin_id), clock)
    for problem in found.unreadable:
        note(f"warning: {problem.message}")
    if json:
        dump(found.as_json())
        return 0
    for line in page(found, clock.now()):
        say(line)
    return 0
