"""All that is known of one gremlin as data: its record, its calls, its artifacts. Only reads."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from gremlins.clock import Clock, rfc3339
from gremlins.errors import CorruptRecord
from gremlins.fleet.status import Row, as_json, look
from gremlins.paths import GremlinPaths, Home
from gremlins.records.calls import BatchCall, CallFailed, CallRecord, Collected, Ledger
from gremlins.records.gremlin import Bailed, FailedGremlin, Finished, Gremlin, Landed, Parked, StageRun
from gremlins.records.spend import model_of
from gremlins.stages.wants import Need, read_need

LAST_WORDS = 5
"""Lines of what a process printed that are told of one that died without a word."""


@dataclass(frozen=True)
class Artifact:
    """A file in a gremlin's `artifacts`. `name` is its path below that folder."""

    name: str
    path: Path
    size: int
    modified_at: datetime


@dataclass(frozen=True)
class History:
    """One gremlin as `show` tells it, at the moment `now`."""

    row: Row
    record: Gremlin
    calls: tuple[CallRecord, ...]
    artifacts: tuple[Artifact, ...]
    last_words: tuple[str, ...]
    unreadable: tuple[CorruptRecord, ...]
    now: datetime

    @property
    def seconds(self) -> float:
        """From its launch to its end, or to now."""
        return ((self.record.ended_at or self.now) - self.record.created_at).total_seconds()

    @property
    def parked_seconds(self) -> float:
        status = self.record.status
        since = (self.now - status.since).total_seconds() if isinstance(status, Parked) else 0.0
        return self.record.parked_seconds + max(0.0, since)

    def as_json(self) -> dict[str, Any]:
        """The object of `show --json`: that of `status --json`, and what belongs to it."""
        status = self.record.status
        return {
            **as_json(self.row),
            "base": self.record.base,
            "builds_on": list(self.record.builds_on),
            "spawns": self.record.spawn,
            "seconds": round(self.seconds, 3),
            "parked_seconds": round(self.parked_seconds, 3),
            "stages": [_stage(run, self.now) for run in self.record.stages],
            "calls": [_call(call) for call in self.calls],
            "artifacts": [
                {"name": a.name, "path": str(a.path), "bytes": a.size, "modified_at": rfc3339(a.modified_at)}
                for a in self.artifacts
            ],
            "failure": self._failure(),
            "evidence": msgspec.to_builtins(status.evidence) if isinstance(status, Finished | Landed) else None,
            "landed": {"sha": status.sha, "target": status.target} if isinstance(status, Landed) else None,
            "reply": self.whole_reply,
            "answers": [
                {"stage": a.stage, "question": a.question, "answer": a.answer, "at": rfc3339(a.at)}
                for a in self.record.answers
            ],
            "revisions": [
                {"at": rfc3339(r.at), "onto": r.onto, "remarks": [msgspec.to_builtins(remark) for remark in r.remarks]}
                for r in self.record.revisions
            ],
            "last_words": list(self.last_words),
            "unreadable": [error.message for error in self.unreadable],
        }

    @property
    def whole_reply(self) -> str | None:
        """The reply that held the question of a bailed one; None where a rule of ours has bailed."""
        status = self.record.status
        if not isinstance(status, Bailed):
            return None
        replies = [
            call.status.reply.text
            for call in self.calls
            if isinstance(call.status, Collected) and (call.key.stage + "/").startswith(status.stage + "/")
        ]
        return _prose(replies[-1]) if replies else None

    def _failure(self) -> dict[str, Any] | None:
        """Stage, class and reason of a failure, if it is dead or detached by one."""
        status = self.record.status
        match status:
            case FailedGremlin():
                return {
                    "stage": status.stage,
                    "class": status.failure,
                    "reason": status.reason,
                    "exit_code": status.exit_code,
                    "retry_at": _time(status.retry_at),
                }
            case Parked() if status.failure is not None:
                return {
                    "stage": self.record.stage,
                    "class": status.failure,
                    "reason": status.reason,
                    "exit_code": None,
                    "retry_at": None,
                }
            case _:
                return None


def history(home: Home, gremlin_id: str, clock: Clock) -> History:
    """Everything about a gremlin, by its full id. Raises NotFound, CorruptRecord (of its own record)."""
    if home.cluster:
        from gremlins.cluster.hands import bring_here  # only where there is one

        bring_here(home, gremlin_id, clock)
    paths = home.gremlin(gremlin_id)
    row = look(home, gremlin_id, clock)
    calls, unreadable = Ledger(paths).readable()
    return History(
        row=row,
        record=row.record,
        calls=tuple(calls),
        artifacts=tuple(_artifacts(paths)),
        last_words=_last_words(paths) if row.life.state == "dead" else (),
        unreadable=tuple(unreadable),
        now=clock.now(),
    )


