"""Beads as people read them: a table, the page of one bead, a tree."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gremlins.cli.out import columns, dollars, printable
from gremlins.fleet.beads.attempts import is_charged
from gremlins.fleet.beads.store.interface import Event, Listed
from gremlins.fleet.dispatch.admit import Standing
from gremlins.fleet.dispatch.view import BeadInBucket
from gremlins.fleet.times import span, text_of

HEADER = ("ID", "PRI", "TYPE", "BUCKET", "TITLE", "NEXT")


def table(listed: Sequence[Listed], where: Mapping[str, Standing], now: float, width: int | None = None) -> list[str]:
    """One line a bead: where it stands and what happens next. Two where a terminal of this width is too narrow."""
    rows = [
        (
            one.work.id,
            f"P{one.work.priority}",
            one.issue_type,
            where[one.work.id].bucket.replace("_", " "),
            printable(one.title)[:60],
            next_words(where[one.work.id], now),
        )
        for one in listed
    ]
    if not rows:
        return []
    lines = columns(rows, HEADER)
    return lines if width is None or max(map(len, lines)) <= width else _in_two(rows, width)


def _in_two(rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """For a narrow terminal: what comes next stands below each bead, whole."""
    heads = columns([row[:-1] for row in rows], HEADER[:-1])
    lines = [_cut(heads[0], width)]
    for head, row in zip(heads[1:], rows, strict=True):
        lines.append(_cut(head, width))
        lines += textwrap.wrap(row[-1], width, initial_indent="    ", subsequent_indent="    ")
    return lines


def next_words(where: Standing, now: float) -> str:
    """The reason of its place and what comes, in one line."""
    if where.bucket == "closed":
        return ""
    when = f" (in {span(where.until - now)})" if where.until is not None and where.until > now + 1 else ""
    reason = "" if where.reason == "nothing is in the way" else f"{where.reason}; "
    return printable(f"{reason}{where.next}{when}")


def _cut(line: str, width: int) -> str:
    return line if len(line) <= width else line[: width - 1] + "…"


def page(bucketed: BeadInBucket, events: Iterable[Event], dependents: Sequence[tuple[str, str]]) -> list[str]:
    """Everything about one bead."""
    bead, issue, where = bucketed.bead, bucketed.bead.issue, bucketed.where
    lines = [
        f"{issue.id}  {printable(issue.title)}",
        f"  {bead.status}, P{issue.priority}, {issue.issue_type}"
        + (f", {', '.join(issue.labels)}" if issue.labels else "")
        + (f", for {issue.assignee}" if issue.assignee else ""),
        f"  {_bucket_line(where, next_words(where, bucketed.world.now) or issue.close_reason)}",
        f"  created {issue.created_at}, changed {issue.updated_at}"
        + (f", closed {issue.closed_at}" if issue.closed_at else ""),
    ]
    lines += [f"  needs {dep.depends_on_id} ({dep.type})" for dep in issue.dependencies]
    lines += [f"  is needed by {other} ({kind})" for other, kind in dependents]
    start = bucketed.world.starts.get(bucketed.work.id)
    if start is not None and start.conflict is None:
        lines += [f"  starts from the work of {other}" for other in start.unlanded]
    for heading, text in (
        ("description", issue.description),
        ("design", issue.design),
        ("acceptance", issue.acceptance_criteria),
        ("notes", issue.notes),
    ):
        if text.strip():
            lines += ["", f"{heading}:", *(f"  {line}" for line in text.strip().splitlines())]
    return lines + _attempts(bucketed) + _events(events)


def _bucket_line(where: Standing, words: str) -> str:
    """`held: ask Anna first; …`, but not `blocked: blocked by …`."""
    label = where.bucket.replace("_", " ")
    return words if words.startswith(f"{label} ") else f"{label}: {words}"


def _attempts(bucketed: BeadInBucket) -> list[str]:
    rows, waits_for = [], bucketed.work.done_and
    for attempt in bucketed.work.attempts:
        settled = attempt.settled
        outcome = (waits_for or "under way") if settled is None else settled.failure or "done"
        charge = "charged" if is_charged(bucketed.work, attempt, bucketed.world.episodes) else ""
        cost = dollars(settled.cost_usd) if settled else ""
        reason = printable(settled.reason) if settled else ""
        name = f"{attempt.epoch}.{attempt.number}"
        rows.append((name, attempt.gremlin_id, outcome.replace("_", " "), charge, cost, reason))
    return ["", *columns(rows, ("ATTEMPT", "GREMLIN", "OUTCOME", "", "COST", "WHY"))] if rows else []


def _events(events: Iterable[Event]) -> list[str]:
    rows = [(text_of(event.at), event.kind, printable(event.text)) for event in events]
    return ["", *columns(rows, ("WHEN", "WHAT", ""))] if rows else []


def tree(nodes: Iterable[dict[str, Any]]) -> list[str]:
    """A tree of dependencies, deeper ones further in."""
    return [
        f"{'  ' * node['depth']}{node['id']}  [{node['status']}] {printable(node['title'])}"
        + (" …" if node["truncated"] else "")
        for node in nodes
    ]
