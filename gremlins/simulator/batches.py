"""The simulator's batches. Their state is derived from the clock at each request."""

from __future__ import annotations

import base64
import json
import random
import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Literal, assert_never

from gremlins.clock import parse_time
from gremlins.files import append_line
from gremlins.simulator.api import Ids, Json, ModelError, bad_request, not_found, timestamp
from gremlins.simulator.checks import Request
from gremlins.simulator.options import Options

Outcome = Literal["processed", "canceled", "expired"]
Process = Callable[["SimulatedBatch", Request, Outcome], Json]
"""Makes the `result` object of one request."""

COUNTS = ("processing", "succeeded", "errored", "canceled", "expired")


@dataclass(eq=False)
class SimulatedBatch:
    """One batch. Times are the simulator's; `due_at` None means that it does not end by itself."""

    id: str
    number: int
    """Counts up with every batch of the simulator."""
    workspace: str
    key: str
    version: str
    created_at: datetime
    expires_at: datetime
    due_at: datetime | None
    listed_at: datetime
    requests: tuple[Request, ...]
    cancel_initiated_at: datetime | None = None
    cancel_due_at: datetime | None = None
    ended_at: datetime | None = None
    results: list[Json] | None = None
    archived: bool = False
    deleted: bool = False
    shown: bytes | None = field(default=None, repr=False)
    """The serialised object, kept until something changes."""

    def next_change(self) -> datetime:
        """The next time at which something happens to it by itself."""
        if self.cancel_due_at is not None:
            return self.cancel_due_at
        return self.expires_at if self.due_at is None else min(self.due_at, self.expires_at)

    @property
    def status(self) -> str:
        if self.ended_at is not None:
            return "ended"
        return "in_progress" if self.cancel_initiated_at is None else "canceling"

    def counts(self) -> dict[str, int]:
        counts = dict.fromkeys(COUNTS, 0)
        if self.results is None:
            return counts | {"processing": len(self.requests)}
        for line in self.results:
            kind = line["result"]["type"]
            counts[kind if kind in counts else "errored"] += 1
        return counts


@dataclass(frozen=True)
class BatchPage:
    """One page of a list, newest first, the batches serialised."""

    items: tuple[tuple[str, bytes], ...]
    has_more: bool


