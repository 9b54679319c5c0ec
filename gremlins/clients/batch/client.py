"""Clients whose batch mode is the Message Batches API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from gremlins.clients.account import find_account
from gremlins.clients.base import Answer, BatchSupport, Client, PromptSource, Session
from gremlins.clients.batch.api import AnthropicBatchApi, BatchApi
from gremlins.clients.batch.engine import BatchEngine, prompt_of
from gremlins.clients.next_step import AskLive
from gremlins.config import Settings
from gremlins.records.gremlin import Mode


class BatchCapable(Client):
    """A client whose batch mode is Anthropic's Message Batches API."""

    batch_support: ClassVar[BatchSupport] = "yes"

    def __init__(self, model: str, session: Session, *, api: BatchApi | None = None) -> None:
        super().__init__(model, session)
        self._api = api
        self._engine: BatchEngine | None = None

    @property
    def engine(self) -> BatchEngine:
        """The durable batch calls of this client. Raises NotReady without credentials."""
        if self._engine is None:
            if self._api is None:
                account = find_account(self.session.env)
                self._api = AnthropicBatchApi(account, timeout=self.session.settings.batch.http_timeout)
            self._engine = BatchEngine(
                self.session, self._api, client=self.name, model=self.model, live_available=self.live_available()
            )
        return self._engine

    def live_available(self) -> bool:
        """True if an expired batch can become a live call."""
        return True

    def run_batch(self, prompt: PromptSource, *, label: str, max_tokens: int | None, revision: int) -> Answer:
        reply = self.engine.run(prompt, label=label, max_tokens=max_tokens, revision=revision)
        if isinstance(reply, AskLive):
            request = reply.record.request
            again = prompt_of(request) if "messages" in request else prompt
            return self.run_live(again, label=label, max_tokens=max_tokens, revision=revision, edits_worktree=False)
        return reply

    @classmethod
    def check_ready(cls, model: str, mode: Mode, env: Mapping[str, str], settings: Settings) -> None:
        if mode == "batch":
            find_account(env)
