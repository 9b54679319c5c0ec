"""Reads that a tick makes to start a bead: settings and pipeline once, git a few times."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.acceptance.dispatch_project import create, settle_in
from tests.acceptance.sandbox import DEADLINE, Sandbox

COUNTED = """
import json, os, sys
from collections import Counter
from gremlins.cli.main import run

counts = Counter()

def count_processes(event, args):
    if event == "subprocess.Popen" and os.path.basename(str(args[1][0])) == "git":
        counts["git"] += 1

def count_calls(frame, event, arg):
    if event == "call" and frame.f_code.co_name in ("load_settings", "load_pipeline"):
        counts[frame.f_code.co_name] += 1

sys.addaudithook(count_processes)
sys.setprofile(count_calls)
code = run(["dispatch", "--once", "--pipeline", "asks", "--json"])
sys.setprofile(None)
print(json.dumps(counts), file=sys.stderr)
sys.exit(code)
"""


@pytest.mark.parametrize("beads", [1, 3])
def test_a_tick_reads_settings_and_pipeline_once_for_all_beads_it_starts(sandbox: Sandbox, beads: int) -> None:
    settle_in(sandbox)
    assert sandbox.run("trust").code == 0  # the first look at `.gremlins/` asks git about each file
    for number in range(beads):
        create(sandbox, f"Bead {number}")
    done = subprocess.run(
        [sys.executable, "-c", COUNTED],
        cwd=sandbox.repo.path,
        env=sandbox.env,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stderr.splitlines()[-1])
    spawned = json.loads(done.stdout)["spawned"]
    for row in spawned:
        sandbox.until(row["gremlin"], "finished")
    assert len(spawned) == beads
    assert (counts["load_settings"], counts["load_pipeline"]) == (1, 1)
    assert counts["git"] <= 4 + 8 * beads  # with the proof that each worktree is one
