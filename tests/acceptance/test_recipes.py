"""The recipes of docs/worktree.md, each with a small project of its kind, where its tool is installed."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.acceptance.sandbox import Sandbox

PAGE = Path(__file__).parents[2] / "docs" / "worktree.md"
RECIPES = dict(re.findall(r"^```toml\n# (\S+)\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL))
TEST = "import unittest\n\n\nclass T(unittest.TestCase):\n    def test_it(self):\n        import calc\n"
LOCK = (
    '{"name": "calc", "version": "1.0.0", "lockfileVersion": 3, "packages": {"": {"name": "calc", "version": "1.0.0"}}}'
)
PROJECTS: dict[str, tuple[str, dict[str, str]]] = {
    "python-venv": ("python3", {"calc.py": "", "test_calc.py": TEST}),
    "node-npm": (
        "npm",
        {
            "package.json": '{"name": "calc", "version": "1.0.0", "scripts": {"test": "node -e 0"}}',
            "package-lock.json": LOCK,
            ".gitignore": "node_modules/\n",
        },
    ),
    "go": ("go", {"go.mod": "module calc\n", "calc.go": "package calc\n"}),
}


@pytest.mark.parametrize("name", PROJECTS)
def test_a_recipe_makes_the_worktree_ready(sandbox: Sandbox, name: str) -> None:
    tool, files = PROJECTS[name]
    if shutil.which(tool) is None:
        pytest.skip(f"needs {tool}")
    sandbox.repo.git("rm", "-rq", ".")
    sandbox.repo.commit({".gremlins/config.toml": RECIPES[name], **files}, "A project")
    sandbox.pipeline("checks", "evidence: none\nmode: batch\nstages: [verify]\n")
    sandbox.ok("launch", "checks", "--id", "g")
    state = sandbox.until("g", "finished", "dead", "bailed")
    assert state["liveness"]["state"] == "finished", sandbox.logs()
