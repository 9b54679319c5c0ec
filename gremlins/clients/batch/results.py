"""The outcome table: pure functions over the raw result lines.

They decide on `.type` strings, because the SDK parses unknown kinds into the wrong class. Source: Anthropic's Message
Batches documentation, and measurements against SDK 2.11.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gremlins.outcome import FailureClass
from gremlins.records.calls import CallFailed, Reply, storable

CREDIT_CODES = frozenset(
    {
        "credit_balance_too_low",
        "enforced_spend_limit_reached",
        "contract_spend_limit_reached",
        "organization_on_hold",
        "insufficient_credits",
    }
)
_CREDIT_SENTENCE = re.compile(r"credit balance is too low|spend(?:ing)? limit|out of credits?", re.IGNORECASE)

_CLASS: dict[str, FailureClass] = {
    "overloaded_error": "capacity",
    "api_error": "capacity",
    "timeout_error": "capacity",
    "rate_limit_error": "capacity",
    "billing_error": "credit",
    "authentication_error": "config",
    "permission_error": "config",
    "not_found_error": "config",
    "invalid_request_error": "task",
    "request_too_large": "task",
}


@dataclass(frozen=True)
class Succeeded:
    """A message came back. `message` is the API's, whole."""

    message: dict[str, Any]


@dataclass(frozen=True)
class NotThere:
    """Our custom_id is not in the results. `torn`: they are not whole, so it may have been there."""

    torn: bool


Result = Succeeded | CallFailed | NotThere


def find_result(raw: bytes, custom_id: str) -> Result:
    """Our line of a result file, read on purpose: anything unexpected is a failure that says so."""
    torn = False
    for line in raw.splitlines():
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            torn = True
            continue
        if not isinstance(row, dict) or not isinstance(row.get("custom_id"), str):
            torn = True  # an error document, or a gateway's own words
        elif row["custom_id"] == custom_id:
            return _read_result(storable(row.get("result")))
    # An ended batch has a line for each of its requests: no line at all is not the whole of it.
    return NotThere(torn=torn or not raw.strip())


def _read_result(result: object) -> Result:
    if not isinstance(result, dict):
        return _odd(f"a result that is not an object: {str(result)[:200]}")
    match result.get("type"):
        case "succeeded":
            message = result.get("message")
            return Succeeded(message) if isinstance(message, dict) else _odd("a success without a message")
        case "errored":
            return _read_error(result.get("error"))
        case "canceled":
            return CallFailed(failure="canceled", kind="canceled", message="the batch was canceled")
        case "expired":
            return CallFailed(failure="capacity", kind="expired", message="the batch expired before it was processed")
        case other:
            return _odd(f"a result of unknown type {other!r}")


def _read_error(wrapper: object) -> CallFailed:
    """`result.error.error.type` is the kind; `result.error.type` is always "error"."""
    error = wrapper.get("error") if isinstance(wrapper, dict) else None
    if not isinstance(error, dict) or not isinstance(error.get("type"), str):
        return _odd(f"an error without a kind: {json.dumps(wrapper)[:300]}")
    details = error.get("details")
    code = details.get("error_code") if isinstance(details, dict) else None
    message = " ".join(str(error.get("message") or "no reason given").split())
    failure = classify(error["type"], code, message)
    whole = f" ({json.dumps(wrapper)[:500]})" if failure == "unknown" else ""
    return CallFailed(failure=failure, kind=error["type"], message=f"{error['type']}: {message}{whole}")


def classify(kind: str, error_code: object, message: str) -> FailureClass:
    """Whose fault an API error is. A sentence about credit is asked only where no code answers."""
    if isinstance(error_code, str) and error_code in CREDIT_CODES:
        return "credit"
    if kind == "invalid_request_error" and not error_code and _CREDIT_SENTENCE.search(message):
        return "credit"
    return _CLASS.get(kind, "unknown")


def classify_status(status: int) -> FailureClass:
    """Whose fault an HTTP error is where its body does not say."""
    match status:
        case 401 | 403 | 404:
            return "config"
        case 402:
            return "credit"
        case 400 | 413 | 422:
            return "task"
        case 408 | 409 | 425 | 429:
            return "capacity"
        case _ if status >= 500:
            return "capacity"
        case _:
            return "unknown"


def _odd(what: str) -> CallFailed:
    return CallFailed(failure="unknown", kind="unreadable_result", message=f"the API answered with {what}")


def reply_of(message: Mapping[str, Any]) -> Reply:
    """The text and the blocks of a message. Blocks of kinds we do not know are kept as they are."""
    message = storable(dict(message))
    content = message.get("content")
    blocks = tuple(b for b in content if isinstance(b, dict)) if isinstance(content, list) else ()
    text = "".join(b["text"] for b in blocks if b.get("type") == "text" and isinstance(b.get("text"), str))
    stop = message.get("stop_reason")
    model = message.get("model")
    return Reply(
        text=text,
        stop_reason=stop if isinstance(stop, str) else None,
        model=model if isinstance(model, str) else None,
        blocks=blocks,
    )
