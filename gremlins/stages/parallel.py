"""The stage `parallel`: branches of stages side by side, each in a thread, those that change code in a worktree each.

A branch that waits for a batch waits here while others are at work; once all that are not over wait, the process is
given up for all of them at once. When one branch fails and the others are to follow (`fail_fast`), nothing new begins;
a live call that is at work is let end, for it costs in any case; batches are canceled as by a stop: what ends canceled
is not billed, what had succeeded by then is booked and kept. So a rescue asks again only for calls that were not paid.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, assert_never

from gremlins.clients.base import AskRoom, Detach, Park, Room, Wait
from gremlins.clients.batch.stopping import settle_round
from gremlins.outcome import Bail, Done, Failed, Outcome
from gremlins.processes.interrupt import Terminated
from gremlins.stages.base import StageContext
from gremlins.stages.branches import (
    Branch,
    branch_outcome,
    merge_branches,
    open_branches,
    publish_artifacts,
    remember_outcome,
    was_merged,
)
from gremlins.stages.spec import Parallel

LOOK = 1.0
"""Seconds between looks of a waiting branch at whether the process was asked to end."""
CANCELING_LOOK = 10.0
"""Most seconds between looks at batches that were canceled because another branch failed."""


class Halted(BaseException):
    """Control flow of a branch: another one failed, and this one may begin nothing more."""


Ending = Outcome | BaseException


def run(spec: Parallel, context: StageContext) -> Outcome:
    """Run the branches that are not over, then merge in order what changed code."""
    if was_merged(spec, context):  # by a process that was killed before it could say so
        branches = open_branches(spec, context, make=False)
        return _finish(branches, context, {})
    branches = open_branches(spec, context)
    group = _Group(spec, context, branches)
    endings = group.run()
    if group.failing:
        endings = {name: end for name, end in endings.items() if not isinstance(end, Park)}
    _raise_first(endings, failing=group.failing)
    unhappy = [(name, end) for name, end in endings.items() if isinstance(end, Bail | Failed)]
    if unhappy:
        _call_off(context)
        return _together(unhappy)
    return _finish(branches, context, endings)


def _finish(branches: list[Branch], context: StageContext, endings: dict[str, Ending]) -> Outcome:
    bail = merge_branches(branches, context)
    if bail is not None:
        return bail
    publish_artifacts(branches, context)
    reasons = [end.nothing_to_do for end in endings.values() if isinstance(end, Done) and end.nothing_to_do]
    return Done(f"{len(branches)} branches are done", nothing_to_do="; ".join(reasons) or None)


def _call_off(context: StageContext) -> None:
    """Cancel what other branches have with the API. Raises Park until all of it has ended, and Detach."""
    session = context.session
    inside = f"{context.path}/"
    open_calls = [call for call in session.ledger.outstanding() if call.key.stage.startswith(inside)]
    waiting, seconds, lost = settle_round(session, context.make_client, open_calls)
    if waiting:
        seconds = max(seconds, min(context.settings.batch.poll_initial, CANCELING_LOOK))
        raise Park(
            Wait(
                context.clock.now() + timedelta(seconds=seconds),
                calls=tuple(record.parked() for record in waiting),
                why=f"{context.path}: a branch has failed; waiting for the end of the others' canceled batches",
                pollable=False,
            )
        )
    for detach in lost:
        raise detach


def _raise_first(endings: dict[str, Ending], *, failing: bool) -> None:
    """Choose what ends the stage if a branch has no outcome: a bug first, then a signal, a halt, a wait.

    If this stage is not `failing`, a halt comes from a stage around it and ends its branch.
    """
    raised = [end for end in endings.values() if isinstance(end, BaseException)]
    waits = [end.wait for end in raised if isinstance(end, Park)]
    for error in raised:
        if not isinstance(error, Park | Terminated | Detach | Halted):
            raise error
    for kind in (Terminated, Detach) if failing else (Terminated, Detach, Halted):
        for error in raised:
            if isinstance(error, kind):
                raise error
    if waits:
        raise Park(_combined(waits))


def _combined(waits: list[Wait]) -> Wait:
    """One wait for all: until the first of them has to be looked at."""
    return Wait(
        min(wait.until for wait in waits),
        calls=tuple(call for wait in waits for call in wait.calls),
        why="; ".join(dict.fromkeys(wait.why for wait in waits if wait.why)),
        pollable=all(wait.pollable and wait.calls for wait in waits),
        mixed=any(wait.mixed or not wait.calls for wait in waits),
    )


def _together(unhappy: list[tuple[str, Bail | Failed]]) -> Outcome:
    """The first that did not end well stands for all of them; the others are named."""
    name, first = unhappy[0]
    others = "".join(f"; {other}: {_sentence(end)}" for other, end in unhappy[1:])
    match first:
        case Bail():
            return replace(first, detail=f"{name}: {first.detail}{others}" if others else first.detail)
        case Failed():
            return replace(first, reason=f"{name}: {first.reason}{others}")
        case _:
            assert_never(first)


def _sentence(end: Bail | Failed) -> str:
    return end.reason if isinstance(end, Failed) else f"{end.kind}: {end.detail}"


@dataclass
class _Group:
    """The threads of one parallel stage."""

    spec: Parallel
    context: StageContext
    branches: list[Branch]
    endings: dict[str, Ending] = field(default_factory=dict)
    """In the order in which they ended."""
    changed: threading.Condition = field(default_factory=threading.Condition)
    failing: bool = False
    all_wait: bool = False
    at_work: int = 0

    def run(self) -> dict[str, Ending]:
        known = self._known()
        self.endings.update(known)
        self.failing = bool(known) and self.spec.on_failure == "fail_fast"
        if self.failing:  # it comes back only to see to the calls of the others
            return self.endings
        queue = [branch for branch in self.branches if branch.name not in self.endings]
        count = min(self.spec.concurrency, len(queue))
        self.at_work = count
        threads = [threading.Thread(target=self._work, args=(queue,), name=f"branch-{n}") for n in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return self.endings

    def _known(self) -> list[tuple[str, Bail | Failed]]:
        """Branches that did not end well earlier in this life of the gremlin; a rescue runs them again."""
        found = [(branch.name, branch_outcome(branch, self.context)) for branch in self.branches]
        ended = [(at, name, outcome) for name, known in found if known is not None for at, outcome in (known,)]
        return [(name, outcome) for _, name, outcome in sorted(ended, key=lambda item: (item[0], item[1]))]

    def _work(self, queue: list[Branch]) -> None:
        """One place: branch after branch. One that waits keeps its place."""
        while True:
            with self.changed:
                if not queue:
                    break
                branch = queue.pop(0)
            ending = self._ending(branch)
            with self.changed:
                self.endings[branch.name] = ending
                if isinstance(ending, Bail | Failed):
                    remember_outcome(branch, ending, self.context)
                    self.failing = self.failing or self.spec.on_failure == "fail_fast"
            if isinstance(ending, BaseException) and not isinstance(ending, Halted):
                break
        with self.changed:
            self._one_less()

    def _ending(self, branch: Branch) -> Ending:
        while True:
            try:
                return self._steps(branch)
            except Park as park:
                try:
                    if not self._wait(park.wait):
                        return park
                except Terminated as terminated:
                    return terminated
            except BaseException as error:  # noqa: BLE001 # it belongs to the stage's own thread, which raises it
                return error

    def _steps(self, branch: Branch) -> Outcome:
        """The branch's stages, one by one, as long as no other branch has failed."""
        context = self._surroundings(branch)
        nothing_to_do: str | None = None
        for stage in branch.stages:
            path = f"{branch.path}/{stage.name}"
            if path not in self.context.done() and self.failing:
                raise Halted
            outcome = self.context.steps((stage,), f"{branch.path}/", context)
            if not isinstance(outcome, Done):
                return outcome
            nothing_to_do = outcome.nothing_to_do or nothing_to_do
        return Done(nothing_to_do=nothing_to_do)

    def _surroundings(self, branch: Branch) -> StageContext:
        inside = branch.context
        return replace(inside, session=replace(inside.session, room=self._room(inside.session.room)))

    def _room(self, outer: AskRoom) -> AskRoom:
        @contextlib.contextmanager
        def room(request: Mapping[str, Any], client: str, *, batch: bool, counted: int = 0) -> Iterator[Room | Wait]:
            if self.failing:
                raise Halted
            with outer(request, client, batch=batch, counted=counted) as found:
                yield found

        return room

    # ── waiting ───────────────────────────────────────────────────────────────────────────────────────────────

    def _wait(self, wait: Wait) -> bool:
        """Wait while other branches work. False: none does, and the process may park."""
        self.context.busy(None, "")  # the record says what is with the API by now
        with self.changed:
            self._one_less()
            while not self.all_wait:
                self.context.session.check()
                left = (wait.until - self.context.clock.now()).total_seconds()
                if left <= 0 and not self.failing:
                    self.at_work += 1
                    return True
                self.changed.wait(min(max(left, 0.05), LOOK))
            return False

    def _one_less(self) -> None:
        self.at_work -= 1
        if self.at_work == 0:
            self.all_wait = True
        self.changed.notify_all()
