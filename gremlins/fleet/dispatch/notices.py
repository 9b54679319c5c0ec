"""Telling a person what became of beads and breakers, by the `notify` command of the settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from gremlins.fleet.beads.store.interface import Notice
from gremlins.fleet.dispatch.policy import Policy
from gremlins.processes.notify import notify

Tell = Callable[[Notice], None]


def teller(policy: Callable[[], Policy], *, cwd: Path, env: Callable[[], Mapping[str, str]]) -> Tell:
    """How a notice is handed out: to the command of now, which is never waited for and can do no harm."""

    def tell(notice: Notice) -> None:
        notify(policy().notify, notice.payload, env(), cwd)

    return tell
