"""`gremlins simulate`."""

from __future__ import annotations

import sys

import typer

from gremlins.cli.out import say


def simulate(
    port: int = typer.Option(8787, "--port", help="0 takes a free one."),
    latency: float = typer.Option(5.0, "--latency", metavar="S", help="Seconds a batch takes."),
) -> int:
    """Run a local Messages and Batches API. It is a simulator, and no model: its change is to add a file."""
    from gremlins.simulator import Options, RulesModel, serve_forever  # only here is it needed

    serve_forever(Options(port=port, latency=latency), announce=_announce, model=RulesModel(adds_example=True))
    return 0


def _announce(text: str) -> None:
    say(text)
    sys.stdout.flush()
