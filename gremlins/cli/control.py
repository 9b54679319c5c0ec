"""The verbs that change a gremlin's fate: stop, rescue, ack, land, rm, clean."""

from __future__ import annotations

import os
import re
from functools import partial

import typer

from gremlins.cli.completion import complete_ids
from gremlins.cli.out import note, say
from gremlins.clock import SystemClock
from gremlins.errors import GremlinsError
from gremlins.fleet.observe import resolve
from gremlins.fleet.status import survey
from gremlins.paths import Home

IDS = typer.Argument(None, metavar="ID…", help="Unique beginnings of ids.", autocompletion=complete_ids)


def _named(home: Home, names: list[str] | None, everything: bool) -> list[str]:
    """Full ids of what a person named. Wrong usage when nothing is named, or both."""
    if everything == bool(names):
        raise typer.BadParameter("name gremlins, or say --all", param_hint="ID")
    return list(dict.fromkeys(resolve(home, name) for name in names or []))


def stop(
    gremlin_id: list[str] = IDS,
    everything: bool = typer.Option(False, "--all", help="Every gremlin that is not over."),
) -> int:
    """Stop gremlins, and cancel what they wait for."""
    from gremlins.config import load_settings  # pydantic: only for the verbs that act
    from gremlins.fleet.stop import await_stop, request_stop

    home, clock, env = Home.from_env(), SystemClock(), dict(os.environ)
    names = _named(home, gremlin_id, everything)
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
        result = await_stop(home, name, clock=clock, wait=left, renew=partial(request, name))
        if result.verdict == "pending":
            pending.append(f"{name} is {result.row.life.shown} ({_why_pending(result.row.life.reason)})")
        else:
            say(f"{name}: {result.row.life.shown}")
    if pending:
        raise GremlinsError(
            "not stopped yet: " + "; ".join(pending),
            hint="it goes on stopping by itself where its process lives; `gremlins status` shows when it has",
        )
    return 0


def _why_pending(reason: str | None) -> str:
    return reason or "its batch is still canceling"


def rescue(
    gremlin_id: list[str] = IDS,
    everything: bool = typer.Option(False, "--all", help="Every dead or detached one."),
    from_stage: str = typer.Option(None, "--from", metavar="STAGE", help="Ask this stage and all after it anew."),
) -> int:
    """Bring gremlins back to life where they were."""
    from gremlins.fleet.dispatch.ownership import adopt
    from gremlins.fleet.rescue import rescue as bring_back  # pydantic: only for the verbs that act

    home, clock, env = Home.from_env(), SystemClock(), dict(os.environ)
    names = _named(home, gremlin_id, everything)
    if from_stage is not None and len(names) != 1:
        raise typer.BadParameter("takes exactly one gremlin", param_hint="--from")
    if everything:
        names = [row.record.id for row in survey(home, clock).rows if row.life.state in ("dead", "detached")]
    failures: list[GremlinsError] = []
    for name in names:
        try:
            adopt(home, name, clock, restart=from_stage is not None)
            done = bring_back(home, name, clock=clock, env=env, from_stage=from_stage)
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


def ack(gremlin_id: str = typer.Argument(..., metavar="ID", autocompletion=complete_ids)) -> int:
    """Accept a bail: its stage counts as done, and the gremlin goes on with the next."""
    from gremlins.fleet.ack import acknowledge  # pydantic: only for the verbs that act
    from gremlins.fleet.dispatch.ownership import adopt

    home, clock = Home.from_env(), SystemClock()
    name = resolve(home, gremlin_id)
    adopt(home, name, clock)
    stage = acknowledge(home, name, clock=clock, env=dict(os.environ))
    say(f"{gremlin_id}: the bail of {stage} is accepted; going on")
    return 0


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
    for name in _named(home, gremlin_id, False):
        settle_bead = partial(settle_attempt, home, clock=clock)
        remove_gremlin(home, name, force=force, clock=clock, env=env, settle_bead=settle_bead, stop_wait=wait)
        say(f"{name}: removed")
    return 0


def clean(
    older_than: str = typer.Option("0s", "--older-than", metavar="7d", help="Only what ended so long ago."),
) -> int:
    """Remove what has landed, and what is over without commits."""
    from gremlins.fleet.dispatch.ownership import settle_attempt
    from gremlins.fleet.remove import clean as sweep  # pydantic: only for the verbs that act

    home, clock = Home.from_env(), SystemClock()
    settle_bead = partial(settle_attempt, home, clock=clock)
    removed, problems = sweep(home, older_than=_seconds(older_than), clock=clock, settle_bead=settle_bead)
    for name in removed:
        say(f"{name}: removed")
    for error in problems:
        note(f"warning: {error.message}")
    if not removed:
        say("nothing to clean")
    return 0


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhdw]?)", text.strip())
    if not found:
        raise typer.BadParameter("is a number and one of s, m, h, d, w: 7d", param_hint="--older-than")
    return float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}[found[2]]
