"""`gremlins land`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import typer

from gremlins.cli.completion import complete_ids
from gremlins.cli.out import note, say
from gremlins.clock import SystemClock
from gremlins.fleet.observe import resolve
from gremlins.paths import Home

if TYPE_CHECKING:
    from gremlins.fleet.land import Landing


def land(
    gremlin_id: str = typer.Argument(..., metavar="ID", autocompletion=complete_ids),
    squash: bool = typer.Option(False, "--squash", help="One commit. The default."),
    ff: bool = typer.Option(False, "--ff", help="Its own commits, only if your branch has not moved."),
    into: str = typer.Option(None, "--into", metavar="BRANCH", help="Another branch than the current one."),
    keep: bool = typer.Option(False, "--keep", help="Keep its worktree and branch."),
    message: str = typer.Option(None, "-m", "--message", help="The commit's message; by default title and summary."),
    pr: bool = typer.Option(False, "--pr", help="Have GitHub merge its pull request, if that is green."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Only say whether it would land."),
) -> int:
    """Bring a finished gremlin's work onto your branch, or have its pull request merged."""
    from gremlins.fleet.land import land as bring_in  # git and pydantic: only for the verbs that act
    from gremlins.fleet.land import land_pr, try_to_land, try_to_land_pr

    if squash and ff:
        raise typer.BadParameter("is the opposite of --squash", param_hint="--ff")
    if pr and (ff or into or message):
        raise typer.BadParameter("squashes into the pull request's own base, with its own title", param_hint="--pr")
    if ff and message:
        raise typer.BadParameter("keeps the gremlin's own commits and their messages", param_hint="--ff")
    if message is not None and not message.strip():
        raise typer.BadParameter("is empty", param_hint="-m")
    home, clock = Home.from_env(), SystemClock()
    name = resolve(home, gremlin_id)
    if dry_run:
        if pr:
            would = try_to_land_pr(home, name, clock=clock, env=dict(os.environ))
        else:
            would = try_to_land(home, name, clock=clock, mode="ff" if ff else "squash", into=into)
        verb = f"{would.target} has it already" if would.by_hand else f"would land on {would.target}"
        say(f"{name}: {verb}, {_files(would)} changed")
        _tell_notes(would)
        return 0
    if pr:
        done = land_pr(home, name, clock=clock, env=dict(os.environ), keep=keep)
    else:
        done = bring_in(home, name, clock=clock, mode="ff" if ff else "squash", into=into, keep=keep, message=message)
    how = "was merged by hand: landed" if done.by_hand else "landed"
    say(f"{done.id}: {how} on {done.target} as {done.sha[:12]}, {_files(done)} changed")
    if done.kept:
        note(f"kept: files of its worktree that were in no commit are in {done.kept}")
    _tell_notes(done)
    for left in done.left:
        note(f"warning: {left}")
    return 0


def _tell_notes(landing: Landing) -> None:
    for text in landing.notes:
        note(f"note: {text}")


def _files(landing: Landing) -> str:
    return f"{landing.files_changed} file{'s' if landing.files_changed != 1 else ''}"
