"""The gremlins that a person names on the command line."""

from __future__ import annotations

import typer

from gremlins.cli.completion import complete_ids
from gremlins.fleet.observe import resolve
from gremlins.paths import Home

IDS = typer.Argument(None, metavar="ID…", help="Unique beginnings of ids.", autocompletion=complete_ids)


def named(home: Home, names: list[str] | None, everything: bool) -> list[str]:
    """Full ids of the named gremlins. Wrong usage without a name, or with names and --all."""
    if everything == bool(names):
        raise typer.BadParameter("name gremlins, or say --all", param_hint="ID")
    return list(dict.fromkeys(resolve(home, name) for name in names or []))
