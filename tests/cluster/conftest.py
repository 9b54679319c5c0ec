"""Two hosts of a cluster, with a database, a remote and an API of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gremlins.simulator import Simulator
from tests.cluster.machines import Cluster
from tests.postgres import PostgresServer

FOREVER = 3600.0


@pytest.fixture
def cluster(tmp_path: Path, postgres: PostgresServer) -> Iterator[Cluster]:
    with Simulator() as simulator:
        simulator.change(latency=FOREVER)
        made = Cluster(tmp_path, postgres.new_database(), simulator, env={"GREMLINS_CLUSTER__HEARTBEAT": "1"})
        try:
            yield made
        finally:
            made.end()
