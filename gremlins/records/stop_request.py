"""A request to stop a gremlin: a file of its own, so that the record keeps its one writer."""

from __future__ import annotations

from datetime import datetime

import msgspec

from gremlins.files import read_file, remove_file, write_atomic
from gremlins.paths import GremlinPaths
from gremlins.records.format import Moment, Record, encoded


class StopRequest(Record, frozen=True):
    """By whom, why and when. `then_resume`: settle the stop, then go on (a rescue of a stopped gremlin). `give_up`: a
    call that cannot be followed is booked at an unknown cost, so that the stop has an end (`rm --force`)."""

    by: str
    why: str
    at: Moment
    then_resume: bool = False
    give_up: bool = False


def write_stop(paths: GremlinPaths, stop: StopRequest) -> None:
    """Durable before anything is signalled. An earlier request is replaced."""
    write_atomic(paths.stop, encoded(stop))


def read_stop(paths: GremlinPaths) -> StopRequest | None:
    """The request, or None. An unreadable file still means a stop is wanted."""
    try:
        return msgspec.json.decode(read_file(paths.stop), type=StopRequest)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError, ValueError, RecursionError):
        written = datetime.fromtimestamp(paths.stop.stat().st_mtime).astimezone()
        return StopRequest(by="unknown", why="", at=written)


def clear_stop(paths: GremlinPaths) -> None:
    remove_file(paths.stop)
