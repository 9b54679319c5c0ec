"""Verbs with something outside: a pull request, a live agent whose host dies, what is old."""

from __future__ import annotations

import json
from pathlib import Path

from tests.clients.providers.fake_claude import FakeClaude, assistant, init, result
from tests.cluster.machines import Cluster, soak
from tests.cluster.test_hosts import edit, is_so
from tests.conftest import put_gh

GREEN = {"name": "tests", "status": "COMPLETED", "conclusion": "SUCCESS"}
PULL = "mode: batch\nstages: [implement, open_pr, {type: wait_ci, poll: 0.2, timeout: 60}]\n"
MIXED = """
stages:
  - {type: agent, name: ask, prompt: .gremlins/prompts/summary.md, mode: batch}
  - {type: implement, client: 'claude:claude-sonnet-5-5', mode: live}
"""


@soak
def test_a_pull_request_is_landed_and_what_is_old_is_cleaned_from_a_host_without_a_worker(
    cluster: Cluster, script: list[object], tmp_path: Path
) -> None:
    hub = tmp_path / "hub"
    hub.mkdir()
    put_gh(hub)
    (hub / "remote").write_text(str(cluster.remote.path))
    (hub / "checks.json").write_text(json.dumps({"*": [GREEN]}))
    cluster.found({"a.txt": "a\n"}, pull=PULL)
    cluster.env |= {"FAKE_GH": str(hub)}
    one, desk = cluster.machine("one"), cluster.machine("desk")
    for machine in (one, desk):
        machine.env["PATH"] = f"{hub}:{machine.env['PATH']}"
    cluster.simulator.change(latency=0.0)
    script += [edit("hello")]
    one.work()
    desk.ok("launch", "pull", "write hello.txt", "--id", "g")
    cluster.until(lambda: is_so(desk, g="finished"), "its pull request is green")
    assert "would land on main" in desk.ok("land", "g", "--pr", "--dry-run")
    desk.ok("land", "g", "--pr")
    assert is_so(one, g="landed")
    assert cluster.remote.git("show", "main:hello.txt") == "hello"
    desk.ok("clean", "--older-than", "0s")
    assert is_so(desk)
    assert cluster.remote.git("for-each-ref", "refs/gremlins") == ""
    assert len(cluster.simulator.batches) == 1


@soak
def test_a_live_agent_whose_host_dies_begins_again_elsewhere_and_that_is_said(cluster: Cluster, tmp_path: Path) -> None:
    claude = FakeClaude(tmp_path / "bin")
    claude.plan(
        [init(), assistant(), ("write", ["half.txt", "half\n"]), ("sleep", 3600)],
        [init(), assistant(), ("write", ["done.txt", "done\n"]), result("F1: done, it is written.")],
    )
    cluster.found({"a.txt": "a\n"}, mixed=MIXED)
    cluster.env |= {"GREMLINS_CLAUDE_BIN": str(claude.path)}
    one, two = cluster.machine("one"), cluster.machine("two")
    cluster.simulator.change(latency=0.0)
    one.work()
    one.ok("launch", "mixed", "write done.txt", "--id", "g")
    cluster.until(lambda: [*one.place.glob("state/cluster/worktrees/g/half.txt")] != [], "the agent at work")
    one.go_off()
    two.work()
    cluster.until(lambda: is_so(two, g="finished"), "the other host went on")
    assert "what was not committed on" in two.ok("log", "g")
    assert len(cluster.simulator.batches) == 1
    assert len(claude.starts) == 2
    two.ok("land", "g")
    assert (two.repo.path / "done.txt").read_text() == "done\n"
    assert not (two.repo.path / "half.txt").exists()
