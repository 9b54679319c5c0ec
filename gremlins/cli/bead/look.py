"""`gremlins bead list`, `ready`, `blocked` and `show`: how the work stands."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import typer

from gremlins.cli.bead.text import page, table
from gremlins.cli.current_project import Here
from gremlins.cli.out import dump, fitted, note, on_terminal, say
from gremlins.errors import GremlinsError
from gremlins.fleet.beads.bead import STATUSES, Bead, parse_priority, words
from gremlins.fleet.beads.store.interface import Listed, Query
from gremlins.fleet.dispatch.admit import BUCKETS, Standing
from gremlins.fleet.dispatch.view import BeadInBucket, bead_json, buckets_of, history_json, with_buckets

ID = typer.Argument(..., metavar="ID", help="Unique beginning of an id.")
IDS = typer.Argument(..., metavar="ID…", help="Unique beginnings of ids.")
JSON = typer.Option(False, "--json", help="Print JSON.")


def list_(
    status: list[str] = typer.Option(None, "-s", "--status", help="Comma-separated."),
    issue_type: list[str] = typer.Option(None, "-t", "--type"),
    priority: list[str] = typer.Option(None, "-p", "--priority"),
    label: list[str] = typer.Option(None, "-l", "--label", "--labels", help="All of these."),
    assignee: str = typer.Option(None, "-a", "--assignee"),
    bucket: list[str] = typer.Option(None, "-b", "--bucket", help="ready, blocked, held, running …"),
    limit: int = typer.Option(None, "-n", "--limit", min=0, max=10**9),
    everything: bool = typer.Option(False, "--all", help="Closed ones too, in the table."),
    json: bool = JSON,
) -> int:
    """List beads, in the order they would be worked on. JSON has the closed ones too."""
    here = Here.find()
    statuses = words(status or ())
    for word in statuses:
        check_status(word)
    priorities = [priority_of(text) for text in words(priority or ())]
    buckets = _buckets(words(bucket or ()))
    query = Query(
        statuses=statuses or ([] if json or everything or buckets else [s for s in STATUSES if s != "closed"]),
        issue_types=words(issue_type or ()),
        priorities=priorities,
        labels=words(label or ()),
        assignee=assignee,
    )
    _list(here, query, buckets, limit, json)
    if not (json or everything or buckets or statuses) and (closed := here.store.count(here.project).get("closed")):
        note(f"{closed} closed, shown with --all")
    return 0


def ready(
    limit: int = typer.Option(None, "-n", "--limit", min=0, max=10**9),
    assignee: str = typer.Option(None, "-a", "--assignee"),
    label: list[str] = typer.Option(None, "-l", "--label", "--labels", help="All of these."),
    json: bool = JSON,
) -> int:
    """List what could be started now."""
    here = Here.find()
    query = Query(statuses=("open", "deferred"), labels=words(label or ()), assignee=assignee, blocked=False)
    _list(here, query, {"ready"}, limit, json)
    return 0


def blocked(json: bool = JSON) -> int:
    """List what waits for other beads, and for which."""
    here = Here.find()
    query = Query(statuses=("open", "in_progress", "deferred"), blocked=True)
    if not json:
        _list(here, query, set(), None, json)
        return 0
    known = here.store.all_blockers(here.project)
    shown = []
    for bucketed in with_buckets_now(here, list(here.store.beads(here.project, query))):
        blockers = sorted({row[0] for row in known.get(bucketed.bead.id, ())})
        shown.append(bead_json(bucketed) | {"blocked_by": blockers, "blocked_by_count": len(blockers)})
    dump(shown)
    return 0


def show(bead_id: list[str] = IDS, json: bool = JSON) -> int:
    """All about a bead: its text, every attempt and why it ended, what happened to it."""
    here = Here.find()
    beads = [here.beads.get(here.beads.resolve(name)) for name in bead_id]
    shown: list[dict[str, Any]] = []
    for number, bucketed in enumerate(with_buckets_now(here, beads)):
        events = here.store.events(here.project, bucketed.bead.id)
        if json:
            found = bead_json(bucketed)
            found["gremlins"] |= history_json(bucketed, events)
            shown.append(found)
            continue
        if number:
            say()
        for line in page(bucketed, events, here.store.dependents(here.project, bucketed.bead.id)):
            for part in fitted(line):
                say(part)
    if json:
        dump(shown[0] if len(bead_id) == 1 and shown else shown)
    return 0


# --- parts


def help_alone(context: typer.Context) -> None:
    """The help of a group of verbs, called without one."""
    if context.invoked_subcommand is None:
        say(context.get_help())


def check_status(word: str) -> None:
    """Raises BadParameter."""
    if word not in STATUSES:
        raise typer.BadParameter(f"`{word}` is not one of {', '.join(STATUSES)}", param_hint="--status")


def priority_of(text: str) -> int:
    """Raises BadParameter."""
    try:
        return parse_priority(text)
    except GremlinsError as error:
        raise typer.BadParameter(error.message, param_hint="--priority") from None


def _buckets(names: Sequence[str]) -> set[str]:
    """As they are called in the table or in JSON. Raises BadParameter."""
    found = {name.replace(" ", "_").replace("-", "_") for name in names}
    if wrong := found - {*BUCKETS}:
        raise typer.BadParameter(f"`{min(wrong)}` is not one of {', '.join(BUCKETS)}", param_hint="--bucket")
    return found


def with_buckets_now(here: Here, beads: Sequence[Bead]) -> list[BeadInBucket]:
    return list(with_buckets(here.store, here, here.project, here.policy, beads, here.clock.now().timestamp()))


def show_json(here: Here, beads: Sequence[Bead], *, many: bool) -> None:
    """One object where one bead was named, an array for several."""
    shown = [bead_json(bucketed) for bucketed in with_buckets_now(here, beads)]
    dump(shown if many or not shown else shown[0])


def _list(here: Here, query: Query, buckets: set[str], limit: int | None, json: bool) -> None:
    """A bare array, or a table. The table is made without reading the beads' texts, and so is the choice of a few."""
    now = here.clock.now().timestamp()
    if query.labels or (json and limit is None):
        bucketed = [
            p for p in with_buckets_now(here, list(here.store.beads(here.project, query))) if _in(p.where, buckets)
        ]
        listed = [Listed(p.work, p.bead.issue.title, p.bead.issue.issue_type) for p in bucketed[:limit]]
        where = {p.work.id: p.where for p in bucketed}
    else:
        listed, where = _listed(here, query, buckets, limit, now)
        found = (here.store.bead(here.project, one.work.id) for one in listed) if json else ()
        bucketed = with_buckets_now(here, [bead for bead in found if bead is not None])
    if json:
        dump([bead_json(p) for p in bucketed[:limit]])
        return
    width = shutil.get_terminal_size().columns if on_terminal() else None
    for line in table(listed, where, now, width):
        say(line)
    if not listed:
        gone = (
            []
            if here.home.cluster or here.store.count(here.project)
            else [name for name in here.store.projects() if not Path(name).exists()]
        )
        moved = "".join(f"; if {name} was moved here, say `gremlins relocate {name}`" for name in gone[:3])
        note(f"no beads{moved}")


