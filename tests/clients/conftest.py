"""Rooms for the durable batch call."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from gremlins.clock import FakeClock
from gremlins.simulator import Simulator
from tests.clients.engine_room import Room

MakeRoom = Callable[..., Room]


@pytest.fixture
def make_room(tmp_path: Path) -> Iterator[MakeRoom]:
    """Makes a room on an account of its own. Options of the simulator come by name, those of the room in `room`."""
    count = 0
    with ExitStack() as stack:

        def make(room: dict[str, Any] | None = None, **options: Any) -> Room:
            nonlocal count
            count += 1
            clock = FakeClock()
            simulator = stack.enter_context(Simulator(clock=clock, **{"latency": 60.0, **options}))
            root = tmp_path / f"room{count}"
            root.mkdir()
            return Room(root, simulator, clock, **(room or {}))

        yield make


@pytest.fixture
def room(make_room: MakeRoom) -> Room:
    return make_room()
