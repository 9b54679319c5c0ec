"""The provider `openai`: OpenAI's models through the `openai-agents` package, an extra; live only.

One call is one run of an agent with tools confined to the worktree: the same ones that `anthropic` has.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from gremlins.clients.base import CallUnsuccessful, PromptSource, Session
from gremlins.clients.batch.engine import prompt_of
from gremlins.clients.batch.results import classify_status
from gremlins.clients.live.agents import AgentClient, live_request, reply_text, whole_text
from gremlins.clients.live.engine import Heard, Order
from gremlins.clients.live.interruptible import patiently, run_interruptibly
from gremlins.clients.live.process_agent import short
from gremlins.clients.live.records import Booked
from gremlins.clients.next_step import INTERRUPTED, REFUSAL, STALLED, UNSENT
from gremlins.clients.providers.anthropic_tools import worktree_tools
from gremlins.config import Settings
from gremlins.errors import NotReady
from gremlins.outcome import FailureClass
from gremlins.records.calls import CallFailed, Cost, Reply, Usage
from gremlins.records.gremlin import Mode

PACKAGE = "agents"
MAX_TURNS = 200
_CLASS_OF_CODE: dict[str, FailureClass] = {
    "insufficient_quota": "credit",
    "billing_hard_limit_reached": "credit",
    "model_not_found": "config",
    "context_length_exceeded": "task",
}


def require_openai(env: Mapping[str, str]) -> None:
    """Raises NotReady unless the extra is installed and there is a key."""
    if importlib.util.find_spec(PACKAGE) is None:
        raise NotReady(
            "calls of `openai:` need the extra `openai`, which is not installed",
            hint="pip install 'gremlins-fleet[openai]'",
        )
    if not env.get("OPENAI_API_KEY"):
        raise NotReady("OPENAI_API_KEY is not set", hint="export OPENAI_API_KEY=…")


class OpenAIClient(AgentClient):
    """`openai:MODEL`."""

    provider: ClassVar[str] = "openai"

    def agent(self) -> OpenAIAgent:
        return OpenAIAgent(self.session, self.model)

    @classmethod
    def check_ready(cls, model: str, mode: Mode, env: Mapping[str, str], settings: Settings) -> None:
        require_openai(env)


class OpenAIAgent:
    """One try is one run. A run that was cut off cannot be taken up again: it begins anew, as the next try."""

    def __init__(self, session: Session, model: str) -> None:
        self.session = session
        self.model = model
        self.client = f"openai:{model}"

    def request(self, prompt: PromptSource, *, edits_worktree: bool, max_tokens: int | None) -> dict[str, Any]:
        return live_request(self.session, self.model, prompt, edits_worktree=edits_worktree, max_tokens=max_tokens)

    def new_session(self) -> None:
        return None

    def ask(self, order: Order) -> Heard:
        require_openai(self.session.env)
        run = _Run(self, order)
        return Heard(run_interruptibly(self.session, run.ask()), run.booked)


class _Run:
    """One run of the SDK's agent."""

    def __init__(self, agent: OpenAIAgent, order: Order) -> None:
        self.session = agent.session
        self.model = agent.model
        self.order = order
        self.booked = Booked()
        self.turns = 0

    async def ask(self) -> Reply | CallFailed:
        import openai  # seconds, and an extra: only a call of this provider needs it
        from agents import exceptions

        request, patience = self.order.record.request, self.session.settings.live.idle_timeout
        try:
            async with self._client() as client:
                result = self._start(client, request)
                async for _event in patiently(result.stream_events(), patience):
                    self.session.activity()
        except CallUnsuccessful as capped:  # the next try meets the same cap, before it asks anything
            return CallFailed(failure="host", kind=INTERRUPTED, message=str(capped))
        except TimeoutError:
            return CallFailed(failure="task", kind=STALLED, message="the API fell silent in the middle of a reply")
        except openai.APIStatusError as error:
            return _refused(error.status_code, error.code, error.message)
        except openai.APIConnectionError as error:
            return CallFailed(failure="host", kind=UNSENT, message=f"cannot reach OpenAI's API: {short(str(error))}")
        except exceptions.ModelRefusalError as error:
            return CallFailed(failure="permanent", kind=REFUSAL, message=short(str(error)))
        except exceptions.MaxTurnsExceeded:
            message = f"the conversation did not end within {MAX_TURNS} turns"
            return CallFailed(failure="task", kind="max_turns", message=message)
        except (openai.OpenAIError, exceptions.AgentsException, ValueError) as error:
            return CallFailed(failure="unknown", kind=type(error).__name__, message=short(str(error)))
        text = reply_text(request, str(result.final_output or ""))
        return Reply(text=text, stop_reason="end_turn", model=self.model, turns=max(1, self.turns))

    def _client(self) -> Any:
        import openai

        env, settings = self.session.env, self.session.settings
        return openai.AsyncOpenAI(
            api_key=env["OPENAI_API_KEY"],
            base_url=env.get("OPENAI_BASE_URL") or None,
            organization=env.get("OPENAI_ORG_ID"),
            project=env.get("OPENAI_PROJECT_ID"),
            max_retries=0,
            timeout=settings.live.idle_timeout,
        )

    def _start(self, client: Any, request: Mapping[str, Any]) -> Any:
        import agents

        run = self

        class Counting(agents.RunHooks[Any]):
            async def on_llm_start(self, *_: Any) -> None:
                if run.turns:
                    run.ask_for_room()

            async def on_llm_end(self, context: Any, agent: Any, response: Any) -> None:
                run.turns += 1
                run.count(context.usage)

        prompt = prompt_of(request)
        edits = bool(request.get("edits_worktree"))
        agent = agents.Agent(
            name="gremlin",
            instructions=prompt.system,
            model=agents.OpenAIResponsesModel(self.model, client),
            model_settings=agents.ModelSettings(max_tokens=request["max_tokens"], store=False),
            tools=[_function_tool(tool) for tool in worktree_tools(self.session, edits=edits)],
        )
        return agents.Runner.run_streamed(
            agent,
            whole_text(replace(prompt, system=None)),
            max_turns=MAX_TURNS,
            hooks=Counting(),
            run_config=agents.RunConfig(tracing_disabled=True),  # traces would tell OpenAI the code all over again
        )

    def ask_for_room(self) -> None:
        """Raises CallUnsuccessful where a cap leaves no room for another message like the first."""
        with self.session.room(self.order.record.request, f"openai:{self.model}", batch=False):
            pass  # the call's own reservation goes on

    def count(self, usage: Any) -> None:
        """Book what the run has used so far: the SDK's sum over its turns."""
        cached = usage.input_tokens_details.cached_tokens or 0
        raw = {
            "input_tokens": usage.input_tokens,
            "output_tokens": usage.output_tokens,
            "input_tokens_details": {"cached_tokens": cached},
        }
        counted = Usage(
            input_tokens=max(0, usage.input_tokens - cached),
            output_tokens=usage.output_tokens,
            cache_read_tokens=cached,
            raw=raw,
        )
        self.booked = Booked(self._cost(raw), counted)
        self.order.book(self.booked)

    def _cost(self, raw: Mapping[str, Any]) -> Cost:
        from gremlins.records.prices import price  # 0.3 s: only where a reply has come

        found = price(self.model, raw, batch=False, at=self.order.record.created_at, provider="openai")
        return Cost(usd=None) if found is None else Cost(usd=found.usd, live_usd=found.live_usd)


def _function_tool(tool: Any) -> Any:
    """A tool of Anthropic's SDK as one of OpenAI's."""
    import agents
    from anthropic.lib.tools import ToolError

    async def invoke(_context: Any, given: str) -> Any:
        try:
            found = await tool.call(json.loads(given or "{}"))
        except ToolError as error:
            return f"error: {error}"
        except (OSError, ValueError, TypeError) as error:  # arguments that do not fit: the model is told
            return f"error: {type(error).__name__}: {error}"
        return found if isinstance(found, str) else json.dumps(list(found))

    return agents.FunctionTool(
        name=tool.name,
        description=tool.description,
        params_json_schema=dict(tool.input_schema),
        on_invoke_tool=invoke,
        strict_json_schema=False,
    )


def _refused(status: int, code: str | None, message: str) -> CallFailed:
    failure = _CLASS_OF_CODE.get(code or "") or classify_status(status)
    return CallFailed(failure=failure, kind=code or f"http_{status}", message=short(message))
