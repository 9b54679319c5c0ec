"""A person's changes to beads: each reads, decides and commits by compare-and-swap, and retries if it lost a race."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gremlins.clock import Clock, rfc3339
from gremlins.errors import Conflict, NotFound, did_you_mean
from gremlins.fleet.beads.attempts import Work
from gremlins.fleet.beads.bead import (
    PARENT,
    Bead,
    BeadStatus,
    Dependency,
    Hold,
    Issue,
    child_id,
    kept_apart,
    new_id,
    not_work,
    task_of,
    with_fields,
)
from gremlins.fleet.beads.store.interface import EDITED, BeadStore, Event, PutBead, StoreChange

TRIES = 50
"""Lost compare-and-swaps before a change gives up."""

Relabel = Callable[[Sequence[str]], list[str]]
"""Returns new labels from the current ones."""
SettleEnded = Callable[[Work, float, str], Sequence[StoreChange]]
"""Changes that settle a bead's attempt, from (work, now, who retries). Raises Conflict while its gremlin runs."""


@dataclass(frozen=True)
class BeadEditor:
    """Finds and changes the beads of one project. `who` is recorded with each change."""

    store: BeadStore
    project: str
    clock: Clock
    who: str
    settle_ended: SettleEnded

    def resolve(self, text: str) -> str:
        """The id that a unique prefix names. Raises NotFound with the matches or the nearest id."""
        found = self.store.matching(self.project, text)
        if len(found) == 1:
            return found[0]
        if found:
            raise NotFound(f"`{text}` is the beginning of several beads", hint="one of: " + ", ".join(found[:12]))
        near = did_you_mean(text, self.store.ids(self.project), otherwise="`gremlins bead list` lists them")
        raise NotFound(f"no bead `{text}` in {self.project}", hint=near)

    def get(self, bead_id: str) -> Bead:
        """Raises NotFound."""
        bead = self.store.bead(self.project, bead_id)
        if bead is None:
            raise NotFound(f"no bead `{bead_id}` in {self.project}")
        return bead

    def create(self, title: str, *, bead_id: str | None = None, parent: str | None = None, **fields: Any) -> Bead:
        """Make a bead. Raises GremlinsError (invalid field), Conflict (id taken, circle of dependencies)."""
        dependencies: tuple[Dependency, ...] = fields.pop("dependencies", ())
        if parent is not None:
            dependencies = (*dependencies, self.dependency("", parent, PARENT))
        stamp = self._stamp()
        for nonce in range(TRIES):
            chosen = bead_id or self._new_id(title, parent, nonce)
            own = tuple(dep.model_copy(update={"issue_id": chosen}) for dep in dependencies)
            blank = Issue.model_construct(
                id=chosen, title=title, created_at=stamp, updated_at=stamp, created_by=self.who
            )
            issue = with_fields(blank, **fields, dependencies=[dep.model_dump() for dep in own])
            status: BeadStatus = "deferred" if issue.status == "deferred" else "open"
            bead = kept_apart(Bead(self.project, issue, status), self._now())
            if self.store.commit(PutBead(bead, None), self._event(chosen, "created", title)):
                return self.get(chosen)
            if bead_id is not None:
                raise Conflict(f"there is already a bead `{bead_id}`", hint="choose another --id")
        raise Conflict("no free id was found", hint="try again")

    def _new_id(self, title: str, parent: str | None, nonce: int) -> str:
        if parent is not None:
            return child_id(parent, self.store.ids_beginning(f"{parent}."))
        crowd = sum(self.store.count(self.project).values())
        while True:
            found = new_id(self.project, title, self._now(), nonce=nonce, crowd=crowd)
            if not self.store.ids_beginning(found):
                return found
            nonce += 1

    def edit(self, bead_id: str, change: Callable[[Bead], Bead], kind: str, text: str = "") -> Bead:
        """Apply `change` to the current bead and return the result. Raises Conflict."""
        for _ in range(TRIES):
            bead = self.get(bead_id)
            changed = kept_apart(change(bead), self._now())
            if changed == bead:
                return bead
            told = EDITED if task_of(changed.issue) != task_of(bead.issue) else kind
            if self.store.commit(PutBead(changed, bead.generation), self._event(bead_id, told, text)):
                return self.get(bead_id)
        raise Conflict(f"other processes keep changing {bead_id}", hint="try again")

    def update(
        self, bead_id: str, fields: dict[str, Any], status: str | None = None, relabel: Relabel | None = None
    ) -> Bead:
        """Change fields, labels and status. Raises Conflict if the status cannot change now."""

        def change(bead: Bead) -> Bead:
            labels = {} if relabel is None else {"labels": relabel(bead.issue.labels)}
            if fields or labels:
                bead = bead.edited(self._stamp(), **fields, **labels)
            return bead if status is None else self._with_status(bead, status)

        told = ", ".join([*fields, *(["labels"] if relabel else []), *([f"status {status}"] if status else [])])
        return self.edit(bead_id, change, "updated", f"{told} by {self.who}")

    def _with_status(self, bead: Bead, status: str) -> Bead:
        stamp = self._stamp()
        match status:
            case "open" if bead.status == "failed":
                raise self._refuse(bead, "it failed", f"`gremlins bead retry {bead.id}` starts it over")
            case "open" if bead.status == "in_progress" or bead.hold is not None or bead.status != "open":
                self._refuse_while_worked_on(bead)
                cleared = bead if bead.status != "deferred" else bead.edited(stamp, defer_until=None)
                return cleared.moved("open", stamp)
            case "open":
                return bead
            case "closed":
                return bead.moved("closed", stamp, reason=f"closed by {self.who}")
            case "in_progress":
                return self._claimed(bead, bead.issue.assignee)
            case "deferred":
                self._refuse_while_worked_on(bead)
                return bead.moved("deferred", stamp, hold=bead.hold)
            case "failed":
                self._refuse_while_worked_on(bead)
                return bead.moved("failed", stamp)
            case _:
                raise AssertionError(status)

    def claim(self, bead_id: str, assignee: str) -> Bead:
        """Set a bead in progress for a person. Raises Conflict unless it is open or deferred."""
        return self.edit(bead_id, lambda bead: self._claimed(bead, assignee), "claimed", f"claimed by {assignee}")

    def _claimed(self, bead: Bead, assignee: str) -> Bead:
        if bead.status not in ("open", "deferred"):
            by = f" by {bead.issue.assignee}" if bead.status == "in_progress" and bead.issue.assignee else ""
            raise self._refuse(bead, f"it is {bead.status}{by}", f"`gremlins bead show {bead.id}` shows its state")
        return bead.edited(self._stamp(), assignee=assignee).moved("in_progress", self._stamp())

    def close(self, bead_id: str, reason: str) -> Bead:
        """Raises Conflict if the bead is closed already."""

        def change(bead: Bead) -> Bead:
            if bead.status == "closed":
                raise self._refuse(bead, "it is closed already", f"`gremlins bead reopen {bead.id}` opens it again")
            return bead.moved("closed", self._stamp(), reason=reason or f"closed by {self.who}")

        return self.edit(bead_id, change, "closed", reason or f"closed by {self.who}")

    def reopen(self, bead_id: str, reason: str) -> Bead:
        """Open a closed bead; its counters stay. Raises Conflict."""

        def change(bead: Bead) -> Bead:
            if bead.status != "closed":
                hint = f"`gremlins bead retry {bead.id}` starts it over" if bead.status == "failed" else None
                raise self._refuse(bead, f"it is {bead.status}, not closed", hint)
            busy = self.work(bead.id).unsettled is not None
            return bead.moved("in_progress" if busy else "open", self._stamp())

        return self.edit(bead_id, change, "reopened", reason or f"reopened by {self.who}")

    def hold(self, bead_id: str, reason: str) -> Bead:
        """Hold a bead until a person releases it. Raises Conflict if it is closed or failed."""

        def change(bead: Bead) -> Bead:
            if bead.terminal:
                raise self._refuse(bead, f"it is {bead.status}", None)
            return replace(bead.edited(self._stamp()), hold=Hold("person", reason, self.who, self._now()))

        return self.edit(bead_id, change, "held", reason)

    def release(self, bead_id: str) -> Bead:
        """Remove a hold or another person's claim. Raises Conflict if there is neither."""

        def change(bead: Bead) -> Bead:
            busy = self.work(bead.id).unsettled is not None
            if (why := not_work(bead.issue)) is not None:
                is_typed = not_work(bead.issue.model_copy(update={"issue_type": "task"})) is None
                typed = f"`gremlins bead update {bead.id} -t task` makes it work"
                raise self._refuse(bead, why, typed if is_typed else "`gremlins bead create` makes one of the work")
            if bead.hold is None and (bead.status != "in_progress" or busy):
                raise self._refuse(bead, "it is not held", f"`gremlins bead show {bead.id}` shows its state")
            if bead.status == "in_progress" and not busy:
                return bead.edited(self._stamp(), assignee="").moved("open", self._stamp())
            return replace(bead.edited(self._stamp()), hold=None)

        return self.edit(bead_id, change, "released", f"released by {self.who}")

    def retry(self, bead_id: str) -> Bead:
        """Begin a new retry epoch: open, no hold, counters at zero. Raises Conflict."""

        def change(bead: Bead) -> Bead:
            if bead.status == "closed":
                raise self._refuse(bead, "it is closed", f"`gremlins bead reopen {bead.id}` opens it again")
            if bead.status == "in_progress":
                by = f" by {bead.issue.assignee}" if bead.issue.assignee else ""
                raise self._refuse(bead, f"it is claimed{by}", f"`gremlins bead release {bead.id}` gives it back")
            stamp = self._stamp()
            return replace(bead.moved("open", stamp), epoch=bead.epoch + 1)

        work = self.work(bead_id)
        if work.unsettled is not None:
            self.store.commit(*self.settle_ended(work, self._now(), self.who))
        return self.edit(bead_id, change, "retried", f"a new epoch, by {self.who}")

    def dependency(self, bead_id: str, other: str, kind: str) -> Dependency:
        """A new dependency, with author and time."""
        fields = {"issue_id": bead_id, "depends_on_id": other, "type": kind}
        return Dependency.model_validate(fields | {"created_at": self._stamp(), "created_by": self.who})

    def depend(self, bead_id: str, other: str, kind: str) -> Bead:
        """Add a dependency. Raises DependencyCircle, Conflict."""

        def change(bead: Bead) -> Bead:
            if any(dep.depends_on_id == other and dep.type == kind for dep in bead.issue.dependencies):
                return bead
            if other == bead_id:
                raise Conflict(f"{bead_id} cannot depend on itself")
            dependencies = [*(dep.model_dump() for dep in bead.issue.dependencies)]
            added = self.dependency(bead_id, other, kind).model_dump()
            return bead.edited(self._stamp(), dependencies=[*dependencies, added])

        return self.edit(bead_id, change, "dependency", f"depends on {other} ({kind})")

    def undepend(self, bead_id: str, other: str, kind: str | None) -> Bead:
        """Remove a dependency. Raises NotFound if there is none."""

        def change(bead: Bead) -> Bead:
            kept = [
                dep.model_dump()
                for dep in bead.issue.dependencies
                if dep.depends_on_id != other or (kind is not None and dep.type != kind)
            ]
            if len(kept) == len(bead.issue.dependencies):
                raise NotFound(f"{bead_id} does not depend on {other}")
            return bead.edited(self._stamp(), dependencies=kept)

        return self.edit(bead_id, change, "dependency", f"no longer depends on {other}")

    def work(self, bead_id: str) -> Work:
        """Raises Conflict if the bead cannot be read."""
        work = self.store.work(self.project, bead_id)
        if work is None:
            raise Conflict(f"{bead_id} cannot be read", hint="`gremlins doctor` says more")
        return work

    def _refuse_while_worked_on(self, bead: Bead) -> None:
        attempt = self.work(bead.id).unsettled
        if attempt is not None:
            stop = f"`gremlins stop {attempt.gremlin_id}` first"
            raise self._refuse(bead, f"gremlin {attempt.gremlin_id} works on it", stop)

    def _refuse(self, bead: Bead, why: str, hint: str | None) -> Conflict:
        return Conflict(f"{bead.id}: {why}", hint=hint)

    def _event(self, bead_id: str, kind: str, text: str) -> Event:
        return Event(self.project, bead_id, self._now(), kind, text)

    def _stamp(self) -> str:
        return rfc3339(self.clock.now())

    def _now(self) -> float:
        return self.clock.now().timestamp()
