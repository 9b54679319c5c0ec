"""The API's validation: the envelope at once, each request's params when it is processed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gremlins.simulator.api import Json, ModelError, bad_request
from gremlins.simulator.catalogue import Catalogue

CUSTOM_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
MAX_REQUESTS = 100_000
MAX_BYTES = 256 * 1024 * 1024
SAMPLING_REFUSED_SINCE = "2026-10-21"
"""From this API version on, temperature, top_p and top_k are refused."""
SAMPLING = ("temperature", "top_p", "top_k")
KNOWN_PARAMS = frozenset(
    {
        "billing_policy",
        "cache_control",
        "compaction",
        "container",
        "context_management",
        "diagnostics",
        "fallback_credit_token",
        "fallbacks",
        "inference_geo",
        "max_tokens",
        "mcp_servers",
        "messages",
        "metadata",
        "model",
        "output_config",
        "output_format",
        "service_tier",
        "speed",
        "stop_sequences",
        "stream",
        "system",
        "temperature",
        "thinking",
        "thread",
        "tool_choice",
        "tools",
        "top_k",
        "top_p",
    }
)
UNSUPPORTED_IN_BATCH = ("speed", "fallbacks", "thread")


@dataclass(frozen=True)
class Request:
    """One request of a batch."""

    custom_id: str
    params: Json


def check_envelope(body: Any) -> tuple[Request, ...]:
    """The requests of a create call. Raises ApiError (400); what is inside `params` is not looked at."""
    if not isinstance(body, dict):
        raise bad_request("The request body is not a JSON object")
    items = body.get("requests")
    if items is None:
        raise bad_request("requests: Field required")
    if not isinstance(items, list):
        raise bad_request("requests: Input should be a valid list")
    if not items:
        raise bad_request("requests: List should have at least 1 item after validation, not 0")
    if len(items) > MAX_REQUESTS:
        raise bad_request(f"requests: List should have at most {MAX_REQUESTS} items after validation")
    found = tuple(_request(place, item) for place, item in enumerate(items))
    seen: set[str] = set()
    for place, request in enumerate(found):
        if request.custom_id in seen:
            raise bad_request(f"requests.{place}.custom_id: duplicate custom_id `{request.custom_id}`")
        seen.add(request.custom_id)
    return found


def _request(place: int, item: Any) -> Request:
    where = f"requests.{place}"
    if not isinstance(item, dict):
        raise bad_request(f"{where}: Input should be a valid dictionary")
    for key in ("custom_id", "params"):
        if key not in item:
            raise bad_request(f"{where}.{key}: Field required")
    for key in item:
        if key not in ("custom_id", "params"):
            raise bad_request(f"{where}.{key}: Extra inputs are not permitted")
    custom_id, params = item["custom_id"], item["params"]
    if not isinstance(custom_id, str) or not CUSTOM_ID.fullmatch(custom_id):
        raise bad_request(f"{where}.custom_id: String should match pattern '^[a-zA-Z0-9_-]{{1,64}}$'")
    if not isinstance(params, dict):
        raise bad_request(f"{where}.params: Input should be a valid dictionary")
    return Request(custom_id, params)


def check_params(params: Json, *, version: str, catalogue: Catalogue, batch: bool) -> ModelError | None:
    """The reason the Messages API refuses these params, or None."""
    wrong = next(_wrong(params, version, batch), None)
    if wrong is not None:
        return ModelError("invalid_request_error", wrong)
    model = params["model"]
    if not catalogue.known(model):
        return ModelError("not_found_error", f"model: {model}")
    if batch and not catalogue.batch(model):
        return ModelError("invalid_request_error", f"model: {model} does not support the Message Batches API")
    most = catalogue.max_tokens(model)
    if params["max_tokens"] > most:
        return ModelError(
            "invalid_request_error",
            f"max_tokens: {params['max_tokens']} > {most}, which is the maximum allowed for {model}",
        )
    return None


def _wrong(params: Json, version: str, batch: bool) -> Iterator[str]:
    yield from (f"{key}: Field required" for key in ("model", "max_tokens", "messages") if key not in params)
    yield from (f"{key}: Extra inputs are not permitted" for key in params if key not in KNOWN_PARAMS)
    if not isinstance(params["model"], str):
        yield "model: Input should be a valid string"
    tokens = params["max_tokens"]
    if not isinstance(tokens, int) or isinstance(tokens, bool):
        yield "max_tokens: Input should be a valid integer"
    elif tokens < 0 or (batch and tokens == 0):
        yield "max_tokens: Input should be greater than or equal to 1"
    yield from _wrong_messages(params["messages"])
    if batch and params.get("stream"):
        yield "stream: Streaming is not supported in a batch"
    if batch:
        unsupported = (key for key in UNSUPPORTED_IN_BATCH if params.get(key) is not None)
        yield from (f"{key}: is not supported in a batch" for key in unsupported)
    if version >= SAMPLING_REFUSED_SINCE:
        refused = (key for key in SAMPLING if key in params)
        yield from (f"{key}: is not supported as of API version {SAMPLING_REFUSED_SINCE}" for key in refused)
    yield from _wrong_format(params)


def _wrong_messages(messages: Any) -> Iterator[str]:
    if not isinstance(messages, list):
        yield "messages: Input should be a valid list"
        return
    if not messages:
        yield "messages: at least one message is required"
    for place, message in enumerate(messages):
        if not isinstance(message, dict) or message.get("role") not in ("user", "assistant", "system"):
            yield f"messages.{place}.role: Input should be 'user' or 'assistant'"
        content = message.get("content")
        if not isinstance(content, (str, list)):
            yield f"messages.{place}.content: Field required"
        elif not content and (place + 1 < len(messages) or message["role"] == "user"):
            yield f"messages.{place}: all messages must have non-empty content"
        if isinstance(content, list):
            yield from _wrong_blocks(place, content)
    yield from _unanswered_tools(messages)


def _wrong_blocks(place: int, content: list[Any]) -> Iterator[str]:
    for index, block in enumerate(content):
        if not isinstance(block, dict) or not isinstance(block.get("type"), str):
            yield f"messages.{place}.content.{index}: Input should be a valid content block"
        elif block["type"] == "text" and not block.get("text"):
            yield f"messages.{place}.content.{index}: text content blocks must be non-empty"


def _unanswered_tools(messages: list[Json]) -> Iterator[str]:
    """Each `tool_use` must be answered by a `tool_result` in the next message, and the other way round."""
    asked: set[str] = set()
    for place, message in enumerate(messages):
        blocks = message["content"] if isinstance(message["content"], list) else []
        answers = {str(b.get("tool_use_id")) for b in blocks if b.get("type") == "tool_result"}
        if asked - answers:
            yield (
                f"messages.{place}: `tool_use` ids were found without `tool_result` blocks immediately after: "
                + ", ".join(sorted(asked - answers))
            )
        if answers - asked:
            yield f"messages.{place}: unexpected `tool_use_id` found in `tool_result` blocks"
        asked = {str(b.get("id")) for b in blocks if b.get("type") == "tool_use"}


def _wrong_format(params: Json) -> Iterator[str]:
    config = params.get("output_config")
    if config is None:
        return
    if not isinstance(config, dict):
        yield "output_config: Input should be a valid dictionary"
        return
    wanted = config.get("format")
    if wanted is None:
        return
    if not isinstance(wanted, dict) or wanted.get("type") != "json_schema":
        yield "output_config.format.type: Input should be 'json_schema'"
    elif not isinstance(wanted.get("schema"), dict):
        yield "output_config.format.schema: Field required"
    else:
        yield from _open_objects(wanted["schema"], "output_config.format.schema")


def _open_objects(schema: Any, where: str) -> Iterator[str]:
    """Structured output wants `additionalProperties: false` on every object."""
    if isinstance(schema, list):
        for place, item in enumerate(schema):
            yield from _open_objects(item, f"{where}.{place}")
    if not isinstance(schema, dict):
        return
    if schema.get("type") == "object" and schema.get("additionalProperties") is not False:
        yield f"{where}: For 'object' type, 'additionalProperties' must be explicitly set to false"
    for key, item in schema.items():
        yield from _open_objects(item, f"{where}.{key}")
