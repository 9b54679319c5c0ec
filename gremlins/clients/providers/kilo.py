"""The provider `kilo`: a session on a Kilo server, live, followed by its events. It has no batch API."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar
from urllib.parse import quote

from gremlins.clients.agent_env import agent_env
from gremlins.clients.base import PromptSource, Session
from gremlins.clients.live.agents import AgentClient, earlier_runs, live_request, message_for, reply_text, usage_of_run
from gremlins.clients.live.engine import Heard, Order
from gremlins.clients.live.process_agent import MAX_TURNS
from gremlins.clients.live.records import Booked
from gremlins.clients.next_step import NO_SESSION, STALLED
from gremlins.clients.providers.kilo_run import KiloRun, tokens_of
from gremlins.clients.providers.kilo_server import RUNNING_VARIABLE, EventFeed, Kilo, KiloFailure, find_kilo, server
from gremlins.config import Settings
from gremlins.errors import NotReady
from gremlins.outcome import FailureClass
from gremlins.records.calls import CallFailed, Cost, LiveCall, Reply
from gremlins.records.gremlin import Mode

URL_VARIABLE = "KILO_API_URL"
TOKEN_VARIABLES = ("KILO_API_KEY", "KILO_API_TOKEN", "KILO_TOKEN")
MOST_RETRIES = 5
"""Kilo itself asks an overloaded provider again for ever."""

_PROVIDER = (r"KILO_\w+", r"KILOCODE_\w+")
_OURS = {"KILO_DISABLE_PROJECT_CONFIG": "1", "KILO_DISABLE_SHARE": "1"}  # a repository may not widen what is allowed
_READ = ("read", "glob", "grep", "list")


class KiloClient(AgentClient):
    """`kilo:PROVIDER/MODEL`; without a slash, a model of Kilo's own gateway."""

    provider: ClassVar[str] = "kilo"

    def agent(self) -> KiloAgent:
        return KiloAgent(self.session, self.model)

    @classmethod
    def check_ready(cls, model: str, mode: Mode, env: Mapping[str, str], settings: Settings) -> None:
        require_kilo(env)


def require_kilo(env: Mapping[str, str]) -> None:
    """Raises NotReady unless there is a server to start, or one that runs, and the person's address and token."""
    if not env.get(RUNNING_VARIABLE):
        find_kilo(env)
    if not env.get(URL_VARIABLE):
        raise NotReady(f"{URL_VARIABLE} is not set: calls of `kilo:` go there", hint=f"export {URL_VARIABLE}=https://…")
    if not any(env.get(name) for name in TOKEN_VARIABLES):
        raise NotReady(f"{TOKEN_VARIABLES[0]} is not set: no token for {URL_VARIABLE}", hint="export KILO_API_KEY=…")


