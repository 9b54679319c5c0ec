"""Stopping a gremlin in every state, twice, too late, and while the API is down."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from gremlins.processes.children import is_alive
from tests.acceptance.one_batch_call import FOREVER, billed_once, calls, end_batches, launch_one, park_one
from tests.acceptance.sandbox import Sandbox
from tests.time_limit import DEADLINE


def batch_is_canceled(sandbox: Sandbox, number: int = 0) -> bool:
    return sandbox.simulator.batches[number].cancel_initiated_at is not None


@contextmanager
def stopping(sandbox: Sandbox, gremlin_id: str = "g") -> Iterator[subprocess.Popen[bytes]]:
    """`gremlins stop` while it works."""
    words = [sandbox.interpreter, "-m", "gremlins", "stop", gremlin_id]
    process = subprocess.Popen(words, cwd=sandbox.repo.path, env=sandbox.env)
    try:
        yield process
    finally:
        process.kill()
        process.wait(DEADLINE)


def test_a_stop_of_a_parked_one_does_not_wait_for_its_next_poll(sandbox: Sandbox) -> None:
    sandbox.simulator.change(cancel_latency=2.0)
    park_one(sandbox, GREMLINS_BATCH__POLL_INITIAL="3600", GREMLINS_BATCH__POLL_MAX="3600")
    sandbox.ok("stop", "g")
    assert batch_is_canceled(sandbox)
    state = sandbox.state("g")
    assert state["liveness"]["state"] == "stopped"
    assert state["batches"] == []
    assert state["cost"]["total_usd"] == 0


def test_a_detached_one_is_stopped_in_its_place(sandbox: Sandbox) -> None:
    park_one(sandbox)
    sandbox.kill("g")
    assert sandbox.life("g") == "detached"
    sandbox.ok("stop", "g")
    assert sandbox.life("g") == "stopped"
    assert batch_is_canceled(sandbox)


def test_a_stop_while_it_looks_for_its_batch_is_marked_and_follows_the_proof(sandbox: Sandbox) -> None:
    sandbox.simulator.fault("create", "drop", when="after")
    launch_one(sandbox, GREMLINS_BATCH__RECONCILE_GRACE="3600")
    sandbox.wait_for(lambda: sandbox.peek("g")["liveness"]["state"] == "parked", "it looking")
    assert sandbox.peek("g")["batch"]["batch_id"] is None
    with stopping(sandbox) as stop:
        sandbox.wait_for(lambda: sandbox.peek("g")["liveness"]["state"] == "stopping", "the stop")
        sandbox.simulator.advance(FOREVER + 1)
        assert stop.wait(DEADLINE) == 0
    assert sandbox.life("g") == "stopped"
    [call] = calls(sandbox)
    assert call["batch"]["batch_id"] == sandbox.simulator.batches[0].id  # it ended before it could be canceled
    assert sandbox.state("g")["cost"]["total_usd"] > 0


def test_a_stop_while_it_submits_waits_for_the_answer_and_cancels(sandbox: Sandbox) -> None:
    sandbox.simulator.fault("create", "slow", when="after", seconds=3.0)
    launch_one(sandbox)
    sandbox.wait_for(lambda: len(sandbox.simulator.batches) == 1, "the batch")
    sandbox.ok("stop", "g")
    assert sandbox.life("g") == "stopped"
    assert batch_is_canceled(sandbox)


def test_a_stop_while_the_post_hangs_finds_the_batch_and_cancels_it(sandbox: Sandbox) -> None:
    sandbox.simulator.fault("create", "hang", when="after")
    launch_one(sandbox, GREMLINS_BATCH__HTTP_TIMEOUT="1")
    sandbox.wait_for(lambda: len(sandbox.simulator.batches) == 1, "the batch")
    with stopping(sandbox) as stop:
        sandbox.wait_for(lambda: sandbox.peek("g")["liveness"]["state"] == "stopping", "the stop")
        sandbox.simulator.advance(FOREVER + 1)  # until it has ended, nothing proves that the batch is ours
        assert stop.wait(DEADLINE) == 0
    assert sandbox.life("g") == "stopped"
    assert len(sandbox.simulator.batches) == 1
    assert [call["status"]["state"] for call in calls(sandbox)] in (["collected"], ["failed"])


def test_a_second_stop_during_a_cancel_changes_nothing(sandbox: Sandbox) -> None:
    sandbox.simulator.change(cancel_latency=FOREVER)
    park_one(sandbox)
    with stopping(sandbox) as first:
        sandbox.wait_for(lambda: batch_is_canceled(sandbox), "the cancel")
        assert sandbox.peek("g")["liveness"]["state"] == "stopping"
        assert sandbox.peek("g")["batch"]["batch_id"] == sandbox.simulator.batches[0].id
        assert sandbox.run("stop", "g", env={"GREMLINS_BATCH__STOP_WAIT": "0.5"}).code == 1
        sandbox.simulator.advance(FOREVER + 1)
        assert first.wait(DEADLINE) == 0
    assert sandbox.life("g") == "stopped"
    assert sandbox.simulator.requests["cancel"] == 1


def test_a_stop_while_the_api_is_down_says_so_and_goes_on_until_it_is_up(sandbox: Sandbox) -> None:
    park_one(sandbox)
    sandbox.simulator.stop()
    done = sandbox.run("stop", "g", env={"GREMLINS_BATCH__STOP_WAIT": "1"})
    assert done.code == 1
    assert "not stopped yet" in done.err
    state = sandbox.peek("g")
    assert state["liveness"]["state"] == "stopping"
    assert state["liveness"]["pid"]
    assert state["batch"]["batch_id"] == sandbox.simulator.api.store.all()[0].id
    sandbox.simulator.start()
    sandbox.until("g", "stopped")
    assert batch_is_canceled(sandbox)


def test_a_stop_that_died_before_it_was_settled_is_settled_by_the_next(sandbox: Sandbox) -> None:
    sandbox.simulator.change(cancel_latency=3600.0)
    park_one(sandbox)
    assert sandbox.run("stop", "g", env={"GREMLINS_BATCH__STOP_WAIT": "0.5"}).code == 1
    sandbox.kill("g")
    assert sandbox.life("g") == "detached"
    sandbox.simulator.advance(7200.0)
    sandbox.ok("stop", "g")
    assert sandbox.life("g") == "stopped"


def test_a_success_that_came_too_late_is_booked_and_used(sandbox: Sandbox) -> None:
    sandbox.simulator.change(cancel_too_late=True)
    park_one(sandbox)
    sandbox.ok("stop", "g")
    assert sandbox.life("g") == "stopped"
    assert sandbox.state("g")["cost"]["total_usd"] > 0
    sandbox.ok("rescue", "g")
    sandbox.until("g", "finished")
    billed_once(sandbox)


def test_what_was_stopped_is_asked_again_by_a_rescue(sandbox: Sandbox) -> None:
    park_one(sandbox)
    sandbox.ok("stop", "g")
    sandbox.simulator.change(latency=0.0)
    sandbox.ok("rescue", "g")
    sandbox.until("g", "finished")
    assert len(sandbox.simulator.batches) == 2
    assert [call["status"]["state"] for call in calls(sandbox)] == ["failed", "collected"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_nobody_announced_ends_the_process_and_never_the_batch(sandbox: Sandbox, number: int) -> None:
    pid = park_one(sandbox)["liveness"]["pid"]
    os.kill(pid, number)
    state = sandbox.until("g", "detached")
    assert state["batch"]["batch_id"] == sandbox.simulator.batches[0].id
    assert not batch_is_canceled(sandbox)
    end_batches(sandbox)
    sandbox.ok("rescue", "g")
    sandbox.until("g", "finished")
    billed_once(sandbox)


def test_a_command_at_work_is_ended_with_its_children(sandbox: Sandbox) -> None:
    pids = sandbox.home.parent / "pids"
    command = f"echo $$ > {pids}; sleep 600 & echo $! >> {pids}; wait"
    sandbox.pipeline("work", f"stages: [{{type: exec, name: work, cmds: ['{command}']}}]\n")
    sandbox.ok("launch", "work", "--id", "g")
    sandbox.wait_for(lambda: pids.exists() and len(pids.read_text().split()) == 2, "the command")
    sandbox.ok("stop", "g")
    assert sandbox.life("g") == "stopped"
    assert [pid for pid in pids.read_text().split() if is_alive(int(pid))] == []


def test_stop_all_stops_all_and_what_is_over_is_no_error(sandbox: Sandbox) -> None:
    park_one(sandbox, "a")
    park_one(sandbox, "b")
    sandbox.ok("stop", "--all")
    assert [sandbox.life(name) for name in ("a", "b")] == ["stopped", "stopped"]
    assert "over already" in sandbox.ok("stop", "a", "b")


def test_rm_force_stops_first_and_the_cost_outlives_it(sandbox: Sandbox) -> None:
    sandbox.simulator.change(cancel_too_late=True)
    park_one(sandbox)
    refused = sandbox.run("rm", "g")
    assert refused.code == 4
    sandbox.ok("rm", "--force", "g")
    assert not (sandbox.home / "gremlins/g").exists()
    assert batch_is_canceled(sandbox)
    assert "usd" in (sandbox.home / "spend.jsonl").read_text()


def test_a_stop_with_a_key_that_sees_nothing_says_so_and_the_right_key_goes_on(sandbox: Sandbox) -> None:
    sandbox.simulator.change(keys={sandbox.simulator.key: "ours", "sk-ant-stranger": "theirs"})
    park_one(sandbox)
    sandbox.kill("g")
    done = sandbox.run("stop", "g", env={"ANTHROPIC_API_KEY": "sk-ant-stranger"})
    assert done.code == 1
    state = sandbox.state("g")
    assert state["liveness"]["state"] == "detached"
    assert "not_found_error" in state["liveness"]["reason"]
    sandbox.ok("stop", "g")
    assert sandbox.life("g") == "stopped"


HANGS = """
evidence: none
stages: [{type: exec, name: hang, cmds: ["sleep 600"]}]
"""


@pytest.mark.parametrize("verb", [("stop", "g"), ("rm", "--force", "g")])
def test_a_process_that_does_not_react_is_killed_and_its_stop_settled(sandbox: Sandbox, verb: tuple[str, ...]) -> None:
    sandbox.pipeline("hangs", HANGS)
    sandbox.ok("launch", "hangs", "--id", "g")
    sandbox.wait_for(lambda: "running `sleep" in sandbox.logs(), "the command")
    pid = sandbox.peek("g")["liveness"]["pid"]
    os.kill(pid, signal.SIGSTOP)  # as deaf as one in an endless search
    sandbox.ok(*verb, env={"GREMLINS_BATCH__STOP_WAIT": "0.2"})
    assert not is_alive(pid)
    if verb[0] == "stop":
        assert sandbox.life("g") == "stopped"
        assert "batch" not in sandbox.logs()


def test_a_waiter_that_does_not_react_is_killed_and_its_batch_canceled(sandbox: Sandbox) -> None:
    os.kill(park_one(sandbox)["liveness"]["pid"], signal.SIGSTOP)
    sandbox.ok("stop", "g", env={"GREMLINS_BATCH__STOP_WAIT": "0.2"})
    assert sandbox.life("g") == "stopped"
    assert batch_is_canceled(sandbox)
