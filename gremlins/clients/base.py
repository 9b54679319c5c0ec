"""The base of every provider: `Client.run`, its inputs and outputs, and the session a call belongs to."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

from gremlins.clock import Clock, Jitter, no_jitter
from gremlins.config import Settings
from gremlins.errors import GremlinsError
from gremlins.outcome import Bail, Failed, FailureClass
from gremlins.processes.interrupt import InterruptCheck, nothing_to_check
from gremlins.processes.limited import RunLimited, run_limited
from gremlins.records.calls import CallRecord, Cost, Ledger
from gremlins.records.gremlin import Mode, ParkedCall
from gremlins.repository.enclosed import enclosed


@dataclass(frozen=True)
class Prompt:
    """The request of a call. `schema` asks for structured output; `followups` are pairs of an earlier reply and our
    answer to it; `turn` is the turn of the conversation that it begins.
    """

    text: str
    system: str | None = None
    schema: Mapping[str, Any] | None = None
    followups: tuple[tuple[str, str], ...] = ()
    turn: int = 1


PromptSource = Prompt | str | Callable[[], Prompt]
"""A prompt, or a function that makes it; not called if the call is already on record."""


@dataclass(frozen=True)
class Answer:
    """A recorded reply. `mode` is the mode it was received in."""

    text: str
    record: CallRecord

    @property
    def mode(self) -> Mode:
        return self.record.mode

    @property
    def trailer(self) -> str:
        return self.record.key.trailer


@dataclass(frozen=True)
class Wait:
    """A call that must wait: for the batches of `calls`, or, without any, for a backoff that ends at `until`."""

    until: datetime
    calls: tuple[ParkedCall, ...] = ()
    why: str = ""
    pollable: bool = True
    """True if it waits for batches only, so that the shared poll may answer for it."""
    mixed: bool = False
    """True if some branches wait for batches and others for something else: the gremlin is then not parked."""


class ClientError(GremlinsError):
    """A model call failed or cannot continue here."""


class CallUnsuccessful(ClientError):
    """The call ended without a usable reply; its failure is on record. `outcome` is the outcome of the stage."""

    def __init__(self, outcome: Failed | Bail) -> None:
        super().__init__(outcome.reason if isinstance(outcome, Failed) else f"{outcome.kind}: {outcome.detail}")
        self.outcome = outcome


class Detach(ClientError):
    """The call is outstanding and cannot be followed from here: the process ends, the call stays `submitted`."""

    def __init__(self, reason: str, failure: FailureClass, calls: tuple[ParkedCall, ...]) -> None:
        super().__init__(reason)
        self.failure = failure
        self.calls = calls


class Park(BaseException):
    """Raised to suspend the process until `wait` is due."""

    def __init__(self, wait: Wait) -> None:
        super().__init__(wait.why)
        self.wait = wait


class Parking(Protocol):
    """Waits for a call: sleeps here, or replaces the process by the waiter."""

    def __call__(self, wait: Wait) -> None: ...


class Pricing(Protocol):
    """Cost of a call, from the provider's own usage object."""

    def __call__(self, model: str, usage: Mapping[str, Any], *, batch: bool, at: datetime) -> Cost: ...


@dataclass(frozen=True)
class Room:
    """Room for a call under the spending caps. `worst_usd` is reserved in its record; None: it has no price.

    `left_usd` is the room under the tightest cap, None without caps.
    """

    worst_usd: float | None = None
    left_usd: float | None = None


class AskRoom(Protocol):
    """Asks for room for a request. The record that reserves it is written inside the block.

    counted: tokens of earlier messages of the conversation, which the request leaves out.
    """

    def __call__(
        self, request: Mapping[str, Any], client: str, *, batch: bool, counted: int = 0
    ) -> contextlib.AbstractContextManager[Room | Wait]: ...


@contextlib.contextmanager
def _no_caps(request: Mapping[str, Any], client: str, *, batch: bool, counted: int = 0) -> Iterator[Room | Wait]:
    yield Room()


Log = Callable[[str], None]


def _no_log(line: str) -> None:
    """Discards a log line."""


