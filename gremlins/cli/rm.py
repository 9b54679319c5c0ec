"""`gremlins rm`."""

from __future__ import annotations

import os
from functools import partial

import typer

from gremlins.cli.completion import complete_ids
from gremlins.cli.named import named
from gremlins.cli.out import note, say
from gremlins.clock import SystemClock
from gremlins.paths import Home


def rm(
    gremlin_id: list[str] = typer.Argument(..., metavar="ID…", autocompletion=complete_ids),
    force: bool = typer.Option(False, "--force", help="Stop it first, and throw away what has not landed."),
) -> int:
    """Remove gremlins. Their costs are kept."""
    from gremlins.config import load_settings  # pydantic: only for the verbs that act
    from gremlins.fleet.dispatch.ownership import settle_attempt
    from gremlins.fleet.remove import remove_gremlin

    home, clock, env = Home.from_env(), SystemClock(), dict(os.environ)
    wait = load_settings(None, home, env).settings.batch.stop_wait
    for name in named(home, gremlin_id, False):
        settle_bead = partial(settle_attempt, home, clock=clock)
        kept = remove_gremlin(home, name, force=force, clock=clock, env=env, settle_bead=settle_bead, stop_wait=wait)
        say(f"{name}: removed")
        for ref in kept:
            note(f"kept: {ref} (`git update-ref -d {ref}` drops it)")
    return 0
