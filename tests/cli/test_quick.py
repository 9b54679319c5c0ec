"""The shortest way and the parser of all verbs: the same answers, and what may be imported on the way."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gremlins.cli import quick
from gremlins.cli.app import build
from gremlins.cli.fleet_view import show_fleet
from gremlins.cli.verbs import GLOBALS, VERBS, normalise
from gremlins.errors import GremlinsError
from gremlins.records.gremlin import Evidence, Finished
from tests.fleet.records import Root, ago, record, state_root


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Root:
    made = state_root(tmp_path)
    monkeypatch.setenv("GREMLINS_HOME", str(made.home.root))
    made.put(record("one"))
    made.put(record("two", Finished(since=ago(60), evidence=Evidence(kind="none", base="0", tip="0", holds=True))))
    return made


@pytest.mark.parametrize(
    "line",
    [
        "",
        "--json",
        "status",
        "status --json",
        "status --all",
        "status --json --all",
        "one",
        "tw --json",
        "status one two --json",
        "unknown",
        "status --here --json one",
    ],
)
def test_both_ways_say_the_same(root: Root, capsys: pytest.CaptureFixture[str], line: str) -> None:
    words = normalise(line.split())

    def said(how: object) -> tuple[str, str]:
        try:
            code = how() if callable(how) else None
        except GremlinsError as error:
            return error.message, ""
        return f"{code}", capsys.readouterr().out

    parser = build(words)
    assert said(lambda: quick.quick(words)) == said(lambda: parser(args=words, standalone_mode=False))


@pytest.mark.parametrize("line", ["--nope", "--help", "-j", "--json=1", "--watch x", "--wat", "-- one"])
def test_what_is_not_plain_is_left_to_the_parser(line: str) -> None:
    assert quick.status_options(line.split()) is None


def test_every_option_is_known_to_both() -> None:
    options = quick.status_options(["--json", "--here", "--all", "--watch", "1", "x"])
    assert options is not None
    assert set(options) == set(inspect.signature(show_fleet).parameters)
    assert all(options[name] for name in options)


def test_the_short_help_names_every_verb_and_option_that_the_parser_knows(capsys: pytest.CaptureFixture[str]) -> None:
    build([])(args=["--help"], prog_name="gremlins", standalone_mode=False)
    parsers = capsys.readouterr().out
    ours = quick.help_text()
    assert ours.splitlines()[0] == parsers.splitlines()[0].strip()
    for name in [*VERBS, *GLOBALS]:
        if name != "-h":
            assert f"  {name} " in parsers
            assert f"  {name} " in ours


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("", "status"),
        ("fix-a", "status fix-a"),
        ("--json", "status --json"),
        ("--watch", "status --watch 2"),
        ("--watch 0.5 fix", "status --watch 0.5 fix"),
        ("--watch fix", "status --watch 2 fix"),
        ("launch batch x", "launch batch x"),
        ("-h", "--help"),
        ("--version", "--version"),
    ],
)
def test_what_is_typed_and_what_is_meant(given: str, meant: str) -> None:
    assert normalise(given.split()) == meant.split()


HEAVY = {"anthropic", "pydantic", "rich", "typer", "yaml", "sqlite3", "httpx2", "genai_prices", "subprocess", "asyncio"}


@pytest.mark.parametrize("line", ["status", "--help", "status --json", "status --all", "--version", "one"])
def test_what_is_typed_most_starts_without_anything_heavy(root: Root, line: str) -> None:
    script = (
        "import sys; from gremlins.cli.main import run; code = run(sys.argv[1:]);"
        f"bad = {HEAVY!r} & sys.modules.keys(); sys.exit(f'imported: {{bad}}' if bad else code)"
    )
    env = {"GREMLINS_HOME": os.environ["GREMLINS_HOME"], "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [sys.executable, "-c", script, *line.split()], env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_locale_without_the_letters_is_no_crash(root: Root) -> None:
    env = {"GREMLINS_HOME": os.environ["GREMLINS_HOME"], "PATH": os.environ["PATH"], "PYTHONIOENCODING": "ascii"}
    root.put(record("three", title="größer"))
    done = subprocess.run(
        [sys.executable, "-m", "gremlins"], env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "gr\\xf6\\xdfer" in done.stdout
