"""A parked gremlin is small and quiet, ends at once when asked, and wakes when its batch ends. Processes are real where
one matters; a whole day of a fleet runs on a simulated clock."""

from __future__ import annotations

import ast
import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

import gremlins.clients.batch.waiter
from bench.waiting import WaitingFleet
from gremlins.clients.batch.waiter import NOTHING_LEARNED, NOTHING_NEW, ODD_ENDS, SOMETHING_TO_DO, Waiter, surroundings
from gremlins.clock import FakeClock, no_jitter
from gremlins.records.wait import WaitPlan, WatchedBatch, read_wait
from gremlins.retry import poll_interval
from gremlins.simulator import Simulator
from tests.time_limit import DEADLINE, wait_until, wait_until_idle

SCRIPT = Path(gremlins.clients.batch.waiter.__file__)
DAY = 86_400.0


def write_plan(folder: Path, **changes: Any) -> None:
    plan = {
        "until": time.time() + 3600,
        "longest": 7200.0,
        "pollable": False,
        "calls": [{"batch_id": "b", "submitted_at": time.time(), "processing_status": "in_progress"}],
        "poll_initial": 20.0,
        "poll_max": 600.0,
        "http_timeout": 1.0,
        "polls": 0,
        "answer": str(folder / "answer.json"),
        "lock_fd": -1,
        "poll": ["/bin/sh", "-c", f"exit {NOTHING_NEW}"],
        "runner": ["/bin/sh", "-c", f"echo runner > {folder}/woken"],
        "turns": [],
        "turn_variable": "TURN",
    }
    (folder / "wait.json").write_text(json.dumps({**plan, **changes}))


def test_the_waiter_reads_only_fields_of_the_plan() -> None:
    """It runs without our package, so it cannot use the type itself."""
    read = set(re.findall(r'self\.plan(?:\[|\.get\()"(\w+)"', SCRIPT.read_text()))
    assert {"until", "calls", "poll", "runner", "lock_fd"} <= read <= set(WaitPlan.__struct_fields__)
    calls = set(re.findall(r'call(?:\[|\.get\()"(\w+)"', SCRIPT.read_text()))
    assert calls == set(WatchedBatch.__struct_fields__)


@dataclass
class Parked:
    """A real waiter in a process of its own, holding its lock."""

    folder: Path
    process: subprocess.Popen[bytes]
    lock: Path = field(init=False)

    def __post_init__(self) -> None:
        self.lock = self.folder / "lock"

    @property
    def holds_its_lock(self) -> bool:
        fd = os.open(self.lock, os.O_RDWR)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False

    @property
    def woken(self) -> bool:
        return (self.folder / "woken").exists()

    def plan(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "wait.json").read_text())
        return found

    def end(self) -> int:
        return self.process.wait(DEADLINE)


@contextmanager
def parked(folder: Path, **plan: Any) -> Iterator[Parked]:
    fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(fd, fcntl.LOCK_EX)
    write_plan(folder, lock_fd=fd, **plan)
    process = subprocess.Popen([sys.executable, "-I", "-S", str(SCRIPT), str(folder)], pass_fds=(fd,))
    os.close(fd)
    try:
        yield Parked(folder, process)
    finally:
        process.kill()
        process.wait(DEADLINE)


def wait_until_asleep(gremlin: Parked) -> None:
    def sleeps() -> bool:
        status = Path(f"/proc/{gremlin.process.pid}/status").read_text()
        caught = next(line for line in status.splitlines() if line.startswith("SigCgt:")).split()[1]
        return bool(int(caught, 16) & 1 << (signal.SIGTERM - 1)) and "(sleeping)" in status

    wait_until(sleeps, "it asleep")


