"""The PostgreSQL of the tests: it keeps what it has answered over SIGKILL, and shares nothing between databases."""

from __future__ import annotations

import pytest

from tests.postgres import PostgresServer

psycopg = pytest.importorskip("psycopg", reason="the extra `cluster` is not installed")


def test_a_killed_server_keeps_what_it_has_answered(own_postgres: PostgresServer) -> None:
    url = own_postgres.new_database()
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE kept (n int)")
        connection.execute("INSERT INTO kept VALUES (1)")
    with psycopg.connect(url) as broken:
        broken.execute("INSERT INTO kept VALUES (2)")
        own_postgres.kill()
        # A connection's process can answer once more before it sees that its server is gone; it commits nothing then.
        broken.close()
    own_postgres.start()
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT n FROM kept").fetchall() == [(1,)]