class BatchStore:
    """All batches of all workspaces. Every method takes the lock; `now` is asked once per call."""

    def __init__(
        self,
        options: Callable[[], Options],
        now: Callable[[], datetime],
        ids: Ids,
        process: Process,
        base_url: Callable[[], str],
    ) -> None:
        self._options = options
        self._now = now
        self._ids = ids
        self._process = process
        self._base_url = base_url
        self._chance = random.Random(options().seed)
        self._lock = threading.RLock()
        self._batches: dict[str, SimulatedBatch] = {}
        self._by_workspace: dict[str, list[SimulatedBatch]] = {}
        self._open: dict[str, SimulatedBatch] = {}
        self._next_change: datetime | None = None
        self._journal: Path | None = options().state_file
        if self._journal is not None and self._journal.exists():
            self._restore(self._journal)

    # -- what the API does

    def create(
        self,
        requests: tuple[Request, ...],
        *,
        workspace: str,
        key: str,
        version: str,
        latency: float | None = None,
        hidden_for: float = 0.0,
    ) -> bytes:
        """Take a batch in. `latency` overrides the usual one; the list shows it only after `hidden_for`."""
        options = self._options()
        with self._lock:
            now = self._now()
            usual = options.latency + self._chance.random() * options.latency_spread
            takes = usual if latency is None else latency
            batch = SimulatedBatch(
                id=self._new_id(),
                number=len(self._batches),
                workspace=workspace,
                key=key,
                version=version,
                created_at=now,
                expires_at=now + timedelta(seconds=options.expires_after),
                due_at=None if takes == float("inf") else now + timedelta(seconds=takes),
                listed_at=now + timedelta(seconds=hidden_for),
                requests=requests,
            )
            self._add(batch)
            self._note(batch)
            return self._show(batch, now)

    def retrieve(self, batch_id: str, workspace: str) -> bytes:
        with self._lock:
            return self._show(self._get(batch_id, workspace), self._now())

    def cancel(self, batch_id: str, workspace: str) -> bytes:
        """Begin to cancel. Once more changes nothing; an ended batch is refused."""
        with self._lock:
            batch = self._get(batch_id, workspace)
            if batch.ended_at is not None:
                raise bad_request(f"Message Batch {batch_id} has already ended and cannot be canceled.")
            self._begin_cancel(batch)
            return self._show(batch, self._now())

    def results(self, batch_id: str, workspace: str) -> list[Json]:
        with self._lock:
            batch = self._get(batch_id, workspace)
            if self._is_archived(batch, self._now()):
                raise not_found(f"The results of Message Batch {batch_id} are no longer available.")
            if batch.results is None:
                raise bad_request(f"Message Batch {batch_id} has not ended: its results are available once it has.")
            return list(batch.results)

    def delete(self, batch_id: str, workspace: str) -> Json:
        with self._lock:
            batch = self._get(batch_id, workspace)
            if batch.ended_at is None:
                raise bad_request(
                    f"Message Batch {batch_id} cannot be deleted while it is {batch.status}. Cancel it first."
                )
            batch.deleted = True
            self._note(batch)
            return {"id": batch_id, "type": "message_batch_deleted"}

    def page(self, workspace: str, *, limit: int, after_id: str | None, before_id: str | None) -> BatchPage:
        """A page, newest first. Raises ApiError (400) when a cursor is unknown."""
        with self._lock:
            now = self._tick()
            kept = self._by_workspace.get(workspace, [])
            if before_id is not None:
                place = self._place(kept, before_id)
                newer = (kept[index] for index in range(place + 1, len(kept)))
                found = list(islice(self._listed(newer, now), limit + 1))
                page = found[:limit][::-1]
            else:
                start = len(kept) if after_id is None else self._place(kept, after_id)
                older = (kept[index] for index in range(start - 1, -1, -1))
                found = list(islice(self._listed(older, now), limit + 1))
                page = found[:limit]
            return BatchPage(tuple((batch.id, self._show(batch, now)) for batch in page), len(found) > limit)

    # -- what only the simulator's owner does

    def all(self) -> list[SimulatedBatch]:
        """Every batch ever created, oldest first, deleted ones too."""
        with self._lock:
            self._tick()
            return list(self._batches.values())

    def find(self, batch_id: str) -> SimulatedBatch:
        """A batch of any workspace. Raises ApiError (404)."""
        with self._lock:
            return self._get(batch_id, None)

    def meddle(self, batch_id: str, what: Literal["cancel", "expire", "end", "forget"]) -> None:
        """Do from outside what else comes with time, or make the batch vanish."""
        with self._lock:
            batch = self._get(batch_id, None)
            match what:
                case "cancel":
                    self._begin_cancel(batch)
                case "expire":
                    self._settle(batch, self._now(), "expired")
                case "end":
                    self._settle(batch, self._now(), "processed")
                case "forget":
                    batch.deleted = True
                case _:
                    assert_never(what)
            self._note(batch)

    # -- inside

    def _new_id(self) -> str:
        plain = self._ids.new("msgbatch")
        return plain if self._options().batch_ids == "api" else base64.b64encode(f"{plain}=".encode()).decode()

    def _add(self, batch: SimulatedBatch) -> None:
        self._batches[batch.id] = batch
        self._by_workspace.setdefault(batch.workspace, []).append(batch)
        if batch.ended_at is None:
            self._open[batch.id] = batch
            self._expect(batch)

    def _expect(self, batch: SimulatedBatch) -> None:
        change = batch.next_change()
        self._next_change = change if self._next_change is None else min(self._next_change, change)

    def _get(self, batch_id: str, workspace: str | None) -> SimulatedBatch:
        self._tick()
        batch = self._batches.get(batch_id)
        if batch is None or batch.deleted or workspace not in (None, batch.workspace):
            raise not_found(f"Message Batch {batch_id} not found.")
        return batch

    def _place(self, kept: list[SimulatedBatch], batch_id: str) -> int:
        batch = self._batches.get(batch_id)
        place = len(kept) if batch is None else bisect_left(kept, batch.number, key=lambda item: item.number)
        if place == len(kept) or kept[place] is not batch:
            raise bad_request(f"Invalid cursor: {batch_id}")
        return place

    def _listed(self, batches: Iterable[SimulatedBatch], now: datetime) -> Iterator[SimulatedBatch]:
        return (batch for batch in batches if not batch.deleted and batch.listed_at <= now)

    def _begin_cancel(self, batch: SimulatedBatch) -> None:
        if batch.ended_at is None and batch.cancel_initiated_at is None:
            now = self._now()
            batch.cancel_initiated_at = now
            batch.cancel_due_at = now + timedelta(seconds=self._options().cancel_latency)
            self._expect(batch)
            self._note(batch)

    def _tick(self) -> datetime:
        """Let everything happen that is due."""
        now = self._now()
        if self._next_change is not None and self._next_change <= now:
            self._next_change = None
            for batch in list(self._open.values()):
                self._let_happen(batch, now)
            for batch in self._open.values():
                self._expect(batch)
        return now

    def _let_happen(self, batch: SimulatedBatch, now: datetime) -> None:
        never = self._options().never_expires
        if batch.cancel_due_at is not None:
            if batch.cancel_due_at <= now:
                self._settle(batch, batch.cancel_due_at, "canceled")
        elif batch.due_at is not None and batch.due_at <= (now if never else min(now, batch.expires_at)):
            self._settle(batch, batch.due_at, "processed")
        elif batch.expires_at <= now and not never:
            self._settle(batch, batch.expires_at, "expired")

    def _settle(self, batch: SimulatedBatch, when: datetime, outcome: Outcome) -> None:
        if batch.ended_at is not None:
            return
        lines = [
            {"custom_id": request.custom_id, "result": self._process(batch, request, outcome)}
            for request in batch.requests
        ]
        self._chance.shuffle(lines)
        batch.results, batch.ended_at = lines, when
        self._open.pop(batch.id, None)
        self._note(batch)

    def _is_archived(self, batch: SimulatedBatch, now: datetime) -> bool:
        keep = timedelta(seconds=self._options().results_kept)
        if not batch.archived and batch.ended_at is not None and now - batch.created_at >= keep:
            batch.archived, batch.shown = True, None
        return batch.archived

    def _show(self, batch: SimulatedBatch, now: datetime) -> bytes:
        if batch.ended_at is not None:
            self._is_archived(batch, now)
        if batch.shown is None:
            batch.shown = json.dumps(self._object(batch)).encode()
        return batch.shown

    def _object(self, batch: SimulatedBatch) -> Json:
        keep = timedelta(seconds=self._options().results_kept)
        ready = batch.ended_at is not None and not batch.archived
        return {
            "id": batch.id,
            "type": "message_batch",
            "processing_status": batch.status,
            "request_counts": batch.counts() | dict(self._options().more_counts),
            "ended_at": batch.ended_at and timestamp(batch.ended_at),
            "created_at": timestamp(batch.created_at),
            "expires_at": timestamp(batch.expires_at),
            "archived_at": timestamp(batch.created_at + keep) if batch.archived else None,
            "cancel_initiated_at": batch.cancel_initiated_at and timestamp(batch.cancel_initiated_at),
            "results_url": f"{self._base_url()}/v1/messages/batches/{batch.id}/results" if ready else None,
        }

    # -- persistence: one line per change, the last one of each batch counts

    def _note(self, batch: SimulatedBatch) -> None:
        batch.shown = None
        if self._journal is not None:
            append_line(self._journal, json.dumps(_to_json(batch)))

    def _restore(self, journal: Path) -> None:
        latest: dict[str, Json] = {}
        text = journal.read_text()
        if text and not text.endswith("\n"):
            append_line(journal, "")  # ends the line that was being written when the simulator was killed
        for line in text.splitlines():
            try:
                value = json.loads(line)
            except ValueError:
                continue
            latest[value["id"]] = latest.get(value["id"], {}) | value
        for value in latest.values():
            self._add(_from_json(value))


_SAME = ("id", "number", "workspace", "version", "results", "archived", "deleted")
_TIMES = (
    "created_at",
    "expires_at",
    "due_at",
    "listed_at",
    "cancel_initiated_at",
    "cancel_due_at",
    "ended_at",
)


def _to_json(batch: SimulatedBatch) -> Json:
    """Everything but the key: files hold no secrets."""
    times = {name: getattr(batch, name) for name in _TIMES}
    requests = [{"custom_id": item.custom_id, "params": item.params} for item in batch.requests]
    same = {name: getattr(batch, name) for name in _SAME}
    return same | {"requests": requests} | {name: value and timestamp(value) for name, value in times.items()}


def _from_json(value: Json) -> SimulatedBatch:
    same: Json = {name: value[name] for name in _SAME}
    times: Json = {name: value[name] and parse_time(value[name]) for name in _TIMES}
    requests = tuple(Request(item["custom_id"], item["params"]) for item in value["requests"])
    return SimulatedBatch(**same, **times, requests=requests, key="")


def errored(failure: ModelError, request_id: str) -> Json:
    """An `errored` result: the error response of the API, wrapped."""
    return {"type": "errored", "error": failure.response(request_id)}