# ── what it is ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_it_imports_nothing_but_the_standard_library() -> None:
    names: set[str] = set()
    for node in ast.walk(ast.parse(SCRIPT.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    names -= {"__future__", "typing"}  # the latter for the type checker only
    assert names <= sys.stdlib_module_names
    look = f"import sys; exec(open({str(SCRIPT)!r}).read(), {{'__name__': 'waiter'}})"
    look += "; print(len(sys.modules), 'typing' in sys.modules)"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", look], capture_output=True, text=True, check=True)
    count, typing = done.stdout.split()
    assert int(count) < 90
    assert typing == "False"


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="only Linux tells proportional memory")
def test_it_takes_less_than_eight_megabytes_of_its_own(tmp_path: Path) -> None:
    with parked(tmp_path) as gremlin:
        wait_until_asleep(gremlin)
        rollup = Path(f"/proc/{gremlin.process.pid}/smaps_rollup").read_text()
    pss = next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    assert pss < 8 * 1024


@given(st.floats(-1e6, 1e7), st.floats(0.01, 100), st.floats(0.01, 1000))
def test_its_interval_is_that_of_the_rest_of_the_program(age: float, initial: float, longest: float) -> None:
    waiter = Waiter.__new__(Waiter)
    now = time.time()
    waiter.plan = {"calls": [{"submitted_at": now - age}], "poll_initial": initial, "poll_max": longest}
    waiter.now = lambda: now  # type: ignore[method-assign]
    assert waiter.interval() == pytest.approx(poll_interval(age, initial=initial, maximum=longest, jitter=no_jitter))


SOON = {"pollable": True, "poll_initial": 0.05, "poll_max": 0.1}


def asking(folder: Path, code: int, then: str = "") -> list[str]:
    """A polling child that notes that it was asked."""
    return ["/bin/sh", "-c", f"echo . >> {folder}/asked; {then or f'exit {code}'}"]


# ── ending ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_it_holds_its_lock_until_it_ends(tmp_path: Path) -> None:
    with parked(tmp_path) as gremlin:
        wait_until_asleep(gremlin)
        assert gremlin.holds_its_lock
        gremlin.process.kill()
        gremlin.end()
        assert not gremlin.holds_its_lock


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_nobody_announced_only_ends_the_process(tmp_path: Path, number: signal.Signals) -> None:
    with parked(tmp_path) as gremlin:
        wait_until_asleep(gremlin)
        gremlin.process.send_signal(number)
        assert gremlin.end() == 128 + number
        assert not gremlin.woken


def test_an_announced_stop_is_the_runners_to_carry_out(tmp_path: Path) -> None:
    with parked(tmp_path) as gremlin:
        wait_until_asleep(gremlin)
        (tmp_path / "stop.json").write_text("{}")
        gremlin.process.send_signal(signal.SIGTERM)
        assert gremlin.end() == 0
        assert gremlin.woken


def test_a_wait_that_is_over_wakes_the_runner_with_its_lock_in_hand(tmp_path: Path) -> None:
    held = f"flock -n {tmp_path}/lock true && echo free > {tmp_path}/woken || echo held > {tmp_path}/woken"
    with parked(tmp_path, until=time.time() + 0.1, runner=["/bin/sh", "-c", held]) as gremlin:
        gremlin.end()
        assert (tmp_path / "woken").read_text() == "held\n"


def test_a_stored_time_further_off_than_any_interval_is_a_clock_that_was_set_back(tmp_path: Path) -> None:
    with parked(tmp_path, until=time.time() + 10 * DAY, longest=0.2) as gremlin:
        assert gremlin.end() == 0
        assert gremlin.woken


def test_a_program_that_is_just_being_replaced_is_waited_for(tmp_path: Path) -> None:
    runner = tmp_path / "runner"
    with parked(tmp_path, until=time.time(), runner=[str(runner)]) as gremlin:
        wait_until_asleep(gremlin)
        runner.write_text(f"#!/bin/sh\necho > {tmp_path}/woken\n")
        runner.chmod(0o700)
        assert gremlin.end() == 0
        assert gremlin.woken


def test_a_signal_ends_it_even_while_there_is_no_program_to_become(tmp_path: Path) -> None:
    with parked(tmp_path, until=time.time(), runner=["/nowhere/at/all"]) as gremlin:
        wait_until_asleep(gremlin)
        gremlin.process.send_signal(signal.SIGTERM)
        assert gremlin.end() == 128 + signal.SIGTERM


class TimelessWaiter(Waiter):
    """A waiter in this process that sleeps for no time, and tells with which code it would end."""

    seconds = 0.0

    def ticks(self) -> float:
        return self.seconds

    def rest(self) -> None:
        self.seconds += 1.0


def end_of(waiter: Waiter, monkeypatch: pytest.MonkeyPatch) -> str:
    """Let it wake up where its program is gone. Returns the reason it leaves behind."""

    def leave(code: int) -> NoReturn:
        raise SystemExit(code)

    monkeypatch.setattr(os, "_exit", leave)
    with pytest.raises(SystemExit) as ended:
        waiter.wake()
    assert ended.value.code == 1
    plan = read_wait(Path(waiter.folder) / "wait.json")
    assert plan is not None
    return plan.gave_up


def test_a_program_that_is_gone_for_good_ends_the_wait_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "lock").open("w") as lock:
        write_plan(tmp_path, lock_fd=lock.fileno(), runner=["/old/bin/python", "-m", "gremlins.runner"])
        waiter = TimelessWaiter(str(tmp_path))
        reason = end_of(waiter, monkeypatch)
    assert reason == "its program /old/bin/python cannot be started: No such file or directory"
    assert 10 <= waiter.seconds <= 60


