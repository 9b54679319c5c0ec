"""Fixtures: gremlins that make batch calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest

from gremlins.clock import FakeClock
from gremlins.simulator import Simulator
from tests.clients.batch_gremlin import BatchGremlin

httpx2.alias_httpx()  # the SDK uses httpx2, which respx only sees under the name httpx

MakeGremlin = Callable[..., BatchGremlin]


@pytest.fixture
def make_gremlin(tmp_path: Path) -> Iterator[MakeGremlin]:
    """Makes gremlins, each on its own account. Keywords are options of the simulator; `gremlin` holds its own."""
    count = 0
    with ExitStack() as stack:

        def make(gremlin: dict[str, Any] | None = None, **options: Any) -> BatchGremlin:
            nonlocal count
            count += 1
            clock = FakeClock()
            simulator = stack.enter_context(Simulator(clock=clock, **{"latency": 60.0, **options}))
            root = tmp_path / f"gremlin{count}"
            root.mkdir()
            return BatchGremlin(root, simulator, clock, **(gremlin or {}))

        yield make


@pytest.fixture
def gremlin(make_gremlin: MakeGremlin) -> BatchGremlin:
    return make_gremlin()
