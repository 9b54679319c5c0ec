"""The command line as typer sees it. Only the verb that is used is imported."""

from __future__ import annotations

import importlib
import itertools
import os
from collections.abc import Callable, Sequence
from typing import Any

import typer
from typer.core import TyperCommand, TyperOption

from gremlins import __version__
from gremlins.cli.verbs import ABOUT, VERBS


def build(words: Sequence[str]) -> Callable[..., Any]:
    """The command line for these words: the verb that is named, real; the others only as names in the list."""
    app = typer.Typer(
        no_args_is_help=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["--help"]},
        help=ABOUT,
    )
    app.callback(invoke_without_command=True)(_main)
    wanted = next((word for word in _asked_for(words) if word in VERBS), None)
    for name, verb in VERBS.items():
        if name != wanted:
            app.command(name, help=verb.help)(_placeholder)
        elif verb.is_group:
            group: typer.Typer = importlib.import_module(f"gremlins.cli.{verb.module}").app
            for command in group.registered_commands:
                command.cls = CommandWithText
            app.add_typer(group, name=name, help=verb.help)
        else:
            function = getattr(importlib.import_module(f"gremlins.cli.{verb.module}"), name)
            app.command(name, help=verb.help, cls=CommandWithText)(function)
    return app


class CommandWithText(TyperCommand):
    """A command that takes an argument with blanks for text, also one that begins with a dash (`- [ ] a task`)."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        options = [param for param in self.params if isinstance(param, TyperOption)]
        names = {name for option in options for name in option.opts}
        valued = {name for option in options if not option.is_flag for name in option.opts}
        words: list[str] = []
        texts: list[str] = []
        rest = iter(args)
        for word in rest:
            if word == "--":
                break
            name = word.partition("=")[0]
            is_text = name.startswith("-") and any(map(str.isspace, name)) and name[:2] not in names
            (texts if is_text else words).append(word)
            if word in valued:
                words.extend(itertools.islice(rest, 1))
        return super().parse_args(ctx, [*words, "--", *texts, *rest])


def _asked_for(words: Sequence[str]) -> Sequence[str]:
    """The words of the command line, or those that a shell wants completed: its verb, too, must be there for real."""
    if "_GREMLINS_COMPLETE" not in os.environ:
        return words
    from gremlins.cli.completion import completed_words  # only for a shell

    return completed_words(os.environ)


def _main(
    version: bool = typer.Option(False, "--version", help="Show the version and leave.", is_eager=True),
) -> None:
    if version:
        typer.echo(f"gremlins {__version__}")
        raise typer.Exit


def _placeholder() -> None:
    """Stands for a verb that is not the one being run."""


def usage_errors() -> tuple[type[Any], ...]:
    """The exception of wrong usage: the base of typer's parameter error, which typer does not export."""
    return tuple(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")
