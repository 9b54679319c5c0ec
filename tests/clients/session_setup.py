"""The session of a client under test: a real worktree and ledger; waits are only noted."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from gremlins.clients.base import Room, Session, Wait
from gremlins.clock import Clock, FakeClock, SystemClock
from gremlins.config import LiveSettings, Settings
from gremlins.files import make_private_dir
from gremlins.paths import GremlinPaths
from gremlins.records.calls import CallRecord, Cost, Ledger

QUICK = LiveSettings(resume_backoff=(0.0, 0.0, 0.0))
SECRET = "sk-ant-test-0123456789abcdef"


def _price(model: str, usage: Mapping[str, Any], *, batch: bool, at: datetime) -> Cost:
    """Three dollars a million tokens in, fifteen out; models that are not Claude's have no price."""
    if not model.startswith("claude-"):
        return Cost(usd=None)
    live = usage.get("input_tokens", 0) * 3e-6 + usage.get("output_tokens", 0) * 15e-6
    return Cost(usd=live / 2 if batch else live, live_usd=live)


@dataclass
class SessionSetup:
    """One gremlin's folder and worktree, and the session of its present spawn."""

    root: Path
    worktree: Path
    env: dict[str, str] = field(default_factory=dict)
    live: LiveSettings = QUICK
    clock: Clock = field(default_factory=SystemClock)
    spawn: int = 1
    lines: list[str] = field(default_factory=list)
    waits: list[Wait] = field(default_factory=list)
    stopping: Callable[[], None] = lambda: None
    guard: Callable[[], None] = lambda: None
    more: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        paths = GremlinPaths(self.root)
        make_private_dir(paths.calls)
        self.ledger = Ledger(paths)
        self.env = {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], **self.env}

    def session(self) -> Session:
        own: dict[str, Any] = {
            "gremlin_id": "g",
            "ledger": self.ledger,
            "settings": Settings(live=self.live),
            "clock": self.clock,
            "env": self.env,
            "worktree": self.worktree,
            "price": _price,
            "park": self._park,
            "spawn": self.spawn,
            "log": self.lines.append,
            "check": lambda: self.stopping(),
            "room": self._room,
        }
        return Session(**{**own, **self.more})

    @contextlib.contextmanager
    def _room(self, request: Mapping[str, Any], client: str, *, batch: bool, counted: int = 0) -> Iterator[Room | Wait]:
        self.guard()
        yield Room(worst_usd=0.25)

    def _park(self, wait: Wait) -> None:
        self.waits.append(wait)
        if isinstance(self.clock, FakeClock):
            self.clock.advance(max(0.0, (wait.until - self.clock.now()).total_seconds()))

    def respawned(self) -> SessionSetup:
        """The same gremlin after a rescue."""
        return replace(self, spawn=self.spawn + 1, waits=[], lines=[], stopping=lambda: None)

    @property
    def records(self) -> list[CallRecord]:
        return self.ledger.records()

    def everything_said(self) -> str:
        """Every file of the gremlin's folder as one text, without raw output, and its log."""
        files = [p for p in self.root.rglob("*") if p.is_file() and not p.name.endswith(".raw.jsonl")]
        return "\n".join([*(path.read_text(errors="replace") for path in files), *self.lines])
