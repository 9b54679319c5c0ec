"""Reads a Kilo session's events and messages. Nothing runs here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from gremlins.clients.batch.results import classify_status
from gremlins.clients.live.agents import permission_denied
from gremlins.clients.live.process_agent import short
from gremlins.outcome import FailureClass
from gremlins.records.calls import CallFailed, Reply, Usage

_CLASS: dict[str, FailureClass] = {"ProviderAuthError": "config", "MessageOutputLengthError": "task"}
_DENIAL = "rule which prevents"
"""Kilo's words for a tool that its rules deny: it gives no code for it (measured with 7.7)."""


class KiloRun:
    """Listens to one session while it works on one message."""

    def __init__(self, session_id: str | None) -> None:
        self.session_id = session_id
        self.idle = False
        self.heard = 0
        self.last_was_delta = False
        self.changed = False
        """True if the latest event changed the session's cost."""
        self.cost = 0.0
        self.tokens: dict[str, Any] | None = None
        self.error: dict[str, Any] | None = None
        self.permission: str | None = None
        """A permission request, which no person can answer."""
        self.denied: set[str] = set()
        self.turns = 0
        self.retries = 0
        self.retry_message = ""
        self._busy = False

    def hear(self, event: Mapping[str, Any]) -> bool:
        """Take one event. True when it is one of this session's."""
        data = event.get("properties")
        if not isinstance(data, dict) or data.get("sessionID") != self.session_id:
            return False
        self.heard += 1
        self.changed = False
        self.last_was_delta = str(event["type"]).endswith(".delta")
        self._take(str(event["type"]), data)
        return True

    def _take(self, kind: str, data: dict[str, Any]) -> None:
        match kind:
            case "session.status" if isinstance(data.get("status"), dict):
                self._status(data["status"])
            case "session.idle":
                self.idle = self._busy
            case "session.error" if isinstance(data.get("error"), dict):
                self.error = self.error or data["error"]
            case "session.updated" if isinstance(data.get("info"), dict):
                self.take_session(data["info"])
            case "permission.asked":
                self.permission = str(data.get("id"))
                self.denied.add(str(data.get("permission") or "a tool"))
            case "message.part.updated" if isinstance(data.get("part"), dict):
                self._part(data["part"])

    def _status(self, status: Mapping[str, Any]) -> None:
        self._busy = self._busy or status.get("type") == "busy"
        if status.get("type") == "retry":
            self.retries = max(self.retries, int(status.get("attempt") or 0))
            self.retry_message = short(str(status.get("message") or "the provider is overloaded"))

    def _part(self, part: Mapping[str, Any]) -> None:
        self.turns += part.get("type") == "step-finish"
        state = part.get("state")
        if isinstance(state, dict) and state.get("status") == "error" and _DENIAL in str(state.get("error")):
            self.denied.add(str(part.get("tool")))

    def take_session(self, info: object) -> None:
        """The session's own sums, of all its messages so far."""
        if not isinstance(info, dict):
            return
        cost, tokens = info.get("cost"), info.get("tokens")
        if isinstance(cost, int | float) and isinstance(tokens, dict):
            self.changed = self.changed or tokens != self.tokens
            self.cost, self.tokens = float(cost), tokens

    def verdict(self, messages: object, unwrapped: Callable[[str], str]) -> Reply | CallFailed:
        """The result of the session."""
        replies = [m for m in messages if _is_reply(m)] if isinstance(messages, list) else []
        last = replies[-1] if replies else {}
        error = self.error or last.get("info", {}).get("error")
        if isinstance(error, dict):
            return _error(error)
        if self.denied:
            return permission_denied("kilo", self.denied)
        if not replies:
            return CallFailed(failure="unknown", kind="no_result", message="kilo ended without a reply")
        text = "".join(p["text"] for p in last.get("parts", ()) if _is_text(p))
        model, finish = last["info"].get("modelID"), last["info"].get("finish")
        return Reply(
            text=unwrapped(text),
            stop_reason=finish if isinstance(finish, str) else None,  # a record that holds anything else is unreadable
            model=model if isinstance(model, str) else None,
            turns=len(replies),
        )


def _is_reply(message: object) -> bool:
    info = message.get("info") if isinstance(message, dict) else None
    return isinstance(info, dict) and info.get("role") == "assistant"


def _is_text(part: object) -> bool:
    return isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)


def _error(error: Mapping[str, Any]) -> CallFailed:
    data = error.get("data")
    data = data if isinstance(data, dict) else {}
    name, status = str(error.get("name") or "error"), data.get("statusCode")
    message = short(str(data.get("message") or name))
    failure = _CLASS.get(name) or (classify_status(status) if isinstance(status, int) else "unknown")
    if message.startswith("Model not found") or "ModelNotFound" in message:  # it has no code for that
        failure = "config"
    return CallFailed(failure=failure, kind=name, message=message)


def tokens_of(tokens: Mapping[str, Any]) -> Usage:
    """The tokens of a session. Reasoning counts as output."""
    cache = tokens.get("cache")

    def count(name: str, within: object = tokens) -> int:
        value = within.get(name) if isinstance(within, dict) else None
        return value if isinstance(value, int) else 0

    return Usage(
        input_tokens=count("input"),
        output_tokens=count("output") + count("reasoning"),
        cache_read_tokens=count("read", cache),
        cache_write_tokens=count("write", cache),
    )
