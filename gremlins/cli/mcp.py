"""`gremlins mcp`: the verbs as tools for a person's own interactive agent, over stdio.

Each tool runs the command of its name in the current repository, so that nothing is decided here, and a refusal is told
in the command's own words.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gremlins import __version__
from gremlins.errors import NotReady
from gremlins.processes.children import run
from gremlins.text import cleaned, in_every_text, normalised

MOST_ANSWER = 16 * 2**20
"""Bytes."""

INSTRUCTIONS = """Gremlins are coding agents that work in the background on this git repository, each on a branch of its
own, through batches that take minutes to hours. Hand over work that can wait: launch it, tell the person its id, and go
on. Look again later with `status`. Landing changes the person's branch, stopping and removing throw paid work away: do
these only when the person asked for it. A gremlin that is `bailed` asks something: show its question, and answer
only what the person has decided."""


def mcp() -> int:
    """Serve the verbs as tools of the Model Context Protocol, on standard input and output."""
    try:
        from mcp.server.mcpserver import MCPServer  # the extra
    except ImportError:
        raise NotReady("the Model Context Protocol needs an extra", hint="pip install 'gremlins-fleet[mcp]'") from None
    from mcp.types import ToolAnnotations

    server = MCPServer("gremlins", version=__version__, instructions=INSTRUCTIONS, log_level="ERROR")
    for tool, reads, destroys in TOOLS:
        hints = ToolAnnotations(read_only_hint=reads, destructive_hint=destroys, idempotent_hint=reads)
        server.tool(annotations=hints)(tool)
    server.run("stdio")
    return 0


def launch(task: str, pipeline: str = "", plan: str = "") -> dict[str, Any]:
    """Start a gremlin on a task and return at once; `id` names it from now on.

    task: what to do, standing on its own: the gremlin sees the repository's last commit, not this conversation.
    pipeline: `local`, `batch` (half price, slower), or one of the repository's own; the default one if empty.
    plan: a written plan in markdown, if there is one; then none is made.
    """
    given = ["--plan", "-"] if plan else []
    words = [pipeline, task] if pipeline else [f"{task} "]
    found: dict[str, Any] = _json("launch", "--json", *given, "--", *words, stdin=plan)
    return found


def status(everything: bool = False) -> list[dict[str, Any]]:
    """List the gremlins that are not over, newest first: `liveness.state`, cost and, of a bailed one, its question.

    everything: those that have finished (to be landed) or landed too.
    """
    found: list[dict[str, Any]] = _json("status", "--json", *(["--all"] if everything else []))
    return found


def show(gremlin: str) -> dict[str, Any]:
    """Show all of one gremlin: stages, calls, cost, artifacts, why it ended, the whole reply that held a question."""
    found: dict[str, Any] = _json("show", "--json", "--", gremlin)
    return found


def diff(gremlin: str, paths: list[str] | None = None) -> str:
    """Show the change of a gremlin's branch as a patch."""
    return _run("diff", "--", gremlin, *(paths or []))


def answer(gremlin: str, text: str) -> str:
    """Answer the question of a bailed gremlin with what the person has decided; it goes on by itself."""
    return _run("answer", "--", gremlin, "-", stdin=text)


def revise(gremlin: str, text: str) -> str:
    """Send a finished gremlin back with remarks, for one more round."""
    return _run("revise", "--", gremlin, "-", stdin=text)


def stop(gremlin: str) -> str:
    """Stop a gremlin and cancel its outstanding batch."""
    return _run("stop", "--", gremlin)


def rescue(gremlin: str) -> str:
    """Bring back a gremlin that is dead, detached, bailed, stopped or stalled, from the stage it was in."""
    return _run("rescue", "--", gremlin)


def land(gremlin: str, dry_run: bool = False) -> str:
    """Bring a finished gremlin's work onto the person's current branch as one commit.

    dry_run: only say whether it would land.
    """
    return _run("land", *(["--dry-run"] if dry_run else []), "--", gremlin)


def bead_create(title: str, description: str = "") -> dict[str, Any]:
    """File a work item for later; `gremlins dispatch` hands it to a gremlin."""
    found: dict[str, Any] = _json("bead", "create", "--json", "-d", description, "--", title)
    return found


def bead_list() -> list[dict[str, Any]]:
    """List the repository's work items that are not closed."""
    found: list[dict[str, Any]] = _json("bead", "list", "--json")
    return found


Tool = Callable[..., Any]
TOOLS: tuple[tuple[Tool, bool, bool], ...] = (
    (launch, False, False),
    (status, True, False),
    (show, True, False),
    (diff, True, False),
    (answer, False, False),
    (revise, False, False),
    (stop, False, True),
    (rescue, False, False),
    (land, False, True),
    (bead_create, False, False),
    (bead_list, True, False),
)
"""Each tool, True if it only reads, and True if it can throw something away or change the person's branch."""


def _json(*words: str, stdin: str = "") -> Any:
    return in_every_text(json.loads(_run(*words, stdin=stdin)), cleaned)


def _run(*words: str, stdin: str = "") -> str:
    """The output of a command. Its error and hint become the tool's error."""
    from mcp.server.mcpserver.exceptions import ToolError  # the extra

    argv = [sys.executable, "-m", "gremlins", *map(normalised, words)]
    try:
        done = run(argv, cwd=Path.cwd(), input=stdin, most=MOST_ANSWER)
    except OSError as error:  # an argument that is too long, an answer that is
        raise ToolError(f"gremlins {words[0]}: {error.strerror}") from None
    if done.returncode:
        raise ToolError(done.stderr.strip() or f"gremlins {words[0]} ended with {done.returncode}")
    return done.stdout
