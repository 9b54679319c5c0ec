"""`gremlins rescue`."""

from __future__ import annotations

import os

import typer

from gremlins.cli.named import IDS, named
from gremlins.cli.out import note, say
from gremlins.clock import SystemClock
from gremlins.errors import GremlinsError
from gremlins.fleet.status import survey
from gremlins.paths import Home


def rescue(
    gremlin_id: list[str] = IDS,
    everything: bool = typer.Option(False, "--all", help="Every dead or detached one."),
    from_stage: str = typer.Option(None, "--from", metavar="STAGE", help="Ask this stage and all after it anew."),
) -> int:
    """Bring gremlins back to life where they were."""
    from gremlins.fleet.dispatch.ownership import adopt
    from gremlins.fleet.rescue import rescue as bring_back  # pydantic: only for the verbs that act

    home, clock, env = Home.from_env(), SystemClock(), dict(os.environ)
    names = named(home, gremlin_id, everything)
    if from_stage is not None and len(names) != 1:
        raise typer.BadParameter("takes exactly one gremlin", param_hint="--from")
    if everything:
        names = [row.record.id for row in survey(home, clock).rows if row.life.state in ("dead", "detached")]
    failures: list[GremlinsError] = []
    for name in names:
        try:
            adopt(home, name, clock, restart=from_stage is not None)
            done = bring_back(home, name, clock=clock, env=env, from_stage=from_stage, tell=note)
            say(f"{done.id}: was {done.found}; {done.detail}")
        except GremlinsError as error:
            failures.append(error)
    if failures:
        for failure in failures[:-1]:
            note(f"error: {failure.message}")
        raise failures[-1]
    if everything and not names:
        say("nothing to rescue")
    return 0
