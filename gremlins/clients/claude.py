"""The provider `claude`: batch over the Message Batches API, live through the Claude Code binary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from gremlins.clients.base import Answer, PromptSource
from gremlins.clients.batch.client import BatchCapable
from gremlins.config import Settings
from gremlins.records.gremlin import Mode


class ClaudeClient(BatchCapable):
    """`claude:MODEL`."""

    provider: ClassVar[str] = "claude"

    def live_available(self) -> bool:
        from gremlins.clients.live.claude_code import find_claude  # only where live is possible at all

        return find_claude(self.session.env) is not None

    def run_live(
        self, prompt: PromptSource, *, label: str, max_tokens: int | None, revision: int, edits_worktree: bool
    ) -> Answer:
        from gremlins.clients.live.claude_code import run_live  # a batch-only process never needs it

        return run_live(
            self.session,
            self.model,
            self.provider,
            prompt,
            label=label,
            max_tokens=max_tokens,
            revision=revision,
            edits_worktree=edits_worktree,
        )

    @classmethod
    def check_ready(cls, model: str, mode: Mode, env: Mapping[str, str], settings: Settings) -> None:
        super().check_ready(model, mode, env, settings)
        if mode == "live":
            from gremlins.clients.live.claude_code import check_live

            check_live(env, settings)
