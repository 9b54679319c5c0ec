"""From a model's reply to what the API sends: the Message, its usage, and the events of a stream."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from gremlins.simulator.api import Ids, Json

CHARS_PER_TOKEN = 4
STREAM_CHUNK = 60
"""Characters in one delta of a stream."""

Tier = Literal["standard", "batch"]
Event = tuple[str, Json]


@dataclass(frozen=True)
class ModelReply:
    """A model's reply. Without `blocks` its content is one block of `text`. `usage` overrides single fields of the
    counted usage, for example cache hits.
    """

    text: str = ""
    blocks: tuple[Mapping[str, Any], ...] = ()
    stop_reason: str | None = "end_turn"
    usage: Mapping[str, Any] | None = None
    stop_details: Mapping[str, Any] | None = None

    def content(self) -> list[Json]:
        if self.blocks:
            return [dict(block) for block in self.blocks]
        return [{"type": "text", "text": self.text, "citations": None}] if self.text else []


def input_tokens(params: Mapping[str, Any]) -> int:
    """Deterministic and plausible: a quarter of the characters of everything that is sent."""
    chars = sum(_chars(params.get(key)) for key in ("system", "messages", "tools", "output_config"))
    return max(1, -(-chars // CHARS_PER_TOKEN))


def _chars(value: Any) -> int:
    match value:
        case None:
            return 0
        case str():
            return len(value)
        case list():
            return sum(_chars(item) for item in value)
        case dict():
            return sum(len(key) + _chars(item) for key, item in value.items())
        case _:
            return len(str(value))


def output_tokens(content: list[Json]) -> int:
    chars = sum(len(block["text"]) if block.get("type") == "text" else len(json.dumps(block)) for block in content)
    return max(1, -(-chars // CHARS_PER_TOKEN))


def cut_off(reply: ModelReply, max_tokens: int) -> ModelReply:
    """The reply as far as `max_tokens` allow."""
    if reply.blocks or output_tokens(reply.content()) <= max_tokens:
        return reply
    return replace(reply, text=reply.text[: max_tokens * CHARS_PER_TOKEN], stop_reason="max_tokens")


def build_message(params: Mapping[str, Any], reply: ModelReply, *, tier: Tier, ids: Ids) -> Json:
    """The full Message object."""
    reply = cut_off(reply, params["max_tokens"])
    content = reply.content()
    return {
        "id": ids.new("msg"),
        "type": "message",
        "role": "assistant",
        "model": params["model"],
        "content": content,
        "stop_reason": reply.stop_reason,
        "stop_sequence": None,
        "stop_details": reply.stop_details,
        "usage": _usage(params, content, tier) | dict(reply.usage or {}),
    }


def _usage(params: Mapping[str, Any], content: list[Json], tier: Tier) -> Json:
    return {
        "input_tokens": input_tokens(params),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
        "output_tokens": output_tokens(content),
        "server_tool_use": None,
        "service_tier": tier,
        "inference_geo": params.get("inference_geo") or "global",
    }


def stream_events(message: Json) -> Iterator[Event]:
    """The events of a streamed message, in order: (name, data)."""
    start = message | {
        "content": [],
        "stop_reason": None,
        "stop_details": None,
        "usage": message["usage"] | {"output_tokens": 1},
    }
    yield "message_start", {"type": "message_start", "message": start}
    for index, block in enumerate(message["content"]):
        begun, deltas = _begin(block)
        yield (
            "content_block_start",
            {"type": "content_block_start", "index": index, "content_block": begun},
        )
        if index == 0:
            yield "ping", {"type": "ping"}
        for delta in deltas:
            yield "content_block_delta", {"type": "content_block_delta", "index": index, "delta": delta}
        yield "content_block_stop", {"type": "content_block_stop", "index": index}
    usage = message["usage"]
    keys = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "output_tokens")
    yield (
        "message_delta",
        {
            "type": "message_delta",
            "delta": {key: message[key] for key in ("stop_reason", "stop_sequence", "stop_details")},
            "usage": {key: usage[key] for key in keys},
        },
    )
    yield "message_stop", {"type": "message_stop"}


def _begin(block: Json) -> tuple[Json, list[Json]]:
    """A block as it starts, and the deltas that complete it."""
    match block["type"]:
        case "text":
            return block | {"text": ""}, [{"type": "text_delta", "text": part} for part in _parts(block["text"])]
        case "tool_use":
            whole = json.dumps(block["input"])
            parts = ["", *_parts(whole)]
            return block | {"input": {}}, [{"type": "input_json_delta", "partial_json": p} for p in parts]
        case "thinking":
            deltas: list[Json] = [{"type": "thinking_delta", "thinking": p} for p in _parts(block["thinking"])]
            deltas.append({"type": "signature_delta", "signature": block.get("signature", "")})
            return block | {"thinking": "", "signature": ""}, deltas
        case _:
            return block, []


def _parts(text: str) -> Iterator[str]:
    for start in range(0, len(text), STREAM_CHUNK):
        yield text[start : start + STREAM_CHUNK]


def encode_event(name: str, data: Json) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()
