"""The board's buttons. Each runs the command of its name, so that nothing is decided here, and shows its own words."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from gremlins.records.gremlin import Remark

DEADLINE = 600.0
"""Seconds. `stop` and `land` have bounds of their own, far below."""


@dataclass(frozen=True)
class Said:
    """The outcome of a command: exit code 0 is `good`, its words are `text`."""

    good: bool
    text: str


def run_command(words: Sequence[str], folder: Path, *, text: str = "") -> Said:
    """Run `gremlins WORDS…` in a folder, with `text` on its standard input."""
    argv = [sys.executable, "-m", "gremlins", *words]
    where = folder if folder.is_dir() else Path.home()
    try:
        done = subprocess.run(
            argv,
            cwd=where,
            env={**os.environ, "NO_COLOR": "1"},
            input=text,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=DEADLINE,
            check=False,
        )
    except OSError as error:
        return Said(False, f"`gremlins {words[0]}` could not be started: {error.strerror}")
    except subprocess.TimeoutExpired:
        return Said(False, f"`gremlins {words[0]}` took longer than {DEADLINE / 60:.0f} minutes and was ended")
    return Said(done.returncode == 0, (done.stdout + done.stderr).strip())


def send_back(gremlin_id: str, folder: Path, text: str, remarks: Sequence[Remark]) -> Said:
    """One `revise` with a text, remarks on lines, or both."""
    given = ["--", gremlin_id, *(["-"] if text.strip() or not remarks else [])]
    if not remarks:
        return run_command(["revise", *given], folder, text=text)
    with tempfile.NamedTemporaryFile("wb", prefix="gremlins-remarks-") as file:
        file.write(b"\n".join(map(msgspec.json.encode, remarks)))
        file.flush()
        return run_command(["revise", "--comments", file.name, *given], folder, text=text)
