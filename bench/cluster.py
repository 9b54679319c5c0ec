"""`python -m bench.cluster`: what a cluster of one PostgreSQL needs, as ratios in one run. Needs the extra `cluster`.

One gremlin is launched and parked for real. A fleet of thousands is that one's rows under other names, each with a
batch of its own at the simulator. Workers, database, HTTP and commands are real.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg

from bench.fleets import make_fleet
from bench.timing import Command, clean_env, measure
from gremlins.simulator import Options, Simulator
from tests.cluster.machines import ASK, Cluster
from tests.postgres import MISSING, PostgresServer, server

SIZES = (1, 1000, 10_000)
LONG = 6 * 3600.0
HEARTBEAT = 10.0
"""Seconds, by default."""
PATIENCE = 600.0
SEED = "seed"
DEFAULTS = {
    "GREMLINS_BATCH__POLL_INITIAL": "20",
    "GREMLINS_BATCH__POLL_MAX": "600",
    "GREMLINS_BATCH__RETRY_INITIAL": "30",
    "GREMLINS_BATCH__RETRY_MAX": "600",
}


@dataclass(frozen=True)
class Watched:
    """What so many parked gremlins were seen to need, for `seconds`."""

    count: int
    seconds: float
    processes: int
    requests: float
    """A minute, to the API."""
    worker: float
    """Per cent of one core."""
    database: float
    """The same, of all processes of PostgreSQL."""
    bytes_each: float
    """In the database, for each gremlin; 0 with one."""
    status_ms: float
    step: float
    """Seconds of processor time of the step that asked its question."""


def main() -> int:
    options = _options()
    postgres = server(durable=True)
    if postgres is None:
        print(f"error: {MISSING}", file=sys.stderr)
        return 5
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    try:
        with tempfile.TemporaryDirectory(prefix="gremlins-bench.", dir=memory) as folder:
            for line in _report(Path(folder), postgres, options):
                print(line, flush=True)
    finally:
        postgres.end()
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.cluster", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES, help="parked gremlins (default 1 1000 10000)")
    parser.add_argument(
        "--watch", type=float, default=60.0, help="seconds for which each fleet is watched (default 60)"
    )
    parser.add_argument("--claims", type=int, default=2000, help="steps that eight workers claim (default 2000)")
    parser.add_argument("--rounds", type=int, default=5, help="turns of `status` (default 5)")
    return parser.parse_args()


def _report(folder: Path, postgres: PostgresServer, options: argparse.Namespace) -> Iterator[str]:
    yield f"{os.cpu_count()} cores, PostgreSQL with fsync, in memory"
    fleets = [_parked(folder / f"parked-{count}", postgres, count, options) for count in options.sizes]
    yield "parked   processes  requests/min  worker %core  database %core  kB each  status ms"
    for seen in fleets:
        yield (
            f"{seen.count:>6} {seen.processes:>11} {seen.requests:>13.1f} {seen.worker:>13.1f} {seen.database:>15.1f} "
            f"{seen.bytes_each / 1000:>8.1f} {seen.status_ms:>10.0f}"
        )
    yield f"a step that asks and parks: {min(seen.step for seen in fleets):.1f} s of processor time"
    local = _status_of_local(folder / "local", fleets[-1].count, options.rounds)
    yield f"`status` of {fleets[-1].count}: {fleets[-1].status_ms / local:.2f} times that of local files ({local:.0f} ms)"
    yield f"claims per second, 8 workers: {_claims(folder / 'claims', postgres, options.claims):.0f}"
    for what, seconds, beats in _taken_up(folder / "taken-up", postgres):
        yield f"a killed host's {what} goes on after {seconds:.1f} s, {beats:.2f} heartbeats"


# --- parked


@contextmanager
def _cluster(folder: Path, postgres: PostgresServer, **env: str) -> Iterator[Cluster]:
    with Simulator(Options(latency=LONG)) as simulator:
        folder.mkdir(parents=True)
        made = Cluster(folder, postgres.new_database(), simulator, {**DEFAULTS, **env})
        made.found({"README.md": "# A project\n"}, ask=ASK)
        try:
            yield made
        finally:
            made.end()


def _parked(folder: Path, postgres: PostgresServer, count: int, options: argparse.Namespace) -> Watched:
    with _cluster(folder, postgres) as cluster:
        host = cluster.machine("host")
        host.work()
        host.ok("launch", "ask", "--id", SEED)
        cluster.until(lambda: host.states() == {SEED: "parked"} and len(host.processes()) == 1, "it parked")
        own = host.processes()[0].cpu_times()
        step = own.children_user + own.children_system
        host.end()
        before = _size(cluster)
        _multiply(cluster, count)
        bytes_each = (_size(cluster) - before) / (count - 1) if count > 1 else 0.0
        host.work()
        cluster.until(lambda: len(host.processes()) == 1, "the worker is at rest")
        time.sleep(5.0)  # its start is no part of it
        worker, database = _processor(host.processes()), _processor(_of_postgres(postgres))
        asked, began, most = sum(cluster.simulator.requests.values()), time.perf_counter(), 0
        while (seconds := time.perf_counter() - began) < options.watch:
            most = max(most, len(host.processes()) - 1)
            time.sleep(0.5)
        requests = sum(cluster.simulator.requests.values()) - asked
        watched = _processor(host.processes()) - worker, _processor(_of_postgres(postgres)) - database
        command = Command("status", [*_gremlins(), "status"], host.env, str(host.repo.path))
        status = measure([command], options.rounds)["status"].median
        if len(cluster.simulator.batches) != count:
            raise SystemExit(f"{len(cluster.simulator.batches)} batches for {count} calls")
        core = [each / seconds * 100 for each in watched]
        return Watched(count, seconds, most, requests / seconds * 60, core[0], core[1], bytes_each, status, step)


def _gremlins() -> Sequence[str]:
    return [sys.executable, "-m", "gremlins"]


def _size(cluster: Cluster) -> int:
    with psycopg.connect(cluster.url) as connection:
        row = connection.execute("SELECT pg_database_size(current_database())").fetchone()
    return int(row[0]) if row else 0


def _multiply(cluster: Cluster, count: int) -> None:
    """Give the seed so many namesakes, each with a batch of its own."""
    with psycopg.connect(cluster.url) as connection:
        connection.execute("SET search_path = gremlins")
        uid = _one(connection, "SELECT uid FROM gremlin")
        batch = _one(connection, "SELECT batch_id FROM waiting")
        tables = {
            name: [column for (column,) in connection.execute(
                "SELECT column_name FROM information_schema.columns WHERE table_schema = 'gremlins' AND table_name = %s",
                [name],
            )]
            for name in ("gremlin", "document", "waiting", "spending")
        }  # fmt: skip
        rows = {
            name: connection.execute(f"SELECT {', '.join(columns)} FROM {name}").fetchall()  # type: ignore[call-overload]
            for name, columns in tables.items()
        }
        ids = [(f"{SEED}-{number}", f"{number:016x}", _new_batch(cluster, number)) for number in range(1, count)]
        for name, columns in tables.items():
            with connection.cursor().copy(f"COPY {name} ({', '.join(columns)}) FROM STDIN") as copy:
                for other in ids:
                    for row in rows[name]:
                        copy.write_row([_renamed(value, (SEED, str(uid), str(batch)), other) for value in row])
    with psycopg.connect(cluster.url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")


def _one(connection: psycopg.Connection[tuple[object, ...]], sql: str) -> object:
    row = connection.execute(sql.encode()).fetchone()
    assert row is not None
    return row[0]


def _renamed(value: object, old: Sequence[str], new: Sequence[str]) -> object:
    if isinstance(value, list):
        return [_renamed(item, old, new) for item in value]
    if isinstance(value, bytes):
        text = value
        for before, after in zip(old[1:], new[1:], strict=True):
            text = text.replace(before.encode(), after.encode())
        return text.replace(f'"{old[0]}"'.encode(), f'"{new[0]}"'.encode())
    if isinstance(value, str):
        return new[old.index(value)] if value in old else value
    return value


def _new_batch(cluster: Cluster, number: int) -> str:
    params = {"model": "claude-sonnet-5-5", "max_tokens": 100, "messages": [{"role": "user", "content": "?"}]}
    body = json.dumps({"requests": [{"custom_id": f"other-{number}", "params": params}]}).encode()
    request = urllib.request.Request(
        f"{cluster.simulator.url}/v1/messages/batches",
        body,
        {"x-api-key": cluster.simulator.key, "content-type": "application/json", "anthropic-version": "2023-06-01"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return str(json.load(answer)["id"])


def _processor(processes: Sequence[psutil.Process]) -> float:
    """Seconds of processor time so far, of these and of the children that they have waited for."""
    total = 0.0
    for process in processes:
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


def _of_postgres(postgres: PostgresServer) -> list[psutil.Process]:
    own = psutil.Process(postgres.pid)
    return [own, *own.children(recursive=True)]


def _status_of_local(folder: Path, count: int, rounds: int) -> float:
    home = make_fleet(folder / "home", count)
    env = clean_env(GREMLINS_HOME=str(home))
    return measure([Command("status", [*_gremlins(), "status"], env)], rounds)["status"].median


# --- claims


def _claims(folder: Path, postgres: PostgresServer, count: int) -> float:
    """Steps a second that eight workers take from the engine, look at, and find not due."""
    with _cluster(folder, postgres) as cluster:
        hosts = [cluster.machine(f"host-{number}") for number in range(8)]
        hosts[0].work()
        hosts[0].ok("launch", "ask", "--id", SEED)
        cluster.until(lambda: hosts[0].states() == {SEED: "parked"}, "it parked")
        hosts[0].end()
        with psycopg.connect(cluster.url, autocommit=True) as connection:
            connection.execute("SET search_path = gremlins")
            connection.execute(
                "INSERT INTO procrastinate_jobs (queue_name, task_name, args, status, attempts) "
                "SELECT 'anything', 'step', jsonb_build_object('gremlin_id', 'none-' || n), 'todo', 0 "
                "FROM generate_series(1, %s) n",
                [count],
            )

            def left() -> int:
                row = connection.execute(
                    "SELECT count(*) FROM procrastinate_jobs WHERE status = 'todo' AND args ->> 'gremlin_id' LIKE 'none-%'"
                ).fetchone()
                return int(row[0]) if row else 0

            for host in hosts:
                host.work()
            cluster.until(lambda: left() < count * 0.9, "the workers at work")
            first, began = left(), time.perf_counter()
            cluster.until(lambda: left() < count * 0.1, "the steps taken")
            return (first - left()) / (time.perf_counter() - began)


# --- a host that is killed


def _taken_up(folder: Path, postgres: PostgresServer) -> Iterator[tuple[str, float, float]]:
    quick = {"GREMLINS_BATCH__POLL_INITIAL": "1", "GREMLINS_BATCH__POLL_MAX": "2"}
    with _cluster(folder, postgres, **quick) as cluster:
        work = "evidence: none\nstages:\n  - {type: exec, name: wait, cmds: ['sleep 3600']}\n"
        one, two = cluster.machine("one"), cluster.machine("two")
        one.repo.write({".gremlins/pipelines/wait.yaml": work})
        one.work()
        one.ok("launch", "ask", "--id", "asleep")
        one.ok("launch", "wait", "--id", "at-work")
        cluster.until(
            lambda: one.states().get("asleep") == "parked" and _host_of(cluster, "at-work") != "", "both there"
        )
        cluster.until(lambda: len(one.processes()) > 2, "the command at work")
        two.work()
        time.sleep(3.0)
        beat = HEARTBEAT
        fence = _fence_of(cluster, "at-work")
        one.go_off()
        began = time.perf_counter()
        cluster.simulator.change(latency=0.0)
        cluster.simulator.advance(LONG)
        seen: dict[str, float] = {}

        def both() -> bool:
            if "parked one" not in seen and two.states().get("asleep") == "finished":
                seen["parked one"] = time.perf_counter() - began
            if "one at work" not in seen and _fence_of(cluster, "at-work") > fence:
                seen["one at work"] = time.perf_counter() - began
            return len(seen) == 2

        cluster.until(both, "both go on")
        for what, seconds in seen.items():
            yield what, seconds, seconds / beat


def _host_of(cluster: Cluster, gremlin_id: str) -> str:
    with psycopg.connect(cluster.url) as connection:
        row = connection.execute("SELECT host FROM gremlins.gremlin WHERE id = %s", [gremlin_id]).fetchone()
    return str(row[0] or "") if row else ""


def _fence_of(cluster: Cluster, gremlin_id: str) -> int:
    with psycopg.connect(cluster.url) as connection:
        row = connection.execute("SELECT fence FROM gremlins.gremlin WHERE id = %s", [gremlin_id]).fetchone()
    return int(row[0]) if row else 0


if __name__ == "__main__":
    sys.exit(main())
