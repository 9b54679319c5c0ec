"""Runs every command of the documents, in order, in a fresh sandbox; checks their links and the tests they name."""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.core import TyperGroup as Group

from gremlins.cli.app import build
from tests.acceptance.sandbox import Sandbox
from tests.time_limit import DEADLINE, wait_until_idle

ROOT = Path(__file__).parents[2]
DOCS = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
NAMES = [str(path.relative_to(ROOT)) for path in DOCS]
CONSOLE = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")

ENDLESS = {"--watch", "-f", "simulate", "board", "worker"}
"""These run until they are interrupted."""
ELSEWHERE = {
    "demo": "`make demo` runs it, in every check",
    "#42": "needs GitHub; run against a stand-in by the tests of its stages",
    "--pr": "the same",
}
EXTRAS = {"board": "jinja2"}
"""Verbs that need an extra, and a module of it: without it the verb is not run."""
CLUSTER = "docs/cluster.md"
"""Its commands need a database."""
SHOWN_ID = re.compile(r"[a-z0-9-]+-[0-9a-f]{4}")
"""An id as a document shows it: the one of the latest launch is meant."""
PIPELINE = re.compile(r"^```yaml\n# (\.gremlins/pipelines/\S+\.yaml)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def commands(path: Path) -> Iterator[list[str]]:
    """The commands of gremlins and git in a document's console blocks, without their comments."""
    for block in CONSOLE.findall(path.read_text()):
        for line in block.splitlines():
            if line.startswith(("$ gremlins", "$ git ")):
                yield shlex.split(line.removeprefix("$ "), comments=True)


@pytest.mark.parametrize("name", NAMES)
def test_every_link_leads_somewhere(name: str) -> None:
    path = ROOT / name
    for target in LINK.findall(path.read_text()):
        if "://" not in target:
            assert (path.parent / target).exists(), f"{name} links to {target}"


@pytest.mark.parametrize("name", [*NAMES, "AGENTS.md", "CHANGELOG.md", "bench/README.md"])
def test_every_source_file_it_names_exists(name: str) -> None:
    for target in re.findall(r"tests/[\w/]+(?:\.py)?|(?<![\w./])gremlins/[\w/]+\.py", (ROOT / name).read_text()):
        assert (ROOT / target).exists(), f"{name} names {target}"


@pytest.mark.parametrize("name", [name for name in NAMES if any(commands(ROOT / name))])
def test_every_command_in_it_works(name: str, sandbox: Sandbox, request: pytest.FixtureRequest) -> None:
    _make_what_is_shown(sandbox, (ROOT / name).read_text())
    if name == CLUSTER:
        sandbox.env["GREMLINS_CLUSTER__URL"] = request.getfixturevalue("postgres").new_database()
    sandbox.env |= {"GREMLINS_DISPATCH__INTERVAL": "0.1", "GREMLINS_BATCH__POLL_INITIAL": "0.05"}
    latest = ""
    for shown in commands(ROOT / name):
        if shown[0] == "git":
            sandbox.repo.git(*shown[1:])
            continue
        words = [latest if latest and SHOWN_ID.fullmatch(word) else word for word in shown[1:]]
        extra = EXTRAS.get(" ".join(words[:1]))
        if ELSEWHERE.keys() & set(words) or (extra is not None and find_spec(extra) is None):
            continue
        if ENDLESS & set(words):
            _interrupt(sandbox, words)
            continue
        done = sandbox.run(*words)
        assert done.code == 0, f"$ gremlins {shlex.join(words)}\n{done.out}{done.err}\n{sandbox.logs()}"
        if words[:1] == ["launch"] and "--wait" not in words:
            latest = done.out.strip()
        if latest and words[:1] in (["launch"], ["revise"]):
            sandbox.until(latest, "finished", "bailed", "dead", "detached")


INLINE = re.compile(r"`gremlins ([a-z][^`]*)`")


@pytest.mark.parametrize("name", NAMES)
def test_every_command_named_in_a_sentence_is_one_that_there_is(name: str) -> None:
    """Its verbs and options; what it does is shown by the tests of the verb."""
    for found in INLINE.findall((ROOT / name).read_text()):
        words = iter(re.split(r"[\s|\[\]]+", found.replace("…", "")))
        command: Any = typer.main.get_command(build(found.split()))
        for word in filter(None, words):
            options = {name: param for param in command.params for name in param.opts}
            if word.startswith("--"):
                option = options.get(word.partition("=")[0])
                assert option is not None or word == "--", f"{name}: `gremlins {found}` has no {word}"
                if option is not None and not option.is_flag:
                    next(words, None)
            elif isinstance(command, Group):
                assert word in command.commands, f"{name}: `gremlins {found}` has no verb {word}"
                command = command.commands[word]


def _make_what_is_shown(sandbox: Sandbox, text: str) -> None:
    """Pipelines that the document shows whole, and the written plans that its commands name."""
    for place, yaml in PIPELINE.findall(text):
        sandbox.repo.write({place: yaml})
    for plan in re.findall(r"--plan (\S+\.md)", text):
        sandbox.repo.write({plan: "# Rewrite\n\n1. The mean of a harvest in orchard/harvest.py is too high. Fix it.\n"})


def _interrupt(sandbox: Sandbox, words: list[str]) -> None:
    """Let it run until it waits, then press Ctrl-C: it must end by itself, without a traceback."""
    words = ["0" if word in ("8787", "8797") else word for word in words]
    child = subprocess.Popen(
        [sys.executable, "-u", "-m", "gremlins", *words],
        cwd=sandbox.repo.path,
        env=sandbox.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        wait_until_idle(child.pid)
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=DEADLINE)
        assert child.returncode in (0, 130), err
        assert "Traceback" not in err
    finally:
        child.kill()
        child.wait(timeout=DEADLINE)
