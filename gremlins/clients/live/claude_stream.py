"""Reads Claude Code's stream-json output. Nothing runs here."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from gremlins.clients.batch.results import classify_status
from gremlins.clients.live.agents import permission_denied
from gremlins.clients.live.process import Exit
from gremlins.clients.live.process_agent import EventStream, short, without_result
from gremlins.clients.next_step import MAX_BUDGET, NO_SESSION
from gremlins.outcome import FailureClass
from gremlins.records.calls import CallFailed, Reply

ABSURD_USD = 1e6
_LIMIT = re.compile(r"usage limit|hit your limit|limit reached", re.IGNORECASE)
_LOGIN = re.compile(r"invalid api key|please run /login|not logged in|oauth token", re.IGNORECASE)
_CREDIT = re.compile(r"credit balance is too low|spend(?:ing)? limit", re.IGNORECASE)
_NO_SESSION = re.compile(r"no conversation found with session id", re.IGNORECASE)
_STATUS = re.compile(r"API Error: (\d{3})\b")
_EPOCH = re.compile(r"\|(\d{10})\b")

_CLASS_OF_KIND: dict[str, FailureClass] = {
    "authentication_failed": "config",
    "oauth_org_not_allowed": "config",
    "model_not_found": "config",
    "billing_error": "credit",
    "rate_limit": "capacity",
    "overloaded": "capacity",
    "server_error": "capacity",
    "invalid_request": "task",
    "max_output_tokens": "task",
}
"""The word that Claude Code puts beside the message that stands for an API error (measured with 2.1)."""
_TASK_ENDS = frozenset({"error_max_turns", "error_max_structured_output_retries"})


class ClaudeStream(EventStream):
    """Listens to one run."""

    def __init__(self) -> None:
        super().__init__()
        self.usages: dict[str, tuple[str, dict[str, Any]]] = {}
        """Model and usage of each message, by message id: one message comes in several lines."""
        self.limit: dict[str, Any] | None = None
        self.error: str | None = None
        """The kind of the API error that the last message stands for."""
        self._text = ""
        self._streaming: str | None = None

    def take(self, event: dict[str, Any]) -> None:
        if isinstance(event.get("session_id"), str):
            self.session_id = event["session_id"]
        inner = event.get("event")
        self.last_was_delta = isinstance(inner, dict) and str(inner.get("type")).startswith("content_block_")
        match event["type"]:
            case "assistant" if isinstance(event.get("message"), dict):
                self.error = event["error"] if isinstance(event.get("error"), str) else None
                self._message(event["message"])
            case "stream_event" if isinstance(event.get("event"), dict):
                self._partial(event["event"])
            case "rate_limit_event" if isinstance(event.get("rate_limit_info"), dict):
                self.limit = event["rate_limit_info"]
            case "result":
                self.result = event

    def _message(self, message: dict[str, Any]) -> None:
        usage, key = message.get("usage"), message.get("id")
        model = str(message.get("model") or "")
        if isinstance(usage, dict) and isinstance(key, str) and not model.startswith("<"):  # <synthetic> is no model
            before = self.usages.get(key, (model, {}))[1]
            self.usages[key] = (model, merge_usage(before, usage))
            self.reports += not before
            self.turns = len(self.usages)
        content = message.get("content")
        if isinstance(content, list):
            texts = [b["text"] for b in content if isinstance(b, dict) and isinstance(b.get("text"), str)]
            self._text = "".join(texts) or self._text

    def _partial(self, event: dict[str, Any]) -> None:
        """The events of the API's own stream. Only `message_delta` knows how many tokens came out in the end."""
        if event.get("type") == "message_start" and isinstance(event.get("message"), dict):
            self._streaming = str(event["message"].get("id"))
            self._message({**event["message"], "content": None})
        elif event.get("type") == "message_delta" and isinstance(event.get("usage"), dict):
            model, before = self.usages.get(self._streaming or "", ("", {}))
            if self._streaming and before:
                self.usages[self._streaming] = (model, merge_usage(before, event["usage"]))
                self.reports += 1

    def reply(self) -> Reply:
        """The final text, of a run whose result is a success."""
        result = self.result or {}
        structured = result.get("structured_output")
        said = result.get("result")
        text = json.dumps(structured) if structured is not None else said if isinstance(said, str) else self._text
        turns = result.get("num_turns")
        stop = result.get("stop_reason")
        return Reply(
            text=text,
            stop_reason=stop if isinstance(stop, str) else None,
            model=next((model for model, _ in reversed(self.usages.values()) if model), None),
            turns=turns if isinstance(turns, int) and turns > 0 else 1,
        )

    def own_cost(self) -> float | None:
        """The provider's figure, where it gives one that can be."""
        cost = (self.result or {}).get("total_cost_usd")
        if not isinstance(cost, int | float) or isinstance(cost, bool) or not 0 <= cost < ABSURD_USD:
            return None
        return None if cost == 0 and any(_tokens(usage) for _, usage in self.usages.values()) else float(cost)


