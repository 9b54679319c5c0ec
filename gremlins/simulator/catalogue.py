"""The models the simulator says it has, as `GET /v1/models` describes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gremlins.simulator.api import Json
from gremlins.simulator.options import Options

KNOWN = (
    "claude-opus-5-5",
    "claude-sonnet-5-5",
    "claude-haiku-5-5",
    "claude-opus-5",
    "claude-sonnet-5",
    "claude-opus-4-8",
    "claude-opus-4-7",
    "claude-opus-4-6",
    "claude-sonnet-4-6",
    "claude-opus-4-5",
    "claude-sonnet-4-5",
    "claude-haiku-4-5",
)
MAX_TOKENS = 128_000
MAX_TOKENS_BEFORE_4_6 = 64_000
_SUPPORTED = {"supported": True}
_UNSUPPORTED = {"supported": False}
_THINKING = ("adaptive", "between_tools", "disabled", "enabled")


@dataclass(frozen=True)
class Catalogue:
    """Reads the options anew each time, for they may change while the simulator runs."""

    options: Callable[[], Options]

    def ids(self) -> list[str]:
        only = self.options().only_models
        return sorted(only) if only else list(KNOWN)

    def known(self, model: str) -> bool:
        only = self.options().only_models
        return model in only if only else model.startswith("claude-") or self.options().lenient

    def batch(self, model: str) -> bool:
        return model not in self.options().no_batch_models

    def max_tokens(self, model: str) -> int:
        return MAX_TOKENS_BEFORE_4_6 if "-4-5" in model else MAX_TOKENS

    def info(self, model: str) -> Json:
        """A ModelInfo object."""
        return {
            "type": "model",
            "id": model,
            "display_name": model.replace("-", " ").title(),
            "created_at": "2026-02-01T00:00:00Z",
            "deprecated_at": None,
            "retires_at": None,
            "lifecycle": "active",
            "line": next((line for line in ("opus", "sonnet", "haiku") if line in model), None),
            "max_input_tokens": 1_000_000,
            "max_tokens": self.max_tokens(model),
            "capabilities": _capabilities(batch=self.batch(model)),
        }


def _capabilities(*, batch: bool) -> Json:
    return {
        "batch": {"supported": batch},
        "citations": _SUPPORTED,
        "code_execution": _UNSUPPORTED,
        "context_management": _SUPPORTED
        | {
            "clear_thinking_20251015": _UNSUPPORTED,
            "clear_tool_uses_20250919": _UNSUPPORTED,
            "compact_20260112": _UNSUPPORTED,
        },
        "effort": _SUPPORTED | dict.fromkeys(("low", "medium", "high", "max", "xhigh"), _SUPPORTED),
        "image_input": _SUPPORTED,
        "pdf_input": _SUPPORTED,
        "server_tools": _UNSUPPORTED | {"code_execution": _UNSUPPORTED, "web_search": _UNSUPPORTED},
        "structured_outputs": _SUPPORTED,
        "thinking": _SUPPORTED | {"types": dict.fromkeys(_THINKING, _SUPPORTED)},
    }
