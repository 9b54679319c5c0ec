"""`gremlins mcp`, driven by the official SDK's client; needs the extra."""

from __future__ import annotations

import asyncio
import json
import sys
from importlib.util import find_spec
from typing import Any

import pytest

from gremlins.cli.mcp import TOOLS
from tests.acceptance.sandbox import Sandbox
from tests.time_limit import DEADLINE

pytestmark = pytest.mark.skipif(find_spec("mcp") is None, reason="needs the extra: pip install -e '.[mcp]'")
PIPELINE = "stages: [{type: exec, cmds: ['echo x > new.txt; git add new.txt; git commit -q -m new']}]\n"


async def talk(sandbox: Sandbox) -> dict[str, Any]:
    from mcp import ClientSession, StdioServerParameters
    from mcp.client.stdio import stdio_client

    seen: dict[str, Any] = {}
    server = StdioServerParameters(
        command=sys.executable, args=["-m", "gremlins", "mcp"], env=sandbox.env, cwd=str(sandbox.repo.path)
    )
    async with stdio_client(server) as (reading, writing), ClientSession(reading, writing) as session:
        await session.initialize()
        seen["tools"] = {tool.name: tool.annotations for tool in (await session.list_tools()).tools}
        launched = await session.call_tool("launch", {"task": "Write new", "pipeline": "make"})
        seen["id"] = json.loads(launched.content[0].text)["id"]
        await asyncio.to_thread(sandbox.until, seen["id"], "finished", "dead", "bailed")
        seen["diff"] = (await session.call_tool("diff", {"gremlin": seen["id"]})).content[0].text
        seen["refused"] = await session.call_tool("answer", {"gremlin": seen["id"], "text": "yes"})
        seen["landed"] = (await session.call_tool("land", {"gremlin": seen["id"]})).content[0].text
        odd = {"title": "Later \0\x1b[2J\u202e$(id)", "description": "\x1b]0;title\x07\u202e"}
        seen["bead"] = json.loads((await session.call_tool("bead_create", odd)).content[0].text)
        seen["beads"] = (await session.call_tool("bead_list", {})).content[0].text
        seen["long"] = await session.call_tool("bead_create", {"title": "x" * 200_000})
    return seen


def test_an_agent_hands_work_over_sees_it_and_lands_it(sandbox: Sandbox) -> None:
    sandbox.pipeline("make", PIPELINE)
    seen = asyncio.run(asyncio.wait_for(talk(sandbox), DEADLINE * 2))
    assert seen["tools"].keys() == {tool.__name__ for tool, _, _ in TOOLS}
    assert (seen["tools"]["show"].read_only_hint, seen["tools"]["land"].destructive_hint) == (True, True)
    assert "+x" in seen["diff"]
    assert seen["refused"].is_error
    assert "it asks nothing" in seen["refused"].content[0].text
    assert "landed on main" in seen["landed"]
    assert sandbox.repo.read("new.txt") == "x\n"
    assert seen["bead"]["title"] == "Later \ufffd\ufffd$(id)"
    assert not [order for order in ("\x1b", "\0", "\u202e", r"\u001b", r"\u202e") if order in seen["beads"]]
    assert seen["long"].is_error
    assert "too long" in seen["long"].content[0].text
