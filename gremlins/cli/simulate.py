"""`gremlins simulate`."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from gremlins.cli.out import say
from gremlins.paths import Home

if TYPE_CHECKING:
    from gremlins.simulator import Simulator


def simulate(
    port: int = typer.Option(
        None, "--port", min=0, max=65535, help="0 takes a free one. [default: 8787]", show_default=False
    ),
    latency: float = typer.Option(
        None, "--latency", metavar="S", help="Seconds a batch takes. [default: 5]", show_default=False
    ),
    reply_latency: float = typer.Option(
        None, "--reply-latency", metavar="S", help="Seconds before a live reply begins. [default: 0]"
    ),
    question: str = typer.Option(
        None, "--question", metavar="TEXT", help="Ask this before the first change; `gremlins answer` answers it."
    ),
    script: Path = typer.Option(
        None, "--script", metavar="FILE", help="The replies, as JSON. Without it the change is to add a file."
    ),
    fault: list[str] = typer.Option(
        [], "--fault", metavar="ON:DO", help="Something that goes wrong once: create:drop. `:times=3`, `:status=529` …"
    ),
    state_file: Path = typer.Option(
        None, "--state-file", metavar="FILE", help="Keep the batches there, across restarts."
    ),
    options: Path = typer.Option(
        None, "--options", metavar="FILE", help="Every option there is, as JSON; what is given here comes first."
    ),
) -> int:
    """Run a local Messages and Batches API. It is a simulator, and no model."""
    from gremlins.simulator import Fault, Options, options_from_file, options_from_json, serve_forever
    from gremlins.simulator.scripts import read_script

    if question is not None and script is not None:
        raise typer.BadParameter("is for the model without a script", param_hint="--question")
    base = Options(port=8787, latency=5.0, model={"kind": "example", "question": question or ""})
    if options is not None:
        base = options_from_file(options, base)
    given: dict[str, Any] = {
        "port": port,
        "latency": latency,
        "reply_latency": reply_latency,
        "state_file": None if state_file is None else str(state_file),
        "model": None if script is None else read_script(script),
    }
    settled = options_from_json({key: value for key, value in given.items() if value is not None}, base)
    faults = (*base.faults, *map(Fault.from_words, fault))
    serve_forever(replace(settled, faults=faults), announce=_announce)
    return 0


def _announce(simulator: Simulator) -> None:
    """Print the variables. A state root of its own keeps simulated costs away from the person's own."""
    more = {"GREMLINS_HOME": f"{Home.from_env().root}-simulated", "GREMLINS_BATCH__POLL_INITIAL": "1"}
    wanted = simulator.env | {name: value for name, value in more.items() if name not in os.environ}
    say("A simulator of Anthropic's Messages and Batches API. It is not a model: replies")
    say("follow a script, nothing leaves this machine, nothing is billed.")
    say("In another terminal:\n")
    for name, value in wanted.items():
        say(f"export {name}={value}")
    say("\nCtrl-C ends it.")
    sys.stdout.flush()
