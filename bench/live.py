"""What a live call costs beyond its agent's own: time, the gap until the next stage can begin, and memory.

`python -m bench.live`. The agent is a shell script that does nothing; with a `claude` on PATH (or in LIVE_BINARIES)
the same is measured with the real one against the simulator.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.timing import Figure
from gremlins.clients.base import Session
from gremlins.clients.claude import ClaudeClient
from gremlins.clock import SystemClock
from gremlins.config import Settings
from gremlins.files import make_private_dir
from gremlins.paths import GremlinPaths
from gremlins.records.calls import Cost, Ledger
from gremlins.simulator import Simulator

MODEL = "claude-sonnet-5-5"
ROUNDS = 15
EVENTS_MB = 100
RESULT = json.dumps({"type": "result", "is_error": False, "result": "ok", "num_turns": 1, "total_cost_usd": 0})
NOTHING = f"""#!/bin/sh
cat > /dev/null
printf '%s\\n' '{RESULT}'
date +%s.%N > "$CLAUDE_CONFIG_DIR/ended"
"""
TALKATIVE = f"""#!{sys.executable}
import sys
line = '{{"type": "user", "message": "' + "x" * 10_000 + '"}}\\n'
for _ in range({EVENTS_MB} * 100):
    sys.stdout.write(line)
print('{RESULT}')
"""


def session(folder: Path, env: dict[str, str]) -> Session:
    paths = GremlinPaths(folder / "gremlin")
    make_private_dir(paths.calls)
    return Session(
        gremlin_id="bench",
        ledger=Ledger(paths),
        settings=Settings(),
        clock=SystemClock(),
        env={"PATH": os.environ["PATH"], "HOME": str(folder), **env},
        worktree=folder,
        price=lambda _model, _usage, *, batch, at: Cost(usd=0.0),
        park=lambda _wait: None,
    )


def agent(folder: Path, program: str) -> dict[str, str]:
    """A `claude` that is this program, and the variables that name it."""
    path = folder / "claude"
    path.write_text(program)
    path.chmod(0o755)
    return {"GREMLINS_CLAUDE_BIN": str(path), "ANTHROPIC_API_KEY": "k", "CLAUDE_CONFIG_DIR": str(folder)}


def overhead(folder: Path) -> list[Figure]:
    """The same script by itself and through a client; and from its end to the answer."""
    env = agent(folder, NOTHING)
    alone, through, gaps = [], [], []
    for number in range(ROUNDS):
        began = time.perf_counter()
        subprocess.run([folder / "claude"], input=b"Do it.", env={**os.environ, **env}, check=True, capture_output=True)
        alone.append(time.perf_counter() - began)
        client = ClaudeClient(MODEL, session(folder, env))
        began = time.perf_counter()
        client.run("Do it.", label=f"implement{number}", edits_worktree=True)
        through.append(time.perf_counter() - began)
        gaps.append(time.time() - float((folder / "ended").read_text()))
    return [
        Figure("an agent that does nothing, by itself", statistics.median(alone) * 1000, "ms"),
        Figure("the same as a durable live call", statistics.median(through) * 1000, "ms"),
        Figure("from the end of the agent to the answer on record", statistics.median(gaps) * 1000, "ms"),
    ]


def memory(folder: Path) -> list[Figure]:
    """How much this process grows while an agent prints a hundred megabytes."""
    env = agent(folder, TALKATIVE)
    before = _peak()
    ClaudeClient(MODEL, session(folder, env)).run("Do it.", label="talkative")
    return [Figure(f"growth of the gremlin while its agent prints {EVENTS_MB} MB", _peak() - before, "MB")]


def real(folder: Path) -> list[Figure]:
    """The real binary against the simulator, by itself and through a client."""
    path = shutil.which("claude", path=f"{os.environ.get('LIVE_BINARIES', '')}:{os.environ['PATH']}")
    if path is None:
        return []
    with Simulator() as simulator:
        env = {**simulator.env, "GREMLINS_CLAUDE_BIN": path, "HOME": str(folder), "DISABLE_TELEMETRY": "1"}
        own = {"PATH": os.environ["PATH"], "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1", **env}
        argv = [path, "-p", "--output-format", "stream-json", "--verbose", "--model", MODEL]
        alone, through = [], []
        for number in range(5):
            began = time.perf_counter()
            subprocess.run(argv, input=b"Say hello.", env=own, cwd=folder, check=True, capture_output=True)
            alone.append(time.perf_counter() - began)
            client = ClaudeClient(MODEL, session(folder, env))
            began = time.perf_counter()
            client.run("Say hello.", label=f"hello{number}")
            through.append(time.perf_counter() - began)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return [
        Figure("the real claude, one turn, by itself", statistics.median(alone) * 1000, "ms"),
        Figure(
            "the same as a durable live call, with only the tools it needs", statistics.median(through) * 1000, "ms"
        ),
        Figure("peak memory of the real claude", peak, "MB"),
    ]


def measure() -> list[Figure]:
    """All figures, in one run."""
    figures: list[Figure] = []
    for part in (memory, overhead, real):
        with tempfile.TemporaryDirectory() as folder:
            figures += part(Path(folder))
    figures.append(Figure("peak memory of the gremlin that drives it", _peak(), "MB"))
    return figures


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 1024 * 1024)


def measure_apart() -> list[Figure]:
    """The same in a process of its own, whose memory nothing else has used."""
    done = subprocess.run([sys.executable, "-m", "bench.live", "--json"], check=True, stdout=subprocess.PIPE)
    return [Figure(**row) for row in json.loads(done.stdout)]


if __name__ == "__main__":
    if "--json" in sys.argv:
        print(json.dumps([vars(figure) for figure in measure()]))
    else:
        for figure in measure():
            print(figure)
