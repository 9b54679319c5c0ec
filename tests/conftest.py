"""Fixtures of all tests: a scrubbed environment, no access to a person's own state, and a small real repository."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests import postgres as postgresql
from tests.acceptance.fork_server import ForkServer

# The suite draws the same examples in every run, the soak new ones.
settings.register_profile(
    "house", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("soak", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("soak" if os.environ.get("GREMLINS_SOAK") else "house")

signal.signal(
    signal.SIGINT, signal.default_int_handler
)  # a shell's background jobs ignore it, and so would all we start

GITCONFIG = "[user]\n\tname = Test Person\n\temail = person@example.org\n[core]\n\tfsync = none\n"
FIXED_DATE = "2026-11-21T10:00:00+00:00"
SCRUBBED = ("GIT_", "ANTHROPIC_", "CLAUDE", "GREMLINS_", "OPENAI_", "COPILOT_", "KILO", "XDG_", "GH_", "GITHUB_TOKEN",
            "SSL_CERT_")  # fmt: skip
KEPT = {"GREMLINS_SOAK"}


@pytest.fixture(autouse=True)
def _nothing_of_a_persons_own(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    for name in list(os.environ):
        if name.startswith(SCRUBBED) and name not in KEPT:
            monkeypatch.delenv(name)
    home = tmp_path_factory.mktemp("home")
    (home / ".gitconfig").write_text(GITCONFIG)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    # A test that names no state root gets an error, not a person's own gremlins.
    monkeypatch.setenv("GREMLINS_HOME", "/dev/null/no-state-root-in-tests")


@dataclass(frozen=True)
class Repo:
    """A person's repository, driven as a person would."""

    path: Path

    def git(self, *args: str, env: Mapping[str, str] | None = None) -> str:
        done = subprocess.run(
            ["git", *args],
            cwd=self.path,
            env={**os.environ, "GIT_AUTHOR_DATE": FIXED_DATE, "GIT_COMMITTER_DATE": FIXED_DATE, **(env or {})},
            capture_output=True,
            text=True,
            errors="surrogateescape",
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, f"git {' '.join(args)}: {done.stderr}"
        return done.stdout.rstrip("\n")

    def write(self, files: Mapping[str, str | bytes]) -> None:
        for name, content in files.items():
            path = self.path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())

    def commit(self, files: Mapping[str, str | bytes], message: str = "more") -> str:
        """Write files, commit everything, return the commit."""
        self.write(files)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "-m", message)
        return self.head()

    def head(self) -> str:
        return self.git("rev-parse", "HEAD")

    def read(self, name: str) -> str:
        return (self.path / name).read_text()


def make_repo(path: Path) -> Repo:
    """A new repository on branch `main` without a commit."""
    path.mkdir(parents=True)
    repo = Repo(path)
    repo.git("init", "--quiet", "--initial-branch=main")
    return repo


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    """A small project with one commit. Its path has a space and a letter beyond ASCII."""
    made = make_repo(tmp_path / "a prøject")
    made.commit(
        {
            "README.md": "# Calc\n\nA calculator.\n",
            "calc.py": "def add(a, b):\n    return a - b\n\n\ndef mul(a, b):\n    return a * b\n",
            "tests/test_calc.py": "from calc import add\n\n\ndef test_add():\n    assert add(2, 3) == 5\n",
            ".gitignore": "ignored/\n*.log\n",
        },
        "first",
    )
    return made


def put_gh(folder: Path) -> None:
    """Write the fake `gh` as an executable. It is called often, so its interpreter starts without site packages."""
    script = Path(__file__).with_name("fake_gh.py")
    (folder / "gh").write_text(f'#!/bin/sh\nexec "{sys.executable}" -S -E "{script}" "$@"\n')
    (folder / "gh").chmod(0o755)


@pytest.fixture(scope="session")
def fork_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    """Its `python` runs the installed command as a fork of a process that has imported everything."""
    made = ForkServer.start(tmp_path_factory.mktemp("fork_server"))
    yield made
    made.close()


def _run_postgres(durable: bool) -> Iterator[postgresql.PostgresServer]:
    pytest.importorskip("psycopg", reason="the extra `cluster` is not installed")
    server = postgresql.server(durable=durable)
    if server is None:
        pytest.skip(postgresql.MISSING)
    yield server
    server.end()


@pytest.fixture(scope="session")
def postgres() -> Iterator[postgresql.PostgresServer]:
    """A PostgreSQL for all tests of this process, each with databases of its own. None of them stops it."""
    yield from _run_postgres(durable=False)


@pytest.fixture
def own_postgres() -> Iterator[postgresql.PostgresServer]:
    """A PostgreSQL of this test, which may kill it: what it has answered is on disk."""
    yield from _run_postgres(durable=True)
