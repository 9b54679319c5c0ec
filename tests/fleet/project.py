"""A project with beads, a fake fleet, a fake clock and ticks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from gremlins.clock import FakeClock, rfc3339
from gremlins.fleet.beads.attempts import Attempt, Episode, Work, charged
from gremlins.fleet.beads.bead import Bead, Dependency, Issue, task_of
from gremlins.fleet.beads.edit import BeadEditor
from gremlins.fleet.beads.store.interface import Notice, PutBead
from gremlins.fleet.beads.store.sqlite import SqliteStore
from gremlins.fleet.dispatch.ownership import settle_for_retry
from gremlins.fleet.dispatch.policy import Policy
from gremlins.fleet.dispatch.tick import Dispatcher, LoopEvent, TickReport
from tests.fleet.dispatch.fake_fleet import FakeFleet

PROJECT = "/somewhere/project"


def issue(bead_id: str, *, title: str = "", needs: tuple[str, ...] = (), **fields: object) -> Issue:
    """An issue; `needs` are its blockers."""
    now = "2026-11-21T10:00:00Z"
    dependencies = tuple(Dependency(issue_id=bead_id, depends_on_id=other) for other in needs)
    return Issue.model_validate(
        {"id": bead_id, "title": title or f"do {bead_id}", "created_at": now, "updated_at": now}
        | {"dependencies": dependencies}
        | fields
    )


def moved(report: TickReport, kind: str) -> list[str]:
    """The beads that a tick `closed`, `failed` or `held`."""
    return [str(notice.payload["bead"]) for notice in report.moved if notice.kind == kind]


@dataclass
class Project:
    """A store, a fake fleet and a fake clock, with shortcuts for tests."""

    store: SqliteStore
    clock: FakeClock = field(default_factory=FakeClock)
    policy: Policy = field(default_factory=Policy)
    fleet: FakeFleet = field(init=False)
    notices: list[Notice] = field(default_factory=list)
    loop_events: list[LoopEvent] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.fleet = FakeFleet(self.clock)

    @classmethod
    def at(cls, folder: Path) -> Project:
        return cls(SqliteStore(folder / "beads.db"))

    @property
    def now(self) -> float:
        return self.clock.now().timestamp()

    def add(self, *bead_ids: str, needs: tuple[str, ...] = (), **fields: object) -> None:
        for bead_id in bead_ids:
            bead = Bead(project=PROJECT, issue=issue(bead_id, needs=needs, **fields))
            assert self.store.commit(PutBead(bead, None))

    def dispatcher(self, *, store: SqliteStore | None = None) -> Dispatcher:
        return Dispatcher(
            store or self.store,
            self.fleet,
            self.clock,
            PROJECT,
            lambda: self.policy,
            task=lambda bead_id: (bead_id, task_of(self.bead(bead_id).issue)),
            tell=self.notices.append,
            say=self.loop_events.append,
        )

    def tick(self, *, everything: bool = False) -> TickReport:
        return self.dispatcher().tick(everything=everything)

    def run(self, seconds: float, *, each: Callable[[], None] = lambda: None) -> None:
        """Tick whenever something is due, for `seconds`."""
        end = self.now + seconds
        while self.now < end:
            each()
            report = self.tick()
            due = report.next_due if report.next_due is not None else end
            self.clock.advance(min(max(due - self.now, 0.5), max(end - self.now, 0.5)))

    def bead(self, bead_id: str) -> Bead:
        found = self.store.bead(PROJECT, bead_id)
        assert found is not None
        return found

    def work(self, bead_id: str) -> Work:
        return self.store.works(PROJECT, [bead_id]).works[0]

    def attempts(self, bead_id: str) -> tuple[Attempt, ...]:
        return self.work(bead_id).attempts

    def charged(self, bead_id: str) -> int:
        return charged(self.work(bead_id), self.episodes())

    def episodes(self) -> tuple[Episode, ...]:
        return self.store.episodes(PROJECT)

    def editor(self) -> BeadEditor:
        """The verbs of a person."""
        settle = partial(settle_for_retry, observe=self.fleet.observe, policy=self.policy)
        return BeadEditor(self.store, PROJECT, self.clock, "anna", settle)

    def person_moves(self, bead_id: str, status: str) -> None:
        bead = self.bead(bead_id)
        moved = bead.moved(status, rfc3339(self.clock.now()), reason="by a person")  # type: ignore[arg-type]
        assert self.store.commit(PutBead(moved, bead.generation))
