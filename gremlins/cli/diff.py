"""`gremlins diff`."""

from __future__ import annotations

import os

import typer

from gremlins.cli.completion import complete_ids
from gremlins.cli.out import note
from gremlins.clock import SystemClock
from gremlins.fleet.observe import resolve
from gremlins.paths import Home


def diff(
    gremlin_id: str = typer.Argument(..., metavar="ID", autocompletion=complete_ids),
    paths: list[str] = typer.Argument(None, metavar="[-- PATH…]", help="Only these files and folders."),
    stat: bool = typer.Option(False, "--stat", help="Files and counts of lines only."),
    name_only: bool = typer.Option(False, "--name-only", help="Names of files only."),
) -> int:
    """Show the change of a gremlin's branch against its base, with git's own colours and pager."""
    from gremlins.fleet.diff import protected_changes, show_diff, to_compare  # git: only for the verbs that act

    if stat and name_only:
        raise typer.BadParameter("is the opposite of --stat", param_hint="--name-only")
    home = Home.from_env()
    record = to_compare(home, resolve(home, gremlin_id), SystemClock())
    options = [flag for flag, wanted in (("--stat", stat), ("--name-only", name_only)) if wanted]
    code = show_diff(record, options, paths or [], dict(os.environ))
    for sentence in protected_changes(record):
        note(f"note: it changes {sentence}")
    return code
