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
from typing import Any, Literal, TypeVar

import msgspec
from msgspec.structs import replace

from gremlins.errors import CorruptRecord
from gremlins.files import read_file, write_atomic
from gremlins.outcome import FailureClass
from gremlins.paths import GremlinPaths
from gremlins.records.format import Moment, Record, decoded, encoded
from gremlins.records.gremlin import CostSummary, Mode, ParkedCall

SCHEMA = 1


class CallKey(Record, frozen=True):
    """Names a call: its stage's path, the stage's attempt, the turn of the conversation, the try at that turn."""

    stage: str
    attempt: int = 1
    turn: int = 1
    try_: int = msgspec.field(default=1, name="try")

    @property
    def top_stage(self) -> str:
        """The stage of the pipeline itself that it is part of."""
        return self.stage.partition("/")[0].partition("[")[0]

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
        """The call's name in the trailer of the commit that holds its edits."""
        return f"{self.stage} a{self.attempt} t{self.turn} r{self.try_}"


class Send(Record, frozen=True):
    """One POST. Until `outcome` is written it may or may not have reached the server.

    Times are the server's if `server_clock`; times of our own clock prove nothing about a batch's date.
    """

    began: Moment
    failed: Moment | None = None
    server_clock: bool = True
    outcome: Literal["accepted", "unsent", "refused", "ambiguous", "absent"] | None = None
    """unsent: never reached the server; refused: the server said no; ambiguous: the reply was lost; absent: the
    account was searched, and no batch of it found."""
    answered: bool = False
    """The server said that it took the call, in words that name no batch."""
    detail: str = ""


class CallStatusBase(Record, tag_field="state", frozen=True):
    """The state of a call."""

    @property
    def state(self) -> str:
        """Its name on disk."""
        return str(self.__struct_config__.tag)


class Intent(CallStatusBase, tag="intent", frozen=True):
    """On disk, not known to be sent."""

    retry_at: Moment | None = None


class Submitted(CallStatusBase, tag="submitted", frozen=True):
    """Its batch is outstanding."""


class Ended(CallStatusBase, tag="ended", frozen=True):
    """Its batch has ended; `raw` names the file of the raw result."""

    raw: str


class Reply(Record, frozen=True):
    """The provider's reply. `blocks` are the API's content blocks as received."""

    text: str
    stop_reason: str | None = None
    model: str | None = None
    blocks: tuple[dict[str, Any], ...] = ()
    turns: int = 1


class Collected(CallStatusBase, tag="collected", frozen=True):
    """It has its reply."""

    reply: Reply


class CallFailed(CallStatusBase, tag="failed", frozen=True):
    """It failed: the class, the provider's own kind, and a sentence."""

    failure: FailureClass
    kind: str
    message: str
    retry_at: Moment | None = None

    @property
    def undecided(self) -> bool:
        """True if it may have been made and billed, and a person must decide: asking again may pay twice."""
        return self.kind in _UNDECIDED


UNDECIDED = "undecided"
_UNDECIDED = frozenset({UNDECIDED, "results_unreadable", "results_gone", "result_missing"})
"""The kind of today, and those that older versions wrote."""


CallStatus = Intent | Submitted | Ended | Collected | CallFailed


class Cost(Record, frozen=True):
    """USD of one call; `usd` is null when the model has no known price. `live_usd`: the same tokens at live prices."""

    usd: float | None
    live_usd: float | None = None
    unknown: bool = False
    """It may have been billed, and no reply says for how many tokens."""


UNKNOWN = Cost(usd=None, unknown=True)


class Usage(Record, frozen=True):
    """Tokens of one call as the provider counts them; `raw` is the provider's own object."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    raw: dict[str, Any] = msgspec.field(default_factory=dict)


class BatchRef(Record, frozen=True):
    """The batch that carries a call."""

    batch_id: str
    submitted_at: Moment
    expires_at: Moment | None = None
    request_id: str | None = None
    ended_at: Moment | None = None


class Waste(Record, frozen=True):
    """A second batch of the same call. Its cost is unknown until `settled`."""

    batch_id: str
    cost: Cost | None = None
    note: str = ""
    settled: bool = False


class CallBase(Record, tag_field="mode", frozen=True):
    """The fields of every call."""

    key: CallKey
    custom_id: str
    client: str
    spawn: int
    """The spawn of the gremlin that last worked on it."""
    created_at: Moment
    updated_at: Moment
    request: dict[str, Any]
    request_sha256: str
    status: CallStatus
    ended_at: Moment | None = None
    revision: int = 0
    """0 for the first request of a call, one more each time a reply is sent back for correction."""
    cost: Cost | None = None
    usage: Usage | None = None
    notes: tuple[str, ...] = ()
    reserved_usd: float | None = None
    """Its worst case in USD, written before it is sent; null if there is no price. Caps count it until it ends."""
    schema: int = SCHEMA

    @property
    def reservation(self) -> float:
        """USD that it may still cost at worst."""
        pending = self.outstanding if isinstance(self, BatchCall) else not self.settled
        booked = (self.cost.usd or 0.0) if self.cost is not None else 0.0
        return max(0.0, (self.reserved_usd or 0.0) - booked) if pending else 0.0

    @property
    def mode(self) -> Mode:
        return "batch" if isinstance(self, BatchCall) else "live"

    @property
    def settled(self) -> bool:
        """True if it is collected or failed."""
        return isinstance(self.status, Collected | CallFailed)

    @property
    def second_batches(self) -> tuple[Waste, ...]:
        """Batches made beside the call's own; a live call has none."""
        return self.waste if isinstance(self, BatchCall) else ()


