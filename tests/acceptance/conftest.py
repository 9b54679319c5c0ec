"""The world of acceptance tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gremlins.demo_project import FILES
from gremlins.simulator import Simulator
from tests.acceptance.world import World
from tests.conftest import make_repo

VERIFY = f"verify = ['{sys.executable} -m unittest discover -q -s tests -t .']\n"


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with Simulator(latency=0.05, control=True) as running:
        yield running


@pytest.fixture
def world(tmp_path: Path, simulator: Simulator) -> Iterator[World]:
    repo = make_repo(tmp_path / "project")
    repo.commit({**FILES, ".gremlins/config.toml": VERIFY}, "An orchard, with a bug in it")
    made = World(repo, tmp_path / "state", simulator)
    yield made
    made.close()