def _listed(
    here: Here, query: Query, buckets: set[str], limit: int | None, now: float
) -> tuple[list[Listed], dict[str, Standing]]:
    """The first so many that are in these buckets, of as few rows as it takes."""
    reach = None if limit is None else max(100, 2 * limit)
    while True:
        read, bad = here.store.listing(here.project, replace(query, limit=reach))
        _, where = buckets_of(here.store, here, here.project, here.policy, [one.work for one in read], now)
        listed = [one for one in read if _in(where[one.work.id], buckets)][:limit]
        if reach is None or len(read) + len(bad) < reach or len(listed) == limit:
            break
        reach *= 8
    for line in bad:
        note(f"warning: cannot be read, and is left alone: {line}")
    return listed, where


def _in(where: Standing, buckets: set[str]) -> bool:
    return not buckets or where.bucket in buckets


def tell_old_text(here: Here, bead_id: str) -> None:
    """Say that the gremlin at work on a bead has the text from before, if there is one."""
    attempt = here.beads.work(bead_id).unsettled
    if attempt is not None:
        note(
            f"{bead_id}: gremlin {attempt.gremlin_id} has the text from before; `gremlins bead update {bead_id} "
            f"--restart` begins anew with this one, `gremlins revise {attempt.gremlin_id} …` adds to its work once it "
            "has finished"
        )
