"""Faults of hosts, database and remote while gremlins wait and work: nothing is paid twice, lost or stuck."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from gremlins.simulator import Simulator
from gremlins.worker.step import CANNOT
from tests.cluster.conftest import FOREVER
from tests.cluster.machines import ASK, PROMPT, Cluster, Machine, soak
from tests.postgres import PostgresServer
from tests.time_limit import DEADLINE

psycopg = pytest.importorskip("psycopg", reason="the extra `cluster` is not installed")

QUESTION = f"{{type: agent, name: NAME, prompt: {PROMPT}, mode: batch}}"
SHIFT = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
static time_t shift(void) { return atol(getenv("CLOCK_SHIFT")); }
int clock_gettime(clockid_t id, struct timespec *t) {
    int (*real)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, "clock_gettime");
    int done = real(id, t);
    if (!done && id == CLOCK_REALTIME) t->tv_sec += shift();
    return done;
}
int gettimeofday(struct timeval *t, void *zone) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    t->tv_sec = now.tv_sec; t->tv_usec = now.tv_nsec / 1000;
    return 0;
}
time_t time(time_t *t) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (t) *t = now.tv_sec;
    return now.tv_sec;
}
"""


def question(name: str) -> str:
    return QUESTION.replace("NAME", name)


def gated(gate: Path) -> str:
    """A pipeline that works until the gate is there, and then asks."""
    command = f"while [ ! -e {gate} ]; do sleep 0.1; done"
    return f"evidence: none\nstages:\n  - {{type: exec, name: wait, cmds: ['{command}']}}\n  - {question('ask')}\n"


def end_batches(cluster: Cluster) -> None:
    cluster.simulator.change(latency=0.0)
    cluster.simulator.advance(FOREVER + 1)


def until_all(cluster: Cluster, machine: Machine, state: str) -> None:
    cluster.until(lambda: set(machine.states().values()) == {state}, f"all {state}")


def until_at_rest(cluster: Cluster, machine: Machine) -> None:
    """Nothing is left on a host but its worker."""
    cluster.until(lambda: len(machine.processes()) == 1, f"{machine.name} at rest")


def value(cluster: Cluster, sql: str) -> object:
    with psycopg.connect(cluster.url, autocommit=True, options="-c search_path=gremlins") as connection:
        cursor = connection.execute(sql)
        return cursor.fetchone()[0] if cursor.description else None


def let_pass(cluster: Cluster, seconds: float) -> None:
    """The database's time goes on: what is due later is due so much earlier."""
    value(cluster, f"UPDATE gremlin SET due = due - interval '{seconds} s'")
    value(cluster, f"UPDATE procrastinate_jobs SET scheduled_at = scheduled_at - interval '{seconds} s'")


@soak
def test_the_database_is_killed_and_comes_back(tmp_path: Path, own_postgres: PostgresServer) -> None:
    with Simulator(latency=FOREVER) as simulator:
        cluster = Cluster(tmp_path, own_postgres.new_database(), simulator, {"GREMLINS_CLUSTER__HEARTBEAT": "1"})
        try:
            gate, runs = tmp_path / "gate", tmp_path / "runs"
            noted = gated(gate).replace("while", f"echo run >> {runs}; while", 1)
            cluster.found({"a.txt": "a\n"}, ask=ASK, gated=noted)
            one = cluster.machine("one")
            one.work()
            one.ok("launch", "ask", "--id", "waits")
            one.ok("launch", "gated", "--id", "works")
            cluster.until(lambda: one.states() == {"waits": "parked", "works": "running"}, "one waits, one works")
            cluster.until(runs.exists, "its command at work")
            for _ in range(2):
                own_postgres.kill()
                own_postgres.start()
            own_postgres.kill()
            refused = one.run("status")
            assert refused.code == 1
            assert "cannot be reached" in refused.err
            gate.touch()  # its command ends while nobody can write that down
            own_postgres.start()
            cluster.until(lambda: len(simulator.batches) == 2, "it asks")
            end_batches(cluster)
            cluster.until(lambda: set(one.states().values()) == {"finished"}, "both finished")
            assert len(simulator.batches) == len(set(simulator.custom_ids)) == 2
            assert runs.read_text().split() == ["run"]  # the worker and its step have outlived the database
        finally:
            cluster.end()


