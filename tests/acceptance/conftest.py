"""Fixtures of the acceptance tests: the simulator, a sandbox."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gremlins.simulator import RulesModel, Simulator
from gremlins.simulator.demo_repository import FILES, RULE
from tests.acceptance.sandbox import Sandbox
from tests.conftest import make_repo

VERIFY = f"verify = ['{sys.executable} -m unittest discover -q -s tests -t .']\n"


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with Simulator(latency=0.05, model=RulesModel([RULE])) as running:
        yield running


@pytest.fixture
def sandbox(tmp_path: Path, simulator: Simulator, request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """With processes that are forks of one that has imported everything; marked `installed`, the command as it is."""
    installed = request.node.get_closest_marker("installed") is not None
    repo = make_repo(tmp_path / "project")
    repo.commit({**FILES, ".gremlins/config.toml": VERIFY}, "An orchard, with a bug in it")
    interpreter = sys.executable if installed else request.getfixturevalue("fork_server").python
    made = Sandbox(repo, tmp_path / "state", simulator, interpreter=interpreter)
    yield made
    made.close()
