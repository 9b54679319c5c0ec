"""A call's questions about all other gremlins: room under the spending caps, and batches that they claim."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import datetime
from typing import Protocol

from gremlins.clock import Clock
from gremlins.config import SpendSettings
from gremlins.outcome import Failed
from gremlins.paths import Home
from gremlins.records.calls import Ledger
from gremlins.records.caps import Granted, Occupied, room
from gremlins.records.gremlin import Gremlin


class FleetBooks(Protocol):
    """The books of a fleet, as one of its gremlins asks them."""

    def claimed(self, since: datetime) -> frozenset[str]:
        """Batch ids in the records of every other gremlin, written since then (with slack)."""

    def adopting(self) -> contextlib.AbstractContextManager[None]:
        """Held while a batch that was found is written into a record."""

    def room(
        self, record: Gremlin, caps: SpendSettings, worst_usd: float | None, now: datetime
    ) -> contextlib.AbstractContextManager[Granted | Occupied | Failed]:
        """Room for a call; the block writes its reservation."""


class HomeBooks:
    """Those of one state root. `ledger`: of the gremlin that asks."""

    def __init__(self, home: Home, gremlin_id: str, ledger: Ledger, clock: Clock) -> None:
        self.home = home
        self.gremlin_id = gremlin_id
        self.ledger = ledger
        self.clock = clock

    def claimed(self, since: datetime) -> frozenset[str]:
        from gremlins.records.claims import claimed_batches  # needed by the few calls that reconcile

        return claimed_batches(self.home, besides=self.gremlin_id, since=since)

    @contextlib.contextmanager
    def adopting(self) -> Iterator[None]:
        from gremlins.records.claims import adoption_lock

        with adoption_lock(self.home, self.clock):
            yield

    @contextlib.contextmanager
    def room(
        self, record: Gremlin, caps: SpendSettings, worst_usd: float | None, now: datetime
    ) -> Iterator[Granted | Occupied | Failed]:
        with room(self.home, record, caps, worst_usd, now, self.ledger) as found:
            yield found
