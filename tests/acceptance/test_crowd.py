"""Very many parked gremlins whose batches end together: runners are forked, and nothing is lost or paid twice."""

from __future__ import annotations

import fcntl
import os
import sys
from pathlib import Path

import pytest

from gremlins.processes.children import holders
from gremlins.processes.locks import holder_of
from tests.acceptance.sandbox import Sandbox
from tests.time_limit import wait_until

TWO_CALLS = """
evidence: none
stages:
  - {type: agent, name: first, prompt: .gremlins/prompts/ask.md, mode: batch}
  - {type: exec, name: parent, cmds: ["grep PPid: /proc/$PPID/status > FOLDER/$(basename $PWD)"]}
  - {type: agent, name: second, prompt: .gremlins/prompts/ask.md, mode: batch}
"""
NAMES = ["one", "two", "three"]


@pytest.mark.skipif(sys.platform != "linux", reason="the fork server is for Linux")
def test_a_crowd_wakes_as_forks_of_one_process_and_parks_again(sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.repo.write({".gremlins/prompts/ask.md": "Say in one line what this project does.\n"})
    sandbox.pipeline("ask", TWO_CALLS.replace("FOLDER", str(tmp_path)))
    sandbox.simulator.change(latency=3600.0)
    for name in NAMES:
        sandbox.ok("launch", "ask", "--id", name)
    locks = [sandbox.home / "gremlins" / name / "lock" for name in NAMES]
    for name in NAMES:
        sandbox.until(name, "parked")
    polls = sandbox.home / "polls"
    turns = [os.open(polls / f"turn-{n}", os.O_RDWR | os.O_CREAT) for n in range(4 * (os.cpu_count() or 1))]
    for turn in turns:
        fcntl.flock(turn, fcntl.LOCK_EX)

    sandbox.simulator.advance(3601.0)
    waiters = {holder.pid for lock in locks if (holder := holder_of(lock)) is not None}
    wait_until(lambda: waiters <= _in_line(), "that all stand in line", sandbox.logs)
    for turn in turns:
        os.close(turn)

    wait_until(lambda: len(sandbox.simulator.batches) == 6, "their second batches", sandbox.logs)
    for name in NAMES:
        sandbox.until(name, "parked")
    [server] = holders(polls / "fork_server.lock")
    assert {(tmp_path / name).read_text() for name in NAMES} == {f"PPid:\t{server}\n"}
    sandbox.ok("stop", "three")
    sandbox.simulator.advance(3601.0)
    for name in NAMES[:2]:
        sandbox.until(name, "finished")
    assert sandbox.life("three") == "stopped"
    assert len(sandbox.simulator.batches) == 6
    os.kill(server, 9)


def _in_line() -> set[int]:
    """Processes that wait for a lock of a file."""
    lines = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return {int(words[5]) for words in lines if words[1] == "->"}
