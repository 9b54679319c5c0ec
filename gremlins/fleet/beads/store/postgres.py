"""The bead store of a cluster: the same tables and statements, in its PostgreSQL."""

from __future__ import annotations

from gremlins.cluster.database import ClusterDb
from gremlins.fleet.beads.store.postgres_database import PostgresDatabase
from gremlins.fleet.beads.store.writes import SqlStore


class PostgresStore(SqlStore):
    db: PostgresDatabase

    def __init__(self, db: ClusterDb) -> None:
        super().__init__(PostgresDatabase(db))