def _prose(reply: str) -> str:
    """The words of a reply: of a structured one its summary, or the reason of a decision."""
    try:
        found = json.loads(reply, strict=False)
    except (ValueError, RecursionError):
        return reply
    words = (found.get("summary") or found.get("reason")) if isinstance(found, dict) else None
    return words if isinstance(words, str) else reply


def wait_of(call: CallRecord) -> float | None:
    """Seconds a call took: of a batch from its submission to its end, of a live one from start to reply."""
    if isinstance(call, BatchCall) and call.batch is not None:
        return (call.batch.ended_at - call.batch.submitted_at).total_seconds() if call.batch.ended_at else None
    return (call.ended_at - call.created_at).total_seconds() if call.ended_at else None


def saved_by(call: CallRecord) -> float:
    """USD that the batch price saved against the live one."""
    cost = call.cost
    if call.mode != "batch" or cost is None or cost.usd is None or cost.live_usd is None:
        return 0.0
    return cost.live_usd - cost.usd


def _artifacts(paths: GremlinPaths) -> list[Artifact]:
    found = []
    for path in sorted(paths.artifacts.rglob("*")):
        try:
            stat = path.stat()
        except OSError:
            continue
        if path.is_file():
            modified = datetime.fromtimestamp(stat.st_mtime, UTC)
            found.append(Artifact(str(path.relative_to(paths.artifacts)), path, stat.st_size, modified))
    return found


def _last_words(paths: GremlinPaths) -> tuple[str, ...]:
    try:
        with paths.output.open("rb") as file:
            file.seek(max(0, paths.output.stat().st_size - 20_000))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ()
    return tuple(line for line in lines if line.strip())[-LAST_WORDS:]


def _stage(run: StageRun, now: datetime) -> dict[str, Any]:
    return {
        "path": run.path,
        "type": run.type,
        "attempt": run.attempt,
        "started_at": rfc3339(run.started_at),
        "ended_at": _time(run.ended_at),
        "seconds": round(((run.ended_at or now) - run.started_at).total_seconds(), 3),
        "outcome": run.outcome,
        "note": run.note,
    }


def _call(call: CallRecord) -> dict[str, Any]:
    status, usage = call.status, call.usage
    batch = call.batch if isinstance(call, BatchCall) else None
    wait = wait_of(call)
    failure = None
    if isinstance(status, CallFailed):
        failure = {"class": status.failure, "kind": status.kind, "message": status.message}
    return {
        "stage": call.key.stage,
        "attempt": call.key.attempt,
        "turn": call.key.turn,
        "try": call.key.try_,
        "state": status.state,
        "mode": call.mode,
        "client": call.client,
        "model": model_of(call),
        "custom_id": call.custom_id,
        "batch_id": batch.batch_id if batch else None,
        "created_at": rfc3339(call.created_at),
        "submitted_at": _time(batch.submitted_at if batch else None),
        "ended_at": _time(call.ended_at),
        "wait_seconds": None if wait is None else round(wait, 3),
        "input_tokens": usage.input_tokens if usage else None,
        "output_tokens": usage.output_tokens if usage else None,
        "cache_read_tokens": usage.cache_read_tokens if usage else None,
        "cache_write_tokens": usage.cache_write_tokens if usage else None,
        "cost_usd": call.cost.usd if call.cost else None,
        "live_usd": call.cost.live_usd if call.cost else None,
        "saved_usd": round(saved_by(call), 10),
        "unpriced": call.cost is not None and call.cost.usd is None,
        "stop_reason": status.reply.stop_reason if isinstance(status, Collected) else None,
        "failure": failure,
        "waste": [
            {"batch_id": waste.batch_id, "cost_usd": waste.cost.usd if waste.cost else None, "note": waste.note}
            for waste in call.second_batches
        ],
        "notes": list(call.notes),
        "asked_for": list(map(str, need.wants)) if (need := asked_for(call)) else [],
    }


def asked_for(call: CallRecord) -> Need | None:
    """The things that the model of a batch call asked for in place of a result."""
    if isinstance(call, BatchCall) and isinstance(call.status, Collected):
        return read_need(call.status.reply.text)
    return None


def _time(moment: datetime | None) -> str | None:
    return rfc3339(moment) if moment else None
