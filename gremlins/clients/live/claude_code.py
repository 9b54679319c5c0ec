"""The Claude Code binary as a live agent: where it is, how it is started, and what it may do."""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from gremlins.clients.agent_env import agent_env
from gremlins.clients.base import Answer, Prompt, PromptSource, Session
from gremlins.clients.batch.booking import usage_of
from gremlins.clients.batch.engine import prompt_of
from gremlins.clients.live.agents import earlier_runs, message_for
from gremlins.clients.live.claude_stream import ClaudeStream, add_usage, cost_of_run, verdict
from gremlins.clients.live.engine import LiveEngine, Order
from gremlins.clients.live.process import Exit, Launch
from gremlins.clients.live.process_agent import ProcessAgent
from gremlins.clients.live.records import Booked
from gremlins.clients.next_step import INTERRUPTED, STALLED
from gremlins.config import Settings
from gremlins.errors import NotReady
from gremlins.processes import children as proc
from gremlins.records.calls import CallFailed, Cost, LiveCall, Reply

BIN_VARIABLE = "GREMLINS_CLAUDE_BIN"
READ_TOOLS = ("Read", "Glob", "Grep")
EDIT_TOOLS = (*READ_TOOLS, "Edit", "Write", "NotebookEdit")
ARGUMENT_LIMIT = 100_000
"""Bytes of a system prompt given as an argument; the system allows 128 kB in one."""
INSTRUCTIONS = ("CLAUDE.md", ".claude/CLAUDE.md", "AGENTS.md")
INSTRUCTIONS_LIMIT = 40_000
"""Bytes of the project's own instructions that are passed on."""
CUT_OFF = frozenset({INTERRUPTED, STALLED, "canceled", "no_result", "max_turns"})
"""Kinds of failure of a run that could not report its cost."""
BOUNDS = (
    "You run unattended: no person can answer a question or grant a permission. Work only with the tools you have and "
    "only on files below the working directory; a tool call that needs a permission ends the run as a failure."
)

_PROVIDER = (
    r"ANTHROPIC_\w+",
    r"CLAUDE_CONFIG_DIR",
    r"CLAUDE_CODE_(OAUTH_TOKEN|MAX_\w+|DISABLE_\w+|USE_(BEDROCK|VERTEX|FOUNDRY)|SKIP_\w+|API_KEY_HELPER_TTL_MS|EFFORT_LEVEL)",
    r"API_TIMEOUT_MS|MAX_THINKING_TOKENS|DISABLE_\w+|IS_SANDBOX|USE_BUILTIN_RIPGREP",
)
_CREDENTIALS = (
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_AUTH_TOKEN",
    "CLAUDE_CODE_OAUTH_TOKEN",
    "CLAUDE_CODE_USE_BEDROCK",
    "CLAUDE_CODE_USE_VERTEX",
    "CLAUDE_CODE_USE_FOUNDRY",
)
_CLOUD = {
    "CLAUDE_CODE_USE_BEDROCK": r"AWS_\w+",
    "CLAUDE_CODE_USE_VERTEX": r"GOOGLE_\w+|GCLOUD_\w+|CLOUDSDK_\w+|CLOUD_ML_REGION|VERTEX_\w+",
    "CLAUDE_CODE_USE_FOUNDRY": r"AZURE_\w+",
}
_OURS = {
    "DISABLE_AUTOUPDATER": "1",
    "DISABLE_TELEMETRY": "1",
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "CLAUDE_CODE_DISABLE_AUTO_MEMORY": "1",  # it would write notes outside the worktree
}


def find_claude(env: Mapping[str, str]) -> Path | None:
    """The binary: GREMLINS_CLAUDE_BIN, `claude` on PATH, or the one in the `claude-agent-sdk` package."""
    named = env.get(BIN_VARIABLE)
    if named:
        found = shutil.which(os.path.expanduser(named), path=env.get("PATH"))
        return Path(found).absolute() if found else None
    found = shutil.which("claude", path=env.get("PATH", os.defpath))
    return Path(found).absolute() if found else _bundled()


def _bundled() -> Path | None:
    spec = importlib.util.find_spec("claude_agent_sdk")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        binary = Path(folder) / "_bundled" / "claude"
        if os.access(binary, os.X_OK):
            return binary
    return None


