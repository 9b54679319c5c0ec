"""`gremlins worker`."""

from __future__ import annotations

import os

import typer

from gremlins.cli.out import note
from gremlins.errors import NotReady
from gremlins.paths import Home


def worker(slots: int = typer.Option(4, "--slots", min=1, metavar="N", help="Steps at the same time.")) -> int:
    """Work on the cluster's gremlins until it is asked to end."""
    from gremlins.config import load_settings
    from gremlins.worker.tasks import Worker, work  # the engine: only where it runs

    home, env = Home.from_env(), dict(os.environ)
    if not home.cluster:
        raise NotReady("no cluster is configured", hint="GREMLINS_CLUSTER__URL=postgresql://… names its database")
    made = Worker(home, env, load_settings(None, home, env).settings, slots)
    note(f"worker {made.host}: {slots} slots, can do {', '.join(made.able) or 'no calls'}")
    return work(made)
