"""The demo's repository: small, real, with a bug and a test that shows it. Needs no package to run its tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from gremlins.simulator.rules import EditRule

RULE = EditRule(old="(len(counts) - 1)", new="len(counts)", path="harvest")
"""The change that the scripted model makes of it."""

FILES = {
    "README.md": "# orchard\n\nCounts what grows in an orchard.\n",
    "orchard/__init__.py": '"""Counts what grows in an orchard."""\n',
    "orchard/harvest.py": '''"""What a harvest comes to."""

from __future__ import annotations

from collections.abc import Iterable


def total(baskets: Iterable[int]) -> int:
    """The apples in all baskets together."""
    return sum(baskets)


def mean(baskets: Iterable[int]) -> float:
    """The apples in a basket on average; 0.0 when there is no basket."""
    counts = list(baskets)
    if not counts:
        return 0.0
    return total(counts) / (len(counts) - 1)
''',
    "orchard/report.py": '''"""A harvest in words."""

from __future__ import annotations

from collections.abc import Sequence

from orchard.harvest import mean, total


def summary(baskets: Sequence[int]) -> str:
    """One line about a harvest."""
    return f"{total(baskets)} apples in {len(baskets)} baskets, {mean(baskets):.1f} on average"
''',
    "tests/__init__.py": "",
    "tests/test_harvest.py": """import unittest

from orchard.harvest import mean, total
from orchard.report import summary


class HarvestTest(unittest.TestCase):
    def test_total_counts_every_basket(self):
        self.assertEqual(total([3, 4, 5]), 12)

    def test_mean_of_three_baskets(self):
        self.assertEqual(mean([3, 4, 5]), 4.0)

    def test_mean_of_no_basket_is_zero(self):
        self.assertEqual(mean([]), 0.0)

    def test_summary(self):
        self.assertEqual(summary([3, 4, 5]), "12 apples in 3 baskets, 4.0 on average")


if __name__ == "__main__":
    unittest.main()
""",
    ".gitignore": "__pycache__/\n",
}

TASK = "The mean of a harvest is too high: mean([3, 4, 5]) gives 6.0 instead of 4.0. Fix it."
TEST_COMMAND = f"{sys.executable} -m unittest discover -q -s tests -t ."


def make_project(folder: Path) -> None:
    """Write the repository and commit it. `folder` must not exist yet."""
    for name, text in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    config = folder / ".gremlins" / "config.toml"
    config.parent.mkdir()
    config.write_text(f"verify = ['{TEST_COMMAND}']\n")
    _git(folder, "init", "--quiet", "--initial-branch=main")
    _git(folder, "config", "user.name", "Demo")
    _git(folder, "config", "user.email", "demo@localhost")
    _git(folder, "config", "commit.gpgsign", "false")
    _git(folder, "add", "--all")
    _git(folder, "commit", "--quiet", "--no-verify", "--message", "An orchard, with a bug in it")


def run_tests(folder: Path) -> tuple[bool, str]:
    """Run the project's tests: True if they pass, and the last line they print."""
    done = subprocess.run(TEST_COMMAND.split(), cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    lines = (done.stdout + done.stderr).strip().splitlines()
    return done.returncode == 0, lines[-1] if lines else "no output"


def _git(folder: Path, *args: str) -> None:
    subprocess.run(["git", "-C", str(folder), *args], check=True, capture_output=True, timeout=60)
