"""Options of the simulator, from Python, a JSON file or the command line."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_type_hints

import msgspec

from gremlins.errors import ConfigError, GremlinsError, did_you_mean
from gremlins.simulator.faults import Fault

DAY = 86_400.0


@dataclass(frozen=True, kw_only=True)
class Options:
    """Times are seconds. The defaults behave as the API does, without its delays."""

    host: str = "127.0.0.1"
    port: int = 0
    """0 takes a free one."""
    latency: float = 0.0
    """From a batch's creation to its end; infinite means it ends only by cancelling, or expiry."""
    latency_spread: float = 0.0
    """Up to this much longer, evenly spread."""
    reply_latency: float = 0.0
    """Before a live reply begins."""
    stream_delay: float = 0.0
    """Between the events of a stream."""
    cancel_latency: float = 0.0
    """From the wish to cancel to the end of the batch."""
    cancel_too_late: bool = False
    """A batch that is being canceled succeeds all the same, and is billed."""
    expires_after: float = DAY
    results_kept: float = 29 * DAY
    keys: Mapping[str, str] | None = None
    """Key → workspace. None takes any key, all in the workspace `default`."""
    forbidden_keys: frozenset[str] = frozenset()
    """Keys that are answered with 403."""
    organization: str = "00000000-0000-4000-8000-000000000000"
    only_models: frozenset[str] = frozenset()
    """Known model ids. Empty: those of the catalogue, and any other that begins with `claude-`."""
    no_batch_models: frozenset[str] = frozenset()
    """Models that do not support batches."""
    results_base: str | None = None
    """Scheme and host of `results_url`, where it is to differ from the simulator's own."""
    batch_rate_limit: int = 0
    """Requests a minute to all batch endpoints together, per workspace; 0 is no limit."""
    clock_offset: float = 0.0
    """Seconds that the simulator's clock is ahead of the machine's."""
    date_offset: float = 0.0
    """Seconds that the `Date` header is ahead of the simulator's clock, as behind a gateway with a clock of its own."""
    batch_ids: Literal["api", "base64"] = "api"
    """The form of batch ids: a gateway may encode them."""
    more_counts: Mapping[str, int] = field(default_factory=dict)
    """Further keys in the `request_counts` of every batch."""
    never_expires: bool = False
    """Batches are still in progress after their `expires_at`."""
    faults: tuple[Fault, ...] = ()
    model: Mapping[str, Any] = field(default_factory=lambda: {"kind": "rules"})
    """The scripted model, see `model_from_json`. A model given to `Simulator` comes first."""
    lenient: bool = False
    """Unknown batch ids are answered with a made-up batch, cursors are ignored and every model is known: for test
    suites of clients that were written against a mock server."""
    state_file: Path | None = None
    """Batches are kept there, so that a simulator that was killed goes on where it was."""
    seed: int | None = None


def options_from_json(value: Mapping[str, Any], base: Options | None = None) -> Options:
    """Options named as in `Options`. Raises GremlinsError with the nearest known name."""
    known = {item.name for item in fields(Options)}
    for key in value:
        if key not in known:
            raise GremlinsError(f"the simulator has no option `{key}`", hint=did_you_mean(key, known))
    return replace(base or Options(), **{key: _typed(key, item) for key, item in value.items()})


def options_from_file(path: Path, base: Options | None = None) -> Options:
    return options_from_json(object_in(path), base)


def object_in(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises ConfigError."""
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot be read: {error}", file=path) from error
    if not isinstance(value, dict):
        raise ConfigError("is not a JSON object", file=path)
    return value


def _typed(key: str, value: Any) -> Any:
    if key == "latency" and value is None:
        return math.inf
    if key == "faults" and isinstance(value, list):
        return tuple(Fault.from_json(item) for item in value)
    try:
        return msgspec.convert(value, get_type_hints(Options)[key], dec_hook=lambda kind, given: kind(given))
    except (msgspec.ValidationError, TypeError) as error:
        raise GremlinsError(f"the simulator's option `{key}`: {error}") from error
