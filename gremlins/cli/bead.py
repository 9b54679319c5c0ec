"""`gremlins bead …`: the work items of the repository one stands in."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from gremlins.cli.bead_text import page, table, tree
from gremlins.cli.here import Here, person
from gremlins.cli.out import dump, note, say
from gremlins.clock import rfc3339
from gremlins.errors import GremlinsError
from gremlins.fleet.admit import Deny
from gremlins.fleet.beads import STATUSES, Bead, parse_dependency, parse_priority, words
from gremlins.fleet.beadview import Placed, bead_json, history_json, place, place_works
from gremlins.fleet.interchange import Imported, exported, import_text
from gremlins.fleet.moments import parse_when
from gremlins.fleet.store.interface import Listed, Query

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, add_completion=False)
dep = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Dependencies: add, rm, tree, cycles.")
app.add_typer(dep, name="dep")

ID = typer.Argument(..., metavar="ID", help="Unique beginning of an id.")
IDS = typer.Argument(..., metavar="ID…", help="Unique beginnings of ids.")
JSON = typer.Option(False, "--json", help="Print JSON.")
DESCRIPTION = typer.Option(None, "-d", "--description", help="What is to be done.")
DESIGN = typer.Option(None, "--design", help="How it is to be done.")
ACCEPTANCE = typer.Option(None, "--acceptance", help="What must hold when it is done.")
NOTES = typer.Option(None, "--notes", help="What else is worth knowing.")
DEFER = typer.Option(None, "--defer", metavar="WHEN", help="Not before: RFC 3339, a date, +2h, +3d, tomorrow.")
DUE = typer.Option(None, "--due", metavar="WHEN", help="When it should be done.")
EXTERNAL = typer.Option(None, "--external-ref", help="What it is called elsewhere, like gh-9.")


# --- showing


def _placed(here: Here, beads: Sequence[Bead]) -> list[Placed]:
    return list(place(here.store, here, here.project, here.policy, beads, here.clock.now().timestamp()))


def _show_json(here: Here, beads: Sequence[Bead]) -> None:
    """One object for one bead, an array for several."""
    shown = [bead_json(placed) for placed in _placed(here, beads)]
    dump(shown[0] if len(shown) == 1 else shown)


def _done(here: Here, beads: Sequence[Bead], what: str, json: bool) -> None:
    if json:
        _show_json(here, beads)
        return
    for bead in beads:
        say(f"{bead.id}: {what}")


def _list(here: Here, query: Query, buckets: set[str], limit: int | None, json: bool) -> int:
    """A bare array, or a table. The table is made without reading the beads' texts. Returns how many."""
    now = here.clock.now().timestamp()
    if json or query.labels:
        placed = [p for p in _placed(here, list(here.store.beads(here.project, query))) if _in(p.where, buckets)]
        if json:
            dump([bead_json(p) for p in placed[:limit]])
            return len(placed)
        listed = [Listed(p.work, p.bead.issue.title, p.bead.issue.issue_type) for p in placed]
        where = {p.work.id: p.where for p in placed}
    else:
        listed, bad = here.store.listing(here.project, query)
        for line in bad:
            note(f"warning: cannot be read, and is left alone: {line}")
        _, where = place_works(here.store, here, here.project, here.policy, [one.work for one in listed], now)
        listed = [one for one in listed if _in(where[one.work.id], buckets)]
    for line in table(listed[:limit], where, now):
        say(line)
    if not listed:
        note("no beads")
    return len(listed)


def _in(where: Deny, buckets: set[str]) -> bool:
    return not buckets or where.bucket in buckets


# --- making


