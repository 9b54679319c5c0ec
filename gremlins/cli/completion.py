"""Shell completion: ids with their titles, pipelines. Reads little, and never fails."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from gremlins.errors import GremlinsError
from gremlins.fleet.observe import ids
from gremlins.paths import Home
from gremlins.records.gremlin import read_record

PROJECT_PIPELINES = Path(".gremlins") / "pipelines"


def completed_words(env: Mapping[str, str]) -> list[str]:
    """The words on the command line that a shell asks us to complete; none when it does not ask."""
    if "_GREMLINS_COMPLETE" not in env:
        return []
    return (env.get("COMP_WORDS") or env.get("_TYPER_COMPLETE_ARGS") or "").split()


def complete_ids(incomplete: str) -> list[tuple[str, str]]:
    """Ids that begin like this, each with the first words of its task."""
    home = Home.from_env()
    found = []
    with contextlib.suppress(OSError):
        for name in sorted(ids(home)):
            if name.startswith(incomplete):
                with contextlib.suppress(GremlinsError):
                    found.append((name, read_record(str(home.gremlin(name).root)).title))
    return found


def complete_pipelines(incomplete: str) -> list[str]:
    """Names of pipelines, the project's own and the built-in ones."""
    import gremlins

    folders = [folder / PROJECT_PIPELINES for folder in (Path.cwd(), *Path.cwd().parents)]
    return _starting(incomplete, _names([*folders, Path(gremlins.__file__).parent / "pipelines"]))


def _names(folders: Iterable[Path]) -> set[str]:
    found: set[str] = set()
    for folder in folders:
        with contextlib.suppress(OSError):
            found.update(name.removesuffix(".yaml") for name in os.listdir(folder) if name.endswith(".yaml"))
    return found


def _starting(incomplete: str, names: Iterable[str]) -> list[str]:
    return sorted(name for name in names if name.startswith(incomplete))


def complete_modes(incomplete: str) -> list[str]:
    return _starting(incomplete, ("live", "batch"))
