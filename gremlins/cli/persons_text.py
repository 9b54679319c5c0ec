"""Text that a person gives: as an argument, on standard input, or in their editor."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import typer

from gremlins.errors import GremlinsError, NotReady
from gremlins.files import read_given
from gremlins.text import normalised

COMMENT = "# "
LARGEST_TEXT = 4 * 2**20
"""Bytes."""
WIDTH = 78
"""Columns of the lines quoted in an editor."""


def read_text(given: str | None, *, quoted: str) -> str:
    """The text: `given`, standard input for `-`, or what is written in the editor under `quoted`.

    Wrong usage if it is empty, or if it is missing and there is no terminal to open an editor on.
    """
    if given is None:
        if not (sys.stdin.isatty() and sys.stdout.isatty()):
            raise typer.BadParameter("is missing; `-` reads standard input", param_hint="TEXT")
        given = edited(quoted)
    elif given == "-":
        try:
            given = read_given("-", LARGEST_TEXT).decode(errors="replace")
        except OSError as error:
            raise GremlinsError(f"standard input cannot be read: {error.strerror}") from None
    given = normalised(given)
    if not given.strip():
        raise typer.BadParameter("is empty; nothing was changed", param_hint="TEXT")
    return given.strip() + "\n" if "\n" in given.strip() else given.strip()


def edited(quoted: str) -> str:
    """The text that a person writes in `$VISUAL` or `$EDITOR`, without the quoted lines."""
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    told = [part for line in quoted.splitlines() for part in textwrap.wrap(line, WIDTH) or [""]]
    ours = [f"{COMMENT}{line}".rstrip() for line in (*told, "", "Write above; these lines are left out.")]
    with tempfile.TemporaryDirectory(prefix="gremlins-") as folder:
        path = Path(folder) / "TEXT.md"
        path.write_text("\n" + "".join(f"{line}\n" for line in ours))
        try:
            done = subprocess.run([*shlex.split(editor), str(path)], check=False)
        except OSError as error:
            raise NotReady(f"the editor `{editor}` cannot be started: {error.strerror}", hint="set EDITOR") from None
        if done.returncode:
            raise NotReady(f"the editor `{editor}` ended with {done.returncode}; nothing was changed")
        lines = path.read_text(errors="replace").splitlines()
    return "\n".join(line for line in lines if line.rstrip() not in ours)
