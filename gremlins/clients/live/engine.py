"""The durable live call: intent → agent → reply or failure, each try a record, its cost booked while it runs.

One loop over the call's records, entered at the top after a crash, a stop or a backoff just as the first time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, assert_never

from gremlins.clients.base import Answer, CallUnsuccessful, PromptSource, Session
from gremlins.clients.live.records import Booked, LiveRecords
from gremlins.clients.next_step import Again, Close, Give, Stop
from gremlins.processes.interrupt import Terminated
from gremlins.records.calls import CallFailed, Collected, LiveCall, Reply

Book = Callable[[Booked], None]
Keep = Callable[[bytes], None]
"""Writes raw output beside the record, before anything reads it."""
Say = Literal["all", "correction", "continue"]


@dataclass(frozen=True)
class Order:
    """One request to an agent.

    `say`: the whole prompt; only the last message, a correction, in the session of the reply that it corrects; or to
    continue a session that was cut off. The record's `session_id` names the session.
    """

    record: LiveCall
    say: Say
    book: Book = field(repr=False)
    keep: Keep = field(repr=False)


@dataclass(frozen=True)
class Heard:
    """The end of a try."""

    end: Reply | CallFailed
    booked: Booked


class Agent(Protocol):
    """Makes one request of a provider. Everything that `ask` starts has ended when it returns."""

    client: str

    def request(self, prompt: PromptSource, *, edits_worktree: bool, max_tokens: int | None) -> dict[str, Any]:
        """The request as its record keeps it."""

    def new_session(self) -> str | None:
        """The id of a new session, where the provider lets us choose it: then it is on record before it begins."""

    def ask(self, order: Order) -> Heard: ...


class LiveEngine:
    """Runs one live call of one agent within one session."""

    def __init__(
        self,
        session: Session,
        agent: Agent,
        *,
        label: str,
        revision: int = 0,
        notes: tuple[str, ...] = (),
        takes_limit: Callable[[], bool] = lambda: False,
    ) -> None:
        """takes_limit: true if the agent stops by itself at the limit of a record."""
        self.session = session
        self.agent = agent
        self.takes_limit = takes_limit
        self.records = LiveRecords(session, agent.client, label, revision, notes)

    def run(self, prompt: PromptSource, *, edits_worktree: bool = False, max_tokens: int | None = None) -> Answer:
        """Go on with the call until it has its reply. Raises CallUnsuccessful, Terminated, NotReady."""
        while True:
            self.session.check()
            match self.records.step():
                case Give(record, reply):
                    return Answer(reply.text, record)
                case Close(record):
                    self.records.close(record)
                case Stop(outcome):
                    raise CallUnsuccessful(outcome)
                case Again() as again:
                    if not self.records.wait(again):
                        request = again.previous.request if again.previous else None
                        if request is None:
                            request = self.agent.request(prompt, edits_worktree=edits_worktree, max_tokens=max_tokens)
                        self._ask(again, request)
                case other:
                    assert_never(other)

    def _ask(self, again: Again, request: dict[str, Any]) -> None:
        self.session.check()
        corrected = self._corrected() if again.previous is None else None
        session_id = again.resume or corrected or self.agent.new_session()
        record = self.records.intend(request, session_id=session_id, with_limit=self.takes_limit())
        booked = Booked(session_id=session_id)

        def book(so_far: Booked) -> None:
            nonlocal booked, record
            booked = so_far
            record = self.records.book(record, so_far)

        try:
            with self.records.raw(record.key) as raw:
                say: Say = "continue" if again.resume else "correction" if corrected else "all"
                heard = self.agent.ask(Order(record, say, book, raw.write))
        except Terminated as stop:
            self.records.cancel(record, stop.signal_name, booked)
            raise
        self.records.end(record, heard.end, heard.booked)

    def _corrected(self) -> str | None:
        """The session of the live reply that this call corrects."""
        before = self.records.all(self.records.revision - 1)
        return before[-1].session_id if before and isinstance(before[-1].status, Collected) else None
