"""The API's common shapes: errors, identifiers, times, the kinds of requests. No I/O."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

Json = dict[str, Any]

STATUS_OF_ERROR = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
ERROR_OF_STATUS = {status: kind for kind, status in STATUS_OF_ERROR.items()}

ENDPOINTS = (
    "create",
    "list",
    "retrieve",
    "cancel",
    "results",
    "delete",
    "messages",
    "count_tokens",
    "models",
    "model",
    "other",
)
"""The kinds of requests: what faults are set on and what the counters count."""

_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


@dataclass(frozen=True)
class ModelError:
    """An error as the API words it; an HTTP answer or an `errored` result, depending on where it happens."""

    kind: str
    message: str
    details: Mapping[str, Any] | None = None

    def error(self) -> Json:
        body: Json = {"type": self.kind, "message": self.message}
        return body | ({"details": dict(self.details)} if self.details is not None else {})

    def response(self, request_id: str) -> Json:
        return {"type": "error", "error": self.error(), "request_id": request_id}


class ApiError(Exception):
    """An HTTP answer that is not a success."""

    def __init__(
        self, failure: ModelError, *, status: int | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(failure.message)
        self.failure = failure
        self.status = status or STATUS_OF_ERROR.get(failure.kind, 500)
        self.headers = dict(headers or {})


def bad_request(message: str) -> ApiError:
    return ApiError(ModelError("invalid_request_error", message))


def not_found(what: str) -> ApiError:
    return ApiError(ModelError("not_found_error", what))


@dataclass
class Ids:
    """New identifiers. With a seed the same ones come each time."""

    seed: int | None = None
    chance: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)

    def new(self, prefix: str) -> str:
        return f"{prefix}_01" + "".join(self.chance.choices(_ALPHABET, k=22))


def timestamp(moment: datetime) -> str:
    """RFC 3339 with microseconds, as the API writes times."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