def require_claude(env: Mapping[str, str]) -> Path:
    """The binary. Raises NotReady when there is none."""
    found = find_claude(env)
    if found is not None:
        return found
    if env.get(BIN_VARIABLE):
        raise NotReady(f"{BIN_VARIABLE} names no program that can be run: {env[BIN_VARIABLE]}")
    raise NotReady(
        "no `claude` binary: live calls of `claude:` need Claude Code",
        hint="npm install -g @anthropic-ai/claude-code, or pip install 'gremlins-fleet[claude]', or use --mode batch",
    )


def check_live(env: Mapping[str, str], settings: Settings) -> None:
    """Raise NotReady unless a live call can be made: a binary, a login, and no mode that it refuses. Spends nothing."""
    binary = require_claude(env)
    if settings.live.permission_mode == "bypassPermissions" and os.geteuid() == 0 and not env.get("IS_SANDBOX"):
        raise NotReady(
            "claude refuses `bypassPermissions` when it runs as root",
            hint="run as another user, or set IS_SANDBOX=1 if this machine is one",
        )
    if not any(env.get(name) for name in _CREDENTIALS) and not _logged_in(binary, env):
        raise NotReady(
            "claude is not logged in, and ANTHROPIC_API_KEY is not set",
            hint="export ANTHROPIC_API_KEY=…, or run `claude auth login`",
        )


def _logged_in(binary: Path, env: Mapping[str, str]) -> bool:
    """True if Claude Code has a login of its own, or cannot say."""
    try:
        done = proc.run(
            [str(binary), "auth", "status"], cwd=Path("/"), env=agent_env(env, _PROVIDER, _OURS), timeout=20
        )
    except (OSError, proc.TimedOut):
        return True
    return '"loggedIn": false' not in done.stdout


@functools.cache
def _help_of(binary: Path, env: tuple[tuple[str, str], ...]) -> str:
    return proc.run([str(binary), "--help"], cwd=Path("/"), env=dict(env), timeout=20).stdout


def run_live(
    session: Session,
    model: str,
    provider_name: str,
    prompt: PromptSource,
    *,
    label: str,
    max_tokens: int | None,
    revision: int,
    edits_worktree: bool,
) -> Answer:
    """One durable live call through Claude Code."""
    agent = ClaudeCode(session, model, provider_name)
    engine = LiveEngine(session, agent, label=label, revision=revision, takes_limit=agent.takes_limit)
    return engine.run(prompt, edits_worktree=edits_worktree, max_tokens=max_tokens)


