"""The needs of a gremlin that its host must meet: the kinds of calls that its stages will make."""

from __future__ import annotations

from collections.abc import Iterable


def queue_of(kinds: Iterable[str]) -> str:
    """The queue of the steps that need these kinds of calls (`claude-batch`)."""
    return "+".join(sorted(kinds)) or "anything"
