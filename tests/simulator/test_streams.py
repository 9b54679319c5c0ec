"""Streamed replies, event by event, and as Anthropic's SDK puts them together."""

from __future__ import annotations

import json
from http.client import HTTPException
from typing import Any

import pytest

from gremlins.simulator import ModelReply, ScriptedModel, Simulator
from tests.simulator.conftest import MODEL, Client, Start, params

TEXT = "A reply that is longer than one delta, so that it comes in several of them, one after another."
TOOL = {"type": "tool_use", "id": "toolu_1", "name": "Read", "input": {"file_path": "/a", "limit": 3}}


def events(client: Client, body: Any | None = None) -> list[tuple[str, Any]]:
    reply = client.post("/v1/messages?beta=true", (body or params()) | {"stream": True})
    assert reply.headers["content-type"].startswith("text/event-stream")
    return [decoded(block) for block in reply.body.decode().split("\n\n") if block]


def decoded(block: str) -> tuple[str, Any]:
    name, data = block.split("\n")
    value = json.loads(data.removeprefix("data: "))
    assert name == f"event: {value['type']}"
    return value["type"], value


def test_the_events_of_a_text_come_in_the_apis_order(start: Start) -> None:
    got = events(Client(start(model=ScriptedModel([TEXT])).url))
    names = [name for name, _ in got]
    assert names[:3] == ["message_start", "content_block_start", "ping"]
    assert names[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert set(names[3:-3]) == {"content_block_delta"}
    assert len(names[3:-3]) > 1
    assert "".join(data["delta"]["text"] for name, data in got if name == "content_block_delta") == TEXT


def test_a_stream_begins_without_and_ends_with_its_outcome(start: Start) -> None:
    got = events(Client(start(model=ScriptedModel([TEXT])).url))
    first, last = got[0][1]["message"], got[-2][1]
    assert (first["content"], first["stop_reason"], first["usage"]["output_tokens"]) == ([], None, 1)
    assert last["delta"]["stop_reason"] == "end_turn"
    assert last["usage"]["output_tokens"] > 20


def test_a_tool_call_is_streamed_as_partial_json(start: Start) -> None:
    got = events(Client(start(model=ScriptedModel([ModelReply(blocks=(TOOL,), stop_reason="tool_use")])).url))
    assert got[1][1]["content_block"] == TOOL | {"input": {}}
    parts = [data["delta"]["partial_json"] for name, data in got if name == "content_block_delta"]
    assert json.loads("".join(parts)) == TOOL["input"]
    assert got[-2][1]["delta"]["stop_reason"] == "tool_use"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_sdk_puts_a_stream_together(start: Start) -> None:
    from anthropic import Anthropic

    thinking = {"type": "thinking", "thinking": "hm, " * 40, "signature": "sig"}
    blocks = (thinking, {"type": "text", "text": TEXT, "citations": None}, TOOL)
    sim = start(model=ScriptedModel([ModelReply(blocks=blocks, stop_reason="tool_use")]))
    with (
        Anthropic(base_url=sim.url, api_key=sim.key, max_retries=0) as client,
        client.messages.stream(model=MODEL, max_tokens=999, messages=[{"role": "user", "content": "x"}]) as stream,
    ):
        message = stream.get_final_message()
    assert [block.type for block in message.content] == ["thinking", "text", "tool_use"]
    assert message.content[0].to_dict()["signature"] == "sig"
    assert message.content[1].to_dict()["text"] == TEXT
    assert message.content[2].to_dict()["input"] == TOOL["input"]
    assert message.usage.output_tokens == sim.billed[0].usage["output_tokens"]


@pytest.mark.parametrize("do", ["cut", "drop"])
def test_a_stream_may_break_off(api: Client, sim: Simulator, do: str) -> None:
    sim.fault("messages", do, events=2)
    with pytest.raises(HTTPException):
        events(api)
    assert events(api)[-1][0] == "message_stop"


def test_a_stream_may_fall_silent(api: Client, sim: Simulator) -> None:
    sim.fault("messages", "stall", events=2)
    api.timeout = 0.2
    with pytest.raises(TimeoutError):
        events(api)


def test_a_stream_may_end_with_an_error(api: Client, sim: Simulator) -> None:
    sim.fault("messages", "stream_error", events=2, error="overloaded_error", message="Overloaded")
    name, data = events(api)[-1]
    assert name == "error"
    assert data["error"] == {"type": "overloaded_error", "message": "Overloaded"}