@app.command()
def create(
    title: str = typer.Argument(..., metavar="TITLE"),
    description: str = DESCRIPTION,
    issue_type: str = typer.Option("task", "-t", "--type", help="task, bug, feature, epic, chore …"),
    priority: str = typer.Option("2", "-p", "--priority", help="0 (highest) to 4."),
    labels: list[str] = typer.Option(None, "-l", "--labels", "--label", help="Comma-separated."),
    assignee: str = typer.Option(None, "-a", "--assignee"),
    parent: str = typer.Option(None, "--parent", metavar="ID", help="The bead it is a part of."),
    deps: list[str] = typer.Option(None, "--deps", metavar="[TYPE:]ID,…", help="What must be closed first."),
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
    fields |= {"issue_type": issue_type, "priority": parse_priority(priority), "labels": words(labels or ())}
    fields |= {"assignee": assignee} if assignee else {}
    pairs = [parse_dependency(text) for text in words(deps or ())]
    needs = tuple(here.desk.dependency("", here.desk.resolve(other), kind) for kind, other in pairs)
    bead = here.desk.create(
        title, bead_id=bead_id, parent=here.desk.resolve(parent) if parent else None, dependencies=needs, **fields
    )
    if silent:
        say(bead.id)
    elif json:
        _show_json(here, [bead])
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


# --- looking


@app.command("list")
def list_(
    status: list[str] = typer.Option(None, "-s", "--status", help="Comma-separated."),
    issue_type: list[str] = typer.Option(None, "-t", "--type"),
    priority: list[str] = typer.Option(None, "-p", "--priority"),
    label: list[str] = typer.Option(None, "-l", "--label", "--labels", help="All of these."),
    assignee: str = typer.Option(None, "-a", "--assignee"),
    bucket: list[str] = typer.Option(None, "-b", "--bucket", help="ready, blocked, held, running …"),
    limit: int = typer.Option(None, "-n", "--limit", min=0),
    everything: bool = typer.Option(False, "--all", help="Closed ones too, in the table."),
    json: bool = JSON,
) -> int:
    """List beads, in the order they would be worked on. JSON has the closed ones too."""
    here = Here.find()
    statuses = words(status or ())
    for word in statuses:
        _check_status(word)
    priorities = [parse_priority(text) for text in words(priority or ())]
    buckets = {word.replace(" ", "_").replace("-", "_") for word in words(bucket or ())}
    query = Query(
        statuses=statuses or ([] if json or everything else [s for s in STATUSES if s != "closed"]),
        issue_types=words(issue_type or ()),
        priorities=priorities,
        labels=words(label or ()),
        assignee=assignee,
        limit=None if buckets else limit,
    )
    _list(here, query, buckets, limit, json)
    if not json and not everything and not statuses and (closed := here.store.count(here.project).get("closed")):
        note(f"{closed} closed, shown with --all")
    return 0


def _check_status(word: str) -> None:
    if word not in STATUSES:
        raise typer.BadParameter(f"`{word}` is not one of {', '.join(STATUSES)}", param_hint="--status")


@app.command()
def ready(
    limit: int = typer.Option(None, "-n", "--limit", min=0),
    assignee: str = typer.Option(None, "-a", "--assignee"),
    label: list[str] = typer.Option(None, "-l", "--label", "--labels", help="All of these."),
    json: bool = JSON,
) -> int:
    """List what could be started now."""
    here = Here.find()
    query = Query(statuses=("open", "deferred"), labels=words(label or ()), assignee=assignee)
    _list(here, query, {"ready"}, limit, json)
    return 0


@app.command()
def blocked(json: bool = JSON) -> int:
    """List what waits for other beads, and for which."""
    here = Here.find()
    query = Query(statuses=("open", "in_progress", "deferred"), blocked=True)
    if not json:
        _list(here, query, set(), None, json)
        return 0
    known = here.store.all_blockers(here.project)
    shown = []
    for placed in _placed(here, list(here.store.beads(here.project, query))):
        blockers = sorted({row[0] for row in known.get(placed.bead.id, ())})
        shown.append(bead_json(placed) | {"blocked_by": blockers, "blocked_by_count": len(blockers)})
    dump(shown)
    return 0


@app.command()
def show(bead_id: list[str] = IDS, json: bool = JSON) -> int:
    """All about a bead: its text, every attempt and why it ended, what happened to it."""
    here = Here.find()
    beads = [here.desk.get(here.desk.resolve(name)) for name in bead_id]
    shown: list[dict[str, Any]] = []
    for number, placed in enumerate(_placed(here, beads)):
        events = here.store.events(here.project, placed.bead.id)
        if json:
            found = bead_json(placed)
            found["gremlins"] |= history_json(placed, events)
            shown.append(found)
            continue
        if number:
            say()
        for line in page(placed, events, here.store.dependents(here.project, placed.bead.id)):
            say(line)
    if json:
        dump(shown[0] if len(bead_id) == 1 and shown else shown)
    return 0


# --- changing


@app.command()
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
    json: bool = JSON,
) -> int:
    """Change beads. `-s open` also takes a hold away; `--defer ''` and the like clear a field."""
    here = Here.find()
    if status is not None:
        _check_status(status)
    fields = _texts(here, description, design, acceptance, notes, defer, due, external_ref)
    plain = {"title": title, "issue_type": issue_type, "assignee": assignee}
    fields |= {key: value for key, value in plain.items() if value is not None}
    if priority is not None:
        fields["priority"] = parse_priority(priority)
    changed = []
    for name in [here.desk.resolve(name) for name in bead_id]:
        own = fields | _labels(here.desk.get(name), labels, add_label, remove_label)
        if claim:
            here.desk.claim(name, assignee or person())
        if own or status is not None:
            here.desk.update(name, own, status)
        changed.append(here.desk.get(name))
    _done(here, changed, "claimed" if claim else "updated", json)
    return 0


