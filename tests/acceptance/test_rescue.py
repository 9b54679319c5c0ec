"""Rescues from the outside: one at a time, of what is dead only, and never beside what the dead have left running."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gremlins.processes import children as proc
from tests.acceptance.parked import billed_once, end_batches, launch_one, park_one
from tests.acceptance.world import World

WORK = """
evidence: none
stages:
  - {type: exec, name: work, cmds: ['sh work.sh']}
"""


@pytest.fixture
def at_once(world: World) -> Iterator[Callable[..., list[tuple[int, str]]]]:
    """Start several commands at the same moment. Returns their exit codes and what they said."""
    started: list[subprocess.Popen[str]] = []

    def run(*commands: tuple[str, ...]) -> list[tuple[int, str]]:
        for words in commands:
            started.append(
                subprocess.Popen(
                    [world.interpreter, "-m", "gremlins", *words],
                    cwd=world.repo.path,
                    env=world.env,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
            )
        return [(child.wait(60), child.communicate(timeout=60)[0]) for child in started]

    yield run
    for child in started:
        child.kill()
        child.wait(60)


# ── two at once ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_of_many_rescues_at_once_one_brings_it_back(
    world: World, at_once: Callable[..., list[tuple[int, str]]]
) -> None:
    park_one(world)
    world.kill("g")
    ended = at_once(*[("rescue", "g")] * 4)
    assert sorted(code for code, _ in ended) == [0, 4, 4, 4], ended
    world.until("g", "parked")
    end_batches(world)
    world.until("g", "finished")
    billed_once(world)
    assert record(world)["spawn"] == 2


def test_rescues_at_once_of_a_call_that_may_have_been_sent_send_it_once(
    world: World, at_once: Callable[..., list[tuple[int, str]]]
) -> None:
    world.simulator.fault("create", "hang", when="after")
    launch_one(world, latency=0.0)
    world.wait_for(lambda: len(world.simulator.batches) == 1, "the batch")
    world.kill("g")
    assert world.life("g") == "detached"
    ended = at_once(("rescue", "g"), ("rescue", "--all"), ("rescue", "g"))
    assert [code for code, _ in ended].count(0) >= 1, ended
    world.until("g", "finished")
    billed_once(world)


def test_a_stop_and_a_rescue_at_once_end_in_one_of_the_two(
    world: World, at_once: Callable[..., list[tuple[int, str]]]
) -> None:
    park_one(world)
    world.kill("g")
    (code, _), _ = at_once(("stop", "g"), ("rescue", "g"))
    assert code == 0
    world.until("g", "stopped", "parked")
    world.ok("stop", "g")
    assert world.life("g") == "stopped"
    batches = world.simulator.batches  # the stop may have been settled first: then the rescue has asked anew
    assert len(batches) <= 2
    assert all(batch.cancel_initiated_at is not None for batch in batches)


# ── what is not dead ──────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_parked_is_not_rescued(world: World) -> None:
    before = park_one(world)
    ran = world.run("rescue", "g")
    assert ran.code == 4
    assert "parked" in ran.err
    assert world.peek("g")["liveness"]["pid"] == before["liveness"]["pid"]
    assert record(world)["spawn"] == 1


def test_what_is_running_is_not_rescued(world: World) -> None:
    world.repo.commit({"work.sh": "sleep 60\n"})
    world.pipeline("work", WORK)
    world.ok("launch", "work", "--id", "g")
    world.wait_for(lambda: bool(world.peek("g")["liveness"]["pid"]), "its process")
    pid = world.peek("g")["liveness"]["pid"]
    ran = world.run("rescue", "g")
    assert ran.code == 4
    assert "running" in ran.err
    assert world.peek("g")["liveness"]["pid"] == pid
    world.ok("stop", "g")


def test_what_has_finished_is_not_rescued(world: World) -> None:
    launch_one(world, latency=0.0)
    world.until("g", "finished")
    assert world.run("rescue", "g").code == 4
    billed_once(world)


# ── what the dead leave behind ────────────────────────────────────────────────────────────────────────────────────

HALF = """
echo $$ >> "$PIDS"
if [ -e "$PIDS.again" ]; then
  git status --porcelain > "$PIDS.seen"
  echo whole > made.txt
  exit 0
fi
echo half > made.txt
echo changed >> README.md
sleep 300 & echo $! >> "$PIDS"
touch "$PIDS.again"
wait
"""


def killed_at_work(world: World, pids: Path) -> list[int]:
    """kill -9 while a command works in the worktree. Returns the pids of the command and its child."""
    world.repo.commit({"work.sh": HALF})
    world.env["PIDS"] = str(pids)
    world.pipeline("work", WORK)
    world.ok("launch", "work", "--id", "g")
    world.wait_for(lambda: Path(f"{pids}.again").exists(), "the command at work")
    world.kill("g")
    assert world.life("g") == "dead"
    left = [int(line) for line in pids.read_text().split()]
    assert all(proc.start_time(pid) for pid in left), "the command should have outlived its gremlin"
    return left


def test_a_command_that_outlived_its_gremlin_is_ended_before_it_goes_on(world: World, tmp_path: Path) -> None:
    left = killed_at_work(world, tmp_path / "pids")
    world.ok("rescue", "g")
    assert [pid for pid in left if proc.start_time(pid)] == []
    world.until("g", "finished")


def test_what_a_killed_command_had_half_made_is_kept_aside_and_not_mixed_in(world: World, tmp_path: Path) -> None:
    killed_at_work(world, tmp_path / "pids")
    world.ok("rescue", "g")
    world.until("g", "finished")
    git = world.repo.git
    [ref] = git("for-each-ref", "--format=%(refname)", "refs/gremlins/g/interrupted-*").splitlines()
    assert git("show", f"{ref}:made.txt") == "half"
    assert "changed" in git("show", f"{ref}:README.md")
    assert Path(f"{tmp_path / 'pids'}.seen").read_text() == "", "the second run saw what the first had left"
    assert (world.home / "worktrees/g/made.txt").read_text() == "whole\n"
    assert ref in world.ok("log", "g")


def test_a_stop_of_a_dead_one_ends_what_it_left(world: World, tmp_path: Path) -> None:
    left = killed_at_work(world, tmp_path / "pids")
    world.ok("stop", "g")
    assert [pid for pid in left if proc.start_time(pid)] == []


def record(world: World) -> dict[str, int]:
    return dict(json.loads((world.home / "gremlins/g/state.json").read_text()))
