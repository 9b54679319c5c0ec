"""A person's intention to stop a gremlin: a file of its own, so that the record keeps its one writer."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime

from gremlins.clock import parse_time, rfc3339
from gremlins.files import write_json
from gremlins.paths import GremlinPaths


@dataclass(frozen=True)
class StopIntention:
    """A request to stop: by whom, why and when. `then_resume`: settle it, then go on (a rescue of a stopped one)."""

    by: str
    why: str
    at: datetime
    then_resume: bool = False


def write_stop(paths: GremlinPaths, stop: StopIntention) -> None:
    """Durable before anything is signalled. An earlier intention is replaced."""
    write_json(paths.stop, {"by": stop.by, "why": stop.why, "at": rfc3339(stop.at), "then_resume": stop.then_resume})


def read_stop(paths: GremlinPaths) -> StopIntention | None:
    """The request, or None. An unreadable file still means a stop is wanted."""
    try:
        raw = paths.stop.read_text()
    except OSError:
        return None
    try:
        found = json.loads(raw)
        return StopIntention(
            by=str(found["by"]),
            why=str(found["why"]),
            at=parse_time(found["at"]),
            then_resume=bool(found.get("then_resume")),
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        return StopIntention(by="unknown", why="", at=datetime.fromtimestamp(paths.stop.stat().st_mtime).astimezone())


def clear_stop(paths: GremlinPaths) -> None:
    paths.stop.unlink(missing_ok=True)
