"""Chains from the outside: real processes that are killed in the middle of a loop, of branches, and of a wait."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tests.acceptance.world import World
from tests.conftest import put_gh

BOSS = """
mode: batch
stages:
  - type: loop
    max: 5
    body: [handoff, plan, implement, verify, review_code, address_code]
"""
ASKING = """
evidence: none
mode: batch
stages:
  - type: parallel
    branches:
      one: [{type: agent, name: one, prompt: .gremlins/prompts/one.md}]
      two: [{type: agent, name: two, prompt: .gremlins/prompts/two.md}]
"""
GREEN = {"name": "tests", "status": "COMPLETED", "conclusion": "SUCCESS"}


def test_the_boss_works_in_rounds_until_its_handoff_says_done(world: World) -> None:
    world.pipeline("chief", BOSS)
    gremlin = world.ok("launch", "chief", "Fix the bugs.").strip()
    world.wait_for(lambda: len(world.simulator.batches) >= 2, "a second call")
    world.kill(gremlin)
    world.ok("rescue", gremlin)
    state = world.until(gremlin, "finished", "bailed", "dead", "detached")
    assert state["liveness"]["state"] == "finished", world.logs()
    assert "len(counts)" in (world.home / "worktrees" / gremlin / "orchard/harvest.py").read_text()
    assert len(world.simulator.batches) == len(set(world.simulator.custom_ids)), "something was paid for twice"
    assert '"done"' in world.artifact(gremlin, "loop-2/handoff.json")
    world.ok("land", gremlin)


def test_two_calls_of_one_gremlin_are_parked_together_and_outlive_a_kill(world: World) -> None:
    world.repo.write({f".gremlins/prompts/{name}.md": f"Say {name}.\n" for name in ("one", "two")})
    world.pipeline("ask", ASKING)
    world.simulator.change(latency=3600.0)
    gremlin = world.ok("launch", "ask").strip()
    world.wait_for(lambda: len(world.state(gremlin)["batches"]) == 2, "both calls")
    state = world.until(gremlin, "parked")
    assert {batch["stage"] for batch in state["batches"]} == {"parallel/one/one", "parallel/two/two"}
    world.kill(gremlin)
    world.ok("rescue", gremlin)
    world.until(gremlin, "parked")
    world.simulator.advance(4000.0)
    world.until(gremlin, "finished")
    assert len(world.simulator.batches) == 2, "something was sent twice"


def test_a_wait_for_checks_outlives_a_kill_and_the_pull_request_is_landed(world: World, tmp_path: Path) -> None:
    folder, bare = tmp_path / "hub", tmp_path / "remote.git"
    folder.mkdir()
    world.repo.git("clone", "--quiet", "--bare", str(world.repo.path), str(bare))
    world.repo.git("remote", "add", "origin", str(bare))
    (folder / "remote").write_text(str(bare))
    put_gh(folder)
    world.env.update({"PATH": f"{folder}:{world.env['PATH']}", "STAND_IN_GH": str(folder)})
    world.pipeline("pr", "mode: batch\nstages: [implement, open_pr, {type: wait_ci, poll: 0.2, timeout: 60}]\n")
    gremlin = world.ok("launch", "pr", "The average in orchard/harvest.py is wrong. Fix it.").strip()
    world.wait_for(lambda: "waiting for" in json.dumps(world.state(gremlin)), "the wait for checks")
    refused = world.run("land", gremlin, "--pr")
    assert refused.code == 4, refused.err
    world.kill(gremlin)
    world.ok("rescue", gremlin)
    (folder / "checks.json").write_text(json.dumps({"*": [GREEN]}))
    world.until(gremlin, "finished")
    world.ok("land", gremlin, "--pr")
    assert world.life(gremlin) == "landed"
    shown = world.repo.git("--git-dir", str(bare), "show", "main:orchard/harvest.py")
    assert "len(counts)" in shown
    assert len(world.simulator.batches) == 1


def test_a_missing_gh_is_said_at_launch(world: World, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("git", "sh"):
        (tools / name).symlink_to(str(shutil.which(name)))
    done = world.run("launch", "gh", "x", "--mode", "batch", env={"PATH": str(tools)})
    assert done.code == 5
    assert "gh" in done.err
    assert "gh auth login" in done.err
    assert not list((world.home / "gremlins").glob("*/state.json"))
