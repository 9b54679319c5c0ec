"""The store of the beads: of the cluster where one is configured, else of this host."""

from __future__ import annotations

from gremlins.fleet.beads.store.sqlite import SqliteStore
from gremlins.fleet.beads.store.writes import SqlStore
from gremlins.paths import Home


def open_store(home: Home) -> SqlStore:
    """Raises GremlinsError."""
    if not home.cluster:
        return SqliteStore(home.beads)
    from gremlins.cluster.hands import open_patiently
    from gremlins.fleet.beads.store.postgres import PostgresStore

    return PostgresStore(open_patiently(home))


def may_have_beads(home: Home) -> bool:
    return bool(home.cluster) or home.beads.exists()
