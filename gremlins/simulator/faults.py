"""Fault scripts, matched against requests and used up."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

import msgspec

from gremlins.errors import GremlinsError, did_you_mean
from gremlins.simulator.api import ENDPOINTS, ERROR_OF_STATUS, ModelError

TRANSPORT_ACTIONS = {
    "drop": "close the connection without an answer",
    "error": "answer with `status` (and `error`, `message`, `details`, `retry_after`)",
    "slow": "answer `seconds` late",
    "hang": "never answer; the connection stays open",
    "truncate": "send the first `keep` part (0–1) of the answer's body, then close the connection",
    "garbage": "answer 200 with something that is no JSON",
    "body": "answer 200 with `body`",
}
CREATE_ACTIONS = {
    "late": "the new batch shows up in the list only after `seconds`",
    "latency": "the new batch takes `seconds` instead of the usual time",
}
LIST_ACTIONS = {"empty": "an empty page, as if there were no batches"}
RESULTS_ACTIONS = {
    "missing": "leave the request's line out",
    "foreign": "give the line another custom_id",
    "duplicate": "send the line twice",
    "extra": "add a line with an unknown custom_id",
}
OUTCOME_ACTIONS = {
    "errored": "an `errored` result with `error`, `message`, `details`",
    "expired": "an `expired` result",
    "canceled": "a `canceled` result, as if another program had canceled the batch",
    "late_success": "cancelling comes too late: it succeeds, and is billed",
    "unknown": "a result of an unknown type",
}
REPLY_ACTIONS = {
    "max_tokens": "the reply is cut off at the token limit",
    "refusal": "the model refuses",
    "pause_turn": "a long turn is paused",
    "no_text": "an empty reply",
    "stop_reason": "the reply ends with `stop_reason`, which may be null",
}
STREAM_ACTIONS = {
    "cut": "the stream ends after `events` events",
    "stall": "the stream says nothing more after `events` events",
    "stream_error": "an `error` event after `events` events",
}

ACTIONS: dict[str, dict[str, str]] = {
    **{endpoint: dict(TRANSPORT_ACTIONS) for endpoint in ENDPOINTS},
    "outcome": OUTCOME_ACTIONS | REPLY_ACTIONS,
}
ACTIONS["create"] |= CREATE_ACTIONS
ACTIONS["list"] |= LIST_ACTIONS
ACTIONS["results"] |= RESULTS_ACTIONS
ACTIONS["messages"] |= REPLY_ACTIONS | STREAM_ACTIONS


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing that goes wrong.

    `on` is a kind of request (`create`, `list`, `retrieve`, `cancel`, `results`, `delete`, `messages`, …), `outcome`
    for what becomes of one request inside a batch, or `*` for every kind of request. `when` matters for drop, error,
    slow, hang, garbage and body: `before` means the request was never taken, `after` that it was, and only the answer
    is lost.
    """

    on: str
    do: str
    when: Literal["before", "after"] = "before"
    times: int = 1
    """Number of times it strikes; 0 is always."""
    skip: int = 0
    """Matching requests that pass first."""
    match: str | None = None
    """A regular expression searched in the path and body (requests) or the custom_id and prompt (outcomes)."""
    status: int = 500
    error: str | None = None
    message: str | None = None
    details: Mapping[str, Any] | None = None
    retry_after: float | str | None = None
    seconds: float = 1.0
    keep: float = 0.5
    events: int = 3
    body: str = "{}"
    stop_reason: str | None = None

    def __post_init__(self) -> None:
        known = ACTIONS.get(self.on) if self.on != "*" else TRANSPORT_ACTIONS
        if known is None:
            hint = did_you_mean(self.on, ACTIONS, otherwise=f"known are {', '.join(ACTIONS)} and *")
            raise GremlinsError(f"no such kind of request: {self.on}", hint=hint)
        if self.do not in known:
            hint = did_you_mean(self.do, known, otherwise=f"known are {', '.join(known)}")
            raise GremlinsError(f"a fault on {self.on} cannot be `{self.do}`", hint=hint)

    def failure(self) -> ModelError:
        kind = self.error or (ERROR_OF_STATUS.get(self.status, "api_error"))
        return ModelError(kind, self.message or f"simulated {kind}", self.details)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Fault:
        """Raises GremlinsError with the nearest known name when a key is wrong."""
        if not isinstance(value, Mapping):
            raise GremlinsError(f"this is no fault: {value!r}", hint='{"on": "create", "do": "drop"}')
        known = {item.name for item in fields(cls)}
        for key in value:
            if key not in known:
                raise GremlinsError(f"a fault has no `{key}`", hint=did_you_mean(key, known))
        if "on" not in value or "do" not in value:
            raise GremlinsError("a fault needs `on` and `do`", hint='{"on": "create", "do": "drop"}')
        try:
            return msgspec.convert(value, cls)
        except msgspec.ValidationError as error:
            raise GremlinsError(f"a fault on {value['on']}: {error}") from error

    @classmethod
    def from_words(cls, text: str) -> Fault:
        """`ON:DO`, then any number of `:KEY=VALUE`; a value is JSON, or else a text. Raises GremlinsError."""
        on, _, rest = text.partition(":")
        do, *more = rest.split(":")
        details = dict(part.partition("=")[::2] for part in more)
        return cls.from_json({"on": on, "do": do, **{key: _value(given) for key, given in details.items()}})


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


@dataclass
class _Armed:
    fault: Fault
    seen: int = 0
    struck: int = 0

    def spent(self) -> bool:
        return self.fault.times > 0 and self.struck >= self.fault.times


class FaultBook:
    """The faults that are set. Each request takes at most one transport fault and one of every other kind."""

    def __init__(self, faults: Iterable[Fault] = ()) -> None:
        self._lock = threading.Lock()
        self._armed = [_Armed(fault) for fault in faults]
        self._struck: list[Fault] = []

    def add(self, *faults: Fault) -> None:
        with self._lock:
            self._armed.extend(_Armed(fault) for fault in faults)

    def clear(self) -> None:
        with self._lock:
            self._armed.clear()

    def strike(self, on: str, text: Callable[[], str], *, among: Iterable[str]) -> Fault | None:
        """The first fault that fits, and count it as used. `text` makes what `match` looks at."""
        if not self._armed:
            return None
        with self._lock:
            for armed in self._armed:
                if armed.fault.do in among and not armed.spent() and _fits(armed.fault, on, text):
                    armed.seen += 1
                    if armed.seen > armed.fault.skip:
                        armed.struck += 1
                        self._struck.append(armed.fault)
                        return armed.fault
        return None

    def struck(self) -> list[Fault]:
        """The faults that happened, in order."""
        with self._lock:
            return list(self._struck)


def _fits(fault: Fault, on: str, text: Callable[[], str]) -> bool:
    return fault.on in (on, "*") and (fault.match is None or re.search(fault.match, text()) is not None)
