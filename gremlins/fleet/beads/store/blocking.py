"""The `blocked` flag of beads, updated in the transaction that changes a status or a dependency.

A bead is blocked by a blocker that is not closed (a failed one too), or by a blocked parent that is not closed.
Ids without a bead block nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from gremlins.fleet.beads.bead import BLOCKING, ORDERING, PARENT
from gremlins.fleet.beads.store.database import Database

_BLOCKING = ", ".join(f"'{kind}'" for kind in sorted(BLOCKING))
_ORDERING = ", ".join(f"'{kind}'" for kind in sorted(ORDERING))

_IS_BLOCKED = f"""
    SELECT EXISTS (
        SELECT 1 FROM deps d JOIN beads b ON b.project = d.project AND b.id = d.depends_on_id
        WHERE d.project = :project AND d.issue_id = :id AND b.status != 'closed'
          AND (d.type IN ({_BLOCKING}) OR (d.type = '{PARENT}' AND b.blocked = 1))
    )"""

_DEPENDENTS = f"""
    SELECT issue_id FROM deps INDEXED BY deps_backwards
    WHERE project = ? AND depends_on_id = ? AND type IN ({_ORDERING})"""

_EDGES = """
    SELECT d.issue_id, d.depends_on_id FROM deps d
    CROSS JOIN beads b ON b.project = d.project AND b.id = d.depends_on_id AND b.status != 'closed'
    WHERE d.project = ? AND d.type IN ({kinds})"""

_EDGES_WITH_STATUS = f"""
    SELECT d.issue_id, b.id, b.status FROM deps d
    CROSS JOIN beads b ON b.project = d.project AND b.id = d.depends_on_id AND b.status != 'closed'
    WHERE d.project = ? AND d.type IN ({_BLOCKING}) ORDER BY d.issue_id, b.id"""

_BLOCKERS = f"""
    WITH RECURSIVE up(id) AS (
        SELECT id FROM beads WHERE project = :project AND id = :id
        UNION
        SELECT d.depends_on_id FROM up
        CROSS JOIN deps d ON d.project = :project AND d.issue_id = up.id AND d.type = '{PARENT}'
        CROSS JOIN beads b ON b.project = d.project AND b.id = d.depends_on_id AND b.status != 'closed'
    )
    SELECT b.id, b.status, up.id FROM up
    CROSS JOIN deps d ON d.project = :project AND d.issue_id = up.id AND d.type IN ({_BLOCKING})
    CROSS JOIN beads b ON b.project = d.project AND b.id = d.depends_on_id AND b.status != 'closed'
    ORDER BY up.id != :id, b.id"""

_DONE_BY = f"""
    WITH RECURSIVE up(id) AS (
        SELECT id FROM beads WHERE project = :project AND id = :id
        UNION
        SELECT d.depends_on_id FROM up
        CROSS JOIN deps d ON d.project = :project AND d.issue_id = up.id AND d.type = '{PARENT}'
    )
    SELECT a.gremlin_id FROM up
    CROSS JOIN deps d ON d.project = :project AND d.issue_id = up.id AND d.type IN ({_BLOCKING})
    CROSS JOIN beads b ON b.project = d.project AND b.id = d.depends_on_id AND b.status = 'closed'
    CROSS JOIN attempts a ON a.project = d.project AND a.bead_id = d.depends_on_id AND a.number = b.tried
    WHERE a.settled_seq IS NOT NULL AND a.failure IS NULL
    GROUP BY a.gremlin_id ORDER BY MIN(a.settled_seq)"""
# Without CROSS JOIN and INDEXED BY, SQLite scans all dependencies of a project.


def refresh(db: Database, project: str, touched: Iterable[str]) -> None:
    """Update the flags after these beads were added, or changed in status or dependencies."""
    todo = list(dict.fromkeys(touched))
    for bead_id in list(todo):
        todo.extend(row[0] for row in db.rows(_DEPENDENTS, (project, bead_id)))
    while todo:
        bead_id = todo.pop()
        flag = int(db.value(_IS_BLOCKED, {"project": project, "id": bead_id}))
        changed = db.run(
            "UPDATE beads SET blocked = ? WHERE project = ? AND id = ? AND blocked != ?",
            (flag, project, bead_id, flag),
        )
        if changed:  # only children depend on the flag itself
            todo.extend(row[0] for row in db.rows(_DEPENDENTS, (project, bead_id)))


def blockers(db: Database, project: str, bead_id: str) -> list[tuple[str, str, str]]:
    """The unclosed blockers of a bead and of its unclosed ancestors: (blocker, status, the bead or ancestor)."""
    return [(row[0], row[1], row[2]) for row in db.rows(_BLOCKERS, {"project": project, "id": bead_id})]


def done_by(db: Database, project: str, ids: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The gremlins that did the closed blockers of beads, in the order in which they were done."""
    found = {}
    for bead_id in ids:
        if rows := db.rows(_DONE_BY, {"project": project, "id": bead_id}):
            found[bead_id] = tuple(row[0] for row in rows)
    return found


