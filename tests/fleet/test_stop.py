"""Waiting for a stop, beside other processes that have the gremlin at the same moment."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from msgspec.structs import replace

from gremlins.clock import FakeClock
from gremlins.fleet.stop import StopResult, await_stop
from gremlins.processes.locks import GremlinLock
from gremlins.records.calls import Submitted
from gremlins.records.gremlin import Parked, Stopped
from gremlins.records.stop_request import StopRequest, clear_stop, write_stop
from tests.fleet.records import NOON, Root, ago, call, parked_call, record, state_root

WISH = StopRequest(by="a person", why="stop", at=NOON)
PARKED = Parked(since=ago(300), calls=(parked_call(),))


class SteppingClock(FakeClock):
    """Others do one thing at each look."""

    def __init__(self, steps: Iterator[Callable[[], None]]) -> None:
        super().__init__(NOON)
        self.steps = steps

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        next(self.steps)()


class Stopping:
    """A person's stop of one gremlin that others have in their hands. `asked` counts how often it was asked for."""

    def __init__(self, root: Root, *, settles_at: int) -> None:
        self.root = root
        self.settles_at = settles_at
        self.asked = 1
        write_stop(root.home.gremlin("fix-add"), WISH)

    def ask(self) -> None:
        self.asked += 1
        write_stop(self.root.home.gremlin("fix-add"), WISH)
        if self.asked == self.settles_at:
            self.settle()

    def settle(self) -> None:
        store = self.root.store
        with GremlinLock.acquire(store.paths("fix-add").lock, "runner") as lock:
            store.write(replace(store.read("fix-add"), status=Stopped(since=NOON, by="a person", reason="stop")), lock)

    def wait(self, clock: FakeClock) -> StopResult:
        return await_stop(self.root.home, "fix-add", clock=clock, wait=30.0, env={}, renew=self.ask)


def test_a_stop_that_a_refused_rescue_has_kept_from_its_process_is_settled(tmp_path: Path) -> None:
    """The rescue had the lock, and let go of it without a process that reads the request."""
    root = state_root(tmp_path)
    root.put(record(status=PARKED), call(status=Submitted(), cost=None))
    stopping = Stopping(root, settles_at=2)
    assert stopping.wait(root.clock).verdict == "stopped"


def test_a_stop_whose_processes_die_has_an_end(tmp_path: Path) -> None:
    root = state_root(tmp_path)
    root.put(record(status=PARKED), call(status=Submitted(), cost=None))
    stopping = Stopping(root, settles_at=99)
    assert stopping.wait(root.clock).verdict == "pending"
    assert stopping.asked == 2


def test_a_stop_that_is_taken_for_an_old_one_twice_is_asked_for_each_time(tmp_path: Path) -> None:
    """A rescue marks it as one of long ago, and its process clears the next one with it."""
    root, life = state_root(tmp_path), contextlib.ExitStack()
    life.enter_context(root.alive(record(status=PARKED)))
    stopping = Stopping(root, settles_at=99)
    paths = root.home.gremlin("fix-add")

    def marked_as_old() -> None:
        write_stop(paths, StopRequest(by="a rescue", why="", at=NOON, then_resume=True))

    def ends() -> None:
        life.close()
        stopping.settle()

    steps = iter([marked_as_old, lambda: None, lambda: clear_stop(paths), lambda: None, ends])
    with life:
        assert stopping.wait(SteppingClock(steps)).verdict == "stopped"
    assert stopping.asked == 3