def _labels(
    bead: Bead, only: list[str] | None, more: list[str] | None, fewer: list[str] | None
) -> dict[str, list[str]]:
    if only is None and not more and not fewer:
        return {}
    start = list(bead.issue.labels) if only is None else words(only)
    gone = set(words(fewer or ()))
    return {"labels": [label for label in dict.fromkeys([*start, *words(more or ())]) if label not in gone]}


@app.command()
def close(
    bead_id: list[str] = IDS,
    reason: str = typer.Option("", "-r", "--reason", help="What was done."),
    json: bool = JSON,
) -> int:
    """Say that beads are done."""
    here = Here.find()
    closed = [here.desk.close(name, reason) for name in _resolved(here, bead_id)]
    for bead in closed:
        attempt = here.desk.works([bead.id])[0].unsettled
        if attempt is not None:
            note(f"{bead.id}: gremlin {attempt.gremlin_id} goes on; `gremlins stop {attempt.gremlin_id}` ends it")
    _done(here, closed, "closed", json)
    return 0


@app.command()
def reopen(
    bead_id: list[str] = IDS, reason: str = typer.Option("", "-r", "--reason", help="Why."), json: bool = JSON
) -> int:
    """Open closed beads again; their counters stay as they were."""
    here = Here.find()
    _done(here, [here.desk.reopen(name, reason) for name in _resolved(here, bead_id)], "open again", json)
    return 0


@app.command()
def retry(bead_id: list[str] = IDS, json: bool = JSON) -> int:
    """Start beads over: counters at zero, no hold, no backoff."""
    here = Here.find()
    _done(here, [here.desk.retry(name) for name in _resolved(here, bead_id)], "starts over", json)
    return 0


@app.command()
def hold(
    bead_id: list[str] = IDS, reason: str = typer.Option("held", "-r", "--reason", help="Why."), json: bool = JSON
) -> int:
    """Keep beads back until they are released."""
    here = Here.find()
    _done(here, [here.desk.hold(name, reason) for name in _resolved(here, bead_id)], "held", json)
    return 0


@app.command()
def release(bead_id: list[str] = IDS, json: bool = JSON) -> int:
    """Take a hold away; give back what was claimed."""
    here = Here.find()
    _done(here, [here.desk.release(name) for name in _resolved(here, bead_id)], "released", json)
    return 0


def _resolved(here: Here, names: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(here.desk.resolve(name) for name in names))


# --- dependencies


@dep.command("add")
def dep_add(
    bead_id: str = ID,
    other: str = typer.Argument(..., metavar="OTHER", help="What it depends on."),
    kind: str = typer.Option("blocks", "-t", "--type", help="blocks, parent-child, related, discovered-from …"),
    json: bool = JSON,
) -> int:
    """Make a bead depend on another. A circle is refused."""
    here = Here.find()
    first, second = here.desk.resolve(bead_id), here.desk.resolve(other)
    here.desk.depend(first, second, kind)
    if json:
        dump({"status": "added", "issue_id": first, "depends_on_id": second, "type": kind})
    else:
        say(f"{first}: depends on {second} ({kind})")
    return 0


@dep.command("rm")
@dep.command("remove", hidden=True)
def dep_rm(
    bead_id: str = ID,
    other: str = typer.Argument(..., metavar="OTHER", help="What it depends on."),
    kind: str = typer.Option(None, "-t", "--type", help="Only this type of dependency."),
    json: bool = JSON,
) -> int:
    """Take a dependency away."""
    here = Here.find()
    first = here.desk.resolve(bead_id)
    named = {d.depends_on_id for d in here.desk.get(first).issue.dependencies}
    second = other if other in named else here.desk.resolve(other)  # what it names need not be here
    here.desk.undepend(first, second, kind)
    if json:
        dump({"status": "removed", "issue_id": first, "depends_on_id": second})
    else:
        say(f"{first}: no longer depends on {second}")
    return 0


