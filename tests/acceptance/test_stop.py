"""Stopping: whatever the gremlin is doing, twice, too late, and while nobody answers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

from tests.acceptance.parked import billed_once, calls, end_batches, launch_one, park_one
from tests.acceptance.world import World


def batch_is_canceled(world: World, number: int = 0) -> bool:
    return world.simulator.batches[number].cancel_initiated_at is not None


def test_a_stop_of_a_parked_one_takes_hardly_longer_than_the_api(world: World) -> None:
    world.simulator.change(cancel_latency=2.0)
    park_one(world)
    world.ok("stop", "g")
    ended = world.simulator.batches[0].ended_at
    assert ended is not None
    state = world.state("g")
    assert state["liveness"]["state"] == "stopped"
    record = json.loads((world.home / "gremlins/g/state.json").read_text())
    settled = datetime.fromisoformat(record["status"]["since"])
    assert (settled - ended).total_seconds() < 1.5  # a second, and some for a busy machine
    assert state["batches"] == []
    assert state["cost"]["total_usd"] == 0


def test_a_detached_one_is_stopped_in_its_place(world: World) -> None:
    park_one(world)
    world.kill("g")
    assert world.life("g") == "detached"
    world.ok("stop", "g")
    assert world.life("g") == "stopped"
    assert batch_is_canceled(world)


def test_a_stop_while_it_looks_for_its_batch_is_marked_and_follows_the_proof(world: World) -> None:
    world.simulator.fault("create", "drop", when="after")
    launch_one(world, latency=4.0, GREMLINS_BATCH__RECONCILE_GRACE="30")
    world.wait_for(lambda: world.peek("g")["liveness"]["state"] == "parked", "it looking")
    assert world.peek("g")["batch"]["batch_id"] is None
    world.ok("stop", "g")
    assert world.life("g") == "stopped"
    [call] = calls(world)
    assert call["batch"]["batch_id"] == world.simulator.batches[0].id  # it ended before it could be canceled
    assert world.state("g")["cost"]["total_usd"] > 0


def test_a_stop_while_it_submits_waits_for_the_answer_and_cancels(world: World) -> None:
    world.simulator.fault("create", "slow", when="after", seconds=3.0)
    launch_one(world)
    world.wait_for(lambda: len(world.simulator.batches) == 1, "the batch")
    world.ok("stop", "g")
    assert world.life("g") == "stopped"
    assert batch_is_canceled(world)


def test_a_stop_while_the_post_hangs_finds_the_batch_and_cancels_it(world: World) -> None:
    world.simulator.fault("create", "hang", when="after")
    launch_one(world, latency=5.0, GREMLINS_BATCH__HTTP_TIMEOUT="1")
    world.wait_for(lambda: len(world.simulator.batches) == 1, "the batch")
    world.ok("stop", "g")
    assert world.life("g") == "stopped"
    assert len(world.simulator.batches) == 1
    assert [call["status"]["state"] for call in calls(world)] in (["collected"], ["failed"])


def test_a_second_stop_during_a_cancel_changes_nothing(world: World) -> None:
    world.simulator.change(cancel_latency=3.0)
    park_one(world)
    first = subprocess.Popen([sys.executable, "-m", "gremlins", "stop", "g"], cwd=world.repo.path, env=world.env)
    try:
        world.wait_for(lambda: batch_is_canceled(world), "the cancel")
        assert world.peek("g")["liveness"]["state"] == "stopping"
        assert world.peek("g")["batch"]["batch_id"] == world.simulator.batches[0].id
        world.ok("stop", "g")
        assert first.wait(60) == 0
    finally:
        first.kill()
        first.wait(60)
    assert world.life("g") == "stopped"
    assert world.simulator.requests["cancel"] == 1


def test_a_stop_while_the_api_is_down_says_so_and_goes_on_until_it_is_up(world: World) -> None:
    park_one(world)
    world.simulator.stop()
    done = world.run("stop", "g", env={"GREMLINS_BATCH__STOP_WAIT": "1"})
    assert done.code == 1
    assert "not stopped yet" in done.err
    state = world.peek("g")
    assert state["liveness"]["state"] == "stopping"
    assert state["liveness"]["pid"]
    assert state["batch"]["batch_id"] == world.simulator.api.store.all()[0].id
    world.simulator.start()
    world.until("g", "stopped")
    assert batch_is_canceled(world)


def test_a_stop_that_died_before_it_was_settled_is_settled_by_the_next(world: World) -> None:
    world.simulator.change(cancel_latency=3600.0)
    park_one(world)
    assert world.run("stop", "g", env={"GREMLINS_BATCH__STOP_WAIT": "0.5"}).code == 1
    world.kill("g")
    assert world.life("g") == "detached"
    world.simulator.advance(7200.0)
    world.ok("stop", "g")
    assert world.life("g") == "stopped"


def test_a_success_that_came_too_late_is_booked_and_used(world: World) -> None:
    world.simulator.change(cancel_too_late=True)
    park_one(world)
    world.ok("stop", "g")
    assert world.life("g") == "stopped"
    assert world.state("g")["cost"]["total_usd"] > 0
    world.ok("rescue", "g")
    world.until("g", "finished")
    billed_once(world)


def test_what_was_stopped_is_asked_again_by_a_rescue(world: World) -> None:
    park_one(world)
    world.ok("stop", "g")
    world.simulator.change(latency=0.0)
    world.ok("rescue", "g")
    world.until("g", "finished")
    assert len(world.simulator.batches) == 2
    assert [call["status"]["state"] for call in calls(world)] == ["failed", "collected"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_nobody_announced_ends_the_process_and_never_the_batch(world: World, number: int) -> None:
    pid = park_one(world)["liveness"]["pid"]
    os.kill(pid, number)
    state = world.until("g", "detached")
    assert state["batch"]["batch_id"] == world.simulator.batches[0].id
    assert not batch_is_canceled(world)
    end_batches(world)
    world.ok("rescue", "g")
    world.until("g", "finished")
    billed_once(world)


def test_a_command_at_work_is_ended_with_its_children(world: World) -> None:
    world.pipeline("work", "stages: [{type: exec, name: work, cmds: ['sleep 31415 & sleep 31416; true']}]\n")
    world.ok("launch", "work", "--id", "g")
    world.wait_for(lambda: bool(sleepers()), "the command")
    world.ok("stop", "g")
    assert world.life("g") == "stopped"
    assert sleepers() == []


def sleepers() -> list[str]:
    """Commands of that test that are still there."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if words[:1] == [b"sleep"] and words[1:2] in ([b"31415"], [b"31416"]):
            found.append(path.parent.name)
    return found