def test_an_announced_stop_is_left_to_another_process_at_once_where_the_program_is_gone(tmp_path: Path) -> None:
    with parked(tmp_path, runner=["/nowhere/at/all"]) as gremlin:
        wait_until_asleep(gremlin)
        (tmp_path / "stop.json").write_text("{}")
        gremlin.process.send_signal(signal.SIGTERM)
        assert gremlin.end() == 128 + signal.SIGTERM
        assert "/nowhere/at/all" in gremlin.plan()["gave_up"]


@pytest.mark.parametrize("then", ["moved", "replaced"])
def test_a_home_that_is_gone_ends_the_wait_and_is_told_where_it_is_now(tmp_path: Path, then: str) -> None:
    folder, moved = tmp_path / "g", tmp_path / "moved"
    folder.mkdir()
    with parked(folder, until=time.time(), poll=asking(tmp_path, NOTHING_NEW), **SOON) as gremlin:
        wait_until_asleep(gremlin)
        folder.rename(moved)
        if then == "replaced":
            folder.mkdir()
        assert gremlin.end() == 1
        plan = read_wait(moved / "wait.json")
        assert plan is not None
        assert plan.gave_up == f"{folder} was moved or removed"


# ── polling ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def asked(folder: Path) -> int:
    path = folder / "asked"
    return len(path.read_text().splitlines()) if path.exists() else 0


def test_it_has_a_child_ask_and_sleeps_on(tmp_path: Path) -> None:
    with parked(tmp_path, until=time.time(), poll=asking(tmp_path, NOTHING_NEW), **SOON) as gremlin:
        wait_until(lambda: gremlin.plan()["polls"] >= 3, "three polls")
        assert not gremlin.woken
        assert gremlin.holds_its_lock


@pytest.mark.parametrize(("code", "times"), [(SOMETHING_TO_DO, 1), (1, ODD_ENDS), (127, ODD_ENDS)])
def test_it_wakes_when_there_is_something_to_do_or_the_child_is_not_what_it_was(
    tmp_path: Path, code: int, times: int
) -> None:
    with parked(tmp_path, until=time.time(), poll=asking(tmp_path, code), **SOON) as gremlin:
        assert gremlin.end() == 0
        assert gremlin.woken
        assert asked(tmp_path) == times


def test_it_wakes_when_a_batch_should_have_ended_long_ago(tmp_path: Path) -> None:
    call = {"batch_id": "b", "submitted_at": time.time(), "processing_status": "in_progress", "overdue_at": time.time()}
    with parked(tmp_path, until=time.time(), calls=[call], poll=asking(tmp_path, NOTHING_NEW), **SOON) as gremlin:
        assert gremlin.end() == 0
        assert gremlin.woken


def test_an_api_that_is_down_for_long_wakes_nobody(tmp_path: Path) -> None:
    with parked(tmp_path, until=time.time(), poll=asking(tmp_path, NOTHING_LEARNED), **SOON) as gremlin:
        wait_until(lambda: asked(tmp_path) > 2 * ODD_ENDS, "many polls")
        assert not gremlin.woken


