"""Durable model calls: one record per call, `intent → submitted → ended → collected`, or `failed`, and what it cost.

A record is replaced whole by an atomic rename, the cost in the same rename that makes it collected. What a gremlin
has cost is the sum over its records, never a counter.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from gremlins.errors import CorruptRecord
from gremlins.files import write_atomic
from gremlins.outcome import FailureClass
from gremlins.paths import GremlinPaths
from gremlins.records.gremlin import CostSummary, Frozen, Mode, ParkedCall

SCHEMA = 1


class CallKey(Frozen):
    """Which call: the stage's path, its attempt, the turn of its conversation, and the try at that turn."""

    stage: str
    attempt: int = 1
    turn: int = 1
    try_: int = Field(default=1, alias="try")

    @property
    def filename(self) -> str:
        stage = re.sub(r"[^A-Za-z0-9_.\[\]-]|^\.", "~", self.stage)
        if stage != self.stage.replace("/", "~") or len(stage) > 120:
            stage = f"{stage[:100]}-{hashlib.sha256(self.stage.encode()).hexdigest()[:12]}"
        return f"{stage}.a{self.attempt}.t{self.turn}.r{self.try_}.json"

    def __str__(self) -> str:
        return f"{self.stage} attempt {self.attempt} turn {self.turn} try {self.try_}"

    @property
    def trailer(self) -> str:
        """How a commit names the call whose edits it holds."""
        return f"{self.stage} a{self.attempt} t{self.turn} r{self.try_}"


class Send(Frozen):
    """One POST. Until `outcome` is written it may or may not have reached the server.

    Times are the server's where `server_clock` says so; our own prove nothing about a batch's date.
    """

    began: datetime
    failed: datetime | None = None
    server_clock: bool = True
    outcome: Literal["accepted", "unsent", "refused", "ambiguous", "absent"] | None = None
    """unsent: never reached it; refused: it said no; ambiguous: nobody knows; absent: looked for, and not there."""
    detail: str = ""


class Intent(Frozen):
    state: Literal["intent"] = "intent"
    retry_at: datetime | None = None


class Submitted(Frozen):
    state: Literal["submitted"] = "submitted"


class Ended(Frozen):
    """The raw result is on disk, beside the record."""

    state: Literal["ended"] = "ended"
    raw: str


class Reply(Frozen):
    """What came back: the text, and what the provider says of it. `blocks` are the API's content blocks as sent."""

    text: str
    stop_reason: str | None = None
    model: str | None = None
    blocks: tuple[dict[str, Any], ...] = ()
    turns: int = 1


class Collected(Frozen):
    state: Literal["collected"] = "collected"
    reply: Reply


class CallFailed(Frozen):
    """It failed, and how: whose fault, the provider's own kind, and a sentence."""

    state: Literal["failed"] = "failed"
    failure: FailureClass
    kind: str
    message: str
    retry_at: datetime | None = None


CallStatus = Annotated[
    Intent | Submitted | Ended | Collected | CallFailed,
    Field(discriminator="state"),
]


class Cost(Frozen):
    """USD of one call. `usd` is null when the model has no known price. `live_usd`: the same tokens at live prices."""

    usd: float | None
    live_usd: float | None = None


