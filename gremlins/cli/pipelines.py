"""`gremlins pipelines`."""

from __future__ import annotations

from pathlib import Path

import typer

from gremlins.cli.out import columns, dump, say
from gremlins.errors import GremlinsError


def pipelines(json: bool = typer.Option(False, "--json", help="One JSON array.")) -> None:
    """List the pipelines."""
    from gremlins.pipeline.file import list_pipelines
    from gremlins.repository.git import find_root  # only where it is asked for

    try:
        repo = find_root(Path.cwd())
    except GremlinsError:
        repo = None
    found = list_pipelines(repo)
    if json:
        dump(
            [
                {
                    "name": info.name,
                    "where": info.where,
                    "path": str(info.path),
                    "stages": list(info.stages),
                    "description": info.description,
                    "error": info.error,
                }
                for info in found
            ]
        )
        return
    rows = [
        (
            info.name,
            info.where + (", hides a built-in one" if info.hides_built_in else ""),
            info.error or ", ".join(info.stages),
        )
        for info in found
    ]
    for line in columns(rows, ("NAME", "WHERE", "STAGES")):
        say(line)