def test_stop_all_stops_all_and_what_is_over_is_no_error(world: World) -> None:
    park_one(world, "a")
    park_one(world, "b")
    world.ok("stop", "--all")
    assert [world.life(name) for name in ("a", "b")] == ["stopped", "stopped"]
    assert "over already" in world.ok("stop", "a", "b")


def test_rm_force_stops_first_and_the_cost_outlives_it(world: World) -> None:
    world.simulator.change(cancel_too_late=True)
    park_one(world)
    refused = world.run("rm", "g")
    assert refused.code == 4
    world.ok("rm", "--force", "g")
    assert not (world.home / "gremlins/g").exists()
    assert batch_is_canceled(world)
    assert "usd" in (world.home / "spend.jsonl").read_text()


def test_a_stop_with_a_key_that_sees_nothing_says_so_and_the_right_key_goes_on(world: World) -> None:
    world.simulator.change(keys={world.simulator.key: "ours", "sk-ant-stranger": "theirs"})
    park_one(world)
    world.kill("g")
    done = world.run("stop", "g", env={"ANTHROPIC_API_KEY": "sk-ant-stranger"})
    assert done.code == 1
    state = world.state("g")
    assert state["liveness"]["state"] == "detached"
    assert "not_found_error" in state["liveness"]["reason"]
    world.ok("stop", "g")
    assert world.life("g") == "stopped"