def cost_of_run(own: float, by_tokens: float | None, reported: float) -> float:
    """USD of one run of a session, out of the binary's own figure.

    Some versions of the binary report the sum of a session's runs, others the run alone (measured both). So the figure
    is taken that is nearer to the run's tokens at their price. reported: USD of the session's runs that came to their
    end; one that was killed is in no sum.
    """
    rest = round(own - reported, 10)
    if not by_tokens:
        return rest if rest >= 0 else own
    return min((usd for usd in (own, rest) if usd > 0), key=lambda usd: abs(math.log(usd / by_tokens)), default=own)


def merge_usage(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Two reports on one message: each count is the larger one, for they only ever grow."""
    merged = dict(before)
    for name, value in after.items():
        old = merged.get(name)
        if isinstance(value, int) and isinstance(old, int):
            merged[name] = max(value, old)
        elif value is not None:
            merged[name] = value
    return merged


def add_usage(total: Mapping[str, Any], usage: Mapping[str, Any]) -> dict[str, Any]:
    """The sum of two messages' usage; what cannot be added is the later one's."""
    summed = dict(total)
    for name, value in usage.items():
        old = summed.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            summed[name] = value + (old if isinstance(old, int) else 0)
        elif isinstance(value, Mapping):
            summed[name] = add_usage(old if isinstance(old, Mapping) else {}, value)
        elif value is not None:
            summed[name] = value
    return summed


def _tokens(usage: Mapping[str, Any]) -> int:
    return sum(v for k, v in usage.items() if k.endswith("_tokens") and isinstance(v, int))


def verdict(stream: ClaudeStream, ended: Exit) -> Reply | CallFailed:
    """The result of a run. Neither its exit code nor the word `success` can be trusted (measured)."""
    result = stream.result
    if result is None:
        return _without_result(stream, ended)
    if result.get("stop_reason") == "refusal":
        return CallFailed(failure="permanent", kind="refusal", message=short(_error_text(result)))
    if result.get("is_error") or str(result.get("subtype", "")).startswith("error"):
        return _error(stream, result)
    denials = result.get("permission_denials")
    if isinstance(denials, list) and denials:
        return permission_denied("claude", (str(d.get("tool_name")) for d in denials if isinstance(d, dict)))
    if result.get("stop_reason") == "max_tokens":
        return CallFailed(failure="task", kind="max_tokens", message="the reply was cut off at its token limit")
    return stream.reply()


def _session_gone() -> CallFailed:
    return CallFailed(failure="unknown", kind=NO_SESSION, message="claude no longer has the session")


def _without_result(stream: ClaudeStream, ended: Exit) -> CallFailed:
    if _NO_SESSION.search(ended.stderr):
        return _session_gone()
    return without_result("claude", ended, stream)


def _error(stream: ClaudeStream, result: Mapping[str, Any]) -> CallFailed:
    text = _error_text(result)
    if result.get("subtype") == "error_during_execution" and _NO_SESSION.search(text):
        return _session_gone()
    if result.get("subtype") == "error_max_budget_usd":
        return CallFailed(failure="credit", kind=MAX_BUDGET, message="claude has spent what a spending cap left for it")
    until = _limit_ends(stream.limit, text)
    if until is not None or _LIMIT.search(text):
        return CallFailed(failure="capacity", kind="usage_limit", message=short(text), retry_at=until)
    status = result.get("api_error_status")
    status = status if isinstance(status, int) else None
    failure = _class_of(stream.error, status, str(result.get("subtype", "")), text)
    kind = stream.error or (f"http_{status}" if status else str(result.get("subtype") or "error"))
    return CallFailed(failure=failure, kind=kind, message=short(text))


def _class_of(kind: str | None, status: int | None, subtype: str, text: str) -> FailureClass:
    if kind in _CLASS_OF_KIND:
        return _CLASS_OF_KIND[kind]
    if _CREDIT.search(text):  # an older binary names no kind: its words are all there is
        return "credit"
    if status is None and (found := _STATUS.search(text)):
        status = int(found[1])
    if status is not None:
        return classify_status(status)
    if _LOGIN.search(text):
        return "config"
    return "task" if subtype in _TASK_ENDS else "unknown"


def _error_text(result: Mapping[str, Any]) -> str:
    said = result.get("result")
    errors = result.get("errors")
    listed = "; ".join(str(e) for e in errors) if isinstance(errors, list) else ""
    return (said if isinstance(said, str) and said else listed) or str(result.get("subtype") or "an error")


def _limit_ends(info: Mapping[str, Any] | None, text: str) -> datetime | None:
    """The end of a used-up limit: the event says it as an epoch; older versions, in the text after a bar."""
    if info is not None and info.get("status") == "rejected" and isinstance(info.get("resetsAt"), int | float):
        seconds = float(info["resetsAt"])
    elif _LIMIT.search(text) and (found := _EPOCH.search(text)):
        seconds = float(found[1])
    else:
        return None
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None
