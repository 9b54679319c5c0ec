"""`gremlins revise`."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import typer

from gremlins.cli.completion import complete_ids
from gremlins.cli.out import say
from gremlins.cli.persons_text import read_text
from gremlins.clock import SystemClock
from gremlins.errors import GremlinsError
from gremlins.files import LARGEST_FILE, read_given
from gremlins.fleet.observe import resolve
from gremlins.fleet.status import look
from gremlins.paths import Home
from gremlins.records.gremlin import Remark
from gremlins.text import normalised


def revise(
    gremlin_id: str = typer.Argument(..., metavar="ID", autocompletion=complete_ids),
    text: str = typer.Argument(None, help="Your remarks; `-` reads standard input, none opens your editor."),
    comments: Path = typer.Option(
        None, "--comments", metavar="FILE", help='One JSON object a line: {"path", "line", "text"}.'
    ),
) -> int:
    """Send a finished gremlin back with remarks: one more round of address_code, and verify where there is one."""
    from gremlins.fleet.dispatch.ownership import adopt
    from gremlins.fleet.revise import refuse_unless_revisable  # pydantic: only for the verbs that act
    from gremlins.fleet.revise import revise as send_back

    home, clock = Home.from_env(), SystemClock()
    name = resolve(home, gremlin_id)
    row = look(home, name, clock)
    refuse_unless_revisable(row)
    remarks = _comments(comments) if comments is not None else []
    if text is not None or not remarks:
        quoted = f"Remarks on {name}: {row.record.title}"
        remarks.insert(0, Remark(text=read_text(text, quoted=quoted)))
    adopt(home, name, clock, restart=True)
    number = send_back(home, name, remarks, clock=clock, env=dict(os.environ))
    count = f"{len(remarks)} remark{'s' if len(remarks) != 1 else ''}"
    say(f"{name}: round {number} of revision begins, with {count}")
    return 0


class _Comment(Remark, frozen=True, forbid_unknown_fields=True):
    """One line of the file of comments."""


def _comments(path: Path) -> list[Remark]:
    """The comments of a file; all or nothing. Raises GremlinsError that names the line."""
    try:
        lines = read_given(path, LARGEST_FILE).splitlines()
    except OSError as error:
        raise GremlinsError(f"the comments cannot be read: {path}: {error.strerror}") from None
    found: list[Remark] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            comment = msgspec.json.decode(line, type=_Comment)
            if not comment.text.strip():
                raise ValueError("`text` is empty")
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            hint = 'each line is {"path": "src/a.py", "line": 12, "text": "…"}; line may be left out'
            raise GremlinsError(f"{path}:{number}: not a comment ({error})", hint=hint) from None
        path_ = None if comment.path is None else normalised(comment.path)
        found.append(Remark(text=normalised(comment.text), path=path_, line=comment.line))
    if not found:
        raise GremlinsError(f"there are no comments in {path}")
    return found
