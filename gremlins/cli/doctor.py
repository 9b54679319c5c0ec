"""`gremlins doctor`: is everything as it should be, and what to do about what is not."""

from __future__ import annotations

import json as jsonlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from gremlins.cli.out import Styled, columns, dump, printable, say
from gremlins.paths import Home

if TYPE_CHECKING:
    from gremlins.fleet.doctor import Check, Health

MARKS = {"ok": "ok", "info": "note", "warning": "warning", "problem": "problem", "not_ready": "NOT READY"}
COLOURS = {"ok": "32", "info": "2", "warning": "33", "problem": "31", "not_ready": "1;31"}


def doctor(json: bool = typer.Option(False, "--json", help="One JSON document.")) -> int:
    """Look at git, credentials (by a call that costs nothing), binaries, settings, disk and records."""
    from gremlins.fleet.doctor import examine  # pydantic, the providers: only here are all of them looked at

    health = examine(Home.from_env(), Path.cwd(), dict(os.environ))
    if json:
        dump(as_json(health))
    else:
        _tell(health)
    return health.exit_code


def as_json(health: Health) -> dict[str, object]:
    return {
        "ok": health.exit_code == 0,
        "checks": [{"name": c.name, "verdict": c.verdict, "detail": c.detail, "hint": c.hint} for c in health.checks],
        "settings": [{"key": s.key, "value": s.value, "source": s.source} for s in health.settings],
    }


def _tell(health: Health) -> None:
    width = max(len(check.name) for check in health.checks)
    for check in health.checks:
        _tell_check(check, width)
    if health.settings:
        say("\nsettings")
        rows = [(f"  {s.key}", _value(s.value), s.source) for s in health.settings]
        for line in columns(rows, ("", "", ""))[1:]:
            say(line)
    say()
    say(
        {0: "all is well", 1: "there are problems, see above", 5: "not ready: nothing can be launched, see above"}[
            health.exit_code
        ]
    )


def _tell_check(check: Check, width: int) -> None:
    mark = Styled(f"{MARKS[check.verdict]:<9}", str(COLOURS[check.verdict]))
    say(mark, f"  {check.name:<{width}}  {printable(check.detail)}")
    if check.hint and check.verdict != "ok":
        say(f"{'':9}  {'':{width}}  → {printable(check.hint)}")


def _value(value: object) -> str:
    return "none" if value is None else value if isinstance(value, str) else jsonlib.dumps(value, ensure_ascii=False)