class LiveCall(CallBase, tag="live", frozen=True):
    """One try of a call to a live agent."""

    session_id: str | None = None
    """The agent's session, to resume it."""
    messages_before: int = 0
    """Messages of its request that the records of earlier turns hold. `request` holds those after them."""
    limit_usd: float | None = None
    """The limit of an agent that takes one. None: it takes none, or there are no caps."""


class BatchCall(CallBase, tag="batch", frozen=True):
    """One try of a call through the Message Batches API."""

    anew: bool = False
    """Asked again because of a rescue: earlier failures no longer count."""
    account: str | None = None
    """Fingerprint of key and address, to notice another account."""
    newest_before: str | None = None
    """The account's newest batch when the intent was made."""
    newest_before_at: Moment | None = None
    """Its time of creation, as the API says."""
    sends: tuple[Send, ...] = ()
    batch: BatchRef | None = None
    looked_since: Moment | None = None
    """The first search of the account that did not show it."""
    server_ahead: float | None = None
    """Seconds that the server's clock was ahead of ours, when an answer said so last: not all have a Date."""
    suspects: tuple[str, ...] = ()
    """Batches that may be a second copy of this call, to be looked at again when they end."""
    rejected: tuple[str, ...] = ()
    """Ended batches whose results proved that they are not this call."""
    torn: tuple[str, ...] = ()
    """Batches whose results came incomplete, once for each time."""
    fetches: int = 0
    """Answers about its batch that decided nothing, since the last one that did."""
    cancel_requested: Moment | None = None
    """Our own request to cancel it. A batch canceled without one was canceled by another program."""
    waste: tuple[Waste, ...] = ()

    @property
    def outstanding(self) -> bool:
        """True if a batch of it is or may be at work, a second one included, or has ended and is not booked yet."""
        match self.status:
            case Submitted() | Ended():
                return True
            case Intent():
                return self.maybe_sent
            case _:
                return False

    @property
    def unsettled_waste(self) -> tuple[Waste, ...]:
        return tuple(waste for waste in self.waste if not waste.settled)

    @property
    def maybe_sent(self) -> bool:
        """True if a POST was begun that may have reached the server."""
        return any(send.outcome in (None, "ambiguous") for send in self.sends)

    @property
    def unknown_sends(self) -> int:
        """Number of POSTs that may have made a batch which is billed and cannot be found."""
        lost = (None, "ambiguous", "absent") if self.settled else ("absent",)
        return sum(send.outcome in lost for send in self.sends)

    @property
    def was_resent(self) -> bool:
        """True if it was sent again after a POST that may yet turn out to have made a batch."""
        return any(send.outcome == "absent" for send in self.sends)

    def parked(self) -> ParkedCall:
        """The batch it waits for: its own, or the second one once its own has ended."""
        batch = self.batch
        if isinstance(self.status, Ended) and batch is not None and self.unsettled_waste:
            batch = replace(batch, batch_id=self.unsettled_waste[0].batch_id, expires_at=None)
        return ParkedCall(
            stage=self.key.stage,
            custom_id=self.custom_id,
            batch_id=batch.batch_id if batch else None,
            turn=self.key.turn,
            submitted_at=batch.submitted_at if batch else None,
            expires_at=batch.expires_at if batch else None,
        )


def undecided(record: BatchCall, gremlin_id: str, why: str, now: datetime) -> BatchCall:
    """The call, failed without being asked again: it may have been made and billed, so a person decides."""
    message = (
        f"{why.rstrip('.')}. It may have been billed: look for it under Batches in the Anthropic Console "
        f"(custom_id {record.custom_id}). `gremlins rescue {gremlin_id}` looks once more, "
        f"`gremlins rescue {gremlin_id} --from {record.key.top_stage}` asks anew and may pay twice"
    )
    status = CallFailed(failure="unknown", kind=UNDECIDED, message=message)
    cost = UNKNOWN if record.batch else record.cost
    return replace(record, status=status, cost=cost, updated_at=now, ended_at=now)


CallRecord = BatchCall | LiveCall


DEEPEST = 100
"""Levels of nesting that are kept of anything that comes from outside; readers of JSON give up at about 200."""


def storable(value: Any, depth: int = DEEPEST) -> Any:
    """The same JSON value, less what a record could not hold and give back, or a file's name not take: lone surrogates,
    NUL, numbers that are none, nesting without end. A reply must not become unreadable by what it says."""
    match value:
        case str():
            return value.encode("utf-8", "replace").decode().replace("\0", "\ufffd")
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