class Usage(Frozen):
    """Tokens of one call, as the provider counts them; `raw` is its own object."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    raw: dict[str, Any] = Field(default_factory=dict)


class BatchRef(Frozen):
    """The batch that carries the call."""

    batch_id: str
    submitted_at: datetime
    expires_at: datetime | None = None
    request_id: str | None = None
    ended_at: datetime | None = None


class Waste(Frozen):
    """A second batch of the same call. Until `settled` its end, and with it the cost, is not known."""

    batch_id: str
    cost: Cost | None = None
    note: str = ""
    settled: bool = False


class CallRecord(Frozen):
    """One model call."""

    schema_: int = Field(default=SCHEMA, alias="schema")
    key: CallKey
    revision: int = 0
    """0 for the first request of a call, then one more each time a reply is sent back for correction."""
    custom_id: str
    client: str
    mode: Mode
    spawn: int
    """Which spawn of the gremlin last worked on it."""
    anew: bool = False
    """Asked again because somebody rescued the gremlin: what had failed before it no longer counts."""
    created_at: datetime
    updated_at: datetime
    ended_at: datetime | None = None
    request: dict[str, Any]
    request_sha256: str
    account: str | None = None
    """Fingerprint of key and address, to notice another account."""
    newest_before: str | None = None
    """The newest batch the account had when the intent was made."""
    sends: tuple[Send, ...] = ()
    batch: BatchRef | None = None
    looked_since: datetime | None = None
    """When the account was first searched for it and did not show it."""
    suspects: tuple[str, ...] = ()
    """Batches that may be a second copy of this call, to be looked at once more when they end."""
    rejected: tuple[str, ...] = ()
    """Ended batches whose results proved that they are not this call."""
    torn: tuple[str, ...] = ()
    """Batches whose results came incomplete, once for each time."""
    fetches: int = 0
    """How often fetching the results has failed."""
    cancel_requested: datetime | None = None
    """When we asked for it to be canceled; without it, a canceled batch was canceled by somebody else."""
    session_id: str | None = None
    """The session of a live agent, to take it up again."""
    status: CallStatus
    cost: Cost | None = None
    usage: Usage | None = None
    waste: tuple[Waste, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def outstanding(self) -> bool:
        """Whether a batch is, or may be, at work for it, a second one included; or has ended and is not booked yet."""
        match self.status:
            case Submitted():
                return self.mode == "batch"
            case Intent():
                return self.mode == "batch" and self.maybe_sent
            case Ended():
                return self.mode == "batch"
            case _:
                return False

    @property
    def unsettled_waste(self) -> tuple[Waste, ...]:
        return tuple(waste for waste in self.waste if not waste.settled)

    @property
    def settled(self) -> bool:
        """Whether nothing more will come of it."""
        return isinstance(self.status, Collected | CallFailed)

    @property
    def maybe_sent(self) -> bool:
        """Whether a POST was begun of which nobody knows that it reached nobody."""
        return any(send.outcome in (None, "ambiguous") for send in self.sends)

    @property
    def was_resent(self) -> bool:
        """Whether it was sent again after a POST that may yet turn out to have made a batch."""
        return any(send.outcome == "absent" for send in self.sends)

    def parked(self) -> ParkedCall:
        """What it waits for. Once its own batch has ended that is the second one, if there is any."""
        batch = self.batch
        if isinstance(self.status, Ended) and batch is not None and self.unsettled_waste:
            batch = batch.model_copy(update={"batch_id": self.unsettled_waste[0].batch_id, "expires_at": None})
        return ParkedCall(
            stage=self.key.stage,
            custom_id=self.custom_id,
            batch_id=batch.batch_id if batch else None,
            turn=self.key.turn,
            submitted_at=batch.submitted_at if batch else None,
            expires_at=batch.expires_at if batch else None,
        )


DEEPEST = 100
"""Levels of nesting that are kept of anything that comes from outside; readers of JSON give up at about 200."""


def storable(value: Any, depth: int = DEEPEST) -> Any:
    """The same JSON value, less what a record could not hold and give back: lone surrogates, numbers that are none,
    nesting without end. A reply must not become unreadable by what it says."""
    match value:
        case str():
            return value.encode("utf-8", "replace").decode()
        case float():
            return value if math.isfinite(value) else None
        case dict() if depth:
            return {storable(str(key)): storable(item, depth - 1) for key, item in value.items()}
        case list() | tuple() if depth:
            return [storable(item, depth - 1) for item in value]
        case dict() | list() | tuple():
            return "…"
        case _:
            return value


def hash_request(request: dict[str, Any]) -> str:
    """SHA-256 of the request in canonical JSON."""
    text = json.dumps(request, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


class Ledger:
    """The call records of one gremlin. Reading needs no lock; whoever writes holds the gremlin's lock."""

    def __init__(self, paths: GremlinPaths) -> None:
        self.paths = paths

    def put(self, record: CallRecord) -> CallRecord:
        """Write a record, new or replacing its predecessor."""
        write_atomic(self.paths.calls / record.key.filename, record.model_dump_json(indent=1, by_alias=True) + "\n")
        return record

    def records(self) -> list[CallRecord]:
        """All records, oldest first. Raises CorruptRecord on the first that cannot be read."""
        return sorted((read_call(path) for path in self.files()), key=lambda r: (r.created_at, r.key.turn, r.key.try_))

    def readable(self) -> tuple[list[CallRecord], list[CorruptRecord]]:
        """What can be read, and what cannot."""
        good: list[CallRecord] = []
        bad: list[CorruptRecord] = []
        for path in self.files():
            try:
                good.append(read_call(path))
            except CorruptRecord as error:
                bad.append(error)
        return sorted(good, key=lambda r: (r.created_at, r.key.turn, r.key.try_)), bad

    def files(self) -> list[Path]:
        if not self.paths.calls.is_dir():
            return []
        return sorted(p for p in self.paths.calls.iterdir() if p.suffix == ".json" and not p.name.startswith("."))

    def of_call(self, stage: str, attempt: int) -> list[CallRecord]:
        """The turns and tries of one call, in order. Raises CorruptRecord rather than ask for anything twice;
        files of other calls, readable or not, are none of its business."""
        beginning = CallKey(stage=stage, attempt=attempt).filename.removesuffix("t1.r1.json")
        found = (read_call(path) for path in self.files() if path.name.startswith(beginning))
        mine = [r for r in found if r.key.stage == stage and r.key.attempt == attempt]
        return sorted(mine, key=lambda r: (r.key.turn, r.key.try_))

    def outstanding(self) -> list[CallRecord]:
        return [record for record in self.records() if record.outstanding]

    def save_raw(self, key: CallKey, data: bytes) -> str:
        """Keep a raw result before anything reads it. Returns the file's name."""
        name = key.filename.removesuffix(".json") + ".raw.jsonl"
        write_atomic(self.paths.calls / name, data)
        return name

    def read_raw(self, name: str) -> bytes:
        return (self.paths.calls / name).read_bytes()

    def total(self) -> CostSummary:
        return summarize(self.readable()[0])


