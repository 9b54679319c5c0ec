"""A `claude` that does what a plan tells it, as a real process: well, badly, or not at all.

`FakeClaude(folder)` writes the program and its plan. Each start takes the next run of the plan, the last one for
ever; a run is a list of steps: strings are printed as they are, pairs are (verb, argument). What each start was given
is kept in `starts`.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Step = str | tuple[str, Any] | list[Any]

USAGE = {"input_tokens": 1000, "output_tokens": 100, "cache_read_input_tokens": 0, "cache_creation_input_tokens": 0}

PROGRAM = r"""
import json, os, signal, subprocess, sys, time
here = os.path.dirname(os.path.abspath(__file__))
log = os.path.join(here, "starts.jsonl")
if sys.argv[1:3] == ["auth", "status"]:
    print(open(os.path.join(here, "auth.json")).read())
    sys.exit(0)
if sys.argv[1:] == ["--help"]:
    print(open(os.path.join(here, "help")).read())
    sys.exit(0)
number = sum(1 for _ in open(log)) if os.path.exists(log) else 0
runs = json.load(open(os.path.join(here, "plan.json")))
steps = runs[min(number, len(runs) - 1)]
read = sys.stdin.read() if not any(s == ["deaf", None] for s in steps) else None
def option(name):
    joined = [word.partition("=")[2] for word in sys.argv if word.startswith(name + "=")]
    return joined[0] if joined else sys.argv[sys.argv.index(name) + 1] if name in sys.argv else None
session = option("--session-id") or option("--resume") or "none"
with open(log, "a") as file:
    start = {"argv": sys.argv[1:], "env": dict(os.environ), "stdin": read, "pid": os.getpid(), "cwd": os.getcwd()}
    file.write(json.dumps(start) + "\n")
def say(value):
    sys.stdout.write((value if isinstance(value, str) else json.dumps({"session_id": session, **value})) + "\n")
    sys.stdout.flush()
for step in steps:
    if isinstance(step, str):
        say(step)
        continue
    verb, given = step
    if verb == "say": say(given)
    elif verb == "raw": sys.stdout.write(given); sys.stdout.flush()
    elif verb == "stderr": sys.stderr.write(given + "\n"); sys.stderr.flush()
    elif verb == "write": open(given[0], "w").write(given[1])
    elif verb == "usage": json.dump(given, open(option("--usage-output-file"), "w"))
    elif verb == "sleep": time.sleep(given)
    elif verb == "ignore_term": signal.signal(signal.SIGTERM, signal.SIG_IGN)
    elif verb == "exit": sys.exit(given)
    elif verb == "crash": os.kill(os.getpid(), signal.SIGKILL)
    elif verb == "big":
        for _ in range(given): sys.stdout.write("x" * 2**20)
        sys.stdout.write("\n"); sys.stdout.flush()
    elif verb == "forever":
        while True: sys.stdout.write("y\n")
    elif verb == "child":
        child = subprocess.Popen(["sleep", "60"], start_new_session=True, stdout=sys.stdout if given else None)
        open(os.path.join(here, "child.pid"), "w").write(str(child.pid))
"""


@dataclass
class FakeClaude:
    """The program and its plan, in a folder of their own. It may go by another name."""

    folder: Path
    name: str = "claude"

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.path.write_text(f"#!{sys.executable}\n{PROGRAM}")
        self.path.chmod(0o755)
        (self.folder / "auth.json").write_text('{\n  "loggedIn": false\n}')
        (self.folder / "help").write_text("  --max-budget-usd <amount>  Maximum dollar amount to spend")
        self.plan(answers())

    @property
    def path(self) -> Path:
        return self.folder / self.name

    def plan(self, *runs: list[Step]) -> None:
        (self.folder / "plan.json").write_text(json.dumps(runs))

    @property
    def starts(self) -> list[dict[str, Any]]:
        log = self.folder / "starts.jsonl"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    @property
    def child(self) -> int:
        return int((self.folder / "child.pid").read_text())


def init() -> Step:
    return ("say", {"type": "system", "subtype": "init", "tools": ["Read"]})


def assistant(text: str = "Hm.", *, id: str = "msg_1", usage: dict[str, int] = USAGE, **more: Any) -> Step:
    message = {"id": id, "model": "claude-sonnet-5-5", "content": [{"type": "text", "text": text}], "usage": usage}
    return ("say", {"type": "assistant", "message": message, **more})


def result(text: str = "Done.", **more: Any) -> Step:
    base = {
        "type": "result",
        "subtype": "success",
        "is_error": False,
        "result": text,
        "num_turns": 1,
        "total_cost_usd": 0.25,
        "permission_denials": [],
        "stop_reason": "end_turn",
    }
    return ("say", {**base, **more})


def answers(text: str = "Done.", **more: Any) -> list[Step]:
    """A whole good run."""
    return [init(), assistant(text), result(text, **more)]
