"""Preflight: whether a gremlin could be started now. Spends nothing; a proven key is believed for a few minutes."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from gremlins.clients.account import find_account
from gremlins.clients.registry import known_providers
from gremlins.clock import Clock
from gremlins.config import load_settings
from gremlins.errors import GremlinsError, NotReady
from gremlins.files import make_private_dir
from gremlins.fleet.dispatch.observation import Missing, Ready
from gremlins.fleet.dispatch.policy import Policy
from gremlins.launcher import ANTHROPIC, LaunchRequest, Prepared, prepare, prove_key
from gremlins.paths import Home
from gremlins.pipeline.file import find_pipeline, freeze, load_pipeline
from gremlins.records.gremlin import Mode
from gremlins.stages.spec import AgentStage, walk

BELIEVED = 300.0
"""Seconds a proof that went well is believed."""
DOUBTED = 15.0
"""Seconds before what was refused is asked about again."""
ROOM = 64 * 1024 * 1024
"""Bytes that must be free where worktrees and records go."""
PROVIDERS_KEPT = 30.0


@dataclass
class Readiness:
    """Checks for one project. Remembers proofs by the fingerprint of what was proven, in this process only."""

    home: Home
    project: Path
    clock: Clock
    env: Callable[[], Mapping[str, str]]
    policy: Callable[[], Policy]
    _proofs: dict[tuple[str, ...], tuple[float, Missing | None]] = field(default_factory=dict)
    _providers: tuple[float, str, tuple[str, ...]] | None = None

    def check(self, *, fresh: bool) -> Ready | Missing:
        """Pipeline, credentials, base URL, binary, repository, disk; then the free call that proves the key."""
        try:
            self._check_disk()
            prepared = prepare(self.request("a bead"), self.home, self.env())
            refused = self._prove(prepared, fresh=fresh)
        except GremlinsError as error:
            return Missing(error.message, error.hint, error.exit_code)
        except OSError as error:
            return Missing(f"{error.filename or self.home.root}: {error.strerror or error}", None, NotReady.exit_code)
        return refused or Ready()

    def request(self, task: str) -> LaunchRequest:
        """What a launch for this project asks for, whatever the task."""
        policy = self.policy()
        return LaunchRequest(
            pipeline=policy.pipeline, cwd=self.project, task=task, mode=cast("Mode | None", policy.mode)
        )

    def scopes(self) -> tuple[str, ...]:
        """Provider and fingerprint of every credential that the pipeline uses; () where that cannot be told."""
        try:
            return tuple(sorted({self._scope(provider) for provider in self._providers_of_pipeline()}))
        except GremlinsError:
            return ()

    def _scope(self, provider: str) -> str:
        if provider not in ANTHROPIC:
            return provider
        try:
            return f"{provider}:{find_account(self.env()).fingerprint[:8]}"
        except NotReady:
            return f"{provider}:none"

    def _providers_of_pipeline(self) -> tuple[str, ...]:
        now, policy = self.clock.monotonic(), self.policy()
        kept = self._providers
        if kept is None or kept[1] != policy.pipeline or now - kept[0] > PROVIDERS_KEPT:
            kept = self._providers = (now, policy.pipeline, self._read_providers())
        return kept[2]

    def _read_providers(self) -> tuple[str, ...]:
        request = self.request("a bead")
        frozen = freeze(
            load_pipeline(find_pipeline(request.pipeline, self.project, cwd=self.project), providers=known_providers()),
            repo=self.project,
            settings=load_settings(self.project, self.home, self.env()).settings,
            cli_client=None,
            cli_mode=request.mode,
            providers=known_providers(),
        )
        asking = (spec for _, spec in walk(frozen.stages) if isinstance(spec, AgentStage))
        return tuple(sorted({spec.settled_client.provider for spec in asking}))

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
