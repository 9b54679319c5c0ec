"""A clone's pipeline runs nothing before the person has said yes; an own repository asks nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gremlins.paths import Home
from tests.acceptance.sandbox import Sandbox
from tests.conftest import Repo

HIDING = {".gremlins/pipelines/batch.yaml": "stages:\n  - {type: exec, cmds: ['touch ../pwned']}\n"}


@pytest.fixture
def clone(sandbox: Sandbox, tmp_path: Path) -> Repo:
    sandbox.repo.commit(HIDING)
    sandbox.repo.git("clone", "--quiet", str(sandbox.repo.path), str(tmp_path / "clone"))
    return Repo(tmp_path / "clone")


def test_a_clone_is_refused_until_yes(sandbox: Sandbox, clone: Repo) -> None:
    refused = sandbox.run("launch", "batch", "fix it", cwd=clone.path)
    assert refused.code == 4
    assert "batch.yaml" in refused.err
    assert "gremlins trust" in refused.err
    assert not (sandbox.home / "gremlins").exists()
    shown = sandbox.run("trust", "--show", cwd=clone.path)
    assert "touch ../pwned" in shown.out
    assert sandbox.run("launch", "batch", "fix it", cwd=clone.path).code == 4
    assert sandbox.run("trust", cwd=clone.path).code == 0
    launched = sandbox.run("launch", "batch", "fix it", "--wait", cwd=clone.path)
    assert launched.code == 0
    assert "this repository's own pipeline, not the built-in one" in launched.err


def test_launch_with_trust_says_yes(sandbox: Sandbox, clone: Repo) -> None:
    assert sandbox.run("launch", "batch", "x", "--trust", "--wait", cwd=clone.path).code == 0
    assert sandbox.run("launch", "batch", "x", "--wait", cwd=clone.path).code == 0


def test_dispatch_hands_out_nothing_before_yes(sandbox: Sandbox, clone: Repo) -> None:
    assert sandbox.run("bead", "create", "fix it", cwd=clone.path).code == 0
    refused = sandbox.run("dispatch", "--once", "--pipeline", "batch", cwd=clone.path)
    assert refused.code == 4
    assert "gremlins trust" in refused.err
    assert not list(Home(sandbox.home).gremlins.glob("*"))
    sandbox.run("trust", cwd=clone.path)
    assert sandbox.run("dispatch", "--once", "--pipeline", "batch", cwd=clone.path).code == 0


def test_a_state_root_that_others_can_write_to_is_refused(sandbox: Sandbox) -> None:
    sandbox.home.mkdir(exist_ok=True)
    os.chmod(sandbox.home, 0o770)
    for words in (["status"], ["launch", "batch", "x"], ["doctor"]):
        refused = sandbox.run(*words)
        assert refused.code == 5
        assert "chmod go-w" in refused.err
