"""Spending, one line for each call that cost something.

Lines come from the call records of present gremlins, and from `spend.jsonl`, where a gremlin's lines go before its
folder is removed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from gremlins.errors import CorruptRecord, NotFound
from gremlins.files import append_line, make_private_dir, read_file
from gremlins.paths import GREMLIN_ID, Home
from gremlins.records.calls import UNKNOWN, BatchCall, CallRecord, Collected, Cost, Ledger
from gremlins.records.format import Moment, Record, decoded
from gremlins.records.gremlin import Gremlin, Mode, read_record

SCHEMA = 1


class SpendLine(Record, frozen=True, omit_defaults=True):
    """The cost of one call, or of one send that may have been billed. `usd` is null if it is unknown: no price for the
    model, nothing to look up, or an unreadable record."""

    gremlin_id: str
    uid: str
    """Tells the gremlin from a later one of the same id."""
    call: str
    """The file name of the call's record; with `uid` and `batch_id` it identifies the line."""
    at: Moment
    stage: str
    usd: float | None
    attempt: int = 1
    mode: Mode | None = None
    client: str = ""
    model: str = ""
    batch_id: str | None = None
    bead_id: str | None = None
    project: str = ""
    pipeline: str = ""
    live_usd: float | None = None
    """The same tokens at live prices."""
    wasted: bool = False
    """A second batch of the same call."""
    unknown: bool = False
    """It may have been billed, and no reply says for how many tokens."""
    send: int = 0
    """The number of the POST whose batch cannot be found, from 1; 0 is the call itself."""
    input_tokens: int = 0
    output_tokens: int = 0
    reserved_usd: float | None = None
    """The worst case of a call without a price."""
    schema: int = SCHEMA

    @property
    def identity(self) -> tuple[str, str, str | None, bool, int]:
        return (self.uid, self.call, self.batch_id, self.wasted, self.send)

    @property
    def saved_usd(self) -> float:
        if self.usd is None or self.mode != "batch":
            return 0.0
        return (self.usd if self.live_usd is None else self.live_usd) - self.usd


@dataclass(frozen=True)
class Owner:
    """Whose call it was, as far as its record can be read."""

    id: str
    uid: str
    bead_id: str | None = None
    project: str = ""
    pipeline: str = ""

    @classmethod
    def of(cls, record: Gremlin) -> Owner:
        return cls(record.id, record.uid, record.bead_id, record.project, record.pipeline)


def archive(home: Home, record: Gremlin) -> None:
    """Keep what a gremlin has cost, before its folder is removed. Doing it twice adds nothing. Raises OSError."""
    kept = {line.identity for line in archived(home, [])}
    lines = [line for line in spent_by(home, Owner.of(record)) if line.identity not in kept]
    if not lines:
        return
    make_private_dir(home.root)
    text = "\n".join(msgspec.json.encode(line).decode() for line in lines)
    append_line(home.spend, "\n" + text if _ends_torn(home.spend) else text)


def _ends_torn(path: Path) -> bool:
    """True if a full disk or a crash cut the last line off."""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            if file.tell() == 0:
                return False
            file.seek(-1, 2)
            return file.read(1) != b"\n"
    except FileNotFoundError:
        return False


def spent_by(home: Home, owner: Owner) -> list[SpendLine]:
    """The lines of one gremlin. A call that cannot be read is one of unknown cost: it may have been paid for."""
    return lines_of(*Ledger(home.gremlin(owner.id)).readable(), owner)


def lines_of(calls: Iterable[CallRecord], unreadable: Iterable[CorruptRecord], owner: Owner) -> list[SpendLine]:
    """The lines of these calls of a gremlin."""
    lines = [line for call in calls for line in _lines_of(call, owner)]
    return lines + [_unknown(error, owner) for error in unreadable]