def all_blockers(db: Database, project: str) -> dict[str, list[tuple[str, str, str]]]:
    """`blockers` of every blocked bead, in two queries."""
    parents: dict[str, list[str]] = {}
    for child, parent in db.rows(_EDGES.format(kinds=f"'{PARENT}'"), (project,)):
        parents.setdefault(child, []).append(parent)
    own: dict[str, list[tuple[str, str, str]]] = {}
    for bead_id, blocker, status in db.rows(_EDGES_WITH_STATUS, (project,)):
        own.setdefault(bead_id, []).append((blocker, status, bead_id))
    found = {}
    for (bead_id,) in db.rows("SELECT id FROM beads WHERE project = ? AND blocked = 1", (project,)):
        family, todo = {bead_id: None}, [bead_id]
        while todo:
            for parent in parents.get(todo.pop(), ()):
                if parent not in family:
                    family[parent] = None
                    todo.append(parent)
        found[bead_id] = [row for member in family for row in own.get(member, ())]
    return found


def circle_through(db: Database, project: str, start: str) -> list[str] | None:
    """A circle of ordering dependencies through `start`."""
    came: dict[str, str] = {}
    todo = [start]
    while todo:
        here = todo.pop()
        for other in _successors(db, project, here):
            if other == start:
                return _path(came, start, here)
            if other not in came:
                came[other] = here
                todo.append(other)
    return None


def all_circles(db: Database, project: str) -> list[list[str]]:
    """One circle of each group of beads that depend on each other."""
    edges: dict[str, list[str]] = {}
    for issue, other in db.rows(
        f"SELECT issue_id, depends_on_id FROM deps WHERE project = ? AND type IN ({_ORDERING})", (project,)
    ):
        edges.setdefault(issue, []).append(other)
    return circles_of(edges)


def circles_of(edges: dict[str, list[str]]) -> list[list[str]]:
    """One circle of each connected part of a graph. Iterative, because chains may exceed the recursion limit."""
    found: list[list[str]] = []
    done: set[str] = set()
    for root in edges:
        path: list[str] = []
        on_path: set[str] = set()
        stack: list[tuple[str, bool]] = [(root, True)]
        while stack:
            node, entering = stack.pop()
            if not entering:
                path.pop()
                on_path.discard(node)
                done.add(node)
            elif node in on_path:
                found.append([*path[path.index(node) :], node])
            elif node not in done:
                path.append(node)
                on_path.add(node)
                stack.append((node, False))
                stack.extend((other, True) for other in edges.get(node, ()))
    return found


def _successors(db: Database, project: str, bead_id: str) -> Sequence[str]:
    rows = db.rows(
        f"SELECT depends_on_id FROM deps WHERE project = ? AND issue_id = ? AND type IN ({_ORDERING})",
        (project, bead_id),
    )
    return [row[0] for row in rows]


def _path(came: dict[str, str], start: str, last: str) -> list[str]:
    path = [start, last] if last != start else [start]
    while path[-1] != start and came.get(path[-1], start) != start:
        path.append(came[path[-1]])
    return [start, *reversed(path[1:]), start]
