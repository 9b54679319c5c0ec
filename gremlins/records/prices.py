"""Prices a call from its provider's usage and a maintained price table. Nothing is stored here.

The APIs report tokens, never money. An unknown price is None, never 0, which would look free.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, Provider, Usage

BATCH_RATE = Decimal("0.5")
"""Of every token column, cache reads and writes included; not of web searches. As of 2026-11."""

US_RATE = Decimal("1.1")
"""On every token column where inference is kept in the US (`inference_geo: "us"`). As of 2026-11; no table has it."""

_BEFORE_US_RATE = (
    "claude-2",
    "claude-3",
    "claude-v1",
    "claude-opus-4-0",
    "claude-opus-4-1",
    "claude-opus-4-5",
    "claude-sonnet-4-0",
    "claude-sonnet-4-5",
    "claude-haiku-4-5",
)
_TABLES = {"claude": "anthropic", "anthropic": "anthropic", "openai": "openai", "codex": "openai"}
"""The price table of a client's provider."""


@dataclass(frozen=True)
class Price:
    """USD of one call, and what the same tokens would have cost live. Rounded to 1e-10, so that sums are stable."""

    usd: float
    live_usd: float

    @property
    def saved_usd(self) -> float:
        return round(self.live_usd - self.usd, 10)


def price(
    model: str, usage: Mapping[str, Any] | None, *, batch: bool, at: datetime, provider: str = "anthropic"
) -> Price | None:
    """The price of a call, or None where model, provider or usage is one the table knows nothing about.

    `usage` is the provider's own object as JSON; for Anthropic its `cache_creation`, `server_tool_use`,
    `inference_geo` and `speed` count. `provider` is that of the client. `at` is when the call was made: prices change.
    """
    table = _table(provider)
    if table is None or usage is None:
        return None
    found = table.find_model(model)
    counted = _counted(table, usage)
    if found is None or counted is None:
        return None
    return _priced(table, found, counted, usage, batch=batch, at=at)


def dearest_price(
    usage: Mapping[str, Any] | None, *, batch: bool, at: datetime, provider: str = "anthropic"
) -> Price | None:
    """Cost with the provider's dearest model: spending caps count an unpriced call as that."""
    table = _table(provider)
    if table is None or usage is None:
        return None
    counted = _counted(table, usage)
    if counted is None:
        return None
    prices = (_priced(table, model, counted, usage, batch=batch, at=at) for model in table.models)
    return max((found for found in prices if found is not None), key=lambda found: found.usd, default=None)


def worst_case(
    request: Mapping[str, Any], *, batch: bool, at: datetime, provider: str = "anthropic", counted: int = 0
) -> float | None:
    """USD that one reply to a request may cost at most; None if the provider has no price table.

    Its input is one token a byte, which no text exceeds: English has four bytes a token, emoji, rare scripts and hashes
    little more than one. Live it is counted as written to a cache. Its output is `max_tokens`.
    counted: tokens of earlier messages, which the request leaves out here, as the provider has counted them.
    """
    tokens = counted + len(json.dumps(request, ensure_ascii=False).encode("utf-8", "replace"))
    cached = not batch and _TABLES.get(provider) == "anthropic"
    usage = {"output_tokens": int(request.get("max_tokens") or 0), "input_tokens": 0 if cached else tokens}
    if cached:
        usage["cache_creation_input_tokens"] = tokens
    found = price(str(request.get("model") or ""), usage, batch=batch, at=at, provider=provider)
    found = found or dearest_price(usage, batch=batch, at=at, provider=provider)
    return None if found is None else found.usd


def _table(provider: str) -> Provider | None:
    from genai_prices.data_snapshot import get_snapshot  # 0.4 s, which `status` must not pay

    name = _TABLES.get(provider, provider)
    return next((table for table in get_snapshot().providers if table.id == name), None)


def _counted(table: Provider, usage: Mapping[str, Any]) -> Usage | None:
    """The tokens in the table's terms, in which input includes what was written to and read from caches."""
    flavor = "default" if table.id == "anthropic" else "chat" if "prompt_tokens" in usage else "responses"
    try:
        return table.extract_usage({"usage": _tokens(usage)}, api_flavor=flavor)[1]
    except ValueError:  # no counts, or none that are numbers
        return None


def _tokens(usage: Mapping[str, Any]) -> Mapping[str, Any]:
    """The usage without its searches, which have a rate of their own, and with a total of cache writes that holds
    its own breakdown; else the table refuses to count it."""
    tokens = {name: value for name, value in usage.items() if name != "server_tool_use"}
    parts = usage.get("cache_creation")
    if isinstance(parts, Mapping):
        written = sum(_count(part) for part in parts.values())
        tokens["cache_creation_input_tokens"] = max(written, _count(usage.get("cache_creation_input_tokens")))
    return tokens


def _searches(usage: Mapping[str, Any]) -> int:
    tools = usage.get("server_tool_use")
    return _count(tools.get("web_search_requests")) if isinstance(tools, Mapping) else 0


def _count(value: object) -> int:
    return value if isinstance(value, int) else 0


def _priced(
    table: Provider, model: ModelInfo, tokens: Usage, usage: Mapping[str, Any], *, batch: bool, at: datetime
) -> Price | None:
    from genai_prices.types import Usage

    def cost(what: Usage, context: Mapping[str, str] | None) -> Decimal:
        priced = model.calc_price(what, table, genai_request_timestamp=at, price_context=context)
        return Decimal(priced.total_price)

    try:
        live = cost(tokens, {"speed": "fast"} if usage.get("speed") == "fast" else None)
        paid = _batch_tokens(live, cost(tokens, {"processing": "batch"})) if batch else live
        extra = cost(Usage(web_searches=_searches(usage)), None)
        rate = _geo_rate(model.id, usage)
        return Price(_dollars(paid * rate + extra), _dollars(live * rate + extra))
    except (ValueError, ArithmeticError):  # counts that contradict each other, or are beyond all measure
        return None


def _batch_tokens(live: Decimal, listed: Decimal) -> Decimal:
    """The table's batch price. Before the day on which those begin it gives the full one, and half of it was paid."""
    return listed if listed < live else live * BATCH_RATE


def _geo_rate(model_id: str, usage: Mapping[str, Any]) -> Decimal:
    in_us = usage.get("inference_geo") == "us" and not model_id.startswith(_BEFORE_US_RATE)
    return US_RATE if in_us else Decimal(1)


def _dollars(amount: Decimal) -> float:
    return float(round(amount, 10))
