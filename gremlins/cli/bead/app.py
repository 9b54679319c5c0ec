"""`gremlins bead …`: the work items of the repository one stands in."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import typer

from gremlins.cli.bead import dep as bead_dep
from gremlins.cli.bead.files import export, import_
from gremlins.cli.bead.look import (
    IDS,
    JSON,
    blocked,
    check_status,
    help_alone,
    list_,
    priority_of,
    ready,
    show,
    show_json,
    tell_old_text,
)
from gremlins.cli.current_project import Here, person
from gremlins.cli.out import note, say
from gremlins.errors import Conflict, NotFound
from gremlins.fleet.beads.bead import Bead, parse_dependency, task_of, words
from gremlins.fleet.beads.edit import Relabel
from gremlins.fleet.times import parse_when

DESCRIPTION = typer.Option(None, "-d", "--description", help="The work to do.")
DESIGN = typer.Option(None, "--design", help="The design to follow.")
ACCEPTANCE = typer.Option(None, "--acceptance", help="Conditions that hold when it is done.")
NOTES = typer.Option(None, "--notes", help="Further notes.")
DEFER = typer.Option(None, "--defer", metavar="WHEN", help="Not before: RFC 3339, a date, +2h, +3d, tomorrow.")
DUE = typer.Option(None, "--due", metavar="WHEN", help="When it should be done.")
EXTERNAL = typer.Option(None, "--external-ref", help="Its name in another tracker, like gh-9.")


# --- making


def create(
    title: str = typer.Argument(..., metavar="TITLE"),
    description: str = DESCRIPTION,
    issue_type: str = typer.Option("task", "-t", "--type", help="task, bug, feature, epic, chore …"),
    priority: str = typer.Option("2", "-p", "--priority", help="0 (highest) to 4."),
    labels: list[str] = typer.Option(None, "-l", "--labels", "--label", help="Comma-separated."),
    assignee: str = typer.Option(None, "-a", "--assignee"),
    parent: str = typer.Option(None, "--parent", metavar="ID", help="The bead it is a part of."),
    deps: list[str] = typer.Option(None, "--deps", metavar="[TYPE:]ID,…", help="Beads that must be closed first."),
    acceptance: str = ACCEPTANCE,
    design: str = DESIGN,
    notes: str = NOTES,
    bead_id: str = typer.Option(None, "--id", help="An id of your own."),
    defer: str = DEFER,
    due: str = DUE,
    external_ref: str = EXTERNAL,
    silent: bool = typer.Option(False, "--silent", help="Print only its id."),
    json: bool = JSON,
) -> int:
    """Make a bead."""
    here = Here.find()
    fields = _texts(here, description, design, acceptance, notes, defer, due, external_ref)
    fields |= {"issue_type": issue_type, "priority": priority_of(priority), "labels": words(labels or ())}
    fields |= {"assignee": assignee} if assignee else {}
    pairs = [parse_dependency(text) for text in words(deps or ())]
    needs = tuple(here.beads.dependency("", here.beads.resolve(other), kind) for kind, other in pairs)
    bead = here.beads.create(
        title, bead_id=bead_id, parent=here.beads.resolve(parent) if parent else None, dependencies=needs, **fields
    )
    if silent:
        say(bead.id)
    elif json:
        show_json(here, [bead], many=False)
    else:
        say(f"{bead.id}: created")
    return 0


def _texts(
    here: Here,
    description: str | None,
    design: str | None,
    acceptance: str | None,
    notes: str | None,
    defer: str | None,
    due: str | None,
    external_ref: str | None,
) -> dict[str, Any]:
    """The fields that were given; an empty text clears one."""
    given = {
        "description": description,
        "design": design,
        "acceptance_criteria": acceptance,
        "notes": notes,
        "external_ref": external_ref,
        "defer_until": _when(here, defer, "--defer"),
        "due_at": _when(here, due, "--due"),
    }
    clearing = {"defer_until": defer, "due_at": due}
    return {key: value for key, value in given.items() if value is not None or clearing.get(key) == ""}


def _when(here: Here, text: str | None, option: str) -> str | None:
    if not text:
        return None
    try:
        return parse_when(text, here.clock.now())
    except (ValueError, OverflowError):
        raise typer.BadParameter(
            f"`{text}` is no moment: say +2h, 2026-12-24 or an RFC 3339 time", param_hint=option
        ) from None


# --- changing


def update(
    bead_id: list[str] = IDS,
    claim: bool = typer.Option(False, "--claim", help="Take it for yourself; refused if it is taken."),
    status: str = typer.Option(None, "-s", "--status"),
    priority: str = typer.Option(None, "-p", "--priority", help="0 (highest) to 4."),
    title: str = typer.Option(None, "--title"),
    issue_type: str = typer.Option(None, "-t", "--type"),
    assignee: str = typer.Option(None, "-a", "--assignee"),
    labels: list[str] = typer.Option(None, "-l", "--labels", "--set-labels", help="These and no others."),
    add_label: list[str] = typer.Option(None, "--add-label"),
    remove_label: list[str] = typer.Option(None, "--remove-label"),
    description: str = DESCRIPTION,
    acceptance: str = ACCEPTANCE,
    design: str = DESIGN,
    notes: str = NOTES,
    defer: str = DEFER,
    due: str = DUE,
    external_ref: str = EXTERNAL,
    restart: bool = typer.Option(False, "--restart", help="Stop its gremlin; a new one gets the new text."),
    json: bool = JSON,
) -> int:
    """Change beads. `-s open` also takes a hold away; `--defer ''` and the like clear a field."""
    here = Here.find()
    if status is not None:
        check_status(status)
    fields = _texts(here, description, design, acceptance, notes, defer, due, external_ref)
    plain = {"title": title, "issue_type": issue_type, "assignee": assignee}
    fields |= {key: value for key, value in plain.items() if value is not None}
    if priority is not None:
        fields["priority"] = priority_of(priority)
    relabel = _relabel(labels, add_label, remove_label)

    def change(name: str) -> Bead:
        if claim:
            here.beads.claim(name, assignee or person())
        before = here.beads.get(name)
        bead = here.beads.update(name, fields, status, relabel)
        if restart and (attempt := here.beads.work(name).unsettled) is not None:
            return _restart(here, name, attempt.gremlin_id)
        if task_of(bead.issue) != task_of(before.issue):
            tell_old_text(here, name)
        return bead

    _each(here, bead_id, change, "claimed" if claim else "updated", json)
    return 0


def _restart(here: Here, bead_id: str, gremlin_id: str) -> Bead:
    """Stop the gremlin, and begin a new epoch. Raises Conflict if it has not ended in time."""
    from gremlins.fleet.stop import await_stop, request_stop  # slow to import

    who = partial(request_stop, here.home, gremlin_id, by=person(), why="its bead was changed", clock=here.clock)
    with suppress(NotFound):
        env, wait = dict(os.environ), here.settings().settings.batch.stop_wait
        who(env=env)
        await_stop(here.home, gremlin_id, clock=here.clock, wait=wait, env=env)
    return here.beads.retry(bead_id)


def _relabel(only: list[str] | None, more: list[str] | None, fewer: list[str] | None) -> Relabel | None:
    """A bead's new labels, as a function of those it has when they are written: other people may change them too."""
    if only is None and not more and not fewer:
        return None
    gone = set(words(fewer or ()))

    def relabel(labels: Sequence[str]) -> list[str]:
        start = labels if only is None else words(only)
        return [label for label in dict.fromkeys([*start, *words(more or ())]) if label not in gone]

    return relabel