C = TypeVar("C", bound=CallBase)


class Ledger:
    """The call records of one gremlin. Reading needs no lock; a writer holds the gremlin's lock.

    A record that was read is read again only once its file was replaced: a long conversation looks at all its turns
    in each of them.
    """

    def __init__(self, paths: GremlinPaths) -> None:
        self.paths = paths
        self._read: dict[str, tuple[FileMark, CallRecord]] = {}

    def put(self, record: C) -> C:
        """Write a record, new or replacing its predecessor."""
        write_atomic(self.paths.calls / record.key.filename, encoded(record))
        self._read.pop(record.key.filename, None)
        return record

    def read(self, path: Path) -> CallRecord:
        """The record in a file of this ledger. Raises CorruptRecord."""
        mark, known = _mark(path), self._read.get(path.name)
        if known is not None and known[0] == mark:
            return known[1]
        record = read_call(path)
        if mark is not None:
            self._read[path.name] = (mark, record)
        return record

    def records(self) -> list[CallRecord]:
        """All records, oldest first. Raises CorruptRecord on the first that cannot be read."""
        return sorted((self.read(path) for path in self.files()), key=lambda r: (r.created_at, r.key.turn, r.key.try_))

    def readable(self) -> tuple[list[CallRecord], list[CorruptRecord]]:
        """The readable records, oldest first, and the errors of the others."""
        good: list[CallRecord] = []
        bad: list[CorruptRecord] = []
        for path in self.files():
            try:
                good.append(self.read(path))
            except CorruptRecord as error:
                bad.append(error)
        return sorted(good, key=lambda r: (r.created_at, r.key.turn, r.key.try_)), bad

    def files(self) -> list[Path]:
        if not self.paths.calls.is_dir():
            return []
        return sorted(p for p in self.paths.calls.iterdir() if p.suffix == ".json" and not p.name.startswith("."))

    def of_call(self, stage: str, attempt: int, turn: int | None = None) -> list[CallRecord]:
        """The turns and tries of one call, in order, or the tries of one turn. Raises CorruptRecord rather than ask for
        anything twice; files of other calls, readable or not, are none of its business."""
        first = CallKey(stage=stage, attempt=attempt).filename.removesuffix("t1.r1.json")
        beginning = first if turn is None else f"{first}t{turn}."
        found = (self.read(path) for path in self.files() if path.name.startswith(beginning))
        mine = [r for r in found if r.key.stage == stage and r.key.attempt == attempt]
        return sorted(mine, key=lambda r: (r.key.turn, r.key.try_))

    def batch_calls(self) -> list[BatchCall]:
        """The readable batch calls, oldest first."""
        return [record for record in self.readable()[0] if isinstance(record, BatchCall)]

    def outstanding(self) -> list[BatchCall]:
        """The readable calls that are or may be with the API, oldest first."""
        return outstanding(self.readable()[0])

    def save_raw(self, key: CallKey, data: bytes) -> str:
        """Keep a raw result before anything reads it. Returns the file's name."""
        name = key.filename.removesuffix(".json") + ".raw.jsonl"
        write_atomic(self.paths.calls / name, data)
        return name

    def read_raw(self, name: str) -> bytes:
        return read_file(self.paths.calls / name, RAW_LIMIT)

    def total(self) -> CostSummary:
        return summarize(self.readable()[0])


def outstanding(records: Iterable[CallRecord]) -> list[BatchCall]:
    """The calls that are or may be with the API."""
    return [record for record in records if isinstance(record, BatchCall) and record.outstanding]


def summarize(records: Iterable[CallRecord]) -> CostSummary:
    """The summed cost of calls. Unpriced and unknown ones are counted, never taken as free."""
    batch = live = saved = wasted = 0.0
    unpriced = unknown = 0
    for record in records:
        unknown += record.unknown_sends if isinstance(record, BatchCall) else 0
        for cost, is_waste in [(record.cost, False), *((w.cost, True) for w in record.second_batches)]:
            if cost is None:
                continue
            if cost.usd is None:
                unknown += cost.unknown
                unpriced += not cost.unknown
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
        unknown_calls=unknown,
    )


_DECODER = msgspec.json.Decoder(CallRecord)


RAW_LIMIT = 2**28
"""Bytes of a raw result."""
FileMark = tuple[int, int, int]
"""Tells a file from the one that replaces it."""


def _mark(path: Path) -> FileMark | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def read_call(path: Path) -> CallRecord:
    """A call record from its file. Raises CorruptRecord."""
    try:
        raw = read_file(path)
    except OSError as error:
        raise CorruptRecord(path, error.strerror or str(error)) from error
    record: CallRecord = decoded(_DECODER, raw, path, "a call record", SCHEMA)
    if record.key.filename != path.name:
        raise CorruptRecord(path, f"holds another call ({record.key})")
    if hash_request(record.request) != record.request_sha256:
        raise CorruptRecord(path, "its request does not match its hash")
    return record
