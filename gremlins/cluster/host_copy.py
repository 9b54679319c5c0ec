"""A gremlin's folder on one host as a copy of its documents in the database: laid out, then kept behind each write."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
from msgspec.structs import replace

from gremlins.cluster.database import ClusterDb
from gremlins.cluster.documents import NOT_DOCUMENTS, FencedOut, FolderDocuments, PostgresDocuments
from gremlins.cluster.rows import Taken
from gremlins.errors import CorruptRecord, GremlinsError, NotFound
from gremlins.files import kept_by, make_private_dir
from gremlins.paths import LOG, STATE, Home
from gremlins.records.calls import BatchCall, CallRecord
from gremlins.records.format import encoded
from gremlins.records.gremlin import Gremlin
from gremlins.records.spend import Owner, SpendLine, lines_of
from gremlins.repository.git import Git
from gremlins.repository.remote_work import GremlinRefs, RemoteTrouble, RemoteWork, bring_work, push_work
from gremlins.repository.worktree import Worktree

WORK = "work.json"
"""Its commits that are on the remote. A document without a file."""

_CALL = msgspec.json.Decoder(CallRecord)
_STATE = msgspec.json.Decoder(Gremlin)


class HostCopy:
    """Keeps one gremlin's documents while it is in our hands. `lost` hears that a write was refused or not possible,
    and may end this process; else the error is raised."""

    def __init__(
        self,
        db: ClusterDb,
        taken: Taken,
        owner: Owner,
        *,
        lost: Callable[[GremlinsError | OSError], None] = lambda _error: None,
    ) -> None:
        self.db = db
        self.taken = taken
        self.owner = owner
        self.documents = PostgresDocuments(db, taken.id, taken.fence)
        self.work: RemoteWork | None = None
        self.goes_on = False
        """A worker is to go on with it."""
        self._lost = lost
        self._names: GremlinRefs | None = None
        self._git: Git | None = None
        self.patient = False
        """A remote that is away ends the process, to be tried again; else the gremlin fails."""
        self._fails = False
        self._pushing = threading.Lock()

    def pushes(self, names: GremlinRefs, git: Git, work: RemoteWork | None) -> None:
        """Push its commits from this repository before each write of its record."""
        self._names, self._git, self.work = names, git, work

    def write(self, name: str, content: bytes) -> None:
        if not name or name in NOT_DOCUMENTS:
            return
        if name == STATE:
            self._publish()
        with self._telling():
            if name.startswith("calls/") and name.endswith(".json"):
                self._write_call(name, content)
            else:
                self.documents.write(name, content)

    def append(self, name: str, line: bytes) -> None:
        with self._telling():
            self.documents.append(name, line)

    def remove(self, name: str) -> None:
        with self._telling():
            self.documents.remove(name)

    def copy_failed(self, error: OSError) -> None:
        self._lost(error)

    def start(self) -> None:
        self.goes_on = True

    def sync(self, folder: Path) -> None:
        """Bring the documents to what the folder holds, after files were moved in it."""
        here, there = FolderDocuments(folder).all(), self.documents.all()
        for name, content in here.items():
            if name not in (STATE, LOG) and there.get(name) != content:
                self.write(name, content)
        for name in there.keys() - here.keys() - {WORK}:
            self.documents.remove(name)

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except GremlinsError as error:
            self._lost(error)
            raise

    def _publish(self) -> None:
        """Push what it has committed. Where that fails once, the record that says so is written without."""
        with self._pushing:
            if self._names is None or self._git is None or self._fails:
                return
            self._fails = True
            try:
                pushed = push_work(self._git, self._names, self.taken.fence, self.work)
            except RemoteTrouble as error:
                if self.patient:
                    self._lost(error)
                raise
            self._fails = False
            if pushed is not self.work:
                with self._telling():
                    self.documents.write(WORK, msgspec.json.encode(pushed))
                self.work = pushed

    def _write_call(self, name: str, content: bytes) -> None:
        """The record of a call, and in the same transaction what it costs and which batches it claims."""
        try:
            call: CallRecord = _CALL.decode(content)
        except msgspec.MsgspecError:
            self.documents.write(name, content)
            return
        batches = [call.batch.batch_id] if isinstance(call, BatchCall) and call.batch else []
        found = self.db.run(
            "WITH own AS (SELECT id, uid FROM gremlin WHERE id = %(id)s AND fence = %(fence)s FOR SHARE), "
            "doc AS (INSERT INTO document (gremlin, name, content, fence) "
            "SELECT id, %(name)s, %(content)s, %(fence)s FROM own ON CONFLICT (gremlin, name) "
            "DO UPDATE SET content = excluded.content, fence = excluded.fence, at = now()) "
            "INSERT INTO spending (uid, call, gremlin, bead_id, lines, reserved_usd, running_usd, batches) "
            "SELECT uid, %(name)s, id, %(bead)s, %(lines)s, %(reserved)s, %(running)s, %(batches)s FROM own "
            "ON CONFLICT (uid, call) DO UPDATE SET lines = excluded.lines, reserved_usd = excluded.reserved_usd, "
            "running_usd = excluded.running_usd, batches = excluded.batches, at = now()",
            {
                "id": self.taken.id,
                "fence": self.taken.fence,
                "name": name,
                "content": content,
                "bead": self.owner.bead_id,
                "lines": msgspec.json.encode(lines_of([call], [], self.owner)),
                "reserved": call.reservation if call.mode == "batch" else 0.0,
                "running": call.reservation if call.mode == "live" else 0.0,
                "batches": [*batches, *(waste.batch_id for waste in call.second_batches)],
            },
        )
        if not found:
            raise FencedOut(self.taken.id)


def decode_state(content: bytes, gremlin_id: str) -> Gremlin:
    """Raises CorruptRecord."""
    try:
        return _STATE.decode(content)
    except msgspec.MsgspecError as error:
        raise CorruptRecord(Path(f"{gremlin_id}/{STATE}"), f"not a gremlin's record ({error})") from error


def spend_lines(content: bytes) -> list[SpendLine]:
    return msgspec.json.decode(content, type=list[SpendLine])


def lay_out(db: ClusterDb, home: Home, gremlin_id: str, *, project: Path, checkout: Path | None) -> Gremlin:
    """Make the folder a copy of the documents, the record with the paths of this host. The caller holds its lock.

    Returns the record. Raises NotFound.
    """
    paths = home.gremlin(gremlin_id)
    for folder in (paths.calls, paths.artifacts):
        make_private_dir(folder)
    copy = FolderDocuments(paths.root)
    here = copy.all()
    documents = PostgresDocuments(db, gremlin_id, 0).all(here)
    if STATE not in documents:
        raise NotFound(f"no gremlin `{gremlin_id}`")
    record = replace(
        decode_state(documents[STATE], gremlin_id),
        project=str(project),
        checkout="" if checkout is None or checkout == project else str(checkout),
        worktree=str(home.worktree(gremlin_id)),
    )
    for name, content in {**documents, STATE: encoded(record)}.items():
        if name != WORK and here.get(name) != content:
            copy.write(name, content)
    for name in here.keys() - documents.keys():
        copy.remove(name)
    return record


def bring(copy: HostCopy, record: Gremlin, worktree: Path, *, elsewhere: bool, say: Callable[[str], None]) -> None:
    """Bring its commits into this host's repository, and push what is added to them from now on.

    elsewhere: another host has worked on it since this one.
    """
    if not record.branch:
        return
    names = GremlinRefs(record.id, record.uid, record.base)
    git = Git(Path(record.project))
    try:
        work = msgspec.json.decode(copy.documents.read(WORK), type=RemoteWork)
    except FileNotFoundError:
        work = None
    if work is not None:
        tree = Worktree(Path(record.project), worktree, record.branch, record.base)
        for sentence in bring_work(tree, names, work, elsewhere=elsewhere):
            say(sentence)
    copy.pushes(names, git, work)


@contextlib.contextmanager
def kept(copy: HostCopy, home: Home) -> Iterator[None]:
    """Within the block each write into the gremlin's folder is the database's first."""
    with kept_by(home.gremlin(copy.taken.id).root, copy):
        yield