@dep.command("tree")
def dep_tree(
    bead_id: str = ID,
    reverse: bool = typer.Option(False, "--reverse", help="What depends on it instead."),
    depth: int = typer.Option(50, "--max-depth", min=1),
    json: bool = JSON,
) -> int:
    """Show what a bead depends on, and what that depends on."""
    here = Here.find()
    nodes = _walk(here, here.desk.resolve(bead_id), reverse, depth)
    if json:
        dump(nodes)
        return 0
    for line in tree(nodes):
        say(line)
    return 0


def _walk(here: Here, root: str, reverse: bool, depth: int) -> list[dict[str, Any]]:
    """Every bead once, under the first that leads to it; met again it is only named."""
    nodes: list[dict[str, Any]] = []
    met: set[str] = set()
    stack: list[tuple[str, str | None, int, str | None]] = [(root, None, 0, None)]
    while stack:
        bead_id, parent, level, kind = stack.pop()
        bead = here.store.bead(here.project, bead_id)
        again = bead_id in met
        node: dict[str, Any] = {"id": bead_id, "title": bead.issue.title if bead else "(not here)", "parent_id": parent}
        node |= {"status": bead.status if bead else "unknown", "type": kind, "depth": level}
        nodes.append(node | {"truncated": again or level >= depth})
        met.add(bead_id)
        if bead is None or again or level >= depth:
            continue
        edges = [(d.depends_on_id, d.type) for d in bead.issue.dependencies]
        if reverse:
            edges = here.store.dependents(here.project, bead_id)
        stack.extend((other, bead_id, level + 1, edge) for other, edge in reversed(edges))
    return nodes


@dep.command("cycles")
def dep_cycles(json: bool = JSON) -> int:
    """Look for circles among dependencies. There should be none: they are refused."""
    here = Here.find()
    circles = here.store.circles(here.project)
    if json:
        dump(circles)
        return 0
    for circle in circles:
        say(" → ".join(circle))
    if not circles:
        say("no circles")
    return 0


# --- interchange


@app.command()
def export(
    output: str = typer.Option(None, "-o", "--output", metavar="FILE", help="Instead of standard output."),
) -> int:
    """Write all beads as beads' issues.jsonl."""
    here = Here.find()
    beads = sorted(here.store.beads(here.project, Query()), key=lambda bead: bead.id)
    if output is None or output == "-":
        for line in exported(beads):
            say(line)
        return 0
    from gremlins.files import write_atomic  # only where a file is asked for

    write_atomic(Path(output).absolute(), "".join(line + "\n" for line in exported(beads)))
    note(f"{len(beads)} beads written to {output}")
    return 0


@app.command("import")
def import_(
    file: str = typer.Argument(..., metavar="FILE", help="A JSONL file, or - for standard input."),
    json: bool = JSON,
) -> int:
    """Bring in beads' issues.jsonl: all of it, or nothing."""
    here = Here.find()
    name, raw = ("<stdin>", sys.stdin.buffer.read()) if file == "-" else (file, _read(file))
    now = here.clock.now()
    done = import_text(here.store, here.project, _text(raw, name), file=name, now=rfc3339(now), at=now.timestamp())
    _tell_import(done, json)
    return 0


def _read(file: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise GremlinsError(f"{file} cannot be read: {error.strerror}") from None


def _text(raw: bytes, name: str) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise GremlinsError(f"{name}:{line}: not UTF-8", hint="nothing was imported") from None


def _tell_import(done: Imported, json: bool) -> None:
    if json:
        counts = {"created": len(done.created), "updated": len(done.updated), "unchanged": len(done.unchanged)}
        counts |= {"older": len(done.older), "skipped": done.skipped, "held": len(done.held)}
        dump(counts)
        return
    parts = [
        f"{len(done.created)} created",
        f"{len(done.updated)} updated",
        f"{len(done.unchanged)} unchanged",
        f"{len(done.older)} older than ours" if done.older else "",
        f"{done.skipped} skipped" if done.skipped else "",
        f"{len(done.held)} held, for their status is not one of ours" if done.held else "",
    ]
    say(", ".join(part for part in parts if part))
