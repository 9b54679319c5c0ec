"""Clients whose live calls go through an agent, and what those without a batch API do when batch is asked for."""

from __future__ import annotations

import json
import re
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from gremlins.clients.base import Answer, BatchSupport, Client, Prompt, PromptSource
from gremlins.clients.batch.engine import prompt_of
from gremlins.clients.live.engine import Agent, LiveEngine


class AgentClient(Client):
    """A provider whose live calls are one agent's."""

    @abstractmethod
    def agent(self) -> Agent:
        """The agent of one call."""

    def run_live(
        self, prompt: PromptSource, *, label: str, max_tokens: int | None, revision: int, edits_worktree: bool
    ) -> Answer:
        engine = LiveEngine(self.session, self.agent(), label=label, revision=revision)
        return engine.run(prompt, edits_worktree=edits_worktree, max_tokens=max_tokens)


class FallsBackToLive(AgentClient):
    """Has no batch API: a call asked for in batch mode is made live, without touching the worktree, and says so."""

    batch_support: ClassVar[BatchSupport] = "fallback"

    def run_batch(self, prompt: PromptSource, *, label: str, max_tokens: int | None, revision: int) -> Answer:
        note = f"`{self.provider}` has no batch mode: asked in batch, made live"
        if not any(note in record.notes for record in self.session.ledger.records()):
            self.session.log(note)
        engine = LiveEngine(self.session, self.agent(), label=label, revision=revision, notes=(note,))
        return engine.run(prompt, edits_worktree=False, max_tokens=max_tokens)


def whole_text(prompt: Prompt) -> str:
    """A prompt as one text, for agents that know neither system prompts nor conversations nor schemas."""
    parts = [prompt.system] if prompt.system else []
    parts.append(prompt.text)
    for reply, correction in prompt.followups:
        parts += [f"You answered:\n\n{reply}", correction]
    if prompt.schema:
        wanted = json.dumps(schema_of(prompt.schema))
        parts.append(f"Reply with one JSON object and nothing else. It must match this JSON Schema:\n{wanted}")
    return "\n\n".join(parts)


def schema_of(format: Mapping[str, Any]) -> Any:
    """The JSON Schema inside an output format of the Messages API."""
    return format.get("schema", format)


def without_fence(text: str) -> str:
    """JSON out of the code fence that models like to put around it; any other text as it is."""
    found = re.fullmatch(r"\s*```(?:json)?\s*\n(.*)\n\s*```\s*", text, re.DOTALL)
    return found[1] if found else text


def reply_text(request: Mapping[str, Any], text: str) -> str:
    """The text of a reply to a request, unwrapped where structured output was asked for."""
    return without_fence(text) if prompt_of(request).schema else text
