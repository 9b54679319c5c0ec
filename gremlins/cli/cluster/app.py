"""`gremlins cluster`: the database of a fleet of several hosts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import typer

from gremlins.cli.out import dump, note, say
from gremlins.clock import SystemClock
from gremlins.errors import GremlinsError, NotReady
from gremlins.paths import Home

app = typer.Typer(no_args_is_help=True)


def _home() -> Home:
    home = Home.from_env()
    if not home.cluster:
        raise NotReady("no cluster is configured", hint="GREMLINS_CLUSTER__URL=postgresql://… names its database")
    return home


@app.command()
def init() -> int:
    """Make the tables in an empty database."""
    from gremlins.cluster.database import ClusterDb, migrate

    migrate(ClusterDb(_home().cluster), init=True)
    say("the database is ready; `gremlins worker` on each host works for it")
    return 0


@app.command("migrate")
def migrate_() -> int:
    """Bring the tables to this version."""
    from gremlins.cluster.database import ClusterDb, migrate

    changed = migrate(ClusterDb(_home().cluster), init=False)
    say("the tables are of this version now" if changed else "the tables are of this version already")
    return 0


@app.command()
def status(json: bool = typer.Option(False, "--json", help="One JSON object.")) -> int:
    """Show the database, its workers, and what waits."""
    from gremlins.cluster.overview import cluster_status

    found = cluster_status(_home(), SystemClock())
    if json:
        dump(found)
        return 0
    for line in _lines(found):
        say(line)
    return 0


def _lines(found: dict[str, Any]) -> list[str]:
    gremlins = found["gremlins"]
    counts = ", ".join(f"{count} {name}" for name, count in gremlins.items())
    lines = [f"database: {found['database']} (schema {found['schema']}, clock {found['clock_ahead_seconds']:+.1f} s)"]
    lines += [f"gremlins: {counts}"]
    lines += [
        f"worker: {each['name']}, {each['steps']} at work, last sign {each['last_sign_seconds']:.0f} s ago"
        for each in found["workers"]
    ] or ["worker: none; `gremlins worker` starts one"]
    lines += [f"account: {each['account']}, {each['polls']} polls" for each in found["accounts"]]
    return lines


@app.command()
def adopt(
    gremlin_id: list[str] = typer.Argument(None, metavar="ID…", help="Unique beginnings of ids."),
    everything: bool = typer.Option(False, "--all", help="Every one that is parked or over, and this project's beads."),
    back: bool = typer.Option(False, "--back", help="From the cluster to this host alone, in your clone."),
) -> int:
    """Take gremlins and beads of this host over to the cluster, or back. Nothing is paid again."""
    from gremlins.cli.named import named
    from gremlins.fleet.adopt import adopt as take
    from gremlins.fleet.adopt import give_back
    from gremlins.fleet.dispatch.handing_over import hand_beads_over
    from gremlins.fleet.observe import ids

    home, clock, where = _home(), SystemClock(), "back on this host" if back else "in the cluster"
    source = home if back else home._replace(cluster="")
    names = named(source, gremlin_id, everything)
    names = sorted(ids(source)) if everything else names
    left: list[GremlinsError] = []
    for name in names:
        try:
            goes_on = give_back(home, name, clock, dict(os.environ)) if back else take(home, name, clock)
        except GremlinsError as error:
            left.append(error)
            continue
        say(f"{name}: {where}{', going on' if goes_on else ''}")
    if everything:
        try:
            if count := hand_beads_over(home, Path.cwd(), back=back):
                say(f"{count} beads of this project: {where}")
        except GremlinsError as error:
            left.append(error)
    for other in left[:-1]:
        note(f"error: {other.message}")
    if left:
        raise left[-1]
    return 0
