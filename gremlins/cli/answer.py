"""`gremlins answer`."""

from __future__ import annotations

import os

import typer

from gremlins.cli.completion import complete_ids
from gremlins.cli.out import say
from gremlins.cli.persons_text import read_text
from gremlins.clock import SystemClock
from gremlins.fleet.observe import resolve
from gremlins.fleet.status import look
from gremlins.paths import Home


def answer(
    gremlin_id: str = typer.Argument(..., metavar="ID", autocompletion=complete_ids),
    text: str = typer.Argument(None, help="Your answer; `-` reads standard input, none opens your editor."),
) -> int:
    """Answer what a bailed gremlin asks: the stage that asked is asked again, with question and answer."""
    from gremlins.fleet.answer import answer as give  # pydantic: only for the verbs that act
    from gremlins.fleet.answer import question_of
    from gremlins.fleet.dispatch.ownership import adopt

    home, clock = Home.from_env(), SystemClock()
    name = resolve(home, gremlin_id)
    question = question_of(look(home, name, clock))
    said = read_text(text, quoted=question)
    adopt(home, name, clock, kind="answered")
    stage = give(home, name, said, clock=clock, env=dict(os.environ))
    adopt(home, name, clock, kind="answered", went_on=True)
    say(f"{name}: {stage} is asked again, with your answer")
    return 0