def _lines_of(call: CallRecord, owner: Owner) -> Iterator[SpendLine]:
    usage = call.usage
    if call.cost is not None:
        yield _line(
            call,
            owner,
            call.cost,
            batch_id=call.batch.batch_id if isinstance(call, BatchCall) and call.batch else None,
            input_tokens=usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens if usage else 0,
            output_tokens=usage.output_tokens if usage else 0,
        )
    for waste in call.second_batches:
        if waste.cost is not None:
            yield _line(call, owner, waste.cost, batch_id=waste.batch_id, wasted=True)
    if isinstance(call, BatchCall):
        for number in range(1, call.unknown_sends + 1):
            yield _line(call, owner, UNKNOWN, batch_id=None, send=number)


def _line(
    call: CallRecord,
    owner: Owner,
    cost: Cost,
    *,
    batch_id: str | None,
    wasted: bool = False,
    send: int = 0,
    input_tokens: int = 0,
    output_tokens: int = 0,
) -> SpendLine:
    return SpendLine(
        gremlin_id=owner.id,
        uid=owner.uid,
        call=call.key.filename,
        at=call.ended_at or call.updated_at,
        stage=call.key.stage,
        attempt=call.key.attempt,
        mode=call.mode,
        client=call.client,
        model=model_of(call),
        batch_id=batch_id,
        bead_id=owner.bead_id,
        project=owner.project,
        pipeline=owner.pipeline,
        usd=cost.usd,
        live_usd=cost.live_usd,
        reserved_usd=call.reserved_usd if cost.usd is None else None,
        wasted=wasted,
        unknown=cost.unknown,
        send=send,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
    )


def model_of(call: CallRecord) -> str:
    """The model that answered, else the one that was asked."""
    answered = call.status.reply.model if isinstance(call.status, Collected) else None
    return answered or str(call.request.get("model") or "") or call.client.partition(":")[2]


def _unknown(error: CorruptRecord, owner: Owner) -> SpendLine:
    return SpendLine(
        gremlin_id=owner.id,
        uid=owner.uid,
        call=error.path.name,
        at=_written(error.path),
        stage="(unreadable)",
        bead_id=owner.bead_id,
        project=owner.project,
        pipeline=owner.pipeline,
        usd=None,
    )


def _written(path: Path) -> datetime:
    """The time of the last write of a file that cannot be read."""
    try:
        return datetime.fromtimestamp(path.stat().st_mtime, UTC)
    except OSError:
        return datetime.fromtimestamp(0, UTC)


def all_spending(home: Home) -> tuple[list[SpendLine], list[CorruptRecord]]:
    """Every line of every gremlin there is or was, and what could not be read."""
    problems: list[CorruptRecord] = []
    lines: list[SpendLine] = []
    present: set[str] = set()
    for folder in sorted(home.gremlins.iterdir()) if home.gremlins.is_dir() else []:
        if not GREMLIN_ID.fullmatch(folder.name):
            continue
        try:
            owner = Owner.of(read_record(str(folder)))
        except NotFound:  # being launched or removed at this moment
            continue
        except CorruptRecord as error:  # its calls can be read all the same
            problems.append(error)
            owner = Owner(folder.name, f"?{folder.name}")
        present.add(owner.uid)
        lines += spent_by(home, owner)
    lines += [line for line in archived(home, problems) if line.uid not in present]
    return lines, problems


def unreadable_lines(home: Home) -> list[CorruptRecord]:
    """Lines of the archive that cannot be read."""
    problems: list[CorruptRecord] = []
    archived(home, problems)
    return problems


_DECODER = msgspec.json.Decoder(SpendLine)


LARGEST_ARCHIVE = 2**30
"""Bytes: some millions of removed calls."""


def archived(home: Home, problems: list[CorruptRecord]) -> Iterable[SpendLine]:
    """The lines of `spend.jsonl`, each once."""
    try:
        rows = read_file(home.spend, LARGEST_ARCHIVE).split(b"\n")
    except FileNotFoundError:
        return []
    found: dict[tuple[str, str, str | None, bool, int], SpendLine] = {}
    for number, row in enumerate(rows, 1):
        if not row.strip():
            continue
        try:
            line = decoded(_DECODER, row, home.spend, "a line of spending", SCHEMA)
        except CorruptRecord as error:
            problems.append(CorruptRecord(home.spend, f"line {number} is {error.why}"))
            continue
        found[line.identity] = line
    return found.values()
