"""`gremlins doctor`: is everything as it should be, and what to do about what is not."""

from __future__ import annotations

import json as jsonlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from gremlins.cli.out import Styled, columns, dump, fitted, printable, say
from gremlins.errors import GremlinsError, NotReady
from gremlins.paths import Home

if TYPE_CHECKING:
    from gremlins.fleet.doctor import Check, Health

MARKS = {"ok": "ok", "info": "note", "warning": "warning", "problem": "problem", "not_ready": "NOT READY"}
COLOURS = {"ok": "32", "info": "2", "warning": "33", "problem": "31", "not_ready": "1;31"}


ORDER = tuple(MARKS)
"""From the best to the worst: a person reads the end first."""


def doctor(
    json: bool = typer.Option(False, "--json", help="One JSON document."),
    settings: bool = typer.Option(False, "--settings", help="Every setting, those at their defaults too."),
) -> int:
    """Look at git, credentials (by a call that costs nothing), binaries, settings, disk and records."""
    from gremlins.fleet.doctor import examine  # pydantic, the providers: only here are all of them looked at

    health = examine(Home.from_env(), Path.cwd(), dict(os.environ))
    if json:
        dump(as_json(health))
    else:
        _tell(health, every_setting=settings)
    if health.worst is None:
        return 0
    kind = NotReady if health.worst.verdict == "not_ready" else GremlinsError
    raise kind(f"{health.worst.name}: {health.worst.detail}", hint=health.worst.hint)


def as_json(health: Health) -> dict[str, object]:
    return {
        "ok": health.worst is None,
        "checks": [{"name": c.name, "verdict": c.verdict, "detail": c.detail, "hint": c.hint} for c in health.checks],
        "settings": [{"key": s.key, "value": s.value, "source": s.source} for s in health.settings],
    }


def _tell(health: Health, *, every_setting: bool) -> None:
    """Print good news first, then the settings, then the problems."""
    width = max(len(check.name) for check in health.checks)
    checks = sorted(health.checks, key=lambda check: ORDER.index(check.verdict))
    well = [check for check in checks if check.verdict in ("ok", "info")]
    for check in well:
        _tell_check(check, width)
    shown = [s for s in health.settings if every_setting or s.source != "default"]
    if shown:
        say("\nsettings" if every_setting else "\nchanged settings (`--settings` shows all)")
        rows = [(f"  {s.key}", _value(s.value), s.source) for s in shown]
        for line in columns(rows, ("", "", ""))[1:]:
            for part in fitted(line):
                say(part)
    say()
    for check in checks[len(well) :]:
        _tell_check(check, width)
    if health.worst is None:
        say("all is well")


def _tell_check(check: Check, width: int) -> None:
    mark = Styled(f"{MARKS[check.verdict]:<9}", str(COLOURS[check.verdict]))
    margin = " " * (13 + width)
    first, *more = fitted(f"{' ' * 11}{check.name:<{width}}  {printable(check.detail)}")
    if check.hint and check.verdict != "ok":
        more += fitted(f"{margin}→ {printable(check.hint)}")
    say(mark, first[9:])
    for line in more:
        say(line)


def _value(value: object) -> str:
    return "none" if value is None else value if isinstance(value, str) else jsonlib.dumps(value, ensure_ascii=False)