def test_a_host_that_was_paused_while_it_sent_finds_itself_replaced(cluster: Cluster) -> None:
    cluster.found({"a.txt": "a\n"}, ask=ASK)
    one, two = cluster.machine("one"), cluster.machine("two")
    cluster.simulator.fault("create", "slow", when="after", seconds=4.0)
    one.work()
    one.ok("launch", "ask", "--id", "g")
    cluster.until(lambda: len(cluster.simulator.batches) == 1, "it was sent")
    one.freeze()  # the answer comes while it cannot read it
    mine = value(cluster, "SELECT fence FROM gremlin")
    two.work()
    cluster.until(lambda: value(cluster, "SELECT fence FROM gremlin") != mine, "another host has it")
    until_all(cluster, two, "parked")  # it looks for the batch that may have been sent
    until_at_rest(cluster, two)
    one.thaw()
    cluster.until(lambda: len(one.processes()) <= 1, "its step ends")
    two.go_off()
    end_batches(cluster)
    cluster.until(lambda: one.states() == {"g": "finished"}, "it goes on there again")
    assert len(cluster.simulator.batches) == 1


class Cable:
    """A TCP connection to the database that can be cut, and mended. It forwards to the port behind it."""

    def __init__(self, port: int) -> None:
        self._behind = port
        self._mended = threading.Event()
        self._mended.set()
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                near, _ = self._listener.accept()
                if not self._mended.is_set():
                    near.close()
                    continue
                far = socket.create_connection(("127.0.0.1", self._behind))
                self._open += [near, far]
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._forward, args=(one, other), daemon=True).start()

    @staticmethod
    def _forward(one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while found := one.recv(65536):
                other.sendall(found)
        for end in (one, other):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        one.close()

    def cut(self) -> None:
        self._mended.clear()
        for end in self._open:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        self._mended.set()

    def close(self) -> None:
        self._listener.close()
        self.cut()


@soak
def test_a_host_that_is_cut_off_from_the_database_writes_nothing_more(
    cluster: Cluster, postgres: PostgresServer, tmp_path: Path
) -> None:
    gate, runs = tmp_path / "gate", tmp_path / "runs"
    cluster.found({"a.txt": "a\n"}, gated=gated(gate).replace("while", f"echo run >> {runs}; while", 1))
    cable = Cable(postgres.port)
    try:
        two = cluster.machine("two")
        one = cluster.machine("one", GREMLINS_CLUSTER__URL=cluster.url.replace(f":{postgres.port}/", f":{cable.port}/"))
        one.work()
        two.ok("launch", "gated", "--id", "g")
        cluster.until(runs.exists, "its command at work")
        cable.cut()
        two.work()
        cluster.until(lambda: len(runs.read_text().split()) == 2, "the other host does it again")
        gate.touch()
        until_all(cluster, two, "parked")
        fence = value(cluster, "SELECT fence FROM gremlin")
        cable.mend()
        cluster.until(lambda: len(one.processes()) == 1, "nothing is left of it there")
        assert value(cluster, "SELECT fence FROM gremlin") == fence
        end_batches(cluster)
        until_all(cluster, two, "finished")
        assert len(cluster.simulator.batches) == 1
    finally:
        cable.close()


@pytest.fixture
def shifted(tmp_path: Path) -> str:
    """A library that shifts the wall clock of the processes that load it by CLOCK_SHIFT seconds."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler here: `apt install gcc`")
    source, library = tmp_path / "shift.c", tmp_path / "shift.so"
    source.write_text(SHIFT)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True, timeout=DEADLINE)
    return str(library)


@soak
def test_hosts_whose_clocks_are_five_minutes_off(cluster: Cluster, shifted: str) -> None:
    cluster.found({"a.txt": "a\n"}, ask=ASK)
    late = cluster.machine("late", LD_PRELOAD=shifted, CLOCK_SHIFT="-300")
    early = cluster.machine("early", LD_PRELOAD=shifted, CLOCK_SHIFT="300")
    cluster.simulator.fault("create", "drop", when="after")  # to be found by the API's times
    late.work()
    early.ok("launch", "ask", "--id", "g")
    until_all(cluster, late, "parked")
    until_at_rest(cluster, late)
    late.go_off()
    early.work()
    end_batches(cluster)
    until_all(cluster, early, "finished")
    assert len(cluster.simulator.batches) == 1


@soak
def test_a_remote_that_is_away_for_an_hour(cluster: Cluster) -> None:
    commit = "echo more >> a.txt && git commit --quiet -am more"
    stages = f"[{question('first')}, {{type: exec, name: change, cmds: ['{commit}']}}, {question('second')}]"
    cluster.found({"a.txt": "a\n"}, two=f"evidence: none\nstages: {stages}\n")
    one = cluster.machine("one")
    one.work()
    one.ok("launch", "two", "--id", "g")
    until_all(cluster, one, "parked")
    until_at_rest(cluster, one)
    away = cluster.remote.path.rename(cluster.remote.path.with_name("away.git"))
    end_batches(cluster)
    cluster.until(lambda: (value(cluster, "SELECT crashes FROM gremlin") or 0) != 0, "a push that did not work")
    for _ in range(2):
        let_pass(cluster, 1800.0)
        cluster.until(lambda: value(cluster, "SELECT due > now() FROM gremlin") is True, "tried again")
    assert one.show("g")["liveness"]["state"] in ("parked", "running")
    told = one.ok("log", "g")
    assert "waiting for the remote" in told
    assert "git ls-remote" in told
    away.rename(cluster.remote.path)
    let_pass(cluster, 1800.0)
    until_all(cluster, one, "finished")
    assert "more" in cluster.remote.git("log", "--all", "--format=%s")
    assert len(cluster.simulator.batches) == 2


@contextlib.contextmanager
def small_disk(place: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("a disk of its own needs root")
    place.mkdir(parents=True, exist_ok=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96m,mode=0700", "tmpfs", place], check=False).returncode:
        pytest.skip("this root cannot mount")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True, timeout=DEADLINE)


@soak
def test_a_host_whose_disk_is_full_leaves_it_to_another(cluster: Cluster) -> None:
    cluster.found({"a.txt": "a\n"}, ask=ASK)
    full, other = cluster.machine("full"), cluster.machine("other")
    with small_disk(full.place / "state") as disk:
        full.work()
        other.ok("launch", "ask", "--id", "g")
        until_all(cluster, other, "parked")
        until_at_rest(cluster, full)
        with contextlib.suppress(OSError), (disk / "filler").open("wb") as filler:
            while True:
                filler.write(bytes(65536))
                filler.flush()
        end_batches(cluster)
        cluster.until(lambda: "the disk of" in full.said(), "it is not taken where the disk is full")
        other.work()
        until_all(cluster, other, "finished")
        assert len(cluster.simulator.batches) == 1
        full.go_off()


def test_an_older_worker_leaves_a_newer_fleet_alone(cluster: Cluster) -> None:
    cluster.found({"a.txt": "a\n"}, ask=ASK)
    one = cluster.machine("one")
    one.work()
    cluster.until(lambda: value(cluster, "SELECT count(*) FROM procrastinate_workers") == 1, "its worker at work")
    value(cluster, "UPDATE version SET version = version + 1")
    for words in (["worker"], ["status"], ["launch", "ask"]):
        refused = one.run(*words)
        assert refused.code == 5
        assert "newer gremlins" in refused.err
    step = [sys.executable, "-m", "gremlins.worker.step", "g", "1", "file:///r", "anything", "0", "one", ""]
    begun = subprocess.run(step, env=one.env, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert begun.returncode == CANNOT
    assert "newer gremlins" in begun.stderr
    assert one.worker is not None
    assert one.worker.wait(DEADLINE) == 5  # the one that was at work before
    assert "newer gremlins" in one.said()
