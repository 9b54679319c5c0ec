"""Preflight: checks for free if a gremlin could start now, and prepares its launch. Proofs of keys are cached."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

from gremlins import __version__
from gremlins.clients.account import find_account
from gremlins.clients.registry import client_class, known_providers
from gremlins.clock import Clock
from gremlins.config import LoadedSettings
from gremlins.errors import GremlinsError, NotReady
from gremlins.files import make_private_dir
from gremlins.fleet.dispatch.observation import Missing, SpawnOrder
from gremlins.fleet.dispatch.policy import Policy, file_mark
from gremlins.launcher import ANTHROPIC, LaunchRequest, Prepared, check_modes, prepare, prove_key
from gremlins.paths import Home
from gremlins.pipeline.file import Pipeline, find_pipeline, freeze, load_pipeline
from gremlins.pipeline.freezing import FrozenLaunch
from gremlins.records.gremlin import Mode
from gremlins.records.prices import worst_case
from gremlins.stages.spec import AgentStage, walk

BELIEVED = 300.0
"""Seconds for which a successful proof of a key is cached."""
DOUBTED = 15.0
"""Seconds for which a failed proof is cached."""
ROOM = 64 * 1024 * 1024
"""Bytes that must be free for worktrees and records."""
SCOPES_KEPT = 30.0
"""Seconds for which the names of the credentials are cached."""
NO_KEY = ":none"


@dataclass
class Readiness:
    """Checks and prepares launches in one project. Settings, pipeline and credentials are read once and reused."""

    home: Home
    project: Path
    clock: Clock
    env: Callable[[], Mapping[str, str]]
    settings: Callable[[], LoadedSettings]
    """Raises ConfigError if the settings are wrong."""
    policy: Callable[[], Policy]
    _proofs: dict[tuple[str, ...], tuple[float, Missing | None]] = field(default_factory=dict)
    _parsed: tuple[object, Pipeline] | None = None
    _prepared: Prepared | None = None
    _scopes: tuple[float, object, tuple[str, ...]] | None = None
    _first_call: tuple[object, float] | None = None

    def check(self, *, fresh: bool) -> Missing | None:
        """Pipeline, credentials, base URL, binary, repository, disk; then the free call that proves the key."""
        policy = self.policy()
        self._prepared = None
        try:
            self._check_disk()
            self._prepared = self._prepare(policy.pipeline, policy.mode)
            return self._prove(self._prepared, fresh=fresh)
        except GremlinsError as error:
            return Missing(error.message, error.hint, error.exit_code)
        except OSError as error:
            return Missing(f"{error.filename or self.home.root}: {error.strerror or error}", None, NotReady.exit_code)

    def prepared(self, order: SpawnOrder) -> Prepared:
        """The launch of a new gremlin: what the latest check prepared, if that was for this pipeline and mode."""
        found = self._prepared
        if found is None or (found.request.pipeline, found.request.mode) != (order.pipeline, order.mode):
            found = self._prepare(order.pipeline, order.mode)
        request = replace(
            found.request,
            task=order.task,
            title=order.title,
            gremlin_id=order.gremlin_id,
            bead_id=order.bead_id,
            base_ref=order.start.commit,
            builds_on=order.start.unlanded,
        )
        return replace(found, request=request)

    def launch(self) -> FrozenLaunch:
        """Pipeline and settings as they are now, for hosts that have no working tree. Raises as `prepare` does."""
        policy = self.policy()
        found = self._prepare(policy.pipeline, policy.mode)
        return FrozenLaunch(program=__version__, pipeline=found.pipeline, settings=found.loaded.settings)

    def pipeline(self, name: str) -> Pipeline:
        """The pipeline, parsed again only if its file has changed. Raises NotFound, ConfigError."""
        found = find_pipeline(name, self.project, cwd=self.project)
        mark = (found.path, file_mark(found.path))
        if self._parsed is None or self._parsed[0] != mark:
            self._parsed = (mark, load_pipeline(found, providers=known_providers()))
        return self._parsed[1]

    def scopes(self) -> tuple[str, ...]:
        """Provider and key fingerprint of each credential that the pipeline uses; () if the pipeline is wrong."""
        now, policy, env = self.clock.monotonic(), self.policy(), self.env()
        key = (policy.pipeline, policy.mode, env)
        kept = self._scopes
        if kept is None or kept[1] != key or now - kept[0] > SCOPES_KEPT:
            try:
                kept = (now, key, tuple(sorted(self._find_scopes(policy, env))))
            except GremlinsError:
                return ()
            if not any(scope.endswith(NO_KEY) for scope in kept[2]):
                self._scopes = kept
        return kept[2]

    def fault(self) -> str | None:
        """The fault of settings, pipeline or providers. Credentials are not looked at; it costs no request."""
        try:
            check_modes(self._asking(self.policy()))
        except GremlinsError as error:
            return error.message
        return None

    def first_call_usd(self) -> float:
        """The worst case of the pipeline's first call: a context and a reply as large as the settings allow."""
        policy = self.policy()
        key = (policy.pipeline, policy.mode)
        if self._first_call is None or self._first_call[0] != key:
            try:
                stages = self._asking(policy)
                self._first_call = (key, self._worst_of(stages[0]) if stages else 0.0)
            except GremlinsError:
                return 0.0
        return self._first_call[1]

    def _worst_of(self, spec: AgentStage) -> float:
        batch, client = self.settings().settings.batch, spec.settled_client
        request = {"model": client.model, "max_tokens": batch.max_tokens}
        in_batch, now, tokens = spec.settled_mode == "batch", self.clock.now(), batch.context_tokens
        return worst_case(request, batch=in_batch, at=now, provider=client.provider, counted=tokens) or 0.0

    def _find_scopes(self, policy: Policy, env: Mapping[str, str]) -> set[str]:
        return {_scope(provider, env) for provider in {s.settled_client.provider for s in self._asking(policy)}}

    def _asking(self, policy: Policy) -> list[AgentStage]:
        """The pipeline's stages that ask a model."""
        frozen = freeze(
            self.pipeline(policy.pipeline),
            repo=self.project,
            settings=self.settings().settings,
            cli_client=None,
            cli_mode=cast("Mode | None", policy.mode),
            providers=known_providers(),
            has_batch=lambda client: client_class(client).batch_support == "yes",
        )
        return [spec for _, spec in walk(frozen.stages) if isinstance(spec, AgentStage)]

    def _prepare(self, pipeline: str, mode: str | None) -> Prepared:
        request = LaunchRequest(pipeline=pipeline, cwd=self.project, task="a bead", mode=cast("Mode | None", mode))
        return prepare(request, self.home, self.env(), loaded=self.settings(), pipeline=self.pipeline(pipeline))

    def _check_disk(self) -> None:
        make_private_dir(self.home.root)
        for place in (self.home.root, self.project):
            free = shutil.disk_usage(place).free
            if free < ROOM:
                raise NotReady(f"only {free // 2**20} MB are free at {place}", hint="make room, and it goes on")

    def _prove(self, prepared: Prepared, *, fresh: bool) -> Missing | None:
        key, now = self.scopes(), self.clock.monotonic()
        known = self._proofs.get(key)
        if known is not None and now - known[0] < (DOUBTED if known[1] else 0.0 if fresh else BELIEVED):
            return known[1]
        found: Missing | None = None
        try:
            prove_key(prepared.pipeline, prepared.request, self.env())
        except GremlinsError as error:
            found = Missing(error.message, error.hint, error.exit_code)
        self._proofs[key] = (now, found)
        return found


def _scope(provider: str, env: Mapping[str, str]) -> str:
    if provider not in ANTHROPIC:
        return provider
    try:
        return f"{provider}:{find_account(env).fingerprint[:8]}"
    except NotReady:
        return f"{provider}{NO_KEY}"
