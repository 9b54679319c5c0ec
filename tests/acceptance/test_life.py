"""A gremlin's life from the outside: launched, parked, finished, landed; and what is left behind."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from gremlins.records.prices import price
from gremlins.simulator.demo_repository import TASK
from tests.acceptance.sandbox import Sandbox
from tests.conftest import Repo

ASK = """
stages:
  - {type: agent, name: summary, prompt: .gremlins/prompts/summary.md, mode: batch}
"""


def one_call(sandbox: Sandbox, stages: str = ASK) -> None:
    """A pipeline of one batch call, which is all that many tests need."""
    sandbox.repo.write({".gremlins/prompts/summary.md": "Say in one line what this project does.\n"})
    sandbox.pipeline("ask", stages)


@pytest.mark.installed
def test_a_whole_pipeline_in_batch_mode_fixes_the_bug_and_lands(sandbox: Sandbox) -> None:
    gremlin = sandbox.ok("launch", "batch", TASK).strip()
    state = sandbox.until(gremlin, "finished", "bailed", "dead", "detached")
    assert state["liveness"]["state"] == "finished", sandbox.logs()
    assert sandbox.repo.git("status", "--porcelain") == "", "the person's tree was touched before landing"
    before = sandbox.repo.head()

    sandbox.ok("land", gremlin)

    assert sandbox.repo.git("rev-parse", "HEAD^") == before
    assert "len(counts)" in sandbox.repo.read("orchard/harvest.py")
    tests = subprocess.run([sys.executable, "-m", "unittest", "-q"], cwd=sandbox.repo.path, timeout=60, check=False)
    assert tests.returncode == 0
    assert sandbox.life(gremlin) == "landed"
    assert sandbox.repo.git("branch", "--list", "gremlins/*") == ""
    assert not (sandbox.home / "worktrees" / gremlin).exists()
    assert len(sandbox.simulator.batches) == len(set(sandbox.simulator.custom_ids))
    assert state["cost"]["saved_usd"] == pytest.approx(state["cost"]["batch_usd"])


def test_what_it_cost_is_the_sum_of_what_the_api_billed_at_batch_rates(sandbox: Sandbox) -> None:
    one_call(sandbox)
    gremlin = sandbox.ok("launch", "ask").strip()
    sandbox.until(gremlin, "finished")
    record = json.loads((sandbox.home / "gremlins" / gremlin / "state.json").read_text())
    [call] = (sandbox.home / "gremlins" / gremlin / "calls").glob("*.json")
    known = json.loads(call.read_text())
    at = sandbox.simulator.batches[0].created_at
    expected = price("claude-sonnet-5-5", known["usage"]["raw"], batch=True, at=at)
    assert expected is not None
    assert expected.usd > 0
    assert record["total_cost_usd"] == pytest.approx(expected.usd, abs=1e-9)


def test_an_unknown_model_is_sent_as_it_is_and_unpriced_not_free(sandbox: Sandbox) -> None:
    one_call(sandbox)
    gremlin = sandbox.ok("launch", "ask", "--client", "claude:claude-unknown-9").strip()
    cost = sandbox.until(gremlin, "finished")["cost"]
    assert cost["unpriced_calls"] == 1
    assert "finished; it has cost $0.0000+?" in sandbox.logs()
    assert sandbox.simulator.batches[0].requests[0].params["model"] == "claude-unknown-9"


def test_what_a_person_left_uncommitted_in_a_worktree_outlives_it(sandbox: Sandbox) -> None:
    gremlin = sandbox.ok("launch", "batch", TASK, "--wait").splitlines()[0].split()[1]
    readme = sandbox.home / "worktrees" / gremlin / "README.md"
    readme.write_text("mine\n")
    sandbox.ok("land", gremlin)
    assert not readme.exists()
    assert sandbox.repo.git("show", f"refs/gremlins/{gremlin}/interrupted-1:README.md") == "mine"
    assert f"refs/gremlins/{gremlin}/interrupted-1" in sandbox.ok("log", gremlin)


def test_it_is_parked_while_its_batch_is_outstanding(sandbox: Sandbox) -> None:
    sandbox.simulator.change(latency=3600.0)
    one_call(sandbox)
    gremlin = sandbox.ok("launch", "ask").strip()
    state = sandbox.until(gremlin, "parked")
    batch = state["batch"]
    assert batch["batch_id"] == sandbox.simulator.batches[0].id
    assert batch["custom_id"] == sandbox.simulator.custom_ids[0]
    assert batch["stage"] == "summary"
    assert state["batches"] == [batch]
    assert state["liveness"]["pid"]
    sandbox.wait_for(lambda: sandbox.state(gremlin)["batch"]["polls"] >= 2, "two polls")
    sandbox.ok("stop", gremlin)


@pytest.mark.installed
def test_a_parked_process_has_neither_the_sdk_nor_us_in_memory(sandbox: Sandbox) -> None:
    sandbox.simulator.change(latency=3600.0)
    one_call(sandbox)
    gremlin = sandbox.ok("launch", "ask").strip()
    pid = sandbox.until(gremlin, "parked")["liveness"]["pid"]
    sandbox.wait_for(lambda: b"waiter.py" in _cmdline(pid), "the small waiter")
    assert "pydantic" not in Path(f"/proc/{pid}/maps").read_text()
    sandbox.ok("stop", gremlin)


def _cmdline(pid: int) -> bytes:
    if not Path("/proc").is_dir():
        pytest.skip("needs /proc")
    return Path(f"/proc/{pid}/cmdline").read_bytes()


@pytest.mark.installed
def test_killed_while_parked_it_is_detached_and_a_rescue_pays_for_nothing_again(sandbox: Sandbox) -> None:
    sandbox.simulator.change(latency=3600.0)
    one_call(sandbox)
    gremlin = sandbox.ok("launch", "ask").strip()
    sandbox.until(gremlin, "parked")
    sandbox.kill(gremlin)
    state = sandbox.state(gremlin)
    assert state["liveness"]["state"] == "detached"
    assert state["liveness"]["pid"] is None
    assert state["batch"]["batch_id"] == sandbox.simulator.batches[0].id

    sandbox.ok("rescue", gremlin)
    sandbox.until(gremlin, "parked")
    sandbox.simulator.change(latency=0.0)
    sandbox.simulator.advance(7200.0)
    sandbox.until(gremlin, "finished")
    assert len(sandbox.simulator.batches) == 1
    assert sandbox.artifact(gremlin, "summary.md")


def test_what_a_person_adds_to_a_branch_that_was_kept_is_not_thrown_away(sandbox: Sandbox) -> None:
    sandbox.pipeline(
        "make", "stages: [{type: exec, cmds: ['echo x > new.txt; git add new.txt; git commit -q -m new']}]\n"
    )
    sandbox.ok("launch", "make", "--id", "g")
    sandbox.until("g", "finished")
    sandbox.ok("land", "g", "--keep")
    tree = Repo(sandbox.home / "worktrees/g")
    tree.commit({"mine.txt": "a person's own\n"}, "More, by hand")
    assert sandbox.run("rm", "g").code == 4
    sandbox.ok("clean", "--older-than", "0s")
    assert sandbox.repo.git("show", "gremlins/g:mine.txt") == "a person's own"
    sandbox.ok("rm", "--force", "g")
    assert sandbox.repo.git("branch", "--list", "gremlins/*") == ""


def test_what_was_kept_and_left_alone_is_cleaned_away(sandbox: Sandbox) -> None:
    sandbox.pipeline(
        "make", "stages: [{type: exec, cmds: ['echo x > new.txt; git add new.txt; git commit -q -m new']}]\n"
    )
    sandbox.ok("launch", "make", "--id", "g")
    sandbox.until("g", "finished")
    sandbox.ok("land", "g", "--keep")
    sandbox.ok("clean", "--older-than", "0s")
    assert sandbox.repo.git("branch", "--list", "gremlins/*") == ""
    assert sandbox.repo.read("new.txt") == "x\n"


@pytest.mark.installed
def test_wait_ends_0_when_it_finished_and_1_otherwise(sandbox: Sandbox) -> None:
    sandbox.pipeline("good", "stages: [{type: exec, cmds: ['true']}]\n")
    sandbox.pipeline("bad", "stages: [{type: exec, cmds: ['exit 7']}]\n")
    assert sandbox.run("launch", "good", "--wait").code == 0
    bad = sandbox.run("launch", "bad", "--id", "bad", "--wait")
    assert bad.code == 1
    assert bad.err.startswith("error: ")
    assert sandbox.state("bad")["liveness"] | {"since": "", "reason": ""} == {
        "state": "dead",
        "since": "",
        "pid": None,
        "exit_code": 7,
        "reason": "",
        "shown": "dead:exit 7",
    }


def test_finished_ones_are_listed_only_when_asked_for(sandbox: Sandbox) -> None:
    sandbox.pipeline("good", "stages: [{type: exec, cmds: ['true']}]\n")
    gremlin = sandbox.ok("launch", "good").strip()
    sandbox.until(gremlin, "finished")
    assert sandbox.run("status", "--json").json() == []
    assert [row["id"] for row in sandbox.run("--all", "--json").json()] == [gremlin]


def test_a_given_plan_needs_no_call(sandbox: Sandbox) -> None:
    sandbox.pipeline("planned", "stages: [plan]\nevidence: none\n")
    sandbox.repo.write({"plan.md": "# The plan\n\nDo nothing.\n"})
    gremlin = sandbox.ok("launch", "planned", "--plan", "plan.md").strip()
    sandbox.until(gremlin, "finished")
    assert sandbox.artifact(gremlin, "plan.md") == "# The plan\n\nDo nothing.\n"
    assert sandbox.simulator.batches == []
