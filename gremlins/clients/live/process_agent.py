"""Live agents that are a program: one process a try, the prompt on its stdin, events on its stdout line by line."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

from gremlins.clients.base import PromptSource, Session
from gremlins.clients.live.agents import live_request, parse_event
from gremlins.clients.live.engine import Heard, Order
from gremlins.clients.live.process import Exit, Launch, NotStarted, drive
from gremlins.clients.live.records import Booked
from gremlins.records.calls import CallFailed, LiveCall, Reply

MAX_TURNS = 200
"""Upper limit on the turns of one run."""


class TooManyTurns(Exception):
    """A run reached MAX_TURNS."""


class EventStream(ABC):
    """Listens to one run of a program: a line that is no event is counted, never an error of its own."""

    def __init__(self) -> None:
        self.session_id: str | None = None
        self.result: dict[str, Any] | None = None
        self.events = 0
        self.rubbish = b""
        """The beginning of the first line that is no event."""
        self.turns = 0
        """Replies of the model so far."""
        self.reports = 0
        """Number of increases of the run's cost."""
        self.last_was_delta = False
        """True if the latest line repeats in a later one, so that it need not be kept."""

    @property
    def finished(self) -> bool:
        """True if the program has reported its end."""
        return self.result is not None

    def hear(self, line: bytes) -> bool:
        """Take one line. True when it is an event, a sign of life."""
        event = parse_event(line)
        if event is None:
            self.rubbish = self.rubbish or line[:200]
            return False
        self.events += 1
        self.take(event)
        return True

    @abstractmethod
    def take(self, event: dict[str, Any]) -> None:
        """Take one event; sets `last_was_delta`."""


Stream = TypeVar("Stream", bound=EventStream)


class ProcessAgent(ABC, Generic[Stream]):
    """A provider whose live calls are runs of a program."""

    program: str
    """The program's name in messages."""

    def __init__(self, session: Session, model: str, provider: str) -> None:
        self.session = session
        self.model = model
        self.client = f"{provider}:{model}"

    def request(self, prompt: PromptSource, *, edits_worktree: bool, max_tokens: int | None) -> dict[str, Any]:
        return live_request(self.session, self.model, prompt, edits_worktree=edits_worktree, max_tokens=max_tokens)

    @abstractmethod
    def new_session(self) -> str | None:
        """The id of a new session, where the program lets us choose it."""

    @abstractmethod
    def env(self, request: Mapping[str, Any]) -> dict[str, str]: ...

    @abstractmethod
    def launch(self, order: Order, env: Mapping[str, str]) -> Launch:
        """The command of a try. Raises NotReady if the program is missing."""

    @abstractmethod
    def stream(self) -> Stream:
        """A listener to a new run."""

    @abstractmethod
    def verdict(self, stream: Stream, ended: Exit, request: Mapping[str, Any]) -> Reply | CallFailed:
        """The result of a run."""

    @abstractmethod
    def booked(self, stream: Stream, record: LiveCall) -> Booked:
        """Cost of a run so far."""

    def ask(self, order: Order) -> Heard:
        request = order.record.request
        env = self.env(request)
        stream, known = self.stream(), 0

        def hear(line: bytes) -> bool:
            nonlocal known
            is_event = stream.hear(line)
            if not stream.last_was_delta:
                order.keep(line)
            if stream.reports > known:
                known = stream.reports
                order.book(self.booked(stream, order.record))
            if stream.turns > MAX_TURNS:
                raise TooManyTurns
            return is_event

        try:
            ended = drive(self.session, self.launch(order, env), hear, finished=lambda: stream.finished)
        except NotStarted as error:
            message = f"{self.program} cannot be started: {error}"
            return Heard(CallFailed(failure="start", kind="not_started", message=message), Booked())
        except TooManyTurns:
            message = f"{self.program} did not come to an end within {MAX_TURNS} turns"
            return Heard(
                CallFailed(failure="task", kind="max_turns", message=message), self.booked(stream, order.record)
            )
        return Heard(self.verdict(stream, ended, request), self.booked(stream, order.record))


def without_result(program: str, ended: Exit, stream: EventStream) -> CallFailed:
    """The result of a run that ended without reporting it."""
    last = short((ended.stderr.splitlines() or [""])[-1])
    if ended.how == "idle":
        return CallFailed(failure="task", kind="stalled", message=f"{program} fell silent and was ended")
    if ended.returncode != 0 and not stream.events:
        message = f"{program} ended with {ended.returncode} before it said anything: {last or 'no reason given'}"
        return CallFailed(failure="start", kind="not_started", message=message)
    said = "a line of more than 8 MB" if ended.dropped else short(stream.rubbish.decode("utf-8", "replace"))
    what = f"printed something that is no event ({said})" if said else "said nothing of how it ended"
    message = f"{program} ended with {ended.returncode} without a result: it {what}"
    return CallFailed(failure="unknown", kind="no_result", message=f"{message}; {last}" if last else message)


def short(text: str) -> str:
    """A text as an error may quote it: on one line, and not long."""
    return " ".join(text.split())[:500]
