"""Live agents under the installed command: reaped, resumed, booked, refused before anything starts."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from gremlins.processes import children as proc
from tests.acceptance.sandbox import Sandbox
from tests.clients.providers.fake_claude import FakeClaude, Step, answers, assistant, init, result
from tests.clients.providers.fake_kilo import FakeKilo, says

WORKS: list[Step] = [init(), assistant(), ("write", ["done.txt", "done\n"]), result("Wrote done.txt.")]
AT_WORK: list[Step] = [init(), assistant(), ("write", ["half.txt", "half\n"]), ("sleep", 60)]
ONLY_IMPLEMENT = "name: one\nstages:\n  - implement\n"


@pytest.fixture
def claude(sandbox: Sandbox, tmp_path: Path) -> FakeClaude:
    fake = FakeClaude(tmp_path / "bin")
    sandbox.env |= {
        "GREMLINS_CLAUDE_BIN": str(fake.path),
        "GREMLINS_LIVE__RESUME_BACKOFF": "[0.1, 0.1, 0.1]",
    }
    sandbox.pipeline("one", ONLY_IMPLEMENT)
    return fake


def at_work(sandbox: Sandbox, claude: FakeClaude) -> int:
    """Launch, wait until the agent has changed something, and return its pid."""
    sandbox.ok("launch", "one", "Write done.txt.", "--id", "g")
    sandbox.wait_for(lambda: (sandbox.home / "worktrees/g/half.txt").exists(), "the agent at work")
    return int(claude.starts[-1]["pid"])


def test_plan_and_review_in_batch_and_the_code_by_a_live_agent(sandbox: Sandbox, claude: FakeClaude) -> None:
    sandbox.pipeline("local", "name: local\nstages: [plan, implement, review_code]\n")
    claude.plan(WORKS)
    sandbox.ok("launch", "local", "Write done.txt.", "--id", "g", "--wait")
    state = sandbox.state("g")
    assert state["liveness"]["state"] == "finished"
    assert state["cost"]["live_usd"] == 0.25
    assert state["cost"]["batch_usd"] > 0
    assert sandbox.repo.git("show", "gremlins/g:done.txt") == "done"


def test_a_stop_leaves_no_agent_and_a_rescue_takes_its_session_up(sandbox: Sandbox, claude: FakeClaude) -> None:
    claude.plan(AT_WORK, WORKS)
    pid = at_work(sandbox, claude)
    sandbox.ok("stop", "g")
    assert sandbox.life("g") == "stopped"
    assert not proc.is_alive(pid)
    assert sandbox.state("g")["cost"]["live_usd"] > 0
    sandbox.ok("rescue", "g")
    sandbox.until("g", "finished")
    assert "--resume" in claude.starts[1]["argv"]
    assert sandbox.repo.git("show", "gremlins/g:half.txt") == "half"  # what it had done in that session stands


def test_after_kill_9_a_rescue_ends_what_is_left_of_the_agent_and_goes_on_in_its_session(
    sandbox: Sandbox, claude: FakeClaude
) -> None:
    claude.plan(AT_WORK, WORKS)
    pid = at_work(sandbox, claude)
    sandbox.kill("g")
    assert sandbox.life("g") == "dead"
    sandbox.ok("rescue", "g")
    assert not proc.is_alive(pid)
    sandbox.until("g", "finished")
    session = claude.starts[0]["argv"][claude.starts[0]["argv"].index("--session-id") + 1]
    assert claude.starts[1]["argv"][claude.starts[1]["argv"].index("--resume") + 1] == session


def test_a_shutdown_ends_the_agent_too(sandbox: Sandbox, claude: FakeClaude) -> None:
    claude.plan(AT_WORK)
    pid = at_work(sandbox, claude)
    os.kill(sandbox.state("g")["liveness"]["pid"], signal.SIGTERM)
    sandbox.until("g", "dead")
    assert not proc.is_alive(pid)


def test_a_silent_agent_is_resumed_in_the_same_attempt(sandbox: Sandbox, claude: FakeClaude) -> None:
    sandbox.env["GREMLINS_LIVE__IDLE_TIMEOUT"] = "3"
    claude.plan(AT_WORK, WORKS)
    sandbox.ok("launch", "one", "Write done.txt.", "--id", "g", "--wait")
    assert sandbox.state("g")["attempt"] == 1
    assert len(claude.starts) == 2
    assert sandbox.repo.git("show", "gremlins/g:half.txt") == "half"


def test_a_denied_tool_fails_the_stage_and_is_named(sandbox: Sandbox, claude: FakeClaude) -> None:
    claude.plan([init(), assistant(), result(permission_denials=[{"tool_name": "Bash", "tool_input": {}}])])
    done = sandbox.run("launch", "one", "Run it.", "--id", "g", "--wait")
    assert done.code == 1
    assert "Bash" in done.err
    assert sandbox.state("g")["cost"]["live_usd"] == 0.25


def test_a_batch_that_expired_is_made_live(sandbox: Sandbox, claude: FakeClaude) -> None:
    sandbox.pipeline("planned", "name: planned\nevidence: none\nstages: [plan]\n")
    sandbox.simulator.fault("outcome", "expired")
    claude.plan(answers("The plan, live."))
    sandbox.ok("launch", "planned", "Plan it.", "--id", "g", "--wait")
    assert sandbox.artifact("g", "plan.md") == "The plan, live.\n"
    assert len(sandbox.simulator.batches) == 1
    assert set(claude.starts[0]["argv"][claude.starts[0]["argv"].index("--tools") + 1].split(",")) == {
        *("Read", "Glob", "Grep")
    }


def test_batch_with_a_provider_that_has_none_is_refused_before_anything_starts(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    kilo = FakeKilo(tmp_path / "kilo")
    sandbox.env |= {"GREMLINS_KILO_BIN": str(kilo.path), "KILO_API_URL": "http://127.0.0.1:1", "KILO_API_KEY": "k" * 20}
    done = sandbox.run("launch", "local", "Do it.", "--client", "kilo:anthropic/m", "--mode", "batch", "--id", "g")
    assert done.code == 1
    assert "`kilo` has no batch mode" in done.err
    assert not (sandbox.home / "gremlins/g").exists()
    assert kilo.notes("start") == []


def test_where_batch_is_only_the_default_it_runs_live(sandbox: Sandbox, tmp_path: Path) -> None:
    kilo = FakeKilo(tmp_path / "kilo")
    kilo.plan(says("The plan."))
    sandbox.env |= {"GREMLINS_KILO_BIN": str(kilo.path), "KILO_API_URL": "http://127.0.0.1:1", "KILO_API_KEY": "k" * 20}
    sandbox.pipeline("planned", "name: planned\nevidence: none\nstages: [plan]\n")
    sandbox.ok("launch", "planned", "Plan it.", "--client", "kilo:anthropic/m", "--id", "g", "--wait")
    assert sandbox.artifact("g", "plan.md") == "The plan.\n"


def test_copilot_falls_back_and_says_so(sandbox: Sandbox, tmp_path: Path) -> None:
    copilot = FakeClaude(tmp_path / "copilot", "copilot")
    message: Step = ("say", {"type": "assistant.message", "data": {"content": "The plan."}})
    copilot.plan([message, ("say", {"type": "result", "sessionId": "s", "exitCode": 0})])
    sandbox.env |= {"GREMLINS_COPILOT_BIN": str(copilot.path), "COPILOT_GITHUB_TOKEN": "t" * 20}
    sandbox.pipeline("planned", "name: planned\nevidence: none\nstages: [plan]\n")
    sandbox.ok("launch", "planned", "Plan it.", "--client", "copilot:m", "--mode", "batch", "--id", "g", "--wait")
    assert sandbox.artifact("g", "plan.md") == "The plan.\n"
    assert sandbox.ok("log", "g").count("no batch mode") == 1
    assert "no batch mode" in sandbox.ok("show", "g")


@pytest.mark.parametrize(
    ("client", "code", "said"),
    [
        ("cluade:m", 1, "did you mean `claude`?"),
        ("kilo:m", 5, "KILO_API_URL"),
        ("copilot:m", 5, "copilot"),
        ("scripted:/no/such/file", 5, "/no/such/file"),
    ],
)
def test_what_is_missing_is_one_line_and_nothing_starts(sandbox: Sandbox, client: str, code: int, said: str) -> None:
    sandbox.env |= {"GREMLINS_KILO_BIN": "/bin/true", "GREMLINS_COPILOT_BIN": "/no/such/copilot"}
    done = sandbox.run("launch", "local", "Do it.", "--client", client, "--mode", "live", "--id", "g")
    assert (done.code, "Traceback" in done.err) == (code, False)
    assert said in done.err
    assert not (sandbox.home / "gremlins/g").exists()


def test_without_a_binary_a_live_stage_is_not_ready(sandbox: Sandbox, claude: FakeClaude) -> None:
    sandbox.env["GREMLINS_CLAUDE_BIN"] = "/no/such/claude"
    done = sandbox.run("launch", "one", "Do it.", "--id", "g")
    assert done.code == 5
    assert "/no/such/claude" in done.err
