"""`gremlins board`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import typer

from gremlins.cli.out import say
from gremlins.errors import NotReady
from gremlins.paths import Home


def board(
    port: int = typer.Option(None, "--port", min=0, max=65535, metavar="N", help="0 takes a free one. [default: 8797]"),
    no_open: bool = typer.Option(False, "--no-open", help="Only print the link."),
) -> int:
    """Show the fleet, the beads and the money on a page of this machine, until Ctrl-C."""
    try:
        from gremlins.web.server import DEFAULT_PORT, serve  # the extra
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("gremlins"):
            raise
        raise NotReady("the board needs an extra", hint="pip install 'gremlins-fleet[web]'") from None

    def announce(link: str) -> None:
        say("The board is here, for you alone:\n")
        say(f"  {link}\n")
        say("Ctrl-C ends it; the gremlins go on.")
        sys.stdout.flush()
        has_screen = sys.platform == "darwin" or any(name in os.environ for name in ("DISPLAY", "WAYLAND_DISPLAY"))
        if has_screen and not no_open:
            import webbrowser  # only where a person wants it

            webbrowser.open(link)

    serve(Home.from_env(), Path.cwd(), DEFAULT_PORT if port is None else port, announce=announce)
    return 0
