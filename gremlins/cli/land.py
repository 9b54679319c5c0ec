"""`gremlins land`."""

from __future__ import annotations

import os

import typer

from gremlins.cli.completion import complete_ids
from gremlins.cli.out import say
from gremlins.clock import SystemClock
from gremlins.fleet.observe import resolve
from gremlins.paths import Home


def land(
    gremlin_id: str = typer.Argument(..., metavar="ID", autocompletion=complete_ids),
    squash: bool = typer.Option(False, "--squash", help="One commit. The default."),
    ff: bool = typer.Option(False, "--ff", help="Its own commits, only if your branch has not moved."),
    into: str = typer.Option(None, "--into", metavar="BRANCH", help="Another branch than the current one."),
    keep: bool = typer.Option(False, "--keep", help="Keep its worktree and branch."),
    pr: bool = typer.Option(False, "--pr", help="Have GitHub merge its pull request, if that is green."),
) -> int:
    """Bring a finished gremlin's work onto your branch, or have its pull request merged."""
    from gremlins.fleet.land import land as bring_in  # git and pydantic: only for the verbs that act
    from gremlins.fleet.land import land_pr

    if squash and ff:
        raise typer.BadParameter("is the opposite of --squash", param_hint="--ff")
    if pr and (ff or into):
        raise typer.BadParameter("squashes into the pull request's own base", param_hint="--pr")
    home, clock = Home.from_env(), SystemClock()
    name = resolve(home, gremlin_id)
    if pr:
        done = land_pr(home, name, clock=clock, env=dict(os.environ), keep=keep)
    else:
        done = bring_in(home, name, clock=clock, mode="ff" if ff else "squash", into=into, keep=keep)
    files = f"{done.files_changed} file{'s' if done.files_changed != 1 else ''}"
    say(f"{done.id}: landed on {done.target} as {done.sha[:12]}, {files} changed")
    return 0
