"""The provider `anthropic`: batch like `claude`, live over the Messages API with the SDK's tool runner.

Streaming, with prompt caching, tools that are confined to the worktree, and each turn a durable record.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, ClassVar, assert_never

from gremlins.clients.account import Account, find_account
from gremlins.clients.base import Answer, CallUnsuccessful, Park, PromptSource, Session, made
from gremlins.clients.batch.client import BatchCapable
from gremlins.clients.batch.engine import build_request
from gremlins.clients.live.interruptible import patiently, run_interruptibly
from gremlins.clients.live.records import LiveRecords, RawFile
from gremlins.clients.next_step import Again, Close, Give, Stop, outcome_of
from gremlins.clients.providers.anthropic_tools import worktree_tools
from gremlins.clients.providers.anthropic_turns import (
    MAX_LIVE_TURNS,
    Turns,
    failure_of,
    final_failure,
    replay,
    stalled,
)
from gremlins.clients.transport import ApiFailure, connection_failure, failure_from_answer
from gremlins.config import Settings
from gremlins.outcome import Failed
from gremlins.processes.interrupt import Terminated
from gremlins.records.gremlin import Mode

Send = Callable[[Any], Awaitable[Any]]
CACHED = {"type": "ephemeral"}
"""Each turn sends all that came before it again: a tenth of the price where it is cached."""


class AnthropicClient(BatchCapable):
    """`anthropic:MODEL`."""

    provider: ClassVar[str] = "anthropic"

    def run_live(
        self, prompt: PromptSource, *, label: str, max_tokens: int | None, revision: int, edits_worktree: bool
    ) -> Answer:
        records = LiveRecords(self.session, self.name, label, revision)
        conversation = Conversation(self.session, self.model, Turns(self.session, records), edits=edits_worktree)
        return conversation.run(prompt, max_tokens)

    @classmethod
    def check_ready(cls, model: str, mode: Mode, env: Mapping[str, str], settings: Settings) -> None:
        find_account(env)


class Conversation:
    """One live call: a loop over the records of its turns."""

    def __init__(self, session: Session, model: str, turns: Turns, *, edits: bool) -> None:
        self.session = session
        self.model = model
        self.turns = turns
        self.edits = edits

    def run(self, prompt: PromptSource, max_tokens: int | None) -> Answer:
        """Go on until the model has ended its turn. Raises CallUnsuccessful, Terminated, NotReady."""
        while True:
            self.session.check()
            match self.turns.step():
                case Give(record, reply) if not _goes_on(reply.stop_reason, record.key.turn):
                    failed = final_failure(reply)
                    if failed is not None:
                        raise CallUnsuccessful(outcome_of(failed))
                    return Answer(self.turns.text(), record)
                case Close(record):
                    self.turns.records.close(record)
                case Stop(outcome):
                    raise CallUnsuccessful(outcome)
                case Again() as again if self.turns.records.wait(again):
                    continue
                case Give() | Again():
                    self._converse(prompt, max_tokens)
                case other:
                    assert_never(other)

    def _converse(self, prompt: PromptSource, max_tokens: int | None) -> None:
        """Let the runner go on from the latest turn, until it has ended or a request of it did."""
        account = find_account(self.session.env)
        latest = self.turns.latest()
        request = self.turns.request(latest) if latest else self._first(prompt, max_tokens)
        exchange = _Exchange(self.session, self.turns, account, first=latest.key.turn if latest else 1)
        try:
            run_interruptibly(self.session, exchange.run(request, worktree_tools(self.session, edits=self.edits)))
            exchange.raise_stopped()
        except Terminated as stop:
            self.turns.cancel(stop)
            raise
        if self.turns.latest() == latest:  # asking again would come to the same
            raise CallUnsuccessful(Failed("unknown", "the SDK ended without having asked anything"))

    def _first(self, prompt: PromptSource, max_tokens: int | None) -> dict[str, Any]:
        return build_request(self.model, made(prompt), max_tokens or self.session.settings.batch.max_tokens)


def _goes_on(stop_reason: str | None, turn: int) -> bool:
    return stop_reason in ("tool_use", "pause_turn") and turn < MAX_LIVE_TURNS


class _Exchange:
    """One run of the SDK's tool runner in an event loop of its own. Requests pass through `answer`."""

    def __init__(self, session: Session, turns: Turns, account: Account, *, first: int) -> None:
        self.session = session
        self.turns = turns
        self.account = account
        self.first = first
        self.already = 0
        """Messages of the first request: a reply and its answer are added with each further turn."""
        self.raised: BaseException | None = None

    def raise_stopped(self) -> None:
        """Raise what kept a request from being sent: the SDK would have made a broken connection of it."""
        if self.raised is not None:
            raise self.raised

    async def run(self, request: Mapping[str, Any], tools: list[Any]) -> None:
        """Let the runner go on. A request that failed is on record when this returns."""
        import anthropic  # seconds: only a live call pays for it
        import httpx2

        self.already = len(request["messages"])
        patience = self.session.settings.live.idle_timeout
        names = ("model", "max_tokens", "messages", "system", "output_config")
        params: dict[str, Any] = {
            **{name: request[name] for name in names if name in request},
            "tools": tools,
            "stream": True,
            "thread": False,  # all of it each time: what the records hold is what was sent
            "cache_control": CACHED,
            "max_iterations": MAX_LIVE_TURNS,
        }
        async with anthropic.AsyncAnthropic(
            api_key=self.account.secret,
            base_url=self.account.base_url,
            default_headers=dict(self.account.headers),
            max_retries=0,
            timeout=httpx2.Timeout(patience, connect=self.session.settings.batch.http_timeout),
            http_client=_intercepting(self),
        ) as client:
            runner: Any = client.beta.messages.tool_runner(**params)
            try:
                async for stream in runner:
                    await self._listen(stream, patience)
            except anthropic.APIStatusError as error:
                body = json.dumps(error.body).encode()  # the response itself may be a stream that broke off
                self._fail(failure_from_answer(error.status_code, body, dict(error.response.headers)))
            except anthropic.APIConnectionError as error:
                if self.raised is None:
                    self._fail(connection_failure(error))
            except TimeoutError:
                self.turns.fail(stalled(), lost=True)
            except (anthropic.AnthropicError, httpx2.HTTPError, ValueError) as error:
                self._fail(ApiFailure(f"the reply cannot be read: {error}", phase="ambiguous"))

    async def _listen(self, stream: Any, patience: float) -> None:
        whole = False
        async for event in patiently(stream.__aiter__(), patience):
            self.session.activity()
            if event.type == "message_start":
                self.turns.book(event.message.to_dict(mode="json"))
            whole = whole or event.type == "message_stop"
        if not whole:  # the SDK would hand out the part that came as if it were all
            raise ValueError("the stream ended before the message did")
        message = await stream.get_final_message()
        self.turns.collect(message.to_dict(mode="json"))

    def _fail(self, failure: ApiFailure) -> None:
        self.turns.fail(failure_of(failure), lost=failure.phase == "ambiguous")

    # ── what the SDK's requests pass through ──────────────────────────────────────────────────────────────────

    async def answer(self, request: Any, send: Send) -> Any:
        """The response to one request of the runner: out of a record, or from the API with its raw bytes kept."""
        import httpx2

        body = json.loads(request.content)
        turn = self.first + sum(m["role"] == "assistant" for m in body["messages"][self.already :])
        step = self.turns.step_of(turn)
        if isinstance(step, Give):
            data = b"".join(replay(step.record, step.reply))
            return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=data, request=request)
        try:
            body = self.turns.begin(turn, body)
        except (CallUnsuccessful, Park, Terminated) as error:  # the SDK would wrap it into a broken connection
            self.raised = error
            raise
        headers = {k: v for k, v in request.headers.items() if k not in ("content-length", "accept-encoding")}
        headers["accept-encoding"] = "identity"  # what is kept is to be read by people
        sent = httpx2.Request(request.method, request.url, headers=headers, json=body, extensions=request.extensions)
        response = await send(sent)
        assert self.turns.sending is not None
        response.stream = _kept(response.stream, self.turns.records.raw(self.turns.sending.key))
        return response


def _intercepting(exchange: _Exchange) -> Any:
    """An HTTP client for the SDK whose requests go through the exchange."""
    import anthropic

    class Intercepting(anthropic.DefaultAsyncHttpxClient):
        """The SDK's own HTTP client, with the runner's requests led through the records."""

        async def send(self, request: Any, **options: Any) -> Any:
            async def now(request: Any) -> Any:
                return await super(Intercepting, self).send(request, **options)

            if request.method == "POST" and request.url.path.endswith("/v1/messages"):
                return await exchange.answer(request, now)
            return await now(request)

    route = exchange.account.route
    return Intercepting(proxy=route.proxy, verify=route.tls, trust_env=False, follow_redirects=False)


def _kept(stream: Any, raw: RawFile) -> Any:
    """A response's body that is written down as it comes, before anything reads it."""
    import httpx2

    class Kept(httpx2.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            async for chunk in stream:
                raw.write(chunk)
                yield chunk

        async def aclose(self) -> None:
            raw.close()
            await stream.aclose()

    return Kept()
