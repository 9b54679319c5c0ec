"""The loop around the ticks, its locks and its waits."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gremlins.clock import FakeClock, SystemClock
from gremlins.config import DispatchSettings, LoadedSettings, Settings
from gremlins.errors import ConfigError, Conflict, GremlinsError
from gremlins.fleet.dispatch import locks
from gremlins.fleet.dispatch.loop import Loop
from gremlins.fleet.dispatch.observation import Missing
from gremlins.fleet.dispatch.policy import CurrentSettings
from gremlins.fleet.dispatch.tick import TickReport
from gremlins.paths import Home
from gremlins.processes.ending import wait_for_end
from gremlins.processes.interrupt import Interrupt
from tests.fleet.project import Project

HOLDER = """
import fcntl, json, os, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600)
fcntl.flock(fd, fcntl.LOCK_EX)
os.write(fd, json.dumps({"role": "runner", "pid": os.getpid()}).encode())
print("held", flush=True)
sys.stdin.read()
"""


def loop_of(project: Project, rounds: int) -> tuple[Loop, list[TickReport]]:
    """A loop that drains after `rounds` successful ticks."""
    reports: list[TickReport] = []
    loop = Loop(
        project.dispatcher(), project.fleet, project.clock, interval=lambda: project.policy.interval,
        draining=lambda: len(reports) >= rounds, watch=reports.append,
    )  # fmt: skip
    return loop, reports


def test_it_waits_for_what_is_due_next_and_at_most_an_interval(project: Project) -> None:
    project.add("a-1")
    project.fleet.on_start = lambda gremlin: project.fleet.fail(gremlin, "task")
    loop, reports = loop_of(project, 4)
    loop.run()
    assert all(0 < slept <= project.policy.interval for slept in project.clock.slept)
    assert len(reports) == 4


def test_what_is_missing_is_told_once_and_again_when_it_is_missing_again(project: Project) -> None:
    project.add("a-1")
    project.fleet.ready = Missing("no key")
    loop, _ = loop_of(project, 5)
    loop.run()
    assert [h.kind for h in project.loop_events] == ["waiting"]
    project.fleet.ready = None
    loop_of(project, 1)[0].run()
    assert "spawned" in [h.kind for h in project.loop_events]


def test_trouble_in_a_tick_does_not_end_the_loop(project: Project) -> None:
    project.add("a-1")
    loop, reports = loop_of(project, 2)
    real, failing = loop.dispatcher.tick, [GremlinsError("disk full"), GremlinsError("disk full"), OSError(28, "x")]

    def tick() -> TickReport:
        if failing:
            raise failing.pop(0)
        return real()

    loop.dispatcher.tick = tick  # type: ignore[method-assign, assignment]
    loop.run()
    assert len(reports) == 2
    assert [h.text for h in project.loop_events if h.kind == "trouble"] == ["disk full", "[Errno 28] x"]
    assert len(project.fleet.table) == 1


def test_settings_are_read_again_when_they_change_and_wrong_ones_change_nothing(tmp_path: Path) -> None:
    file, loads, said = tmp_path / "config.toml", [], []
    file.write_text("1")

    def load() -> LoadedSettings:
        loads.append(file.read_text())
        if loads[-1] == "wrong":
            raise ConfigError("no")
        return LoadedSettings(Settings(dispatch=DispatchSettings(max_running=int(loads[-1]))), {})

    settings = CurrentSettings((file, tmp_path / "none"), load, said.append)
    assert [settings().settings.dispatch.max_running for _ in range(2)] == [1, 1]
    file.write_text("22")
    assert settings.checked().settings.dispatch.max_running == 22
    file.write_text("wrong")
    assert settings().settings.dispatch.max_running == 22
    with pytest.raises(ConfigError):
        settings.checked()
    assert (loads, len(said)) == (["1", "22", "wrong"], 1)


def test_one_loop_a_project_and_ticks_beside_each_other_but_not_beside_it(tmp_path: Path) -> None:
    clock, home = FakeClock(), Home(tmp_path)
    lock = locks.loop_lock(home, "/a")
    once, twice = locks.beside_no_loop(lock, clock), locks.beside_no_loop(lock, clock)
    with once, twice, pytest.raises(Conflict), locks.only_loop(lock, clock):
        pass
    with locks.only_loop(lock, clock, {"pipeline": "boss"}):
        assert locks.running_loop(lock) == locks.RunningLoop(os.getpid(), {"pipeline": "boss"})
        assert locks.loop_pid(lock) == os.getpid()
        with pytest.raises(Conflict), locks.only_loop(lock, clock):
            pass
        with pytest.raises(Conflict), locks.beside_no_loop(lock, clock):
            pass
        with locks.only_loop(locks.loop_lock(home, "/b"), clock):
            pass
    assert locks.loop_pid(lock) is None


def test_claiming_is_for_one_at_a_time(tmp_path: Path) -> None:
    lock = locks.claim_lock(Home(tmp_path), "/a")
    with locks.claiming(lock, FakeClock()), pytest.raises(Conflict), locks.claiming(lock, FakeClock()):
        pass


@contextmanager
def holder(lock: Path) -> Iterator[subprocess.Popen[str]]:
    child = subprocess.Popen([sys.executable, "-c", HOLDER, str(lock)], stdin=-1, stdout=-1, text=True)
    assert child.stdout is not None
    child.stdout.readline()
    try:
        yield child
    finally:
        child.kill()
        child.communicate(timeout=30)


def test_the_wait_ends_when_a_gremlin_ends(tmp_path: Path) -> None:
    with holder(tmp_path / "one") as first, holder(tmp_path / "two"):
        began = time.monotonic()
        wait_for_end([tmp_path / "one", tmp_path / "two"], 0.3, SystemClock(), None)
        assert time.monotonic() - began >= 0.29
        first.kill()
        wait_for_end([tmp_path / "one", tmp_path / "two"], 60, SystemClock(), None)
        assert time.monotonic() - began < 30


def test_the_wait_ends_at_once_for_what_has_ended_and_when_asked_to_end(tmp_path: Path) -> None:
    began = time.monotonic()
    wait_for_end([tmp_path / "missing"], 60, SystemClock(), None)
    interrupt = Interrupt()
    interrupt.trigger("SIGTERM")
    wait_for_end([], 60, SystemClock(), interrupt.fd)
    interrupt.close()
    assert time.monotonic() - began < 30


def test_a_holder_that_has_not_said_its_pid_is_looked_at_again(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    fd = os.open(lock, os.O_RDWR | os.O_CREAT)
    fcntl.flock(fd, fcntl.LOCK_EX)
    os.write(fd, json.dumps({"role": "runner", "pid": None}).encode())
    began = time.monotonic()
    wait_for_end([lock], 0.25, SystemClock(), None)
    assert time.monotonic() - began >= 0.24
    os.close(fd)
