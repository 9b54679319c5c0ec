"""The providers: built-in ones by lazy module path, and those that other packages register."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points

from gremlins.clients.base import Client, Session
from gremlins.config import ClientSpec, Settings
from gremlins.errors import ConfigError, GremlinsError, NotReady, did_you_mean
from gremlins.records.gremlin import Mode

ENTRY_POINTS = "gremlins.clients"


@dataclass(frozen=True)
class BuiltIn:
    """A built-in provider. Its module is imported at its first use."""

    module: str
    name: str


BUILT_IN = {
    "anthropic": BuiltIn("gremlins.clients.providers.anthropic", "AnthropicClient"),
    "claude": BuiltIn("gremlins.clients.claude", "ClaudeClient"),
    "copilot": BuiltIn("gremlins.clients.copilot", "CopilotClient"),
    "kilo": BuiltIn("gremlins.clients.providers.kilo", "KiloClient"),
    "openai": BuiltIn("gremlins.clients.providers.openai", "OpenAIClient"),
    "scripted": BuiltIn("gremlins.clients.providers.scripted", "ScriptedClient"),
}


def known_providers() -> frozenset[str]:
    """Every provider's name. Imports none of them."""
    return frozenset(BUILT_IN) | frozenset(_registered())


def client_class(spec: str | ClientSpec) -> type[Client]:
    """The class of `provider:model`. Raises ConfigError (no such provider), NotReady (it cannot be loaded)."""
    parsed = ClientSpec.parse(spec) if isinstance(spec, str) else spec
    if (built_in := BUILT_IN.get(parsed.provider)) is not None:
        found: type[Client] = getattr(importlib.import_module(built_in.module), built_in.name)
    elif (entry := _registered().get(parsed.provider)) is not None:
        found = _load(entry)
    else:
        others = "there are " + ", ".join(sorted(known_providers()))
        raise ConfigError(
            f"unknown provider `{parsed.provider}` in client `{parsed}`",
            hint=did_you_mean(parsed.provider, known_providers(), otherwise=others),
        )
    return found


def make_client(spec: str | ClientSpec, session: Session) -> Client:
    """A client for one gremlin's process."""
    parsed = ClientSpec.parse(spec) if isinstance(spec, str) else spec
    return client_class(parsed)(parsed.model, session)


def _registered() -> dict[str, EntryPoint]:
    """Providers of other packages, by name. A built-in name is never taken over."""
    return _registered_on(tuple(sys.path))


@cache
def _registered_on(_path: tuple[str, ...]) -> dict[str, EntryPoint]:
    """A look at every installed package: once for a process."""
    return {entry.name: entry for entry in entry_points(group=ENTRY_POINTS) if entry.name not in BUILT_IN}


def _load(entry: EntryPoint) -> type[Client]:
    try:
        found = entry.load()
    except (Exception, SystemExit) as error:  # a stranger's module may fail in any way while it is imported
        raise _unusable(entry, f"cannot be loaded: {type(error).__name__}: {error}") from error
    if not (isinstance(found, type) and issubclass(found, Client)):
        raise _unusable(entry, f"is no subclass of gremlins.clients.base.Client: {entry.value}")
    if not isinstance(getattr(found, "provider", None), str):
        raise _unusable(entry, "has no `provider`, its own name")
    if inspect.isabstract(found):
        raise _unusable(entry, f"has no {' and no '.join(f'`{name}`' for name in sorted(found.__abstractmethods__))}")
    if found.batch_support != "no" and found.run_batch is Client.run_batch:
        raise _unusable(entry, "claims a batch mode and has no `run_batch`")
    return found


def _unusable(entry: EntryPoint, why: str) -> NotReady:
    package = entry.dist.name if entry.dist else entry.value
    hint = f"it comes from the package {package}: update or uninstall that, or use another --client"
    return NotReady(f"the provider `{entry.name}` {why}", hint=hint)


def check_ready(spec: str | ClientSpec, mode: Mode, env: Mapping[str, str], settings: Settings) -> None:
    """Check that a provider can be asked. Raises as `Client.check_ready` does; what a plug-in raises names it."""
    parsed = ClientSpec.parse(spec) if isinstance(spec, str) else spec
    kind = client_class(parsed)
    try:
        kind.check_ready(parsed.model, mode, env, settings)
    except (Exception, SystemExit) as error:  # a plug-in may raise anything; ours is raised again
        if isinstance(error, GremlinsError) or (module := plug_in_of(kind)) is None:
            raise
        why = f"the plug-in {module} of the provider `{kind.provider}` raised {type(error).__name__}: {error}"
        raise GremlinsError(why, hint="its authors can help; gremlins has only called it") from error


def plug_in_of(kind: type[Client]) -> str | None:
    """The module of a client from another package; None for our own."""
    return None if kind.__module__.partition(".")[0] == "gremlins" else kind.__module__
