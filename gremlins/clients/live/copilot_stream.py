"""Reads the Copilot CLI's JSON lines. Nothing runs here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from gremlins.clients.batch.results import classify_status
from gremlins.clients.live.agents import permission_denied
from gremlins.clients.live.process import Exit
from gremlins.clients.live.process_agent import EventStream, short, without_result
from gremlins.clients.next_step import NO_SESSION
from gremlins.outcome import FailureClass
from gremlins.records.calls import CallFailed, Reply, Usage

_CLASS: dict[str, FailureClass] = {
    "authentication": "config",
    "authorization": "config",
    "rate_limit": "capacity",
    "quota": "credit",
    "context_limit": "task",
}

_NO_SESSION = re.compile(r"No session\b[^\n]{0,40} matched")
"""Copilot's words, which differ between versions (measured): it gives no code for it."""


class CopilotStream(EventStream):
    """Listens to one run."""

    def __init__(self) -> None:
        super().__init__()
        self.error: dict[str, Any] | None = None
        self.denied: list[str] = []
        self.calls = 0
        self.text = ""
        self.model: str | None = None
        self._tools: dict[str, str] = {}

    def take(self, event: dict[str, Any]) -> None:
        kind = event["type"]
        self.last_was_delta = kind.endswith("_delta")
        data = event["data"] if isinstance(event.get("data"), dict) else {}
        match kind:
            case "assistant.message":
                self.turns += 1
                self.model = data["model"] if isinstance(data.get("model"), str) else self.model
                self.text = data["content"] if data.get("content") and isinstance(data["content"], str) else self.text
            case "model.call_finished":
                self.calls += data.get("outcome") == "success"
            case "tool.execution_start":
                self._tools[str(data.get("toolCallId"))] = str(data.get("toolName"))
            case "tool.execution_complete":
                error = data.get("error")
                if isinstance(error, dict) and error.get("code") == "denied":
                    self.denied.append(self._tools.get(str(data.get("toolCallId")), "a tool"))
            case "session.error":
                self.error = data
            case "result":
                self.result = event
                if isinstance(event.get("sessionId"), str):
                    self.session_id = event["sessionId"]


def verdict(stream: CopilotStream, ended: Exit) -> Reply | CallFailed:
    """The result of a run."""
    if stream.error is not None:
        return _error(stream.error)
    if stream.result is None:
        if _NO_SESSION.search(ended.stderr):
            return CallFailed(failure="unknown", kind=NO_SESSION, message="copilot no longer has the session")
        return without_result("copilot", ended, stream)
    if stream.denied:
        return permission_denied("copilot", stream.denied)
    if stream.result.get("exitCode") not in (0, None):
        message = f"copilot ended with {stream.result.get('exitCode')} and did not say why"
        return CallFailed(failure="unknown", kind="error", message=message)
    return Reply(text=stream.text, stop_reason="end_turn", model=stream.model, turns=max(1, stream.turns))


def _error(error: Mapping[str, Any]) -> CallFailed:
    kind, status = str(error.get("errorType") or "error"), error.get("statusCode")
    message = short(str(error.get("message") or "no reason given"))
    failure = _CLASS.get(kind) or (classify_status(status) if isinstance(status, int) else "unknown")
    if failure == "unknown" and "prompt budget" in message:  # too long, and refused before it was sent: without a code
        failure = "task"
    return CallFailed(failure=failure, kind=kind, message=message)


def tokens_of(metrics: Mapping[str, Any]) -> Usage:
    """The tokens of a session, all its models together. `inputTokens` holds what was read from the cache too."""

    def total(name: str) -> int:
        usages = [m.get("usage") for m in metrics.values() if isinstance(m, dict)]
        return sum(u[name] for u in usages if isinstance(u, dict) and isinstance(u.get(name), int))

    read, written = total("cacheReadTokens"), total("cacheWriteTokens")
    return Usage(
        input_tokens=max(0, total("inputTokens") - read - written),
        output_tokens=total("outputTokens"),
        cache_read_tokens=read,
        cache_write_tokens=written,
    )
