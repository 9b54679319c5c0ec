"""The page of `gremlins show`: whole lines off a terminal, cut to its width on one."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from gremlins.cli.fleet_table import cost_of, diff_of
from gremlins.cli.out import Styled, ago, columns, dollars, on_terminal, printable, wrapped
from gremlins.clock import rfc3339
from gremlins.fleet.advice import what_next
from gremlins.fleet.history import History, asked_for, saved_by, wait_of
from gremlins.records.calls import BatchCall, CallFailed, CallRecord
from gremlins.records.gremlin import Bailed, FailedGremlin, Finished, Landed, StageRun, overdue
from gremlins.records.spend import model_of

WIDE = 110
"""Columns of a terminal from which on there is room for the ids of batches."""
BOLD, DIM, RED, GREEN, YELLOW, CYAN = "1", "2", "31", "32", "33", "36"
_STATE_COLOURS = {
    "bailed": RED,
    "dead": RED,
    "detached": YELLOW,
    "stalled": YELLOW,
    "stopped": YELLOW,
    "stopping": YELLOW,
    "running": GREEN,
    "parked": CYAN,
    "finished": GREEN,
    "landed": GREEN,
}


def page(found: History, now: datetime) -> Iterator[Styled]:
    """The story, a line at a time."""
    width = shutil.get_terminal_size().columns if on_terminal() else None
    for line, style, wraps in _page(found, now, with_batches=width is None or width >= WIDE):
        for part in _fit(line, width, wraps):
            yield Styled(part, style)


def _fit(line: str, width: int | None, wraps: bool) -> list[str]:
    if width is None or len(line) <= width:
        return [line]
    if not wraps:
        return [line[: width - 1] + "…"]
    return wrapped(line, width)


Line = tuple[str, str, bool]
"""Text, style, and whether it may go over several lines of a terminal."""


def _page(found: History, now: datetime, *, with_batches: bool) -> Iterator[Line]:
    yield from _head(found)
    yield from _ending(found)
    yield from _section("the whole reply", _texts(found.whole_reply or ""))
    yield from _section("answers", _answers(found))
    yield from _section("remarks", _remarks(found))
    yield from _section("stages", _stages(found, now))
    yield from _section(_calls_title(found), _calls(found.calls, with_batches))
    yield from _section("waiting for", _waiting(found, now))
    if found.artifacts:
        rows = [(a.name, _size(a.size)) for a in found.artifacts]
        title = f"artifacts, in {found.row.seen.paths.artifacts}"
        yield from _section(title, [(line, "", False) for line in columns(rows, ("", ""))[1:]])


def _section(title: str, lines: Iterable[Line]) -> Iterator[Line]:
    body = list(lines)
    if body:
        yield "", "", False
        yield title, BOLD, True
        for text, style, wraps in body:
            yield f"  {text}", style, wraps


def _head(found: History) -> Iterator[Line]:
    glance, life = found.row.record, found.row.life
    yield f"{glance.id}  {life.shown}", f"{BOLD};{_STATE_COLOURS[life.state]}", False
    if glance.title:
        yield f"  {printable(glance.title)}", "", True
    bead = f", bead {glance.bead_id}" if glance.bead_id else ""
    yield f"  pipeline {glance.pipeline}{bead}, in {glance.project}", DIM, True
    yield f"  branch {glance.branch}, worktree {glance.worktree}", DIM, True
    if found.record.builds_on:
        yield f"  starts from the work of {', '.join(found.record.builds_on)}", DIM, True
    began = _moment(found.record.created_at, "%Y-%m-%d %H:%M:%S")
    parked = f", {ago(found.parked_seconds)} of it parked" if found.parked_seconds >= 1 else ""
    spawns = f", {found.record.spawn} processes" if found.record.spawn > 1 else ""
    yield f"  launched {began}, {ago(found.seconds)}{parked}{spawns}", "", True
    cost = glance.cost
    parts = [f"cost {cost_of(found.row)}"]
    parts += [f"saved {dollars(cost.saved_usd)}"] if cost.saved_usd else []
    parts += [f"{cost.unpriced_calls} calls of unknown price"] if cost.unpriced_calls else []
    parts += [f"{cost.unknown_calls} of unknown cost, which may have been billed"] if cost.unknown_calls else []
    wasted = found.record.cost.wasted_usd
    parts += [f"{dollars(wasted)} of it for a second batch"] if wasted else []
    yield f"  {', '.join(parts)}", "", True
    if (diff := diff_of(found.row)) is not None:
        yield f"  changes {diff}", "", True


def _moment(moment: datetime, form: str) -> str:
    """By the local clock on a terminal; the same everywhere off one."""
    return moment.astimezone().strftime(form) if on_terminal() else rfc3339(moment)


def _ending(found: History) -> Iterator[Line]:
    """The reason of its state, the place where it failed, and what to do next."""
    life, status = found.row.life, found.record.status
    where = f" in {status.stage}" if isinstance(status, Bailed | FailedGremlin) and status.stage else ""
    lines: list[Line] = []
    if life.reason:
        failure = getattr(status, "failure", None)
        kind = f" (class {failure})" if failure else ""
        lines.append((f"{life.shown}{where}: {printable(life.reason)}{kind}", _STATE_COLOURS[life.state], True))
    if isinstance(status, Finished | Landed):
        lines.append((_proof(status), "", True))
    lines += [(f"its process last said: {printable(line)}", DIM, True) for line in found.last_words]
    if (following := what_next(life.state, found.row.record)) is not None:
        lines.append((f"next: {following}", "", True))
    if lines:
        yield "", "", False
        yield from lines


def _texts(text: str) -> Iterator[Line]:
    """A text of several lines, each made safe to print."""
    return ((printable(line), "", True) for line in text.strip().splitlines())


def _answers(found: History) -> Iterator[Line]:
    for said in found.record.answers:
        yield f"{said.stage} asked: {printable(said.question)}", "", True
        yield from ((f"  {text}", style, wraps) for text, style, wraps in _texts(said.answer))


def _remarks(found: History) -> Iterator[Line]:
    for number, revision in enumerate(found.record.revisions, 1):
        what = f", onto {revision.onto[:12]}" if revision.onto is not None else ""
        yield f"round {number}, {_moment(revision.at, '%Y-%m-%d %H:%M:%S')}{what}", DIM, False
        for remark in revision.remarks:
            where = f"{remark.path}:{remark.line}: " if remark.line is not None else f"{remark.path}: "
            yield f"  {where if remark.path else ''}{printable(remark.text)}", "", True


def _proof(status: Finished | Landed) -> str:
    evidence = status.evidence
    match evidence.kind:
        case "commits":
            shown = f"its branch holds the change, {evidence.tip[:12]}"
        case "nothing_to_do":
            shown = f"there was nothing to do: {printable(evidence.detail)}"
        case _:
            shown = "its pipeline asks for no change"
    return shown + (f"; landed on {status.target} as {status.sha[:12]}" if isinstance(status, Landed) else "")


# ── stages and calls ──────────────────────────────────────────────────────────────────────────────────────────────


_OUTCOME_COLOURS = {"done": GREEN, "bailed": RED, "failed": RED, "acknowledged": YELLOW, "skipped": DIM}


def _stages(found: History, now: datetime) -> Iterator[Line]:
    rows = [_stage(run, found, now) for run in found.record.stages]
    shown = columns(rows, ("",) * 5)[1:] if rows else []
    for run, line in zip(found.record.stages, shown, strict=True):
        yield line, _OUTCOME_COLOURS.get(run.outcome or "", ""), False


def _stage(run: StageRun, found: History, now: datetime) -> tuple[str, ...]:
    over = found.row.life.state not in ("running", "parked", "stalled", "stopping")
    waits = any(call.stage == run.path for call in found.row.seen.outstanding)
    here = "parked" if waits else found.row.life.shown if run.path == found.record.stage else "under way"
    unfinished = "unfinished" if over else here
    attempt = f" (attempt {run.attempt})" if run.attempt > 1 else ""
    return (
        "  " * run.path.count("/") + run.path + attempt,
        run.outcome or unfinished,
        _moment(run.started_at, "%H:%M:%S"),
        ago(((run.ended_at or now) - run.started_at).total_seconds()),
        printable(run.note),
    )


def _calls_title(found: History) -> str:
    """The client, where it is the same in every call."""
    clients = {call.client for call in found.calls}
    return f"calls, all to {clients.pop()}" if len(clients) == 1 else "calls"


def _calls(calls: Sequence[CallRecord], with_batches: bool) -> Iterator[Line]:
    if not calls:
        return
    several = len({call.client for call in calls}) > 1
    names = ("STAGE", "MODE", *(("MODEL",) if several else ()), "IN", "OUT", "COST", "SAVED", "WAIT", "STATE")
    rows = [_call(call, several) for call in calls]
    if with_batches:
        names = (*names, "BATCH")
        rows = [(*row, _batch_id(call) or "-") for row, call in zip(rows, calls, strict=True)]
    head, *lines = columns(rows, names)
    yield head, DIM, False
    for call, line in zip(calls, lines, strict=True):
        waits = isinstance(call, BatchCall) and call.outstanding
        yield line, RED if isinstance(call.status, CallFailed) else CYAN if waits else "", False
        if isinstance(call.status, CallFailed):
            yield f"  {call.status.kind}: {printable(call.status.message)}", RED, True
        for note in call.notes:
            yield f"  {printable(note)}", DIM, True
        if need := asked_for(call):
            yield f"  it asked for {printable(str(need))}", DIM, True
        for waste in call.second_batches:
            cost = dollars(waste.cost.usd or 0.0, waste.cost.usd is None) if waste.cost else "cost not known yet"
            yield f"  a second batch, {waste.batch_id}: {cost} {printable(waste.note)}".rstrip(), YELLOW, True


def _batch_id(call: CallRecord) -> str | None:
    return call.batch.batch_id if isinstance(call, BatchCall) and call.batch else None


def _call(call: CallRecord, with_model: bool) -> tuple[str, ...]:
    key, usage, wait = call.key, call.usage, wait_of(call)
    numbers = (("attempt", key.attempt), ("turn", key.turn), ("try", key.try_))
    more = "".join(f" {name} {number}" for name, number in numbers if number > 1)
    cached = usage.cache_read_tokens + usage.cache_write_tokens if usage else 0
    return (
        key.stage + more,
        call.mode,
        *((model_of(call),) if with_model else ()),
        f"{usage.input_tokens + cached:,}" if usage else "-",
        f"{usage.output_tokens:,}" if usage else "-",
        "-" if call.cost is None else "?" if call.cost.usd is None else dollars(call.cost.usd),
        dollars(saved_by(call)) if saved_by(call) else "-",
        "-" if wait is None else ago(wait),
        call.status.state,
    )


def _waiting(found: History, now: datetime) -> Iterator[Line]:
    """The outstanding batches: how long, until when, and when they are asked about."""
    from gremlins.fleet.status import next_poll

    due = next_poll(found.row.seen)
    for call in found.row.seen.outstanding:
        if call.batch_id is None:
            yield f"{call.stage}: a batch it may have sent is being looked for", CYAN, True
            continue
        since = f", for {ago((now - call.submitted_at).total_seconds())}" if call.submitted_at else ""
        asks = f", asks again in {ago((due - now).total_seconds())}" if due else ""
        expires = f", expires {_moment(call.expires_at, '%a %H:%M')}" if call.expires_at else ""
        if late := overdue((call,), now):
            yield f"{call.stage}: {late}", RED, True
            continue
        yield f"{call.stage}: {call.batch_id}{since}{asks}{expires}", CYAN, True


def _size(count: int) -> str:
    return f"{count} B" if count < 1000 else f"{count / 1000:.1f} kB" if count < 1_000_000 else f"{count / 1e6:.1f} MB"