class ClaudeCode(ProcessAgent[ClaudeStream]):
    """Claude Code as a live agent."""

    program = "claude"

    def request(self, prompt: PromptSource, *, edits_worktree: bool, max_tokens: int | None) -> dict[str, Any]:
        request = super().request(prompt, edits_worktree=edits_worktree, max_tokens=max_tokens)
        return {**request, "appended": "\n\n".join(filter(None, (BOUNDS, self._instructions())))}

    def _instructions(self) -> str:
        """The project's own instructions. The binary would read them only together with the project's settings."""
        for name in INSTRUCTIONS:
            path = self.session.worktree / name
            if path.is_file() and path.resolve().is_relative_to(self.session.worktree.resolve()):
                with path.open("rb") as file:
                    text = file.read(INSTRUCTIONS_LIMIT).decode("utf-8", "replace")
                return f"The project's own instructions ({name}):\n\n{text}"
        return ""

    def new_session(self) -> str:
        return str(uuid.uuid4())

    def stream(self) -> ClaudeStream:
        return ClaudeStream()

    def verdict(self, stream: ClaudeStream, ended: Exit, request: Mapping[str, Any]) -> Reply | CallFailed:
        return verdict(stream, ended)

    def launch(self, order: Order, env: Mapping[str, str]) -> Launch:
        argv = self._argv(require_claude(self.session.env), order)
        return Launch(argv, self.session.worktree, env, message_for(order, _spoken(order.record.request)).encode())

    def _argv(self, binary: Path, order: Order) -> list[str]:
        request, live = order.record.request, self.session.settings.live
        edits = bool(request.get("edits_worktree"))
        argv = [str(binary), "-p", "--output-format", "stream-json", "--verbose", "--include-partial-messages"]
        argv += ["--model", self.model, *_session(order)]
        limit = order.record.limit_usd
        if limit is not None:
            argv += ["--max-budget-usd", f"{limit:.4f}"]
        # Not the repository's own settings: they can name hooks, which run unasked, and a wider permission (measured).
        argv += ["--setting-sources", "user", "--strict-mcp-config"]
        if edits and live.permission_mode == "bypassPermissions":
            return [*argv, "--permission-mode", "bypassPermissions", *_texts(request)]
        tools = EDIT_TOOLS if edits else READ_TOOLS
        allowed = live.allowed_tools if edits else ()
        names = dict.fromkeys((*tools, *(rule.partition("(")[0] for rule in allowed)))
        argv += ["--tools", ",".join(names), "--permission-mode", live.permission_mode if edits else "dontAsk"]
        argv += ["--allowedTools", *allowed] if allowed else []
        return [*argv, *_texts(request)]

    def takes_limit(self) -> bool:
        """True if this version takes a limit in dollars. Older ones refuse the option."""
        binary = require_claude(self.session.env)
        try:
            return "--max-budget-usd" in _help_of(binary, tuple(agent_env(self.session.env, _PROVIDER, _OURS).items()))
        except (OSError, proc.TimedOut):
            return False

    def env(self, request: Mapping[str, Any]) -> dict[str, str]:
        env = self.session.env
        cloud = [pattern for switch, pattern in _CLOUD.items() if env.get(switch)]
        # A command must not be silent for longer than the watchdog allows, or it would be ended as stalled.
        command = max(1, int(self.session.settings.live.idle_timeout * 0.8)) * 1000
        ours = {
            **_OURS,
            "CLAUDE_CODE_MAX_OUTPUT_TOKENS": str(request["max_tokens"]),
            "BASH_DEFAULT_TIMEOUT_MS": str(min(command, 120_000)),
            "BASH_MAX_TIMEOUT_MS": str(command),
        }
        return agent_env(env, (*_PROVIDER, *cloud), {**ours, **self.session.git_env()})

    def booked(self, stream: ClaudeStream, record: LiveCall) -> Booked:
        """Cost and usage as far as they are known: the binary's own figure, else its messages at their price."""
        total: dict[str, Any] = {}
        dollars: float | None = 0.0
        for model, usage in stream.usages.values():
            total = add_usage(total, usage)
            cost = self.session.price(model or self.model, usage, batch=False, at=record.created_at)
            dollars = None if dollars is None or cost.usd is None else dollars + cost.usd
        own = stream.own_cost()
        if own is None and not stream.usages:
            return Booked(session_id=stream.session_id)
        usd = dollars if own is None else cost_of_run(own, dollars, self._reported(record))
        return Booked(Cost(usd=usd, live_usd=usd), usage_of(total), stream.session_id)

    def _reported(self, record: LiveCall) -> float:
        """USD of the earlier runs of the record's session that came to their end."""
        runs = earlier_runs(self.session.ledger, record, record.session_id)
        ended = (r for r in runs if not isinstance(r.status, CallFailed) or r.status.kind not in CUT_OFF)
        return sum(r.cost.usd for r in ended if r.cost and r.cost.usd is not None)


def _session(order: Order) -> list[str]:
    """We choose the session's id, so that it is on record before the session begins."""
    assert order.record.session_id is not None
    return ["--session-id" if order.say == "all" else "--resume", order.record.session_id]


def _texts(request: Mapping[str, Any]) -> list[str]:
    prompt, system = prompt_of(request), _system(request)
    argv = []
    schema = prompt.schema.get("schema") if prompt.schema else None
    if schema is not None:
        argv += ["--json-schema", json.dumps(schema)]
    if system and len(system.encode()) <= ARGUMENT_LIMIT:
        argv += ["--append-system-prompt", system]
    return argv


def _system(request: Mapping[str, Any]) -> str:
    return "\n\n".join(filter(None, (prompt_of(request).system, request.get("appended"))))


def _spoken(request: Mapping[str, Any]) -> Prompt:
    """The part of a prompt that goes to stdin. The schema is an argument; the system prompt too, unless too long."""
    system = _system(request)
    return replace(prompt_of(request), system=system if len(system.encode()) > ARGUMENT_LIMIT else None, schema=None)
