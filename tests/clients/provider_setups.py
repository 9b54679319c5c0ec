"""Every provider behind one interface, so that one suite runs over all of them."""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Self

import yaml

from gremlins.clients.base import Client
from gremlins.clients.registry import make_client
from gremlins.simulator import ScriptedModel, Simulator
from tests.clients.providers import fake_kilo
from tests.clients.providers.fake_claude import FakeClaude, answers, assistant, init, result
from tests.clients.providers.fake_kilo import FakeKilo
from tests.clients.providers.responses_api import ResponsesApi, says
from tests.clients.session_setup import SECRET, SessionSetup


class ProviderSetup(ABC):
    """A provider whose next replies a test sets and whose requests it reads."""

    spec: str

    def __init__(self, folder: Path, around: SessionSetup) -> None:
        self.folder = folder
        self.around = around

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:  # noqa: B027 # most providers have nothing to end
        """End what was started."""

    def client(self, around: SessionSetup | None = None) -> Client:
        return make_client(self.spec, (around or self.around).session())

    @abstractmethod
    def reply(self, text: str) -> None:
        """Answer every request with this text from now on."""

    @abstractmethod
    def no_such_model(self) -> None:
        """Make the provider refuse the model from now on."""

    @abstractmethod
    def prompts(self) -> list[str]:
        """The requests so far, each as one text."""


class ClaudeSetup(ProviderSetup):
    spec = "claude:claude-sonnet-5-5"

    def __init__(self, folder: Path, around: SessionSetup) -> None:
        super().__init__(folder, around)
        self.fake = FakeClaude(folder / "claude")
        self.sim = Simulator(model=ScriptedModel(otherwise="In batch."))
        around.env["GREMLINS_CLAUDE_BIN"] = str(self.fake.path)

    def __enter__(self) -> Self:
        self.sim.start()
        self.around.env |= {**self.sim.env, "ANTHROPIC_API_KEY": SECRET}
        return self

    def __exit__(self, *_: object) -> None:
        self.sim.stop()

    def reply(self, text: str) -> None:
        self.fake.plan(answers(text))

    def no_such_model(self) -> None:
        self.fake.plan([init(), assistant(error="model_not_found"), result(is_error=True, api_error_status=404)])

    def prompts(self) -> list[str]:
        return [start["stdin"] for start in self.fake.starts]


class AnthropicSetup(ProviderSetup):
    spec = "anthropic:claude-sonnet-5-5"

    def __init__(self, folder: Path, around: SessionSetup) -> None:
        super().__init__(folder, around)
        self.text = ""
        self.model = ScriptedModel(otherwise=lambda _params: self.text)
        self.sim = Simulator(model=self.model)

    def __enter__(self) -> Self:
        self.sim.start()
        self.around.env |= {**self.sim.env, "ANTHROPIC_API_KEY": SECRET}
        return self

    def __exit__(self, *_: object) -> None:
        self.sim.stop()

    def reply(self, text: str) -> None:
        self.text = text

    def no_such_model(self) -> None:
        self.sim.fault("messages", "error", status=404, times=0)

    def prompts(self) -> list[str]:
        return [str(asked["messages"]) for asked in self.model.asked]


class CopilotSetup(ProviderSetup):
    spec = "copilot:claude-sonnet-5-5"

    def __init__(self, folder: Path, around: SessionSetup) -> None:
        super().__init__(folder, around)
        self.fake = FakeClaude(folder / "copilot", "copilot")
        around.env |= {"GREMLINS_COPILOT_BIN": str(self.fake.path), "COPILOT_GITHUB_TOKEN": SECRET}

    def _plan(self, *events: dict[str, Any]) -> None:
        last = {"type": "result", "sessionId": "s", "exitCode": 0}
        self.fake.plan([("say", event) for event in (*events, last)])

    def reply(self, text: str) -> None:
        self._plan({"type": "assistant.message", "data": {"content": text}})

    def no_such_model(self) -> None:
        self._plan({"type": "session.error", "data": {"errorType": "query", "statusCode": 404, "message": "no"}})

    def prompts(self) -> list[str]:
        return [start["stdin"] for start in self.fake.starts]


class KiloSetup(ProviderSetup):
    spec = "kilo:anthropic/claude-sonnet-5-5"

    def __init__(self, folder: Path, around: SessionSetup) -> None:
        super().__init__(folder, around)
        self.fake = FakeKilo(folder / "kilo")
        around.env |= {
            "GREMLINS_KILO_BIN": str(self.fake.path),
            "KILO_API_URL": "http://127.0.0.1:1",
            "KILO_API_KEY": SECRET,
        }

    def reply(self, text: str) -> None:
        self.fake.plan(fake_kilo.says(text))

    def no_such_model(self) -> None:
        error = {"name": "UnknownError", "data": {"message": "Model not found: x/y."}}
        self.fake.plan([fake_kilo.BUSY, fake_kilo.event("session.error", error=error), fake_kilo.IDLE])

    def prompts(self) -> list[str]:
        return [body["parts"][0]["text"] for body in self.fake.posted("prompt_async")]


class OpenAISetup(ProviderSetup):
    spec = "openai:gpt-5"

    def __init__(self, folder: Path, around: SessionSetup) -> None:
        super().__init__(folder, around)
        self.api = ResponsesApi()
        around.env |= {"OPENAI_API_KEY": SECRET, "OPENAI_BASE_URL": self.api.url}

    def __enter__(self) -> Self:
        self.api.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.api.__exit__()

    def reply(self, text: str) -> None:
        self.api.replies = (says(text),)

    def no_such_model(self) -> None:
        self.api.replies = ((404, "model_not_found", "no such model"),)

    def prompts(self) -> list[str]:
        return [str(asked["input"]) for asked in self.api.asked]


class ScriptedSetup(ProviderSetup):
    def __init__(self, folder: Path, around: SessionSetup) -> None:
        super().__init__(folder, around)
        self.file = folder / "script.yaml"
        self.spec = f"scripted:{self.file}"

    def _write(self, reply: Any) -> None:
        self.file.write_text(yaml.safe_dump({"replies": {"*": reply}}))

    def reply(self, text: str) -> None:
        self._write(text)

    def no_such_model(self) -> None:
        self._write({"fail": {"class": "config", "message": "no such model"}})

    def prompts(self) -> list[str]:
        return [str(record.request["messages"]) for record in self.around.records]


SETUPS: dict[str, type[ProviderSetup]] = {
    "anthropic": AnthropicSetup,
    "claude": ClaudeSetup,
    "copilot": CopilotSetup,
    "kilo": KiloSetup,
    "openai": OpenAISetup,
    "scripted": ScriptedSetup,
}
HAS_OPENAI = importlib.util.find_spec("agents") is not None
NO_OPENAI = "needs the extra: .venv/bin/pip install -e '.[openai]'"