def test_another_gremlins_fresh_answer_saves_the_asking(tmp_path: Path) -> None:
    answer = {"at": time.time() + 0.9, "batches": {"b": "ended"}}
    (tmp_path / "answer.json").write_text(json.dumps(answer))
    plan = {**SOON, "poll_initial": 10.0}
    with parked(tmp_path, until=time.time(), poll=asking(tmp_path, NOTHING_NEW), **plan) as gremlin:
        assert gremlin.end() == 0
        assert gremlin.woken
        assert asked(tmp_path) == 0


def test_a_child_whose_program_is_gone_wakes_it_which_waits_for_the_program(tmp_path: Path) -> None:
    with parked(tmp_path, until=time.time(), poll=["/nowhere/at/all"], **SOON) as gremlin:
        assert gremlin.end() == 0
        assert gremlin.woken


def test_a_child_that_hangs_is_given_up(tmp_path: Path) -> None:
    plan = {**SOON, "http_timeout": -4.9}
    child = asking(tmp_path, NOTHING_NEW, then="exec sleep 1000")
    with parked(tmp_path, until=time.time(), poll=child, **plan) as gremlin:
        wait_until(lambda: gremlin.plan()["polls"] >= 1, "a poll that was given up")
        assert not gremlin.woken


def test_a_stop_while_a_child_is_asking_is_heard_at_once(tmp_path: Path) -> None:
    child = asking(tmp_path, NOTHING_NEW, then="exec sleep 1000")
    with parked(tmp_path, until=time.time(), poll=child, **SOON) as gremlin:
        wait_until(lambda: asked(tmp_path) == 1, "a child")
        (tmp_path / "stop.json").write_text("{}")
        gremlin.process.send_signal(signal.SIGTERM)
        assert gremlin.end() == 0
        assert gremlin.woken


# ── very many at once ───────────────────────────────────────────────────────────────────────────────────────────────