def close(
    bead_id: list[str] = IDS,
    reason: str = typer.Option("", "-r", "--reason", help="The result, as a note."),
    json: bool = JSON,
) -> int:
    """Say that beads are done."""
    here = Here.find()

    def change(name: str) -> Bead:
        bead = here.beads.close(name, reason)
        attempt = here.beads.work(bead.id).unsettled
        if attempt is not None:
            note(f"{bead.id}: gremlin {attempt.gremlin_id} goes on; `gremlins stop {attempt.gremlin_id}` ends it")
        return bead

    _each(here, bead_id, change, "closed", json)
    return 0


def reopen(
    bead_id: list[str] = IDS, reason: str = typer.Option("", "-r", "--reason", help="Why."), json: bool = JSON
) -> int:
    """Open closed beads again; their counters stay as they were."""
    here = Here.find()
    _each(here, bead_id, lambda name: here.beads.reopen(name, reason), "open again", json)
    return 0


def retry(bead_id: list[str] = IDS, json: bool = JSON) -> int:
    """Start beads over: counters at zero, no hold, no backoff."""
    here = Here.find()
    _each(here, bead_id, here.beads.retry, "starts over", json)
    return 0


def hold(
    bead_id: list[str] = IDS, reason: str = typer.Option("held", "-r", "--reason", help="Why."), json: bool = JSON
) -> int:
    """Keep beads back until they are released."""
    here = Here.find()
    _each(here, bead_id, lambda name: here.beads.hold(name, reason), "held", json)
    return 0


def release(bead_id: list[str] = IDS, json: bool = JSON) -> int:
    """Take a hold away; give back what was claimed."""
    here = Here.find()
    _each(here, bead_id, here.beads.release, "released", json)
    return 0


def _each(here: Here, names: Sequence[str], change: Callable[[str], Bead], what: str, json: bool) -> None:
    """Change each for itself: what one refuses keeps nothing from the others, and is said at the end."""
    changed: list[Bead] = []
    refused: list[Conflict] = []
    ids = list(dict.fromkeys(here.beads.resolve(name) for name in names))
    for bead_id in ids:
        try:
            changed.append(change(bead_id))
        except Conflict as error:
            refused.append(error)
    if json and changed:
        show_json(here, changed, many=len(ids) > 1)
    for bead in [] if json else changed:
        say(f"{bead.id}: {what}")
    for more in refused[1:]:
        note(f"error: {more.message}")
    if refused:
        raise refused[0]


# --- the verbs

app = typer.Typer(rich_markup_mode=None, add_completion=False)
for verb in (create, list_, ready, blocked, show, update, close, reopen, retry, hold, release, export, import_):
    app.command(verb.__name__.rstrip("_"))(verb)
app.add_typer(bead_dep.app, name="dep", help="Dependencies: add, rm, tree, cycles.")
app.callback(invoke_without_command=True)(help_alone)
