"""A gremlin's life from the outside: launched, parked, finished, landed; and what is left behind."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from gremlins.records.prices import price
from gremlins.simulator.demo_project import TASK
from tests.acceptance.world import World
from tests.conftest import Repo

ASK = """
stages:
  - {type: agent, name: summary, prompt: .gremlins/prompts/summary.md, mode: batch}
"""


def one_call(world: World, stages: str = ASK) -> None:
    """A pipeline of one batch call, which is all that many tests need."""
    world.repo.write({".gremlins/prompts/summary.md": "Say in one line what this project does.\n"})
    world.pipeline("ask", stages)


@pytest.mark.installed
def test_a_whole_pipeline_in_batch_mode_fixes_the_bug_and_lands(world: World) -> None:
    gremlin = world.ok("launch", "batch", TASK).strip()
    state = world.until(gremlin, "finished", "bailed", "dead", "detached")
    assert state["liveness"]["state"] == "finished", world.logs()
    assert world.repo.git("status", "--porcelain") == "", "the person's tree was touched before landing"
    before = world.repo.head()

    world.ok("land", gremlin)

    assert world.repo.git("rev-parse", "HEAD^") == before
    assert "len(counts)" in world.repo.read("orchard/harvest.py")
    tests = subprocess.run([sys.executable, "-m", "unittest", "-q"], cwd=world.repo.path, timeout=60, check=False)
    assert tests.returncode == 0
    assert world.life(gremlin) == "landed"
    assert world.repo.git("branch", "--list", "gremlins/*") == ""
    assert not (world.home / "worktrees" / gremlin).exists()
    assert len(world.simulator.batches) == len(set(world.simulator.custom_ids))
    assert state["cost"]["saved_usd"] == pytest.approx(state["cost"]["batch_usd"])


def test_what_it_cost_is_the_sum_of_what_the_api_billed_at_batch_rates(world: World) -> None:
    one_call(world)
    gremlin = world.ok("launch", "ask").strip()
    world.until(gremlin, "finished")
    record = json.loads((world.home / "gremlins" / gremlin / "state.json").read_text())
    [call] = (world.home / "gremlins" / gremlin / "calls").glob("*.json")
    known = json.loads(call.read_text())
    at = world.simulator.batches[0].created_at
    expected = price("claude-sonnet-5-5", known["usage"]["raw"], batch=True, at=at)
    assert expected is not None
    assert expected.usd > 0
    assert record["total_cost_usd"] == pytest.approx(expected.usd, abs=1e-9)


def test_an_unknown_model_is_sent_as_it_is_and_unpriced_not_free(world: World) -> None:
    one_call(world)
    gremlin = world.ok("launch", "ask", "--client", "claude:claude-nobody-9").strip()
    cost = world.until(gremlin, "finished")["cost"]
    assert cost["unpriced_calls"] == 1
    assert world.simulator.batches[0].requests[0].params["model"] == "claude-nobody-9"


def test_what_a_person_left_uncommitted_in_a_worktree_outlives_it(world: World) -> None:
    gremlin = world.ok("launch", "batch", TASK, "--wait").splitlines()[0].split()[1]
    readme = world.home / "worktrees" / gremlin / "README.md"
    readme.write_text("mine\n")
    world.ok("land", gremlin)
    assert not readme.exists()
    assert world.repo.git("show", f"refs/gremlins/{gremlin}/interrupted-1:README.md") == "mine"
    assert f"refs/gremlins/{gremlin}/interrupted-1" in world.ok("log", gremlin)


def test_it_is_parked_while_its_batch_is_outstanding(world: World) -> None:
    world.simulator.change(latency=3600.0)
    one_call(world)
    gremlin = world.ok("launch", "ask").strip()
    state = world.until(gremlin, "parked")
    batch = state["batch"]
    assert batch["batch_id"] == world.simulator.batches[0].id
    assert batch["custom_id"] == world.simulator.custom_ids[0]
    assert batch["stage"] == "summary"
    assert state["batches"] == [batch]
    assert state["liveness"]["pid"]
    world.wait_for(lambda: world.state(gremlin)["batch"]["polls"] >= 2, "two polls")
    world.ok("stop", gremlin)


@pytest.mark.installed
def test_a_parked_process_has_neither_the_sdk_nor_us_in_memory(world: World) -> None:
    world.simulator.change(latency=3600.0)
    one_call(world)
    gremlin = world.ok("launch", "ask").strip()
    pid = world.until(gremlin, "parked")["liveness"]["pid"]
    world.wait_for(lambda: b"waiter.py" in _cmdline(pid), "the small waiter")
    assert "pydantic" not in Path(f"/proc/{pid}/maps").read_text()
    world.ok("stop", gremlin)


def _cmdline(pid: int) -> bytes:
    if not Path("/proc").is_dir():
        pytest.skip("needs /proc")
    return Path(f"/proc/{pid}/cmdline").read_bytes()


@pytest.mark.installed
def test_killed_while_parked_it_is_detached_and_a_rescue_pays_for_nothing_again(world: World) -> None:
    world.simulator.change(latency=3600.0)
    one_call(world)
    gremlin = world.ok("launch", "ask").strip()
    world.until(gremlin, "parked")
    world.kill(gremlin)
    state = world.state(gremlin)
    assert state["liveness"]["state"] == "detached"
    assert state["liveness"]["pid"] is None
    assert state["batch"]["batch_id"] == world.simulator.batches[0].id

    world.ok("rescue", gremlin)
    world.until(gremlin, "parked")
    world.simulator.change(latency=0.0)
    world.simulator.advance(7200.0)
    world.until(gremlin, "finished")
    assert len(world.simulator.batches) == 1
    assert world.artifact(gremlin, "summary.md")


def test_stop_of_a_parked_one_cancels_its_batch(world: World) -> None:
    world.simulator.change(latency=3600.0)
    one_call(world)
    gremlin = world.ok("launch", "ask").strip()
    world.until(gremlin, "parked")
    world.ok("stop", gremlin)
    assert world.life(gremlin) == "stopped"
    assert world.simulator.batches[0].cancel_initiated_at is not None


def test_what_a_person_adds_to_a_branch_that_was_kept_is_not_thrown_away(world: World) -> None:
    world.pipeline(
        "make", "stages: [{type: exec, cmds: ['echo x > new.txt; git add new.txt; git commit -q -m new']}]\n"
    )
    world.ok("launch", "make", "--id", "g")
    world.until("g", "finished")
    world.ok("land", "g", "--keep")
    tree = Repo(world.home / "worktrees/g")
    tree.commit({"mine.txt": "a person's own\n"}, "More, by hand")
    assert world.run("rm", "g").code == 4
    world.ok("clean", "--older-than", "0s")
    assert world.repo.git("show", "gremlins/g:mine.txt") == "a person's own"
    world.ok("rm", "--force", "g")
    assert world.repo.git("branch", "--list", "gremlins/*") == ""


def test_what_was_kept_and_left_alone_is_cleaned_away(world: World) -> None:
    world.pipeline(
        "make", "stages: [{type: exec, cmds: ['echo x > new.txt; git add new.txt; git commit -q -m new']}]\n"
    )
    world.ok("launch", "make", "--id", "g")
    world.until("g", "finished")
    world.ok("land", "g", "--keep")
    world.ok("clean", "--older-than", "0s")
    assert world.repo.git("branch", "--list", "gremlins/*") == ""
    assert world.repo.read("new.txt") == "x\n"


@pytest.mark.installed
def test_wait_ends_0_when_it_finished_and_1_otherwise(world: World) -> None:
    world.pipeline("good", "stages: [{type: exec, cmds: ['true']}]\n")
    world.pipeline("bad", "stages: [{type: exec, cmds: ['exit 7']}]\n")
    assert world.run("launch", "good", "--wait").code == 0
    bad = world.run("launch", "bad", "--id", "bad", "--wait")
    assert bad.code == 1
    assert bad.err.startswith("error: ")
    assert world.state("bad")["liveness"] | {"since": "", "reason": ""} == {
        "state": "dead",
        "since": "",
        "pid": None,
        "exit_code": 7,
        "reason": "",
        "shown": "dead:exit 7",
    }


def test_a_commands_environment_has_none_of_our_credentials(world: World) -> None:
    world.pipeline("env", "stages: [{type: exec, name: look, cmds: ['env']}]\n")
    gremlin = world.ok("launch", "env", env={"ANTHROPIC_API_KEY": "sk-ant-canary-7d1"}).strip()
    world.until(gremlin, "finished")
    shown = world.artifact(gremlin, "look.log")
    assert "PATH=" in shown
    assert "canary" not in shown


def test_finished_ones_are_listed_only_when_asked_for(world: World) -> None:
    world.pipeline("good", "stages: [{type: exec, cmds: ['true']}]\n")
    gremlin = world.ok("launch", "good").strip()
    world.until(gremlin, "finished")
    assert world.run("status", "--json").json() == []
    assert [row["id"] for row in world.run("--all", "--json").json()] == [gremlin]


def test_a_given_plan_needs_no_call(world: World) -> None:
    world.pipeline("planned", "stages: [plan]\nevidence: none\n")
    world.repo.write({"plan.md": "# The plan\n\nDo nothing.\n"})
    gremlin = world.ok("launch", "planned", "--plan", "plan.md").strip()
    world.until(gremlin, "finished")
    assert world.artifact(gremlin, "plan.md") == "# The plan\n\nDo nothing.\n"
    assert world.simulator.batches == []
