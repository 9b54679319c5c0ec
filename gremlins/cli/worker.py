"""`gremlins worker`."""

from __future__ import annotations

import os

import typer

from gremlins.cli.out import note
from gremlins.clock import SystemClock
from gremlins.errors import NotReady
from gremlins.paths import Home


def worker(slots: int = typer.Option(4, "--slots", min=1, metavar="N", help="Steps at the same time.")) -> int:
    """Work on the cluster's gremlins until it is asked to end."""
    from gremlins.config import load_settings
    from gremlins.worker.tasks import Worker, work  # the engine: only where it runs

    home, env = Home.from_env(), dict(os.environ)
    if not home.cluster:
        raise NotReady("no cluster is configured", hint="GREMLINS_CLUSTER__URL=postgresql://… names its database")
    settings = load_settings(None, home, env).settings
    first = Worker(home, env, settings, slots)  # refuses a database that is not ready, rather than wait for it
    note(f"worker {first.host}: {slots} slots, can do {', '.join(first.able) or 'no calls'}")
    return work(lambda: Worker(home, env, settings, slots), SystemClock(), note)
