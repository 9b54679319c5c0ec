"""`gremlins ack`."""

from __future__ import annotations

import os

import typer

from gremlins.cli.completion import complete_ids
from gremlins.cli.out import say
from gremlins.clock import SystemClock
from gremlins.fleet.observe import resolve
from gremlins.fleet.status import look
from gremlins.paths import Home


def ack(gremlin_id: str = typer.Argument(..., metavar="ID", autocompletion=complete_ids)) -> int:
    """Accept a bail: its stage counts as done, and the gremlin goes on with the next."""
    from gremlins.fleet.ack import acknowledge  # pydantic: only for the verbs that act
    from gremlins.fleet.dispatch.ownership import adopt

    home, clock = Home.from_env(), SystemClock()
    name = resolve(home, gremlin_id)
    if look(home, name, clock).life.state == "bailed":  # of any other the bead must not follow
        adopt(home, name, clock)
    stage = acknowledge(home, name, clock=clock, env=dict(os.environ))
    adopt(home, name, clock, went_on=True)
    say(f"{name}: the bail of {stage} is accepted; going on")
    return 0