@dataclass
class Session:
    """The surroundings of a call: its gremlin, its worktree, and clock, network and settings as arguments."""

    gremlin_id: str
    ledger: Ledger
    settings: Settings
    clock: Clock
    env: Mapping[str, str]
    worktree: Path
    price: Pricing
    park: Parking
    spawn: int = 1
    attempt: Callable[[str], int] = field(default=lambda _stage: 1)
    jitter: Jitter = no_jitter
    log: Log = _no_log
    check: InterruptCheck = nothing_to_check
    """Raises Terminated when the process was asked to end."""
    room: AskRoom = _no_caps
    """Raises CallUnsuccessful when a spending cap leaves no room; a Wait while outstanding calls may take it up."""
    booked: Callable[[], None] = field(default=lambda: None)
    """Called when a live call has put down what it has cost so far."""
    claimed: Callable[[datetime], frozenset[str]] = field(default=lambda _since: frozenset())
    """Batch ids in other gremlins' records written since the given time (with slack). Read on each call."""
    adopting: Callable[[], Any] = field(default=lambda: _NoLock())
    """Context manager that locks the adoption of a found batch."""
    git_env: Callable[[], Mapping[str, str]] = dict
    """Environment for git in the worktree: no hooks, no signing."""
    work_fd: int | None = None
    """The lock that agents and commands inherit."""
    interrupt_fd: int | None = None
    """Readable once the process was asked to end."""
    activity: Callable[[], None] = field(default=lambda: None)
    """Called whenever a live agent says something."""
    run_limited: RunLimited = run_limited
    """Runs a function over what the repository holds, with limits."""

    def enclosed(self, command: str) -> contextlib.AbstractContextManager[list[str]]:
        """The argv of a shell command in the worktree, inside the sandbox of the settings."""
        return enclosed(command, self.settings.sandbox, self.worktree, self.env, self.log)


class _NoLock:
    def __enter__(self) -> None:
        return

    def __exit__(self, *_: object) -> None:
        return


BatchSupport = Literal["yes", "fallback", "no"]


class Client(ABC):
    """A provider and a model. One instance serves one gremlin's process."""

    provider: ClassVar[str]
    batch_support: ClassVar[BatchSupport] = "no"
    """yes; fallback (it runs live and says so); or no: batch asked for is refused at launch."""

    def __init__(self, model: str, session: Session) -> None:
        self.model = model
        self.session = session

    @property
    def name(self) -> str:
        return f"{self.provider}:{self.model}"

    def run(
        self,
        prompt: PromptSource,
        *,
        label: str,
        mode: Mode = "live",
        max_tokens: int | None = None,
        revision: int = 0,
        edits_worktree: bool = False,
    ) -> Answer:
        """Ask the model once, durably, and return its reply; what is on record is never asked again.

        label: the stage's path, `loop[3]/plan`; attempt, turn and try are added to make the call's key.
        mode: `batch` submits a batch of one message and parks; `live` answers now.
        max_tokens: ceiling of the reply, in tokens; by default the setting `batch.max_tokens`.
        revision: counts replies sent back for correction within one call.
        edits_worktree: a live agent may change files in the worktree.

        Raises CallUnsuccessful (over, with the stage's outcome), Detach (outstanding, cannot be followed from
        here), NotReady (credentials or a binary are missing), CorruptRecord (its record cannot be read),
        NotImplementedError (batch, from a provider that has none).
        """
        if mode == "batch":
            return self.run_batch(prompt, label=label, max_tokens=max_tokens, revision=revision)
        return self.run_live(
            prompt, label=label, max_tokens=max_tokens, revision=revision, edits_worktree=edits_worktree
        )

    def run_batch(self, prompt: PromptSource, *, label: str, max_tokens: int | None, revision: int) -> Answer:
        """Overridden by providers that have a batch API."""
        raise NotImplementedError(f"the provider `{self.provider}` has no batch mode")

    @abstractmethod
    def run_live(
        self, prompt: PromptSource, *, label: str, max_tokens: int | None, revision: int, edits_worktree: bool
    ) -> Answer:
        """Ask now, with tools where the provider has them."""

    @classmethod
    def check_ready(cls, model: str, mode: Mode, env: Mapping[str, str], settings: Settings) -> None:
        """Raise NotReady when credentials, a binary or an extra are missing for this mode. Spends nothing."""
        return


def made(prompt: PromptSource) -> Prompt:
    """The prompt; a function is called to make it."""
    if isinstance(prompt, str):
        return Prompt(prompt)
    return prompt if isinstance(prompt, Prompt) else prompt()
