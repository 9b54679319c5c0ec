"""`gremlins stop`."""

from __future__ import annotations

import os
from functools import partial

import typer

from gremlins.cli.named import IDS, named
from gremlins.cli.out import say
from gremlins.clock import SystemClock
from gremlins.errors import GremlinsError
from gremlins.fleet.status import survey
from gremlins.paths import Home


def stop(
    gremlin_id: list[str] = IDS,
    everything: bool = typer.Option(False, "--all", help="Every gremlin that is not over."),
) -> int:
    """Stop gremlins, and cancel what they wait for."""
    from gremlins.config import load_settings  # pydantic: only for the verbs that act
    from gremlins.fleet.stop import await_stop, request_stop

    home, clock, env = Home.from_env(), SystemClock(), dict(os.environ)
    names = named(home, gremlin_id, everything)
    if everything:
        states = ("running", "parked", "stalled", "stopping", "detached")
        names = [row.record.id for row in survey(home, clock).rows if row.life.state in states]
    wait = load_settings(None, home, env).settings.batch.stop_wait
    request = partial(request_stop, home, by="a person", why="stop", clock=clock, env=env)
    asked = [name for name in names if request(name)]
    for name in set(names) - set(asked):
        say(f"{name}: was over already")
    pending = []
    deadline = clock.monotonic() + wait
    for name in asked:
        left = max(0.0, deadline - clock.monotonic())
        result = await_stop(home, name, clock=clock, wait=left, env=env, renew=partial(request, name))
        if result.verdict == "pending":
            pending.append(f"{name} is {result.row.life.shown} ({result.pending_on})")
        else:
            say(f"{name}: {result.row.life.shown}")
    if pending:
        raise GremlinsError(
            "not stopped yet: " + "; ".join(pending),
            hint="it goes on stopping by itself where its process lives; `gremlins status` shows when it has",
        )
    return 0
