"""One process at a time holds a gremlin's lock; the kernel frees it; it is never free between launcher and child."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from gremlins.clock import FakeClock, SystemClock
from gremlins.errors import Conflict
from gremlins.processes.locks import (
    LOCK_FD_VARIABLE,
    GremlinLock,
    Holder,
    hold_work_lock,
    holder_of,
    locked,
    work_lock_is_free,
)
from tests.time_limit import DEADLINE


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "g"
    folder.mkdir()
    return folder / "lock"


def test_a_lock_is_held_by_one(path: Path) -> None:
    with GremlinLock.acquire(path, "keeper"), pytest.raises(Conflict, match="another process"):
        GremlinLock.acquire(path, "keeper", patience=0)
    GremlinLock.acquire(path, "keeper", patience=0).release()


def test_its_file_names_its_holder(path: Path) -> None:
    assert holder_of(path) is None
    with GremlinLock.acquire(path, "keeper"):
        assert holder_of(path) == Holder("keeper", os.getpid())
    assert holder_of(path) is None


def test_a_runner_has_no_pid_before_it_signs(path: Path) -> None:
    with GremlinLock.acquire(path, "runner") as lock:
        assert holder_of(path) == Holder("runner", None)
        lock.sign("runner", 4242)
        assert holder_of(path) == Holder("runner", 4242)


def test_the_signature_of_a_dead_holder_is_ignored(path: Path) -> None:
    GremlinLock.acquire(path, "keeper").release()
    assert path.read_bytes()
    assert holder_of(path) is None


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"role": 1}', b"\xff"])
def test_a_half_written_name_still_means_that_it_is_held(path: Path, text: bytes) -> None:
    with GremlinLock.acquire(path, "runner") as lock:
        os.ftruncate(lock.fd, 0)
        os.pwrite(lock.fd, text, 0)
        assert holder_of(path) == Holder("runner", None)


def test_looking_makes_no_file_and_takes_nothing(path: Path) -> None:
    assert holder_of(path) is None
    assert not path.exists()
    GremlinLock.acquire(path, "keeper").release()
    for _ in range(50):
        holder_of(path)
    GremlinLock.acquire(path, "keeper", patience=0).release()


def test_a_look_never_keeps_a_writer_out(path: Path) -> None:
    GremlinLock.acquire(path, "keeper").release()
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            holder_of(path)

    lookers = [threading.Thread(target=look) for _ in range(3)]
    for thread in lookers:
        thread.start()
    try:
        for _ in range(30):
            GremlinLock.acquire(path, "keeper", patience=10).release()
    finally:
        over.set()
        for thread in lookers:
            thread.join(DEADLINE)


def test_patience_is_measured_by_the_clock_it_is_given(path: Path) -> None:
    clock = FakeClock()
    with GremlinLock.acquire(path, "keeper"), pytest.raises(Conflict):
        GremlinLock.acquire(path, "keeper", clock=clock, patience=5.0)
    assert clock.ticks >= 5.0


HELD = """
import os, sys, time
from gremlins.processes.locks import LOCK_FD_VARIABLE, GremlinLock
lock = GremlinLock.inherited(int(os.environ[LOCK_FD_VARIABLE]))
lock.sign("runner", os.getpid())
print("up", flush=True)
sys.stdin.read()
"""


def child_with(lock: GremlinLock) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", HELD],
        pass_fds=(lock.fd,),
        env={**os.environ, LOCK_FD_VARIABLE: str(lock.fd)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


def test_handed_to_a_child_it_is_never_free_until_the_child_is_dead(path: Path) -> None:
    lock = GremlinLock.acquire(path, "runner")
    child = child_with(lock)
    assert holder_of(path) == Holder("runner", None)
    lock.release()
    assert holder_of(path) is not None
    assert child.stdout
    assert child.stdout.readline() == b"up\n"
    assert holder_of(path) == Holder("runner", child.pid)
    child.kill()
    child.communicate(timeout=DEADLINE)
    assert holder_of(path) is None


def test_no_command_that_is_started_inherits_it(path: Path) -> None:
    with GremlinLock.acquire(path, "runner") as lock:
        assert not os.get_inheritable(lock.fd)
        os.set_inheritable(lock.fd, True)
        assert not os.get_inheritable(GremlinLock.inherited(lock.fd).fd)


def test_many_processes_get_it_one_after_another(path: Path) -> None:
    inside, most = 0, 0

    def work() -> None:
        nonlocal inside, most
        with GremlinLock.acquire(path, "keeper", patience=DEADLINE):
            inside += 1
            most = max(most, inside)
            for _ in range(200):
                os.sched_yield()
            inside -= 1

    threads = [threading.Thread(target=work) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert most == 1


# ── what is left in the worktree ────────────────────────────────────────────────────────────────────────────────────


def test_the_work_lock_is_free_where_nothing_was_ever_started(tmp_path: Path) -> None:
    assert work_lock_is_free(tmp_path / "work.lock")


def test_the_work_lock_is_held_by_what_a_dead_gremlin_left_running(tmp_path: Path) -> None:
    path = tmp_path / "work.lock"
    fd = hold_work_lock(path)
    left = subprocess.Popen(["sleep", "1000"], pass_fds=(fd,))
    os.close(fd)
    assert not work_lock_is_free(path)
    left.kill()
    left.wait(DEADLINE)
    assert work_lock_is_free(path)


# ── any file's lock ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_lock_is_waited_for_until_its_deadline(tmp_path: Path) -> None:
    clock = FakeClock()
    with locked(tmp_path / "l", clock=clock, patience=1) as first:
        assert first
        with locked(tmp_path / "l", clock=clock, patience=1) as second:
            assert not second
    assert clock.ticks >= 1
    with locked(tmp_path / "l", clock=SystemClock(), patience=1) as third:
        assert third
