"""`gremlins launch`."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import typer

from gremlins.cli.completion import complete_modes, complete_pipelines
from gremlins.cli.out import dump, note, say
from gremlins.cli.persons_text import LARGEST_TEXT, read_text
from gremlins.cli.trust import agreed, say_yes
from gremlins.clock import SystemClock
from gremlins.errors import GremlinsError
from gremlins.files import read_given
from gremlins.paths import Home
from gremlins.records.gremlin import Gremlin
from gremlins.repository.git import Git

if TYPE_CHECKING:
    from gremlins.launcher import LaunchRequest


def launch(
    pipeline: str = typer.Argument(
        ...,
        help="Name of a pipeline, or a path ending in .yaml. A task alone goes to the default one.",
        autocompletion=complete_pipelines,
    ),
    task: str = typer.Argument("", help="The task, in your own words; `-` reads standard input."),
    plan: str = typer.Option(
        None, "--plan", metavar="FILE", help="A written plan (`-`: standard input), or an issue: '#42', its URL."
    ),
    gremlin_id: str = typer.Option(None, "--id", help="1 to 64 of a-z, 0-9 and -."),
    mode: str = typer.Option(
        None, "--mode", metavar="live|batch", help="For every agent stage.", autocompletion=complete_modes
    ),
    client: str = typer.Option(None, "--client", metavar="PROVIDER:MODEL", help="For every agent stage."),
    base_ref: str = typer.Option(None, "--base-ref", metavar="REF", help="Start of its branch. Default: HEAD."),
    trust: bool = typer.Option(False, "--trust", help="Say yes to the settings and pipelines the repository brings."),
    wait: bool = typer.Option(False, "--wait", help="Stay, show progress, and end 0 when it finished."),
    json: bool = typer.Option(False, "--json", help="Print its status object."),
) -> int:
    """Start a gremlin."""
    from gremlins.fleet.status import as_json, look  # these modules take a moment to load
    from gremlins.launcher import LaunchRequest

    home = Home.from_env()
    if mode not in (None, "live", "batch"):
        raise typer.BadParameter("is live or batch", param_hint="--mode")
    if " " in pipeline and not task and not pipeline.endswith(".yaml"):
        pipeline, task = _default_pipeline(home), pipeline
    if task == plan == "-":
        raise typer.BadParameter("cannot be standard input too", param_hint="--plan")
    request = LaunchRequest(
        pipeline=pipeline,
        cwd=Path.cwd(),
        task=read_text(task, quoted="") if task == "-" else task,
        plan=_read_plan(plan),
        gremlin_id=gremlin_id,
        mode=cast("Literal['live', 'batch'] | None", mode),
        client=client,
        base_ref=base_ref,
    )
    record = _make(request, home, trust=trust)
    _tell_what_to_know(record, pipeline, home)
    if wait:
        return _wait(home, record.id, json)
    if json:
        dump(as_json(look(home, record.id, SystemClock())))
    else:
        say(record.id)
    return 0


def _make(request: LaunchRequest, home: Home, *, trust: bool) -> Gremlin:
    """Launch it. What the repository brings is asked about where there is a person to ask."""
    from gremlins.launcher import launch as make
    from gremlins.repository.trust import Untrusted

    if trust:
        say_yes(home)
    env, clock = dict(os.environ), SystemClock()
    try:
        return make(request, home, env, clock)
    except Untrusted as error:
        if not agreed(error):
            raise
        say_yes(home)
        return make(request, home, env, clock)


def _tell_what_to_know(record: Gremlin, pipeline: str, home: Home) -> None:
    """Things a person may not expect: work that it does not see, a pipeline of the repository's own, odd variables."""
    from gremlins.clients.route import warnings_of
    from gremlins.pipeline.file import find_pipeline

    _tell_of_uncommitted(record)
    _tell_of_submodules(record, home)
    if (used := find_pipeline(pipeline, record.tree, cwd=Path.cwd())).hides_built_in:
        note(f"note: `{used.name}` is this repository's own pipeline, not the built-in one: {used.path}")
    for warning in warnings_of(dict(os.environ)):
        note(f"warning: {warning}")


def _tell_of_submodules(record: Gremlin, home: Home) -> None:
    from gremlins.pipeline.freezing import read_frozen

    if home.cluster or read_frozen(home.gremlin(record.id).frozen).settings.worktree.submodules:
        return
    if found := Git(Path(record.worktree)).empty_submodules():
        fills = "`worktree.submodules = true` in .gremlins/config.toml fills them"
        note(f"note: submodules are empty in the worktree of {record.id}: {', '.join(found[:5])}; {fills}")


def _tell_of_uncommitted(record: Gremlin) -> None:
    with contextlib.suppress(GremlinsError):  # a status that cannot be had must not stop a launch
        if found := Git(record.tree).uncommitted():
            more = f" and {len(found) - 3} more" if len(found) > 3 else ""
            names = f"{', '.join(found[:3])}{more}"
            note(f"note: {record.id} does not see uncommitted work, it starts from {record.base[:12]}: {names}")


def _default_pipeline(home: Home) -> str:
    """The pipeline of a task that names none: that of dispatching."""
    from gremlins.config import load_settings
    from gremlins.repository.git import find_root

    return load_settings(find_root(Path.cwd()), home, os.environ).settings.dispatch.pipeline


def _read_plan(path: str | None) -> str | None:
    if path is None or path == "-":
        return None if path is None else read_text(path, quoted="")
    from gremlins.repository.github import ISSUE, GitHub  # only where a plan is given

    if ISSUE.fullmatch(path) and not Path(path).exists():
        return GitHub(Path.cwd(), dict(os.environ)).issue(path).text
    try:
        text = read_given(path, LARGEST_TEXT).decode()
    except OSError as error:
        raise GremlinsError(f"the plan cannot be read: {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise GremlinsError(f"the plan is not UTF-8 text: {path}") from None
    if not text.strip():
        raise GremlinsError(f"the plan is empty: {path}")
    return text


def _wait(home: Home, gremlin_id: str, json: bool) -> int:
    """Follow it to its end. Ctrl-C detaches: it goes on by itself."""
    from gremlins.cli.fleet_table import READY, group_of
    from gremlins.cli.watch import watch_launch  # rich: only for the live view
    from gremlins.fleet.advice import what_next
    from gremlins.fleet.status import as_json, look

    clock = SystemClock()
    try:
        watch_launch(home, gremlin_id, clock, quiet=json)
    except KeyboardInterrupt:
        note(f"{gremlin_id} goes on by itself; `gremlins stop {gremlin_id}` stops it")
        return 130
    row = look(home, gremlin_id, clock)
    hint = what_next(row.life.state, row.record) or "it goes on by itself"
    if json:
        dump(as_json(row))
    if row.life.state in ("finished", "landed"):
        if not json and group_of(row) == READY:
            say(f"{gremlin_id}: {hint}")
        return 0
    raise GremlinsError(
        f"{gremlin_id} is {row.life.shown}: {row.life.reason or 'it did not finish'}",
        hint=f"`gremlins show {gremlin_id}` tells more; {hint}",
    )
