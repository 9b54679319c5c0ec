"""The tools of a live call over the Messages API: the SDK's file tools inside the worktree, searches in a process with
limits, and commands by setting.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import uuid
from functools import partial
from typing import TYPE_CHECKING, Any

from gremlins.clients.live.process import MARK, bound_to_us, end
from gremlins.clients.providers import searching
from gremlins.errors import GremlinsError
from gremlins.processes import children as proc

if TYPE_CHECKING:
    from gremlins.clients.base import Session

COMMAND_TIMEOUT = 600.0
"""Seconds a command of the agent may take, and never longer than the watchdog's patience."""
OUTPUT_LIMIT = 100_000
"""Characters of a command's output that the model sees: the beginning and the end."""


def worktree_tools(session: Session, *, edits: bool) -> list[Any]:
    """The model's tools, confined to the worktree and kept out of its `.git`."""
    from anthropic.lib.tools import agent_toolset as sdk  # seconds: only a live call pays for it

    root = session.worktree.resolve()
    context = sdk.AgentToolContext(workdir=root, read_only_roots=[root / ".git"], env={"PATH": os.defpath})
    tools: list[Any] = [sdk.beta_read_tool(context), *_search_tools(session)]
    if edits:
        tools += [sdk.beta_write_tool(context), sdk.beta_edit_tool(context)]
        tools += [_bash_tool(session)] if session.settings.live.bash else []
    return tools


def _search_tools(session: Session) -> list[Any]:
    from anthropic import beta_async_tool

    @beta_async_tool
    async def grep(pattern: str, path: str = "") -> str:
        """Search the content of files, line by line, for a regular expression. Returns `path:line number:line`.

        Args:
            pattern: A regular expression of Python.
            path: The file or folder to search; by default the working directory.
        """
        return await _search(session, "grep", pattern, path)

    @beta_async_tool
    async def glob(pattern: str, path: str = "") -> str:
        """List files whose names match a glob pattern, newest first.

        Args:
            pattern: For example `**/*.py`.
            path: The folder to begin in; by default the working directory.
        """
        return await _search(session, "glob", pattern, path)

    return [grep, glob]


async def _search(session: Session, do: str, pattern: str, path: str) -> str:
    from anthropic.lib.tools import ToolError

    order = {"do": do, "root": str(session.worktree), "pattern": pattern, "path": path}
    run = partial(session.run_limited, searching.__name__, order, what="the search", check=session.check)
    try:
        return str(await asyncio.to_thread(run, seconds=searching.SECONDS))
    except GremlinsError as error:
        raise ToolError(f"{do}: {error.message}") from None


def _bash_tool(session: Session) -> Any:
    from anthropic import beta_async_tool

    @beta_async_tool
    async def bash(command: str) -> str:
        """Run a shell command in the working directory and return its output and exit code.

        Args:
            command: What to run with `sh -c`. Each command is a process of its own: nothing is kept between them.
        """
        return await run_command(session, command)

    return bash


async def run_command(session: Session, command: str) -> str:
    """Run one command of the agent, without our credentials; all it started is ended when it takes too long."""
    with session.enclosed(command) as argv:
        return await _run(session, argv)


async def _run(session: Session, argv: list[str]) -> str:
    timeout = min(COMMAND_TIMEOUT, session.settings.live.idle_timeout * 0.8)
    run_id = uuid.uuid4().hex
    child = proc.start(
        bound_to_us(argv),
        cwd=session.worktree,
        env={**proc.without_callers_own(proc.command_env(session.env)), MARK: run_id},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        pass_fds=() if session.work_fd is None else (session.work_fd,),
    )
    reading = asyncio.get_running_loop().run_in_executor(None, _read_all, child)
    try:
        output = await asyncio.wait_for(asyncio.shield(reading), timeout)
        return f"{output}\n[exit code {child.wait()}]"
    except TimeoutError:
        return f"The command took longer than {timeout:g} s and was ended."
    finally:
        end(child, run_id, grace=1.0, streams=False)
        await reading  # its pipe is closed now: everything that held it has ended
        assert child.stdout is not None
        child.stdout.close()


def _read_all(child: subprocess.Popen[bytes]) -> str:
    """A command's output with its middle left out, bounded."""
    assert child.stdout is not None
    head, tail, half, left_out = b"", b"", OUTPUT_LIMIT // 2, 0
    while chunk := os.read(child.stdout.fileno(), 65536):
        room = half - len(head)
        head, rest = head + chunk[:room], chunk[room:]
        left_out += max(0, len(tail) + len(rest) - half)
        tail = (tail + rest)[-half:]
    gap = f"\n[{left_out} bytes left out]\n".encode() if left_out else b""
    return (head + gap + tail).decode("utf-8", "replace")
