"""The JSON document that the `notify` command gets when a gremlin has ended."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from msgspec.structs import asdict

from gremlins.clock import rfc3339
from gremlins.records.gremlin import Bailed, FailedGremlin, Finished, Gremlin, Interrupted, Parked

LONGEST_REASON = 4000
"""Characters of the reason that are passed on."""


def ending_event(record: Gremlin, at: datetime) -> dict[str, Any] | None:
    """The document; None for a status that is not reported.

    `event` is finished, bailed, dead or detached (a batch is outstanding and a person has to go on).
    """
    status = record.status
    match status:
        case Finished():
            kind, reason = "finished", ""
        case Bailed():
            kind, reason = "bailed", f"{status.kind}: {status.detail}"
        case FailedGremlin():
            kind, reason = "dead", status.reason
        case Interrupted():
            kind, reason = "dead", f"ended by {status.signal}"
        case Parked() if status.failure is not None:
            kind, reason = "detached", status.reason or ""
        case _:
            return None
    return {
        "event": kind,
        "gremlin": record.id,
        "id": record.id,
        "title": record.title,
        "pipeline": record.pipeline,
        "project": record.project,
        "branch": record.branch,
        "bead": record.bead_id,
        "stage": record.stage,
        "reason": reason[:LONGEST_REASON] or None,
        "exit_code": status.exit_code if isinstance(status, FailedGremlin) else None,
        "cost": asdict(record.cost),
        "at": rfc3339(at),
    }
