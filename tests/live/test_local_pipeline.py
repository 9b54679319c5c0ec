"""`local` on the source of a package from PyPI: planned and reviewed in batch, changed by the real Claude Code."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from gremlins.simulator import EditRule, ExampleModel, Simulator
from tests.acceptance.sandbox import Sandbox
from tests.conftest import make_repo
from tests.live.conftest import binary
from tests.live.tool_user import ToolUser

pytestmark = pytest.mark.live

PACKAGE = "iniconfig==2.3.1"
GOOD, BAD = 'COMMENTCHARS = "#;"', 'COMMENTCHARS = "#"'
CHECK = """
import iniconfig
assert iniconfig.IniConfig("x", "[a]\\n; a comment\\nb=1\\n")["a"]["b"] == "1"
"""


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    """A repository with the package's source, in which semicolons no longer begin comments."""
    fetched = subprocess.run(
        [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "-d", tmp_path, PACKAGE],
        capture_output=True,
        check=False,
        timeout=120,
    )
    if fetched.returncode != 0:
        pytest.skip("PyPI cannot be reached")
    repo = make_repo(tmp_path / "project")
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        wheel.extractall(repo.path)
    source = next(p for p in repo.path.rglob("*.py") if GOOD in p.read_text())
    source.write_text(source.read_text().replace(GOOD, BAD))
    repo.commit({"check.py": CHECK, ".gremlins/config.toml": f"verify = ['{sys.executable} check.py']\n"}, "first")
    rules = ToolUser([EditRule(BAD, GOOD, str(source.relative_to(repo.path)))])
    with Simulator(model=rules, latency=0.05) as simulator:
        made = Sandbox(repo, tmp_path / "state", simulator, {"GREMLINS_CLAUDE_BIN": binary("claude")})
        yield made
        made.close()


def test_a_bug_is_fixed_by_a_real_agent_between_batched_plan_and_review(sandbox: Sandbox) -> None:
    task = "Lines that begin with a semicolon are comments too, and are no longer taken for them."
    sandbox.ok("launch", "local", task, "--id", "fix", "--wait")
    (state,) = sandbox.run("status", "fix", "--json").json()
    assert state["liveness"]["state"] == "finished"
    assert state["cost"]["batch_usd"] > 0
    assert state["cost"]["live_usd"] > 0
    assert GOOD in sandbox.repo.git("grep", "-h", "^COMMENTCHARS", "gremlins/fix")
    sandbox.ok("land", "fix")
    assert "semicolon" in sandbox.repo.git("log", "-1", "--format=%s")


def test_a_simulator_by_hand_answers_the_real_agent_with_a_change(sandbox: Sandbox) -> None:
    with Simulator(model=ExampleModel()) as by_hand:
        sandbox.env |= {**by_hand.env, "GREMLINS_VERIFY": "true"}
        sandbox.ok("launch", "local", "Anything at all.", "--id", "any", "--wait")
        sandbox.ok("revise", "any", "And a second file.")
        sandbox.until("any", "finished", "bailed", "dead")
    assert sandbox.ok("diff", "any", "--name-only").split() == ["SIMULATED-2.md", "SIMULATED.md"]