def test_it_waits_for_its_turn_to_wake_up(tmp_path: Path) -> None:
    turn = os.open(tmp_path / "turn", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(turn, fcntl.LOCK_EX)
    with parked(tmp_path, until=time.time(), turns=[str(tmp_path / "turn")]) as gremlin:
        wait_until_asleep(gremlin)
        wait_until_idle(gremlin.process.pid)
        assert not gremlin.woken
        os.close(turn)
        assert gremlin.end() == 0
        assert gremlin.woken


def test_its_turn_goes_along_to_the_runner(tmp_path: Path) -> None:
    look = (
        f"import os; open({str(tmp_path / 'woken')!r}, 'w').write(os.readlink('/proc/self/fd/' + os.environ['TURN']))"
    )
    runner = [sys.executable, "-c", look]
    with parked(tmp_path, until=time.time(), turns=[str(tmp_path / "turn")], runner=runner) as gremlin:
        assert gremlin.end() == 0
    assert (tmp_path / "woken").read_text() == str(tmp_path / "turn")


@pytest.mark.parametrize("announced", [True, False])
def test_a_signal_ends_the_waiting_for_a_turn(tmp_path: Path, announced: bool) -> None:
    turn = os.open(tmp_path / "turn", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(turn, fcntl.LOCK_EX)
    with parked(tmp_path, until=time.time(), turns=[str(tmp_path / "turn")]) as gremlin:
        wait_until_asleep(gremlin)
        wait_until_idle(gremlin.process.pid)
        if announced:
            (tmp_path / "stop.json").write_text("{}")
        gremlin.process.send_signal(signal.SIGTERM)
        assert gremlin.end() == (0 if announced else 128 + signal.SIGTERM)
        assert gremlin.woken == announced
    os.close(turn)


@contextmanager
def in_a_crowd(folder: Path, **plan: Any) -> Iterator[Parked]:
    """A waiter that stands in line for its turn, as one of very many."""
    turn = os.open(folder / "turn", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(turn, fcntl.LOCK_EX)
    crowd = {"turns": [str(folder / "turn")], "fork_folder": str(folder), "descriptors": ["TURN"]} | plan
    with parked(folder, until=time.time(), **crowd) as gremlin:
        wait_until_asleep(gremlin)
        wait_until_idle(gremlin.process.pid)
        os.close(turn)
        yield gremlin


@pytest.mark.skipif(sys.platform != "linux", reason="the fork server is for Linux")
@pytest.mark.parametrize("answers", [True, False])
def test_in_a_crowd_a_fork_goes_on_in_its_place_and_hears_its_signals(tmp_path: Path, answers: bool) -> None:
    """Or it becomes the runner itself, where the server refuses."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.settimeout(DEADLINE)
        listener.bind(str(tmp_path / "fork_server"))
        listener.listen()
        with in_a_crowd(tmp_path, fork_server=["/bin/false"]) as gremlin:
            line = listener.accept()[0]
            data, fds, _, _ = socket.recv_fds(line, 1 << 20, 16)
            order = json.loads(data)
            assert (order["names"], len(fds), order["at"] == json.loads(json.dumps(surroundings()))) == (
                ["TURN"],
                4,
                True,
            )
            if answers:
                with subprocess.Popen(["sleep", str(DEADLINE)]) as fork:
                    gremlin.process.send_signal(signal.SIGTERM)
                    line.send(str(fork.pid).encode())
                    assert line.recv(8) == b"go"
                    assert fork.wait(DEADLINE) == -signal.SIGTERM
            for fd in fds:
                os.close(fd)
            line.close()
            assert (gremlin.end(), gremlin.woken) == (0, not answers)


@pytest.mark.skipif(sys.platform != "linux", reason="the fork server is for Linux")
def test_a_fork_server_that_cannot_be_started_is_tried_once_or_twice(tmp_path: Path) -> None:
    server = ["/bin/sh", "-c", f"echo >> {tmp_path}/starts", "sh"]
    with in_a_crowd(tmp_path, fork_server=server) as gremlin:
        assert (gremlin.end(), gremlin.woken) == (0, True)
    assert len((tmp_path / "starts").read_text()) <= 2


# ── a day of a fleet ────────────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def fleet(home: Path, **options: Any) -> Iterator[WaitingFleet]:
    clock = FakeClock()
    with Simulator(clock=clock, **options) as simulator:
        yield WaitingFleet(home, simulator, clock)


@pytest.mark.parametrize("count", [1, 12])
def test_a_day_takes_at_most_180_polls_however_many_wait(tmp_path: Path, count: int) -> None:
    with fleet(tmp_path, latency=float("inf")) as waiting:
        waiting.park(count)
        waiting.run(DAY - 300)
        assert waiting.requests <= 180
        assert max(waiter.looks for _, _, waiter in waiting.due) <= 190


@pytest.mark.soak
def test_a_large_fleet_does_not_fall_into_groups_that_ask_in_turn(tmp_path: Path) -> None:
    with fleet(tmp_path, latency=float("inf")) as waiting:
        waiting.park(120 if os.environ.get("GREMLINS_SOAK") else 10, apart=7.0)
        before = waiting.requests
        waiting.run(DAY / 2)
        assert waiting.requests - before <= 110


@pytest.mark.parametrize("latency", [200.0, 1000.0, 5000.0])
def test_the_end_is_seen_on_average_within_a_tenth_of_its_age(tmp_path: Path, latency: float) -> None:
    delays = []
    for number in range(12):
        home = tmp_path / str(number)
        with fleet(home, latency=latency * (0.7 + 0.05 * number)) as waiting:
            waiting.park(1 + number % 4)
            waiting.run(DAY)
            delays += [seen.delay for seen in waiting.seen]
    assert sum(delays) / len(delays) <= 0.12


def test_all_wake_whatever_becomes_of_the_one_that_leads(tmp_path: Path) -> None:
    with fleet(tmp_path, latency=1200.0) as waiting:
        waiting.park(8, apart=30.0)
        for _, _, waiter in waiting.due[:3]:
            waiter.hang = True
        waiting.run(300)
        for _, _, waiter in waiting.due[:3]:
            waiter.hang = False
        waiting.run(DAY)
        assert len(waiting.seen) == 8
        assert max(seen.delay for seen in waiting.seen) < 0.5


def test_clocks_that_jump_keep_nobody_asleep(tmp_path: Path) -> None:
    with fleet(tmp_path, latency=3000.0) as waiting:
        waiting.park(4)
        for jump in (DAY, -2 * DAY, 500.0):
            waiting.run(500)
            waiting.clock.jump(jump)
            waiting.simulator.advance(-jump)
        waiting.run(DAY)
        assert len(waiting.seen) == 4
