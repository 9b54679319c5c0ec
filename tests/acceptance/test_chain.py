"""Chains from the outside: real processes that are killed in the middle of a loop, of branches, and of a wait."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tests.acceptance.sandbox import Sandbox
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


def test_the_boss_works_in_rounds_until_its_handoff_says_done(sandbox: Sandbox) -> None:
    sandbox.pipeline("chief", BOSS)
    gremlin = sandbox.ok("launch", "chief", "Fix the bugs.").strip()
    sandbox.wait_for(lambda: len(sandbox.simulator.batches) >= 2, "a second call")
    sandbox.kill(gremlin)
    sandbox.ok("rescue", gremlin)
    state = sandbox.until(gremlin, "finished", "bailed", "dead", "detached")
    assert state["liveness"]["state"] == "finished", sandbox.logs()
    assert "len(counts)" in (sandbox.home / "worktrees" / gremlin / "orchard/harvest.py").read_text()
    assert len(sandbox.simulator.batches) == len(set(sandbox.simulator.custom_ids)), "something was paid for twice"
    assert '"done"' in sandbox.artifact(gremlin, "loop-2/handoff.json")
    sandbox.ok("land", gremlin)


def test_two_calls_of_one_gremlin_are_parked_together_and_outlive_a_kill(sandbox: Sandbox) -> None:
    sandbox.repo.write({f".gremlins/prompts/{name}.md": f"Say {name}.\n" for name in ("one", "two")})
    sandbox.pipeline("ask", ASKING)
    sandbox.simulator.change(latency=3600.0)
    gremlin = sandbox.ok("launch", "ask").strip()
    sandbox.wait_for(lambda: len(sandbox.state(gremlin)["batches"]) == 2, "both calls")
    state = sandbox.until(gremlin, "parked")
    assert {batch["stage"] for batch in state["batches"]} == {"parallel/one/one", "parallel/two/two"}
    sandbox.kill(gremlin)
    sandbox.ok("rescue", gremlin)
    sandbox.until(gremlin, "parked")
    sandbox.simulator.advance(4000.0)
    sandbox.until(gremlin, "finished")
    assert len(sandbox.simulator.batches) == 2, "something was sent twice"


def test_a_wait_for_checks_outlives_a_kill_and_the_pull_request_is_landed(sandbox: Sandbox, tmp_path: Path) -> None:
    folder, bare = tmp_path / "hub", tmp_path / "remote.git"
    folder.mkdir()
    sandbox.repo.git("clone", "--quiet", "--bare", str(sandbox.repo.path), str(bare))
    sandbox.repo.git("remote", "add", "origin", str(bare))
    (folder / "remote").write_text(str(bare))
    put_gh(folder)
    sandbox.env.update({"PATH": f"{folder}:{sandbox.env['PATH']}", "FAKE_GH": str(folder)})
    sandbox.pipeline("pr", "mode: batch\nstages: [implement, open_pr, {type: wait_ci, poll: 0.2, timeout: 60}]\n")
    gremlin = sandbox.ok("launch", "pr", "The average in orchard/harvest.py is wrong. Fix it.").strip()
    sandbox.wait_for(lambda: "waiting for" in json.dumps(sandbox.state(gremlin)), "the wait for checks")
    for more in ((), ("--dry-run",)):
        refused = sandbox.run("land", gremlin, "--pr", *more)
        assert refused.code == 4, refused.err
    sandbox.kill(gremlin)
    sandbox.ok("rescue", gremlin)
    (folder / "checks.json").write_text(json.dumps({"*": [GREEN]}))
    sandbox.until(gremlin, "finished")
    assert f"{gremlin}: would land on main, 1 file changed" in sandbox.ok("land", gremlin, "--pr", "--dry-run")
    assert sandbox.life(gremlin) == "finished"
    sandbox.ok("land", gremlin, "--pr")
    assert sandbox.life(gremlin) == "landed"
    shown = sandbox.repo.git("--git-dir", str(bare), "show", "main:orchard/harvest.py")
    assert "len(counts)" in shown
    assert len(sandbox.simulator.batches) == 1


def test_a_missing_gh_is_said_at_launch(sandbox: Sandbox, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("git", "sh"):
        (tools / name).symlink_to(str(shutil.which(name)))
    done = sandbox.run("launch", "gh", "x", "--mode", "batch", env={"PATH": str(tools)})
    assert done.code == 5
    assert "gh" in done.err
    assert "gh auth login" in done.err
    assert not list((sandbox.home / "gremlins").glob("*/state.json"))
