"""`python -m bench.board [N]`: the board over a fleet of N: its first page, one update, and its idle time with a page open."""

from __future__ import annotations

import http.client
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from msgspec.structs import replace

from bench.fleets import make_fleet
from gremlins.clock import SystemClock
from gremlins.paths import Home
from gremlins.records.gremlin import RunStore

IDLE = 30.0


def main() -> int:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    with tempfile.TemporaryDirectory(
        prefix="gremlins-bench.", dir="/dev/shm" if os.path.isdir("/dev/shm") else None
    ) as name:
        home = Home(make_fleet(Path(name) / "state", count))
        env = {**os.environ, "GREMLINS_HOME": str(home.root)}
        argv = [sys.executable, "-m", "gremlins", "board", "--port", "0", "--no-open"]
        process = subprocess.Popen(argv, cwd=name, env=env, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            link = next(line.strip() for line in process.stdout if "token=" in line)
            _measure(count, home, int(link.split(":")[2].split("/")[0]), link.partition("token=")[2], process.pid)
        finally:
            process.kill()
            process.wait()
    return 0


def _measure(count: int, home: Home, port: int, token: str, pid: int) -> None:
    headers = {"Cookie": f"gremlins-board-{port}={token}"}

    def ask(path: str) -> http.client.HTTPResponse:
        line = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        line.request("GET", path, headers=headers)
        return line.getresponse()

    times, size = [], 0
    for _ in range(6):
        began = time.perf_counter()
        size = len(ask("/").read())
        times.append(time.perf_counter() - began)
    print(f"{count} gremlins")
    print(f"  first page: {times[0]:.2f} s, then {statistics.median(times[1:]):.2f} s, {size / 1000:.0f} kB")
    stream = ask("/events/fleet?seen=1")
    watched = psutil.Process(pid)
    before = sum(watched.cpu_times()[:2])
    time.sleep(IDLE)
    print(f"  idle with a page open: {(sum(watched.cpu_times()[:2]) - before) / IDLE * 100:.2f} % of a core")
    store = RunStore(home, SystemClock())
    one = next(iter(sorted(path.name for path in home.gremlins.iterdir())))
    path = home.gremlin(one).state
    record = replace(store.read(one), title="Changed")
    from gremlins.records.format import encoded

    path.write_bytes(encoded(record))
    sent = b""
    while not sent.endswith(b"\n\n"):
        sent += stream.fp.readline()
        if sent == b"\n":
            break
    print(f"  an update of one gremlin: {len(sent)} bytes")
    print(f"  memory: {watched.memory_info().rss / 1e6:.0f} MB")


if __name__ == "__main__":
    raise SystemExit(main())
