"""`gremlins trust`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from gremlins.cli.out import Styled, note, say
from gremlins.paths import Home

if TYPE_CHECKING:
    from gremlins.repository.trust import BroughtFile, Untrusted


def trust(
    show: bool = typer.Option(False, "--show", help="Show the files that are asked about, and change nothing."),
) -> None:
    """Say yes to the settings, pipelines and prompts that this repository brings."""
    from gremlins.repository.git import find_root
    from gremlins.repository.project import find_project
    from gremlins.repository.trust import asked_about

    home, root = Home.from_env(), find_root(Path.cwd())
    asked = asked_about(root, find_project(root), home) if show else say_yes(home)
    for file in asked:
        if show:
            say(Styled(file.path, "1"))
            for line in file.content.decode(errors="replace").splitlines():
                say(f"  {line}")
        else:
            say(f"trusted  {file.path}")
    if not asked:
        note("nothing here is asked about")


def say_yes(home: Home) -> Sequence[BroughtFile]:
    """Trust what the repository of the current folder brings. Returns the files that were asked about."""
    from gremlins.repository.git import find_root
    from gremlins.repository.project import find_project
    from gremlins.repository.trust import trust as give

    root = find_root(Path.cwd())
    return give(root, find_project(root), home)


def agreed(asked: Untrusted) -> bool:
    """The person's answer to the question; False where there is no terminal to ask on."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    note(f"{asked.message}\n`gremlins trust --show` shows them. They name commands that run on this machine.")
    return typer.confirm("Use them?", default=False, err=True)
