"""`gremlins bead export` and `import`: beads' `issues.jsonl`, out and in."""

from __future__ import annotations

from pathlib import Path

import typer

from gremlins.cli.bead.look import JSON, tell_old_text
from gremlins.cli.current_project import Here
from gremlins.cli.out import dump, note, say
from gremlins.clock import rfc3339
from gremlins.errors import GremlinsError
from gremlins.files import read_given
from gremlins.fleet.beads.interchange import Imported, exported, import_text
from gremlins.fleet.beads.store.interface import Query
from gremlins.text import escaped

LARGEST_IMPORT = 2**28
"""Bytes."""


def export(
    output: str = typer.Option(None, "-o", "--output", metavar="FILE", help="Instead of standard output."),
) -> int:
    """Write all beads as beads' issues.jsonl."""
    here = Here.find()
    beads = sorted(here.store.beads(here.project, Query()), key=lambda bead: bead.id)
    if output is None or output == "-":
        for line in exported(beads):
            say(escaped(line))
        return 0
    from gremlins.files import write_atomic  # only where a file is asked for

    write_atomic(Path(output).absolute(), "".join(line + "\n" for line in exported(beads)))
    note(f"{len(beads)} beads written to {output}")
    return 0


def import_(
    file: str = typer.Argument(..., metavar="FILE", help="A JSONL file, or - for standard input."),
    json: bool = JSON,
) -> int:
    """Bring in beads' issues.jsonl: all of it, or nothing."""
    here = Here.find()
    name, raw = "<stdin>" if file == "-" else file, _read(file)
    now = here.clock.now()
    done = import_text(here.store, here.project, _text(raw, name), file=name, now=rfc3339(now), at=now.timestamp())
    for bead_id in done.edited:
        tell_old_text(here, bead_id)
    _tell_import(done, json)
    return 0


def _read(file: str) -> bytes:
    try:
        return read_given(file, LARGEST_IMPORT)
    except OSError as error:
        file = "standard input" if file == "-" else file
        raise GremlinsError(f"{file} cannot be read: {error.strerror}") from None


def _text(raw: bytes, name: str) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise GremlinsError(f"{name}:{line}: not UTF-8", hint="nothing was imported") from None


def _tell_import(done: Imported, json: bool) -> None:
    if json:
        counts = {"created": len(done.created), "updated": len(done.updated), "unchanged": len(done.unchanged)}
        counts |= {"older": len(done.older), "skipped": done.skipped, "held": len(done.held)}
        dump(counts)
        return
    parts = [
        f"{len(done.created)} created",
        f"{len(done.updated)} updated",
        f"{len(done.unchanged)} unchanged",
        f"{len(done.older)} older than ours" if done.older else "",
        f"{done.skipped} skipped" if done.skipped else "",
        f"{len(done.held)} held: `gremlins bead list -b held` says why" if done.held else "",
    ]
    say(", ".join(part for part in parts if part))