def summarize(records: Iterable[CallRecord]) -> CostSummary:
    """What calls have cost together. Unpriced calls are counted, never taken for free."""
    batch = live = saved = wasted = 0.0
    unpriced = 0
    for record in records:
        for cost, is_waste in [(record.cost, False), *((w.cost, True) for w in record.waste)]:
            if cost is None:
                continue
            if cost.usd is None:
                unpriced += 1
                continue
            if record.mode == "batch":
                batch += cost.usd
                saved += (cost.live_usd or cost.usd) - cost.usd
            else:
                live += cost.usd
            wasted += cost.usd if is_waste else 0.0
    return CostSummary(
        total_usd=round(batch + live, 10),
        batch_usd=round(batch, 10),
        live_usd=round(live, 10),
        saved_usd=round(saved, 10),
        wasted_usd=round(wasted, 10),
        unpriced_calls=unpriced,
    )


def read_call(path: Path) -> CallRecord:
    """A call record from its file, validated. Raises CorruptRecord."""
    try:
        record = CallRecord.model_validate_json(path.read_bytes())
    except OSError as error:
        raise CorruptRecord(path, error.strerror or str(error)) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise CorruptRecord(path, f"not a call record ({where or 'file'}: {first['msg']})") from error
    if record.schema_ > SCHEMA:
        raise CorruptRecord(path, f"written by a newer gremlins (schema {record.schema_})")
    if record.key.filename != path.name:
        raise CorruptRecord(path, f"holds another call ({record.key})")
    if hash_request(record.request) != record.request_sha256:
        raise CorruptRecord(path, "its request does not match its hash")
    return record