class KiloAgent:
    """One call is one session, on a server that lives as long as the call."""

    def __init__(self, session: Session, model: str) -> None:
        self.session = session
        self.provider, _, self.model = model.partition("/") if "/" in model else ("kilo", "/", model)
        self.client = f"kilo:{model}"

    def request(self, prompt: PromptSource, *, edits_worktree: bool, max_tokens: int | None) -> dict[str, Any]:
        return live_request(self.session, self.model, prompt, edits_worktree=edits_worktree, max_tokens=max_tokens)

    def new_session(self) -> None:
        return None  # the server gives it its id

    def ask(self, order: Order) -> Heard:
        require_kilo(self.session.env)
        env = agent_env(self.session.env, _PROVIDER, {**_OURS, **self.session.git_env()})
        run = KiloRun(order.record.session_id)
        try:
            with server(self.session, env) as kilo:
                end = self._converse(kilo, order, run)
        except KiloFailure as failure:
            begun: FailureClass = "unknown" if run.heard else "start"
            end = CallFailed(failure=begun, kind="server", message=str(failure))
        return Heard(end, self._booked(run, order.record))

    def _converse(self, kilo: Kilo, order: Order, run: KiloRun) -> Reply | CallFailed:
        where = f"directory={quote(str(self.session.worktree))}"
        rules = self._rules(bool(order.record.request.get("edits_worktree")))
        if order.say == "all":
            made_session = kilo.call(
                "POST", f"/session?{where}", {"title": order.record.key.stage, "permission": rules}
            )
            run.session_id = str(made_session["id"])
            order.book(Booked(session_id=run.session_id))
        feed = kilo.feed(f"/event?{where}")
        try:
            try:
                kilo.call("POST", f"/session/{run.session_id}/prompt_async?{where}", self._message(order))
            except KiloFailure as failure:
                if failure.status == 404 and order.say != "all":
                    return CallFailed(failure="unknown", kind=NO_SESSION, message="kilo no longer has the session")
                raise
            failed = self._follow(kilo, feed, order, run, where)
        except BaseException:  # a stop too: on a server that is not ours it would go on without us
            self._abort(kilo, run, where)
            raise
        finally:
            feed.close()
        run.take_session(kilo.call("GET", f"/session/{run.session_id}?{where}"))
        if failed is not None:
            return failed
        messages = kilo.call("GET", f"/session/{run.session_id}/message?{where}")
        return run.verdict(messages, lambda text: reply_text(order.record.request, text))

    def _message(self, order: Order) -> dict[str, Any]:
        model = {"providerID": self.provider, "modelID": self.model}
        return {"model": model, "parts": [{"type": "text", "text": message_for(order)}]}

    def _follow(self, kilo: Kilo, feed: EventFeed, order: Order, run: KiloRun, where: str) -> CallFailed | None:
        """Listen until the session is idle. Kilo says so itself; the agent need not."""
        patience, clock = self.session.settings.live.idle_timeout, self.session.clock
        heard_at = clock.monotonic()
        while not run.idle:
            self.session.check()
            event = feed.next(heard_at + patience - clock.monotonic(), self.session.interrupt_fd)
            if event is None:
                if clock.monotonic() >= heard_at + patience:
                    self._abort(kilo, run, where)
                    return CallFailed(failure="task", kind=STALLED, message="kilo fell silent and was ended")
                continue
            raw, parsed = event
            if not run.hear(parsed):
                continue
            heard_at = clock.monotonic()
            self.session.activity()
            if not run.last_was_delta:
                order.keep(raw.strip())
            if run.changed:
                order.book(self._booked(run, order.record))
            if run.permission is not None:
                kilo.call("POST", f"/permission/{run.permission}/reply?{where}", {"reply": "reject"})
                run.permission = None
            if run.turns > MAX_TURNS:
                self._abort(kilo, run, where)
                message = f"kilo did not come to an end within {MAX_TURNS} turns"
                return CallFailed(failure="task", kind="max_turns", message=message)
            if run.retries >= MOST_RETRIES:
                self._abort(kilo, run, where)
                return CallFailed(failure="capacity", kind="overloaded", message=run.retry_message)
        return None

    def _abort(self, kilo: Kilo, run: KiloRun, where: str) -> None:
        try:
            kilo.call("POST", f"/session/{run.session_id}/abort?{where}")
        except KiloFailure as failure:
            self.session.log(f"kilo: the session could not be aborted: {failure}")

    def _rules(self, edits: bool) -> list[dict[str, str]]:
        """Permissions of the session; the last rule that matches decides."""
        live = self.session.settings.live
        if edits and live.permission_mode == "bypassPermissions":
            return [_rule("*", "*", "allow")]
        rules = [_rule("*", "*", "deny"), *(_rule(name, "*", "allow") for name in _READ)]
        if edits:
            for allowed in live.allowed_tools:
                found = re.fullmatch(r"(\w+)(?:\((.*)\))?", allowed)
                rules += [_rule(found[1].lower(), found[2] or "*", "allow")] if found else []
            rules += [_rule("edit", "*", "allow"), _rule("edit", ".git", "deny"), _rule("edit", ".git/**", "deny")]
        return [*rules, _rule("external_directory", "*", "deny")]

    def _booked(self, run: KiloRun, record: LiveCall) -> Booked:
        """Kilo's own figure of the session, less what earlier runs of it had."""
        if run.tokens is None:
            return Booked(session_id=run.session_id)
        earlier = earlier_runs(self.session.ledger, record, run.session_id)
        usage = usage_of_run(tokens_of(run.tokens), earlier)
        before = sum(r.cost.usd or 0.0 for r in earlier if r.cost)
        usd: float | None = max(0.0, round(run.cost - before, 10))
        if not usd and (usage.input_tokens or usage.output_tokens):
            usd = self.session.price(self.model, usage.raw, batch=False, at=record.created_at).usd
        return Booked(Cost(usd=usd, live_usd=usd), usage, run.session_id)


def _rule(permission: str, pattern: str, action: str) -> dict[str, str]:
    return {"permission": permission, "pattern": pattern, "action": action}
