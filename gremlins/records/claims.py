"""Batches claimed by the gremlins of one state root, read again for every search."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from gremlins.clock import Clock
from gremlins.files import make_private_dir, read_file
from gremlins.paths import Home
from gremlins.processes.locks import locked

SLACK = timedelta(days=1)
"""A record that claims a batch was written after the batch was made; our clock may have jumped meanwhile."""


def claimed_batches(home: Home, *, besides: str, since: datetime) -> frozenset[str]:
    """Batch ids in the call records of every other gremlin, written since then. What cannot be read claims nothing."""
    found: set[str] = set()
    if not home.gremlins.is_dir():
        return frozenset()
    oldest = (since - SLACK).timestamp()
    for folder in home.gremlins.iterdir():
        calls = folder / "calls"
        if folder.name == besides or not calls.is_dir():
            continue
        for path in calls.glob("*.json"):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
                if path.stat().st_mtime >= oldest:
                    found.update(_claims(json.loads(read_file(path))))
    return frozenset(found)


def _claims(record: Any) -> Iterator[str]:
    if isinstance(batch := record.get("batch"), dict):
        yield str(batch["batch_id"])
    for waste in record.get("waste") or ():
        yield str(waste["batch_id"])


@contextlib.contextmanager
def adoption_lock(home: Home, clock: Clock) -> Iterator[None]:
    """Held while a batch that was found is written into a record. Raises TimeoutError after a minute."""
    make_private_dir(home.polls)
    path = home.polls / "adopt.lock"
    with locked(path, clock=clock, patience=60) as held:
        if not held:
            raise TimeoutError(f"another process holds {path}")
        yield
