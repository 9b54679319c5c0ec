"""Observing gremlins: the record, and around it its lock, its wait and its outstanding calls. Only reads."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from msgspec.structs import replace

from gremlins.errors import NotFound, did_you_mean
from gremlins.files import read_file
from gremlins.paths import ACTIVITY, FROZEN, GREMLIN_ID, LOCK, LOG, STATE, STOP, WAIT, GremlinPaths, Home
from gremlins.processes.locks import holder_of
from gremlins.records.format import Record
from gremlins.records.gremlin import Gremlin, Parked, ParkedCall, Running, read_again, read_version
from gremlins.records.liveness import Observed
from gremlins.records.wait import read_wait


def observe(folder: str, *, holder_of_the_over: bool = True) -> Observed:
    """A gremlin by its folder. Raises NotFound, CorruptRecord.

    `holder_of_the_over`: a list need not ask for the lock of one that is over.
    """
    record, version = read_version(folder)
    if record.over() and not holder_of_the_over:
        return Observed(record, folder, None)
    while True:
        holder = holder_of(f"{folder}/{LOCK}")  # between two reads of the record, so that both are of one moment
        seen = version
        record, version = read_again(folder, record, version)
        if holder is not None or version == seen:
            break
    if holder is None and record.over():
        return Observed(record, folder, None)
    if holder is None and not isinstance(record.status, Parked):
        record, outstanding = _as_booked(folder, record)
    else:
        outstanding = record.status.calls if isinstance(record.status, Parked | Running) else ()
    may_stall = holder is not None and not isinstance(record.status, Parked)
    return Observed(
        record,
        folder,
        holder,
        stop_wanted=os.path.exists(f"{folder}/{STOP}"),
        outstanding=outstanding,
        wait=read_wait(f"{folder}/{WAIT}") if isinstance(record.status, Parked | Running) else None,
        last_sign=_last_sign(folder) if may_stall else None,
        idle_timeout=_idle_timeout(folder) if may_stall else None,
    )


def _as_booked(folder: str, record: Gremlin) -> tuple[Gremlin, tuple[ParkedCall, ...]]:
    """The remains of a killed process: its record with the cost of its calls, and those that are or may be
    with the API. The calls are the truth: it may have died before it wrote the record."""
    from gremlins.records.calls import Ledger, outstanding, summarize  # 10 ms that only such a gremlin needs

    calls, _ = Ledger(GremlinPaths(Path(folder))).readable()  # `doctor` reports the others; they hide no call
    cost = max(
        summarize(calls), record.cost, key=lambda known: known.total_usd
    )  # an unreadable call is in the record only
    parked = (call.parked() for call in outstanding(calls))
    by_age = sorted(parked, key=lambda call: call.submitted_at.timestamp() if call.submitted_at else 0.0)
    return replace(record, cost=cost, total_cost_usd=cost.total_usd), tuple(by_age)


def _last_sign(folder: str) -> datetime | None:
    newest = 0.0
    for name in (STATE, ACTIVITY, LOG):
        try:
            newest = max(newest, os.stat(f"{folder}/{name}").st_mtime)
        except OSError:
            continue
    return datetime.fromtimestamp(newest, UTC) if newest else None


class _Live(Record, frozen=True):
    idle_timeout: float


class _Settings(Record, frozen=True):
    live: _Live


class _Frozen(Record, frozen=True):
    """The one setting of `frozen.json` that a list needs, without pydantic."""

    settings: _Settings


_FROZEN = msgspec.json.Decoder(_Frozen)


def _idle_timeout(folder: str) -> float | None:
    try:
        return _FROZEN.decode(read_file(f"{folder}/{FROZEN}")).settings.live.idle_timeout
    except (OSError, msgspec.MsgspecError, ValueError, RecursionError):
        return None


def ids(home: Home) -> Iterator[str]:
    """Every folder that may hold a gremlin, in no order; of a cluster every gremlin that it has."""
    if home.cluster:
        from gremlins.cluster.overview import ids as known
        from gremlins.cluster.overview import open_fleet

        with contextlib.closing(open_fleet(home)) as db:
            yield from known(db)
        return
    try:
        entries = os.scandir(home.gremlins)
    except FileNotFoundError:
        return
    with entries:
        for entry in entries:
            if GREMLIN_ID.fullmatch(entry.name) and entry.is_dir():
                yield entry.name


def resolve(home: Home, prefix: str) -> str:
    """The id with this unique prefix, else with this end. Raises NotFound with the nearest ids, or the matches."""
    if not home.cluster and GREMLIN_ID.fullmatch(prefix) and home.gremlin(prefix).root.is_dir():
        return prefix
    known = sorted(ids(home))
    if prefix in known:
        return prefix
    matches = [name for name in known if name.startswith(prefix)] if prefix else []
    matches = matches or ([name for name in known if name.endswith(f"-{prefix.removeprefix('-')}")] if prefix else [])
    if len(matches) == 1:
        return matches[0]
    if matches:
        some = ", ".join(matches[:12]) + (" …" if len(matches) > 12 else "")
        raise NotFound(f"`{prefix}` stands for several gremlins", hint=f"one of: {some}")
    hint = did_you_mean(prefix, known, otherwise="`gremlins status --all` lists them all")
    raise NotFound(f"no gremlin `{prefix}`", hint=hint)
