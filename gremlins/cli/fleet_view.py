"""The fleet, as a list, as JSON, or as a live view."""

from __future__ import annotations

from pathlib import Path

from gremlins.cli.out import dump, note, on_terminal, say
from gremlins.clock import SystemClock
from gremlins.fleet.status import OVER, FleetStatus, as_json, survey
from gremlins.paths import Home


def show_fleet(
    names: tuple[str, ...] = (),
    *,
    json: bool = False,
    watch: float | None = None,
    here: bool = False,
    everything: bool = False,
) -> int:
    """Show it once, or again and again every `watch` seconds. Returns the exit code."""
    home, clock = Home.from_env(), SystemClock()
    project = _here() if here else None

    def fleet() -> FleetStatus:
        hidden = OVER if json else frozenset({"landed"})
        return survey(home, clock, names=names, everything=everything, hidden=hidden, project=project)

    if json:
        found = fleet()
        _report_unreadable(found)
        dump([as_json(row) for row in found.rows])
        return 0
    if watch is not None:
        from gremlins.cli.watch import watch_fleet  # only for the live view

        return watch_fleet(fleet, clock, every=watch)
    from gremlins.cli.fleet_table import lines, rich_table

    found = fleet()
    if on_terminal():
        rich_table(found, clock.now())
    else:
        for line in lines(found, clock.now()):
            say(line)
    _report_unreadable(found)
    return 0


def _here() -> Path:
    from gremlins.repository.project import find_project  # a subprocess: only when asked for

    return find_project(Path.cwd())


def _report_unreadable(fleet: FleetStatus) -> None:
    for error in fleet.unreadable:
        note(f"warning: {error.message}")
