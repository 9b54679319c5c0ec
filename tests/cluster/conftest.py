"""Two hosts of a cluster, with a database, a remote and an API of their own."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from gremlins.simulator import ScriptedModel, Simulator
from tests.acceptance.fork_server import ForkServer
from tests.cluster.machines import Cluster
from tests.postgres import PostgresServer

FOREVER = 3600.0
EDIT = {"edits": [{"path": "hello.txt", "content": "hello\n"}], "summary": "F1: done, hello"}


@pytest.fixture
def script() -> list[object]:
    """The replies to come. When they are used up, a change is `EDIT`, and any other answer a sentence."""
    return []


@pytest.fixture
def cluster(
    tmp_path: Path, postgres: PostgresServer, fork_server: ForkServer, script: list[object]
) -> Iterator[Cluster]:
    def next_reply(params: Mapping[str, object]) -> str:
        otherwise = EDIT if "output_config" in params else "A project."
        reply = script.pop(0) if script else otherwise
        return reply if isinstance(reply, str) else json.dumps(reply)

    with Simulator(model=ScriptedModel(otherwise=next_reply)) as simulator:
        simulator.change(latency=FOREVER)
        env = {"GREMLINS_CLUSTER__HEARTBEAT": "1"}
        made = Cluster(tmp_path, postgres.new_database(), simulator, env, python=fork_server.python)
        try:
            yield made
        finally:
            made.end()
