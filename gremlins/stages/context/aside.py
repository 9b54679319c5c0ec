"""Packs in a child process with limits: what a foreign repository holds can hang or fill only that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gremlins.clients.base import Session
from gremlins.stages.context.pack import Subject, build_pack
from gremlins.stages.context.showing import LeftOut, Pack, PackEntry
from gremlins.stages.context.supply import supply
from gremlins.stages.wants import Need, Want


def pack_aside(session: Session, subject: Subject, *, budget: int) -> Pack:
    """`build_pack` of the session's worktree in a child. Raises OverLimit, GremlinsError, and Terminated."""
    return _asked(session, {"budget": budget, "subject": asdict(subject)})


def supply_aside(session: Session, need: Need, shown: str, *, budget: int) -> Pack:
    """`supply` in a child. Raises the same."""
    return _asked(session, {"budget": budget, "need": asdict(need), "shown": shown})


def _asked(session: Session, order: Mapping[str, Any]) -> Pack:
    order = {**order, "root": str(session.worktree)}
    found = session.run_limited(__name__, order, what="choosing what the model is shown", check=session.check)
    entries = tuple(PackEntry(**entry) for entry in found["entries"])
    left_out = tuple(LeftOut(**item) for item in found["left_out"])
    return Pack(found["text"], entries, found["tokens"], found["budget"], left_out)


def work(order: Mapping[str, Any]) -> dict[str, Any]:
    """The child's part."""
    root, budget = Path(order["root"]), int(order["budget"])
    if "need" in order:
        wants = tuple(Want(**want) for want in order["need"]["wants"])
        return asdict(supply(root, Need(wants), order["shown"], budget=budget))
    subject = {**order["subject"], "needs": tuple(order["subject"]["needs"])}
    return asdict(build_pack(root, Subject(**subject), budget=budget))
