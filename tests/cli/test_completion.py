"""Shell completion: the shell's own protocol, with verbs that are imported one at a time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gremlins.cli.completion import complete_ids, complete_pipelines
from gremlins.cli.verbs import VERBS
from tests.fleet.records import Root, record, state_root


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Root:
    made = state_root(tmp_path)
    monkeypatch.setenv("GREMLINS_HOME", str(made.home.root))
    made.put(record("fix-add"))
    made.put(record("fix-mul"))
    return made


def bash(line: str) -> list[str]:
    """The completions of the last word of a line."""
    env = {
        "PATH": os.environ["PATH"],
        "GREMLINS_HOME": os.environ["GREMLINS_HOME"],
        "_GREMLINS_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(line.split(" ")) - 1),
    }
    done = subprocess.run(
        [sys.executable, "-m", "gremlins"], env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("gremlins sta", ["status"]),
        ("gremlins status --j", ["--json"]),
        ("gremlins show fix-m", ["fix-mul"]),
        ("gremlins stop ", ["fix-add", "fix-mul"]),
        ("gremlins launch ba", ["batch"]),
        ("gremlins launch --mode ", ["batch", "live"]),
        ("gremlins cost --by d", ["day"]),
    ],
)
def test_what_bash_is_offered(root: Root, line: str, offered: list[str]) -> None:
    assert bash(line) == offered


def test_every_verb_is_offered(root: Root) -> None:
    assert set(bash("gremlins ")) == set(VERBS)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_for_a_shell_can_be_shown(shell: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gremlins"],
        env={
            "PATH": os.environ["PATH"],
            "GREMLINS_HOME": os.environ["GREMLINS_HOME"],
            "_GREMLINS_COMPLETE": f"source_{shell}",
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0
    assert f"_GREMLINS_COMPLETE=complete_{shell}" in done.stdout


def test_a_record_that_cannot_be_read_spoils_no_completion(root: Root) -> None:
    root.home.gremlin("fix-mul").state.write_text("{")
    assert [name for name, _ in complete_ids("fix")] == ["fix-add"]


def test_the_projects_own_pipelines_are_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".gremlins" / "pipelines").mkdir(parents=True)
    (tmp_path / ".gremlins" / "pipelines" / "mine.yaml").write_text("")
    (tmp_path / "deeper").mkdir()
    monkeypatch.chdir(tmp_path / "deeper")
    assert complete_pipelines("m") == ["mine"]
    assert "local" in complete_pipelines("")
