"""The readiness of this host: the steps and polls that a worker here may take, by its own credentials."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations

from gremlins.clients.account import find_account
from gremlins.clients.registry import BUILT_IN, check_ready, client_class, known_providers
from gremlins.cluster.jobs import EVERYONE, account_queue, host_queue
from gremlins.cluster.needs import queue_of
from gremlins.config import Settings
from gremlins.errors import GremlinsError, NotReady
from gremlins.records.gremlin import Mode

MODES: tuple[Mode, ...] = ("batch", "live")
MODEL = "any"
MOST = 10
"""Kinds of calls; a worker listens to each set of them."""


def abilities(env: Mapping[str, str], settings: Settings) -> tuple[str, ...]:
    """The kinds of calls that can be made here, as `claude-batch`."""
    return tuple(sorted(_abilities(env, settings)))[:MOST]


def _abilities(env: Mapping[str, str], settings: Settings) -> Iterator[str]:
    for provider in sorted(known_providers(), key=lambda name: (name not in BUILT_IN, name)):
        for mode in MODES:
            try:
                kind = client_class(f"{provider}:{MODEL}")
                if mode == "live" or kind.batch_support == "yes":
                    check_ready(f"{provider}:{MODEL}", mode, env, settings)
                    yield f"{provider}-{mode}"
            except GremlinsError:
                continue


def queues(able: tuple[str, ...], env: Mapping[str, str], host: str) -> list[str]:
    """The engine's queues that a worker of this host listens to."""
    sets = [queue_of(each) for size in range(len(able) + 1) for each in combinations(able, size)]
    try:
        own = [account_queue(find_account(env).fingerprint)]
    except NotReady:
        own = []
    return [*sets, *own, host_queue(host), EVERYONE]
