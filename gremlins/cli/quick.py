"""The shortest way for what is typed most (`status`, `--help`, `--version`), without the parser of all the other verbs
(80 ms, and pydantic). What it does not understand at once is left to that parser; a test holds the two together."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from typing import Any

from gremlins import __version__
from gremlins.cli.verbs import ABOUT, GLOBALS, VERBS


def quick(words: Sequence[str]) -> int | None:
    """Carry it out and return the exit code; None leaves it to the parser."""
    if "_GREMLINS_COMPLETE" in os.environ:
        return None
    if list(words) == ["--help"]:
        sys.stdout.write(help_text())
        return 0
    if list(words) == ["--version"]:
        sys.stdout.write(f"gremlins {__version__}\n")
        return 0
    if words[0] != "status":
        return None
    options = status_options(words[1:])
    if options is None:
        return None
    from gremlins.cli.fleet_view import show_fleet  # `--help` has no use for it

    if options["watch"] is None:
        gc.disable()  # of ten thousand rows none is garbage before the end
    return show_fleet(**options)


def status_options(words: Sequence[str]) -> dict[str, Any] | None:
    """The arguments of `show_fleet`; None for what is not plainly one of them."""
    flags = {"--json": "json", "--here": "here", "--all": "everything"}
    found: dict[str, Any] = {"json": False, "here": False, "everything": False, "watch": None}
    names: list[str] = []
    rest = iter(words)
    for word in rest:
        if word in flags:
            found[flags[word]] = True
        elif word == "--watch":
            found["watch"] = _number(next(rest, ""))
            if found["watch"] is None:
                return None
        elif word.startswith("-"):
            return None
        else:
            names.append(word)
    return {"names": tuple(names), **found}


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def help_text() -> str:
    """The text of `gremlins --help`."""
    wide, width = max(map(len, GLOBALS)), max(map(len, VERBS))
    options = [f"  {name:<{wide}}  {text}" for name, text in GLOBALS.items() if name != "-h"]
    verbs = [f"  {name:<{width}}  {verb.help}" for name, verb in VERBS.items()]
    return "\n".join(
        [
            "Usage: gremlins [OPTIONS] COMMAND [ARGS]...",
            "",
            f"  {ABOUT}",
            "",
            "Options:",
            *options,
            "",
            "Commands:",
            *verbs,
            "",
            "`gremlins COMMAND --help` says more of each.",
            "",
        ]
    )
