"""The provider `copilot`: GitHub's Copilot CLI, live. It has no batch API, and reports tokens but no dollars."""

from __future__ import annotations

import json
import shutil
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from msgspec.structs import replace

from gremlins.clients.agent_env import agent_env
from gremlins.clients.live.agents import FallsBackToLive, earlier_runs, message_for, reply_text, usage_of_run
from gremlins.clients.live.copilot_stream import CopilotStream, tokens_of, verdict
from gremlins.clients.live.engine import Heard, Order
from gremlins.clients.live.process import Exit, Launch
from gremlins.clients.live.process_agent import ProcessAgent
from gremlins.clients.live.records import Booked
from gremlins.config import Settings
from gremlins.errors import NotReady
from gremlins.files import read_file
from gremlins.records.calls import CallFailed, Cost, LiveCall, Reply, Usage
from gremlins.records.gremlin import Mode

BIN_VARIABLE = "GREMLINS_COPILOT_BIN"
READ_TOOLS = ("view", "grep", "glob")
EDIT_TOOLS = (*READ_TOOLS, "create", "edit", "apply_patch")
SHELL_TOOLS = ("bash", "read_bash", "stop_bash", "list_bash")

_PROVIDER = (
    r"COPILOT_(?!ALLOW_ALL$)\w+",  # ALLOW_ALL would trust the repository's own settings
    r"GH_TOKEN|GITHUB_TOKEN|GH_HOST",
)
_TOKENS = ("COPILOT_GITHUB_TOKEN", "GH_TOKEN", "GITHUB_TOKEN", "COPILOT_PROVIDER_BASE_URL")


def find_copilot(env: Mapping[str, str]) -> Path:
    """The binary. Raises NotReady when there is none."""
    found = shutil.which(env.get(BIN_VARIABLE) or "copilot", path=env.get("PATH"))
    if found is None:
        raise NotReady(
            f"no `{env.get(BIN_VARIABLE) or 'copilot'}` that can be run: calls of `copilot:` need the Copilot CLI",
            hint="npm install -g @github/copilot",
        )
    return Path(found).absolute()


class CopilotClient(FallsBackToLive):
    """`copilot:MODEL`."""

    provider: ClassVar[str] = "copilot"

    def agent(self) -> Copilot:
        return Copilot(self.session, self.model, self.provider)

    @classmethod
    def check_ready(cls, model: str, mode: Mode, env: Mapping[str, str], settings: Settings) -> None:
        find_copilot(env)
        home = Path(env.get("HOME", "/"))
        logins = (Path(env.get("COPILOT_HOME") or home / ".copilot") / "config.json", home / ".config/gh/hosts.yml")
        if not any(env.get(name) for name in _TOKENS) and not any(login.is_file() for login in logins):
            raise NotReady(
                "copilot is not logged in, and COPILOT_GITHUB_TOKEN is not set",
                hint="run `copilot` and /login there, or export COPILOT_GITHUB_TOKEN=…",
            )


class Copilot(ProcessAgent[CopilotStream]):
    """The Copilot CLI as a live agent."""

    program = "copilot"
    usage_file: Path | None = None

    def new_session(self) -> str:
        return str(uuid.uuid4())

    def env(self, request: Mapping[str, Any]) -> dict[str, str]:
        ours = {"COPILOT_MODEL": self.model, "COPILOT_AUTO_UPDATE": "false", **self.session.git_env()}
        return agent_env(self.session.env, _PROVIDER, ours)

    def ask(self, order: Order) -> Heard:
        with tempfile.TemporaryDirectory() as folder:  # tokens are told in a file of their own, when it ends
            self.usage_file = Path(folder) / "usage.json"
            return super().ask(order)

    def launch(self, order: Order, env: Mapping[str, str]) -> Launch:
        return Launch(self._argv(order), self.session.worktree, env, message_for(order).encode())

    def _argv(self, order: Order) -> list[str]:
        session = order.record.session_id
        argv = [str(find_copilot(self.session.env)), "--output-format", "json", "--model", self.model]
        argv += ["--no-ask-user", "--no-auto-update", "--no-color", "--disable-builtin-mcps", "--disallow-temp-dir"]
        argv += ["--usage-output-file", str(self.usage_file)]
        argv += ["--session-id", str(session)] if order.say == "all" else [f"--resume={session}"]
        edits, live = bool(order.record.request.get("edits_worktree")), self.session.settings.live
        if edits and live.permission_mode == "bypassPermissions":
            return [*argv, "--allow-all"]
        allowed = live.allowed_tools if edits else ()
        shell = SHELL_TOOLS if any(rule.startswith("shell") for rule in allowed) else ()
        argv += ["--available-tools", *(EDIT_TOOLS if edits else READ_TOOLS), *shell]
        if edits:
            argv += ["--allow-tool", "write", *allowed, "--deny-tool", f"write({self.session.worktree / '.git'})"]
        return argv

    def stream(self) -> CopilotStream:
        return CopilotStream()

    def verdict(self, stream: CopilotStream, ended: Exit, request: Mapping[str, Any]) -> Reply | CallFailed:
        end = verdict(stream, ended)
        if isinstance(end, Reply):
            return replace(end, text=reply_text(request, end.text))
        return end

    def booked(self, stream: CopilotStream, record: LiveCall) -> Booked:
        """The tokens of this run: what its file says of the session, less what earlier runs of it had."""
        if self.usage_file is None or not self.usage_file.is_file():
            # Its calls were paid for in some way: they must not look free.
            return Booked(Cost(usd=None) if stream.calls else None, None, stream.session_id)
        try:
            metrics = json.loads(read_file(self.usage_file))["modelMetrics"]
        except (OSError, ValueError, KeyError, TypeError):
            return Booked(Cost(usd=None), None, stream.session_id)
        usage = usage_of_run(tokens_of(metrics), earlier_runs(self.session.ledger, record, record.session_id))
        return Booked(self._cost(usage, record), usage, stream.session_id)

    def _cost(self, usage: Usage, record: LiveCall) -> Cost:
        """With a provider of one's own the tokens have a price; a Copilot plan's have none that can be known here."""
        if not self.session.env.get("COPILOT_PROVIDER_BASE_URL"):
            return Cost(usd=None)
        cost = self.session.price(self.model, usage.raw, batch=False, at=record.created_at)
        return Cost(usd=cost.usd, live_usd=cost.usd)
