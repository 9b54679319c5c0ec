"""`gremlins status`, as typer parses it; see `gremlins.cli.quick` for how it usually starts."""

from __future__ import annotations

import typer

from gremlins.cli.completion import complete_ids
from gremlins.cli.fleet_view import show_fleet


def status(
    gremlin_id: list[str] = typer.Argument(
        None, metavar="[ID]…", help="Unique beginnings of ids.", autocompletion=complete_ids
    ),
    json: bool = typer.Option(False, "--json", help="One JSON array."),
    watch: float = typer.Option(None, "--watch", metavar="[SECONDS]", help="Keep looking."),
    here: bool = typer.Option(False, "--here", help="Only this repository's."),
    everything: bool = typer.Option(False, "--all", help="Finished and landed ones too."),
) -> int:
    """Show the fleet."""
    return show_fleet(tuple(gremlin_id or ()), json=json, watch=watch, here=here, everything=everything)
