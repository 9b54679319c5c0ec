"""A real PostgreSQL for tests, bench and demo: in a temporary folder, on loopback and a socket, ended at the end."""

from __future__ import annotations

import ctypes
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import quote

from tests.time_limit import DEADLINE, wait_until

MISSING = "no PostgreSQL here: `apt install postgresql` (Debian, Ubuntu), or put `initdb` and `postgres` on PATH"
FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")
SMALL = ("shared_buffers=16MB", "jit=off", "dynamic_shared_memory_type=mmap", "timezone=UTC")
TLS = "ssl=on"
ROLE = "gremlins"
PR_SET_PDEATHSIG = 1


def find_binaries() -> Path | None:
    """The folder with `initdb` and `postgres`: of PATH, else Debian's newest. None: not installed."""
    on_path = shutil.which("initdb")
    folders = [Path(on_path).resolve().parent] if on_path else []
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name))
    return next((path for path in [*folders, *reversed(debian)] if (path / "postgres").exists()), None)


def _other_user() -> str | None:
    """The user that the server runs as where we are root, which it refuses."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in ("postgres", "nobody") if name in known)


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGQUIT)


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


class PostgresServer:
    """One server. It loses what it had in memory at `kill`; with `durable` it writes to disk before it answers, with
    `tls` it has a certificate of its own."""

    def __init__(self, binaries: Path, *, durable: bool = False, tls: bool = False) -> None:
        self._binaries = binaries
        self._user = _other_user()
        self._settings = (*SMALL, *(() if durable else FAST), *((TLS,) if tls else ()))
        self._process: subprocess.Popen[bytes] | None = None
        self._databases = 0
        self.password = secrets.token_hex(16)
        self.port = 0
        # Not below pytest's own folder, which the other user cannot enter; short, because a socket's path must be.
        self.folder = Path(tempfile.mkdtemp(prefix="pg-"))
        self.certificate = self.folder / "data" / "server.crt"
        try:
            self._initialize()
            if tls:
                self._make_certificate()
            self.start()
        except BaseException:
            self.end()
            raise

    def _initialize(self) -> None:
        secret = self.folder / "secret"
        secret.write_text(self.password)
        if self._user:
            owner = pwd.getpwnam(self._user)
            for path in (self.folder, secret):
                os.chown(path, owner.pw_uid, owner.pw_gid)
        done = subprocess.run(
            [self._binaries / "initdb", "-D", self.folder / "data", "-U", ROLE, "--pwfile", secret, "-E", "UTF8",
             "--locale=C", "--no-sync", "--auth-local=trust", "--auth-host=scram-sha-256"],
            user=self._user, group=self._group, extra_groups=self._no_groups, cwd=self.folder,
            capture_output=True, text=True, check=False, timeout=DEADLINE,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    def _make_certificate(self) -> None:
        """With the key beside it, where the server looks for both."""
        key = self.certificate.with_suffix(".key")
        make_certificate(self.certificate, key)
        if self._user:
            owner = pwd.getpwnam(self._user)
            for path in (key, self.certificate):
                os.chown(path, owner.pw_uid, owner.pw_gid)

    @property
    def _group(self) -> int | None:
        return pwd.getpwnam(self._user).pw_gid if self._user else None

    @property
    def _no_groups(self) -> list[int] | None:
        return [] if self._user else None

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://{ROLE}:{self.password}@127.0.0.1:{self.port}/{quote(database)}"

    def new_database(self, template: str = "template0") -> str:
        """Create an empty database, or a copy of another one; return its URL."""
        import psycopg  # the extra `cluster`

        self._databases += 1
        name = f"db{self._databases}"
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE {name} TEMPLATE "{template}"'.encode())
        return self.url(name)

    def start(self) -> None:
        """Start, and return once it takes connections. After a `kill` it recovers first."""
        fixed = self.port

        def came_up() -> bool:
            self.port = fixed or free_port()
            return self._came_up()

        wait_until(came_up, "PostgreSQL start", self.log)

    def _came_up(self) -> bool:
        """False if it ended instead: its port was taken, or processes of a killed one were still ending."""
        settings = [
            *self._settings,
            f"port={self.port}",
            "listen_addresses=127.0.0.1",
            f"unix_socket_directories={self.folder}",
        ]
        with (self.folder / "log").open("ab") as log:
            process = self._process = subprocess.Popen(
                [self._binaries / "postgres", "-D", self.folder / "data", *(f"--{line}" for line in settings)],
                user=self._user, group=self._group, extra_groups=self._no_groups, cwd=self.folder,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=_die_with_parent,
                start_new_session=True,
            )  # fmt: skip
        wait_until(lambda: process.poll() is not None or self._answers(), "PostgreSQL take connections", self.log)
        return process.poll() is None

    def _answers(self) -> bool:
        import psycopg  # the extra `cluster`

        try:
            psycopg.connect(self.url(), connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True

    def stop(self) -> None:
        """End it in order; connections are closed."""
        self._signal(signal.SIGINT)

    def kill(self) -> None:
        """SIGKILL to the server; the processes of its connections see that and end."""
        self._signal(signal.SIGKILL)

    def restart(self) -> None:
        self.stop()
        self.start()

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)
            self._process.wait(DEADLINE)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def log(self) -> str:
        path = self.folder / "log"
        return path.read_text(errors="replace")[-4000:] if path.exists() else ""

    def end(self) -> None:
        """End it and remove its folder."""
        try:
            self._signal(signal.SIGQUIT)
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)
            self._process = None


def make_certificate(certificate: Path, key: Path) -> None:
    """A certificate of 127.0.0.1 that only itself vouches for."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate],
        check=True, capture_output=True, timeout=DEADLINE,
    )  # fmt: skip


def server(*, durable: bool = False, tls: bool = False) -> PostgresServer | None:
    """A running server; None where PostgreSQL is not installed."""
    binaries = find_binaries()
    return PostgresServer(binaries, durable=durable, tls=tls) if binaries else None
