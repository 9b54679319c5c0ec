"""Serves the board on 127.0.0.1 until Ctrl-C."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from pathlib import Path

import uvicorn

from gremlins.clock import SystemClock
from gremlins.errors import GremlinsError
from gremlins.paths import Home
from gremlins.web.app import Board
from gremlins.web.gate import Gate, token_of

DEFAULT_PORT = 8797


def serve(home: Home, folder: Path, port: int, *, announce: Callable[[str], None]) -> None:
    """Listen, announce the link with the token, and serve. Raises GremlinsError if the port is taken."""
    token = token_of(home)
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
    except OSError as error:
        listener.close()
        taken = "is taken" if error.errno == errno.EADDRINUSE else f"cannot be used: {error.strerror}"
        raise GremlinsError(f"port {port} {taken}", hint="another one: --port N, or 0 for a free one") from None
    listener.listen(64)  # a reader of the link may come at once
    port = listener.getsockname()[1]
    gate = Gate(Board(home, SystemClock(), folder).app(), token, port)
    config = uvicorn.Config(
        gate, log_level="error", access_log=False, timeout_graceful_shutdown=1, server_header=False, lifespan="off"
    )
    announce(f"http://127.0.0.1:{port}/?token={token}")
    uvicorn.Server(config).run(sockets=[listener])
