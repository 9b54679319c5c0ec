"""Shell completion: ids and pipelines, names of safe characters only. Reads little, and never fails."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from gremlins.errors import GremlinsError
from gremlins.fleet.observe import ids
from gremlins.paths import Home

PROJECT_PIPELINES = Path(".gremlins") / "pipelines"
_SAFE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


def completed_words(env: Mapping[str, str]) -> list[str]:
    """The words on the command line that a shell asks us to complete; none when it does not ask."""
    if "_GREMLINS_COMPLETE" not in env:
        return []
    return (env.get("COMP_WORDS") or env.get("_TYPER_COMPLETE_ARGS") or "").split()


def complete_ids(incomplete: str) -> list[str]:
    """Ids that begin like this."""
    with contextlib.suppress(OSError, GremlinsError):
        return _starting(incomplete, ids(Home.from_env()))
    return []


def complete_pipelines(incomplete: str) -> list[str]:
    """Names of pipelines, the built-in ones and those at the root of the repository."""
    import gremlins

    here = Path.cwd()
    root = next((folder for folder in (here, *here.parents) if (folder / ".git").exists()), here)
    return _starting(incomplete, _names([root / PROJECT_PIPELINES, Path(gremlins.__file__).parent / "pipelines"]))


def _names(folders: Iterable[Path]) -> set[str]:
    found: set[str] = set()
    for folder in folders:
        with contextlib.suppress(OSError):
            found.update(name.removesuffix(".yaml") for name in os.listdir(folder) if name.endswith(".yaml"))
    return found


def _starting(incomplete: str, names: Iterable[str]) -> list[str]:
    """Names are of files that others may have made, and zsh evaluates what it is offered."""
    return sorted(name for name in names if name.startswith(incomplete) and _SAFE_NAME.fullmatch(name))


def complete_modes(incomplete: str) -> list[str]:
    return _starting(incomplete, ("live", "batch"))
