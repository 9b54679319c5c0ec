"""`gremlins bead dep …`: what waits for what."""

from __future__ import annotations

from typing import Any

import typer

from gremlins.cli.bead.look import ID, JSON, help_alone
from gremlins.cli.bead.text import tree
from gremlins.cli.current_project import Here
from gremlins.cli.out import dump, say

app = typer.Typer(rich_markup_mode=None, add_completion=False)
app.callback(invoke_without_command=True)(help_alone)


@app.command("add")
def dep_add(
    bead_id: str = ID,
    other: str = typer.Argument(..., metavar="OTHER", help="The bead it depends on."),
    kind: str = typer.Option("blocks", "-t", "--type", help="blocks, parent-child, related, discovered-from …"),
    json: bool = JSON,
) -> int:
    """Make a bead depend on another. A circle is refused."""
    here = Here.find()
    first, second = here.beads.resolve(bead_id), here.beads.resolve(other)
    here.beads.depend(first, second, kind)
    if json:
        dump({"status": "added", "issue_id": first, "depends_on_id": second, "type": kind})
    else:
        say(f"{first}: depends on {second} ({kind})")
    return 0


@app.command("rm")
@app.command("remove", hidden=True)
def dep_rm(
    bead_id: str = ID,
    other: str = typer.Argument(..., metavar="OTHER", help="The bead it depends on."),
    kind: str = typer.Option(None, "-t", "--type", help="Only this type of dependency."),
    json: bool = JSON,
) -> int:
    """Take a dependency away."""
    here = Here.find()
    first = here.beads.resolve(bead_id)
    named = {d.depends_on_id for d in here.beads.get(first).issue.dependencies}
    second = other if other in named else here.beads.resolve(other)  # what it names need not be here
    here.beads.undepend(first, second, kind)
    if json:
        dump({"status": "removed", "issue_id": first, "depends_on_id": second})
    else:
        say(f"{first}: no longer depends on {second}")
    return 0


@app.command("tree")
def dep_tree(
    bead_id: str = ID,
    reverse: bool = typer.Option(False, "--reverse", help="Show the beads that depend on it instead."),
    depth: int = typer.Option(50, "--max-depth", min=1),
    json: bool = JSON,
) -> int:
    """Show what a bead depends on, and what that depends on."""
    here = Here.find()
    nodes = _walk(here, here.beads.resolve(bead_id), reverse, depth)
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


@app.command("cycles")
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
