"""Base classes of clients whose live calls go through an agent, and the words that every agent is told."""

from __future__ import annotations

import json
import re
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from gremlins.clients.base import Answer, BatchSupport, Client, Prompt, PromptSource, Session, made
from gremlins.clients.batch.engine import build_request, prompt_of
from gremlins.clients.live.engine import Agent, LiveEngine, Order
from gremlins.records.calls import CallFailed, Ledger, LiveCall, Usage

CONTINUE = "You were interrupted. Look at what is already done in the worktree, and go on until the task is finished."


class AgentClient(Client):
    """A provider that makes each live call through one agent."""

    @abstractmethod
    def agent(self) -> Agent:
        """The agent of one call."""

    def run_live(
        self, prompt: PromptSource, *, label: str, max_tokens: int | None, revision: int, edits_worktree: bool
    ) -> Answer:
        engine = LiveEngine(self.session, self.agent(), label=label, revision=revision)
        return engine.run(prompt, edits_worktree=edits_worktree, max_tokens=max_tokens)


class FallsBackToLive(AgentClient):
    """A provider without a batch API. Makes batch calls live, without edits to the worktree, and logs that."""

    batch_support: ClassVar[BatchSupport] = "fallback"

    def run_batch(self, prompt: PromptSource, *, label: str, max_tokens: int | None, revision: int) -> Answer:
        note = f"`{self.provider}` has no batch mode: asked in batch, made live"
        if not any(note in record.notes for record in self.session.ledger.records()):
            self.session.log(note)
        engine = LiveEngine(self.session, self.agent(), label=label, revision=revision, notes=(note,))
        return engine.run(prompt, edits_worktree=False, max_tokens=max_tokens)


def whole_text(prompt: Prompt) -> str:
    """A prompt as one text, for agents that take no system prompt, conversation or schema."""
    parts = [prompt.system] if prompt.system else []
    parts.append(prompt.text)
    for reply, correction in prompt.followups:
        parts += [f"You answered:\n\n{reply}", correction]
    if prompt.schema:
        wanted = json.dumps(schema_of(prompt.schema))
        parts.append(f"Reply with one JSON object and nothing else. It must match this JSON Schema:\n{wanted}")
    return "\n\n".join(parts)


def message_for(order: Order, prompt: Prompt | None = None) -> str:
    """The next message to an agent: all of `prompt` (default: the request's), the last correction, or to continue."""
    prompt = prompt or prompt_of(order.record.request)
    if order.say == "continue":
        return CONTINUE
    return prompt.followups[-1][1] if order.say == "correction" and prompt.followups else whole_text(prompt)


def live_request(
    session: Session, model: str, prompt: PromptSource, *, edits_worktree: bool, max_tokens: int | None
) -> dict[str, Any]:
    """A live request as its record keeps it."""
    ceiling = max_tokens or session.settings.batch.max_tokens
    return {**build_request(model, made(prompt), ceiling), "edits_worktree": edits_worktree}


def permission_denied(program: str, tools: Iterable[str]) -> CallFailed:
    """The failure of a run in which the agent was denied a tool."""
    message = f"{program} was denied a tool it wanted: {', '.join(sorted(set(tools)))} (setting `live.allowed_tools`)"
    return CallFailed(failure="task", kind="permission_denied", message=message)


def earlier_runs(ledger: Ledger, record: LiveCall, session_id: str | None) -> list[LiveCall]:
    """Other tries of the same call in the same session of the agent."""
    same = (r for r in ledger.of_call(record.key.stage, record.key.attempt) if isinstance(r, LiveCall))
    return [r for r in same if r.session_id == session_id and r.key != record.key]


def usage_of_run(session_total: Usage, earlier: Iterable[LiveCall]) -> Usage:
    """The tokens of one run, for agents that report the sums of a whole session."""
    before = [r.usage for r in earlier if r.usage]

    def left(name: str) -> int:
        return max(0, int(getattr(session_total, name)) - sum(int(getattr(usage, name)) for usage in before))

    names = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")
    counts = {name: left(name) for name in names}
    raw = {
        "input_tokens": counts["input_tokens"],
        "output_tokens": counts["output_tokens"],
        "cache_read_input_tokens": counts["cache_read_tokens"],
        "cache_creation_input_tokens": counts["cache_write_tokens"],
    }
    return Usage(**counts, raw=raw)


def parse_event(line: bytes) -> dict[str, Any] | None:
    """One line of an agent's output as an event, or None if it is none: a JSON object with a `type`."""
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) and isinstance(event.get("type"), str) else None


def schema_of(format: Mapping[str, Any]) -> Any:
    """The JSON Schema inside an output format of the Messages API."""
    return format.get("schema", format)


def without_fence(text: str) -> str:
    """The text inside a code fence around all of it; any other text unchanged."""
    found = re.fullmatch(r"\s*```(?:json)?\s*\n(.*)\n\s*```\s*", text, re.DOTALL)
    return found[1] if found else text


def reply_text(request: Mapping[str, Any], text: str) -> str:
    """The text of a reply, without its code fence if the request asks for structured output."""
    return without_fence(text) if prompt_of(request).schema else text
