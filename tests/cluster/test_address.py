"""The address of the database as libpq takes it: a service, a file of passwords, TLS with a checked certificate."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("psycopg", reason="the extra `cluster` is not installed")
from gremlins.cluster.database import ClusterAway, ClusterDb
from gremlins.errors import NotReady
from gremlins.worker.engine import Connector
from tests import postgres as postgresql
from tests.postgres import PostgresServer
from tests.time_limit import DEADLINE

IS_TLS = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"


@pytest.fixture
def secured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PostgresServer]:
    """A server with a certificate of its own, known as the service `fleet`, whose password is in a file."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl here")
    made = postgresql.server(tls=True)
    if made is None:
        pytest.skip(postgresql.MISSING)
    passwords = tmp_path / "pgpass"
    passwords.write_text(f"127.0.0.1:{made.port}:postgres:{postgresql.ROLE}:{made.password}\n")
    passwords.chmod(0o600)
    services = tmp_path / "services"
    services.write_text(
        f"[fleet]\nhost=127.0.0.1\nport={made.port}\nuser={postgresql.ROLE}\ndbname=postgres\n"
        f"sslmode=verify-full\nsslrootcert={made.certificate}\n"
    )
    monkeypatch.setenv("PGPASSFILE", str(passwords))
    monkeypatch.setenv("PGSERVICEFILE", str(services))
    monkeypatch.setenv("GREMLINS_HOME", str(tmp_path / "home"))
    yield made
    made.end()


async def ask_by_engine(address: str) -> object:
    connector = Connector(address)
    await connector.open_async()
    found = await connector.execute_query_one_async(IS_TLS)
    await connector.close_async()
    return found


@pytest.mark.parametrize("address", ["postgresql://u:hush%zz@h/db", "postgresql:/u:hush@h/db", "hush"])
def test_a_wrong_address_is_said_without_its_password(address: str) -> None:
    with pytest.raises(NotReady) as caught:
        ClusterDb(address).value("SELECT 1")
    assert "hush" not in caught.value.message
    assert "postgresql://" in str(caught.value.hint)


def test_service_password_file_and_tls(
    secured: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GREMLINS_CLUSTER__URL", "postgresql:///?service=fleet")
    for words in (["cluster", "init"], ["cluster", "status"]):
        command = [sys.executable, "-m", "gremlins", *words]
        subprocess.run(command, check=True, timeout=DEADLINE, capture_output=True)
    monkeypatch.setenv("PGSERVICE", "fleet")
    assert ClusterDb("postgresql://").value(IS_TLS) is True
    assert asyncio.run(ask_by_engine("postgresql://")) == {"ssl": True}
    monkeypatch.delenv("PGSERVICE")
    other = tmp_path / "other.crt"
    postgresql.make_certificate(other, tmp_path / "other.key")
    with pytest.raises(ClusterAway, match="certificate verify failed"):
        ClusterDb(f"{secured.url()}?sslmode=verify-full&sslrootcert={other}").value("SELECT 1")
