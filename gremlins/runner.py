"""A gremlin's process: runs the stages in order, handles signals, turns the outcome into the next status.

A first start, a return from the waiter and a rescue are the same: read the record and continue.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, assert_never

from msgspec.structs import replace

from gremlins.clients.base import CallUnsuccessful, Client, Detach, Park, Room, Session, Wait
from gremlins.clients.batch.become_waiter import BecomeWaiter, become_waiter, keep_turn_for_a_while, leave_account
from gremlins.clients.batch.stopping import settle_stopped_calls
from gremlins.clock import Clock, Jitter, SystemClock, spread
from gremlins.config import SpendSettings, load_settings
from gremlins.errors import MACHINE_TROUBLE, GremlinsError, NotReady
from gremlins.files import make_private_dir, write_atomic
from gremlins.outcome import Bail, Done, Failed, Outcome
from gremlins.paths import Home
from gremlins.pipeline.freezing import FrozenLaunch, read_frozen
from gremlins.processes.credentials import take_over
from gremlins.processes.interrupt import Interrupt, InterruptibleClock, Terminated, nothing_to_check
from gremlins.processes.limited import RunLimited, run_limited
from gremlins.processes.locks import LOCK_FD_VARIABLE, GremlinLock, hold_work_lock
from gremlins.processes.notify import notify
from gremlins.records.books import FleetBooks, HomeBooks
from gremlins.records.calls import Cost, Ledger, outstanding, summarize
from gremlins.records.caps import Granted, Occupied
from gremlins.records.ending_event import ending_event
from gremlins.records.gremlin import (
    Bailed,
    DiffCount,
    Evidence,
    FailedGremlin,
    Finished,
    Gremlin,
    Interrupted,
    Parked,
    Running,
    RunStore,
    StageOutcome,
    StageRun,
    Status,
    Stopped,
)
from gremlins.records.journal import Journal
from gremlins.records.persons_words import write_words
from gremlins.records.prices import worst_case
from gremlins.records.stop_request import clear_stop, read_stop
from gremlins.redaction import Redactor
from gremlins.repository.catching_up import merge_into
from gremlins.repository.folder import restore
from gremlins.repository.git import Git, HostGitError
from gremlins.repository.interrupted import undo_killed_commands
from gremlins.repository.worktree import Worktree, clear_stale_locks, quiet_env, tree_differs
from gremlins.retry import RETRY_AFTER_CEILING, seconds_until
from gremlins.stages.base import StageContext
from gremlins.stages.readiness import make_ready, works_in_the_tree
from gremlins.stages.revision import round_name, round_stages
from gremlins.stages.spec import AgentStage, Stage, Verify
from gremlins.stages.table import stage_function

EXIT_PARKED = 0
JITTER_ROOM = 1.2
INTERNAL_ERROR = 3
LOOKS_FOR_ROOM = 3.0
"""Times `batch.poll_initial` between two looks for room under a spending cap."""

HOST_PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds before the tries that follow when the machine fails git or a file."""


@dataclass
class Run:
    """One gremlin in its process. `become_waiter` replaces the process by a waiter and does not return."""

    home: Home
    gremlin_id: str
    lock: GremlinLock
    clock: Clock
    env: Mapping[str, str]
    become_waiter: BecomeWaiter
    make_client: Callable[[str, Session], Client]
    interrupt: Interrupt
    jitter: Jitter = field(default_factory=spread)
    books: FleetBooks | None = None
    """None: those of the state root."""
    run_limited: RunLimited = run_limited

    def __post_init__(self) -> None:
        self.store = RunStore(self.home, self.clock)
        self.paths = self.store.paths(self.gremlin_id)
        self.log = Journal(self.paths.log, self.clock)
        self.ledger = Ledger(self.paths)
        self._books: FleetBooks = self.books or HomeBooks(self.home, self.gremlin_id, self.ledger, self.clock)
        self.writing = threading.RLock()
        self.nap: float | None = None
        self.host_pauses = iter(HOST_PAUSES)
        self.busy: dict[int, tuple[datetime, str]] = {}
        self.record = self.store.read(self.gremlin_id)
        self.frozen: FrozenLaunch = read_frozen(self.paths.frozen)
        self.work_fd = hold_work_lock(self.paths.work_lock)

    # ── the record ────────────────────────────────────────────────────────────────────────────────────────────

    def save(self, **changes: Any) -> Gremlin:
        """Write the record with these changes and the current cost."""
        with self.writing:
            calls = self.ledger.readable()[0]  # read once: cost and outstanding calls are of one moment
            cost = summarize(calls)
            record = replace(self.record, cost=cost, total_cost_usd=cost.total_usd, **changes)
            if isinstance(record.status, Running):
                waiting = tuple(call.parked() for call in outstanding(calls))
                record = replace(record, status=replace(record.status, calls=waiting))
            self.record = self.store.write(record, self.lock)
            return self.record

    def end(self, status: Status, line: str) -> None:
        self.save(status=status, ended_at=self.clock.now())
        self.log(line)
        self._notify()

    def _notify(self) -> None:
        """Run the `notify` command, without waiting for it."""
        if (event := ending_event(self.record, self.clock.now())) is not None:
            notify(self.frozen.settings.notify, event, self.env, self.record.tree)

    def close(self) -> None:
        """Close the descriptors except the lock's, for a process that lives on."""
        os.close(self.work_fd)
        self.interrupt.close()

    # ── running ───────────────────────────────────────────────────────────────────────────────────────────────

    def go(self) -> int:
        """Run to the end or to the next wait. Returns the process's exit code."""
        while True:
            if (code := self._until_a_wait()) is not None:
                return code

    def _until_a_wait(self) -> int | None:
        """Run once. None: a wait in this process is over; run again."""
        try:
            if self.nap is not None:
                nap, self.nap = self.nap, None
                self.clock.sleep(nap)
            return self._go()
        except Park as park:
            return self._park(park.wait)
        except Detach as detach:
            return self._detach(detach)
        except Terminated as terminated:
            return self._terminated(terminated)
        except NotReady as error:
            return self._fail(Failed("config", _sentence(error), exit_code=error.exit_code))
        except GremlinsError as error:
            failed = Failed("host", _sentence(error), exit_code=error.exit_code)
            return self._again_or_fail(failed, may_pass=isinstance(error, HostGitError))
        except OSError as error:
            failed = Failed("host", f"{error.strerror or error}: {error.filename or 'this machine'}")
            return self._again_or_fail(failed, may_pass=error.errno in MACHINE_TROUBLE)

    def _again_or_fail(self, failed: Failed, *, may_pass: bool) -> int | None:
        """None: run again after a pause, for a lock is held or the disk full for a moment."""
        self.nap = next(self.host_pauses, None) if may_pass else None
        if self.nap is None:
            return self._fail(failed)
        self.log(f"{failed.reason}; it is tried again in {self.nap:g} s")
        return None

    def _go(self) -> int:
        self._wake_up()
        if read_stop(self.paths) is not None:
            self._settle()
            stop = read_stop(self.paths)  # settling took time: another stop may have come
            if stop is not None and not stop.then_resume:
                self.end(Stopped(since=self.clock.now(), by=stop.by, reason=stop.why), f"stopped by {stop.by}")
                return 0
            clear_stop(self.paths)
            self.log("the stop is settled; going on")
        return self._conclude(self._all_stages(self._context()))

    def _all_stages(self, context: StageContext) -> Outcome:
        """The pipeline's stages, then a round for each time that a person sent the finished gremlin back."""
        stages = self.frozen.pipeline.stages
        name = round_name(stages)
        write_words(self.paths, self.record, name)
        outcome = self.steps(stages, "", context)
        again = round_stages(stages, self.frozen.settings.client_spec) if self.record.revisions else ()
        for number, revision in enumerate(self.record.revisions, 1):
            if not isinstance(outcome, Done):
                break
            if revision.onto is not None:
                context = self._brought_up_to(revision.onto, context)
            outcome = self.steps(again, f"{name}[{number}]/", context.inside(f"{name}-{number}"))
        return outcome

    def _brought_up_to(self, onto: str, context: StageContext) -> StageContext:
        """The branch merged with a commit of the project, which is its base from now on."""
        merge_into(context.worktree, onto)
        if self.record.base != onto and context.worktree.git.is_ancestor(self.record.base, onto):
            self.save(base=onto, diff=self._diff())
        return dataclasses.replace(context, worktree=dataclasses.replace(context.worktree, base=self.record.base))

    def _wake_up(self) -> None:
        """Set the status to running and count the time parked or asleep, which is no working time."""
        leave_account(self.paths, self.gremlin_id, self.env)
        parked, status = self.record.parked_seconds, self.record.status
        if isinstance(status, Parked) or (isinstance(status, Running) and status.asleep):
            parked += max(0.0, (self.clock.now() - status.since).total_seconds())
        self.save(status=Running(since=self.clock.now()), parked_seconds=parked, ended_at=None)

    def _settle(self) -> None:
        """Carry out a stop: cancel outstanding calls and wait until the API says that they have ended."""
        if self.interrupt.signal_name is not None:
            self.interrupt.clear()
        # Not interruptible: a second signal changes nothing.
        session = dataclasses.replace(self._session(), clock=SystemClock(), check=nothing_to_check)
        stop = read_stop(self.paths)
        give_up = stop is not None and stop.give_up
        settle_stopped_calls(session, self.make_client, self._show_waiting, give_up=give_up)

    def _show_waiting(self, wait: Wait) -> None:
        """Show the wait of a stop, once: its polls are close together."""
        now = self.record.status
        if not (isinstance(now, Parked) and now.calls == wait.calls):
            self.save(status=Parked(since=now.since, calls=wait.calls, reason=wait.why))

    # ── stages ────────────────────────────────────────────────────────────────────────────────────────────────

    def steps(self, stages: Sequence[Stage], prefix: str, context: StageContext) -> Outcome:
        """Run stages in order, except those that are done."""
        nothing_to_do: str | None = None
        judges = [isinstance(spec, Verify) and bool(spec.cmds or context.settings.verify) for spec in stages]
        for number, spec in enumerate(stages, 1):
            path = prefix + spec.name
            if path in self.record.done_stages():
                continue
            self.interrupt.check()
            is_verified = context.is_verified or any(judges[number:])
            outcome = self._stage(spec, dataclasses.replace(context, path=path, is_verified=is_verified))
            if not isinstance(outcome, Done):
                return outcome
            nothing_to_do = outcome.nothing_to_do or nothing_to_do
        return Done(nothing_to_do=nothing_to_do)

    def _stage(self, spec: Stage, context: StageContext) -> Outcome:
        self._begin(spec, context.path)
        try:
            unready = make_ready(context) if works_in_the_tree(spec, context) else None
            outcome: Outcome = unready or stage_function(spec)(spec, context)
        except CallUnsuccessful as error:
            outcome = error.outcome
        self._ended(context.path, outcome)
        return outcome

    def _begin(self, spec: Stage, path: str) -> None:
        agent = spec if isinstance(spec, AgentStage) else None
        with self.writing:
            self.busy.pop(threading.get_ident(), None)
            open_run = next((r for r in reversed(self.record.stages) if r.path == path), None)
            stages = self.record.stages
            if open_run is None or open_run.outcome is not None:
                run = StageRun(
                    path=path,
                    type=str(getattr(spec, "type", "stage")),
                    attempt=self.attempt(path),
                    started_at=self.clock.now(),
                )
                stages = (*stages, run)
                self.log(f"{path}: begins" + (f" (attempt {run.attempt})" if run.attempt > 1 else ""))
            shown = replace(self.record, stages=stages).stage_at_work() or path
            self.save(
                stage=shown,
                stages=stages,
                mode=agent.settled_mode if agent else None,
                client=str(agent.settled_client) if agent else None,
                status=self._at_work(),
            )

    def _ended(self, path: str, outcome: Outcome) -> None:
        with self.writing:
            runs = list(self.record.stages)
            index = max(i for i, run in enumerate(runs) if run.path == path)
            kind: StageOutcome
            reason = None
            match outcome:
                case Done():
                    kind, note, reason = "done", outcome.note or (outcome.nothing_to_do or ""), outcome.nothing_to_do
                case Bail():
                    kind, note = "bailed", f"{outcome.kind}: {outcome.detail}"
                case Failed():
                    kind, note = "failed", outcome.reason
                case _:
                    assert_never(outcome)
            if runs[index].outcome is None:
                runs[index] = replace(
                    runs[index], ended_at=self.clock.now(), outcome=kind, note=note, nothing_to_do=reason
                )
            others = self.record.stage_at_work(but=path)  # with parallel branches, one that still runs is shown
            self.save(stages=tuple(runs), stage=others or self.record.stage, diff=self._diff())
            self.log(f"{path}: {kind}" + (f", {note}" if note else ""))

    def _diff(self) -> DiffCount | None:
        """The size of the branch's change; the last known one where git cannot tell."""
        git = Git(Path(self.record.project))
        try:
            return DiffCount(*git.count_changes(self.record.base, f"refs/heads/{self.record.branch}"))
        except GremlinsError:
            return self.record.diff

    def attempt(self, label: str) -> int:
        return self.record.attempt_of(label)

    # ── session ───────────────────────────────────────────────────────────────────────────────────────────────

    def _session(self, worktree: Path | None = None) -> Session:
        return Session(
            gremlin_id=self.gremlin_id,
            ledger=self.ledger,
            settings=self.frozen.settings,
            clock=self.clock,
            env=self.env,
            worktree=worktree or Path(self.record.worktree),
            price=price_call,
            park=_raise_park,
            spawn=self.record.spawn,
            attempt=self.attempt,
            jitter=self.jitter,
            log=self.log,
            check=self.interrupt.check,
            room=self._room,
            booked=self._booked,
            claimed=self._books.claimed,
            adopting=self._books.adopting,
            work_fd=self.work_fd,
            interrupt_fd=self.interrupt.fd,
            activity=self.paths.activity.touch,
            run_limited=self.run_limited,
        )

    def _booked(self) -> None:
        """Show the cost of a live call while it goes on."""
        self.save()

    @contextlib.contextmanager
    def _room(self, request: Mapping[str, Any], client: str, *, batch: bool, counted: int = 0) -> Iterator[Room | Wait]:
        """Room for a call under the spending caps. Raises CallUnsuccessful if a cap leaves none."""
        now, provider = self.clock.now(), client.partition(":")[0]
        worst = worst_case(request, batch=batch, at=now, provider=provider, counted=counted)
        with self._books.room(self.record, self._caps(), worst, now) as found:
            match found:
                case Granted():
                    yield Room(worst, found.left_usd)
                case Occupied():
                    settings = self.frozen.settings.batch
                    seconds = min(settings.poll_max, LOOKS_FOR_ROOM * settings.poll_initial)
                    yield Wait(now + timedelta(seconds=seconds), why=found.why, pollable=False)
                case Failed():
                    raise CallUnsuccessful(found)
                case _:
                    assert_never(found)

    def _caps(self) -> SpendSettings:
        """The caps of now, not of the launch, so that a change applies to running gremlins."""
        try:
            return load_settings(self.record.tree, self.home, self.env).settings.spend
        except GremlinsError:
            return self.frozen.settings.spend

    def _context(self) -> StageContext:
        record = self.record
        worktree = Worktree(Path(record.project), Path(record.worktree), record.branch, record.base)
        if record.branch:
            if (found := restore(worktree)) is not None:
                self.log(f"files of its incomplete worktree are kept as {found}")
            clear_stale_locks(worktree, clock=self.clock)
            if (kept := undo_killed_commands(worktree)) is not None:
                self.log(f"commands were killed; their changes are kept as {kept}")
        return StageContext(
            path="",
            task=record.task,
            title=record.title,
            worktree=worktree,
            session=dataclasses.replace(self._session(), git_env=partial(quiet_env, worktree, {})),
            artifacts=self.paths.artifacts,
            settings=self.frozen.settings,
            make_client=self.make_client,
            busy=self._busy,
            steps=self.steps,
            done=lambda: self.record.done_stages(),
        )

    def _busy(self, until: datetime | None, why: str) -> None:
        with self.writing:
            if until is None:
                self.busy.pop(threading.get_ident(), None)
            else:
                self.busy[threading.get_ident()] = (until, why)
            self.save(status=self._at_work())

    def _at_work(self) -> Running:
        """Running; silent until the latest time that any parallel branch has announced."""
        until, why = max(self.busy.values(), default=(None, ""), key=lambda wait: wait[0])
        return Running(since=self.clock.now(), until=until, waiting_for=why or None)

    # ── endings ───────────────────────────────────────────────────────────────────────────────────────────────

    def _conclude(self, outcome: Outcome) -> int:
        now = self.clock.now()
        match outcome:
            case Done():
                return self._finish(outcome)
            case Bail():
                stage = self._failing_stage() or self.record.stage
                self.end(
                    Bailed(since=now, stage=stage, kind=outcome.kind, detail=outcome.detail),
                    f"bailed in {stage}: {outcome.kind}: {outcome.detail}",
                )
                return 0
            case Failed():
                return self._fail(outcome)
            case _:
                assert_never(outcome)

    def _finish(self, done: Done) -> int:
        now = self.clock.now()
        evidence = self._evidence(done)
        if not evidence.holds:
            detail = "every stage is done, but the branch holds no change"
            self.end(Bailed(since=now, stage=self.record.stage, kind="no_evidence", detail=detail), detail)
            return 0
        cost = self.ledger.total()
        more = "+?" if cost.unpriced_calls or cost.unknown_calls else ""
        self.end(Finished(since=now, evidence=evidence), f"finished; it has cost ${cost.total_usd:.4f}{more}")
        return 0

    def _evidence(self, done: Done) -> Evidence:
        """The evidence, checked against the base commit."""
        record = self.record
        worktree = Worktree(Path(record.project), Path(record.worktree), record.branch, record.base)
        tip = worktree.tip()
        differs = tree_differs(worktree)
        reason = done.nothing_to_do or self._nothing_to_do()
        if differs:
            return Evidence(kind="commits", base=record.base, tip=tip, holds=True)
        if reason:
            return Evidence(kind="nothing_to_do", base=record.base, tip=tip, holds=True, detail=reason)
        wanted = self.frozen.pipeline.evidence
        holds = wanted == "none" or record.accepts_no_evidence
        return Evidence(kind="none" if holds else wanted, base=record.base, tip=tip, holds=holds)

    def _nothing_to_do(self) -> str | None:
        """The agent's reason, if a stage found nothing to do."""
        return next((run.nothing_to_do for run in reversed(self.record.stages) if run.nothing_to_do), None)

    def _failing_stage(self) -> str:
        """The innermost stage that failed; with parallel branches, the first."""
        return next(iter(self.record.broken_stages()), "")

    def _fail(self, failed: Failed) -> int:
        stage = self._failing_stage() or self.record.stage
        if self.ledger.outstanding():
            return self._detach(Detach(failed.reason, failed.failure, ()), failed.exit_code)
        self.end(
            FailedGremlin(
                since=self.clock.now(),
                stage=stage,
                failure=failed.failure,
                reason=failed.reason,
                exit_code=failed.exit_code,
                retry_at=failed.retry_at,
                cap=failed.cap,
            ),
            f"failed in {stage}: {failed.reason}",
        )
        return failed.exit_code

    def _park(self, wait: Wait) -> int | None:
        """Save the record, then become a waiter, which later becomes this runner again. None: the wait ended here."""
        now = self.clock.now()
        status: Status
        if wait.calls and not wait.mixed:
            status = Parked(since=now, calls=wait.calls)
        else:
            status = Running(since=now, until=wait.until, waiting_for=wait.why, asleep=True)
        self.save(status=status)
        batch = self.frozen.settings.batch
        self.interrupt.hold()  # a signal from before is handled here, a later one by the waiter
        try:
            if self.interrupt.signal_name is not None:
                return self._terminated(Terminated(self.interrupt.signal_name))
            self.become_waiter(self.paths, wait, batch, self.lock, self.env)
        except OSError as error:  # no space for the waiter's file, or exec failed: wait in this process
            self.log(f"waiting without leaving memory: {error.strerror or error}")
            longest = JITTER_ROOM * max(batch.poll_max, batch.retry_max, RETRY_AFTER_CEILING)
            self.nap = seconds_until(wait.until, now, longest=longest)
            return None
        finally:
            self.interrupt.let_in()
        return EXIT_PARKED

    def _detach(self, detach: Detach, exit_code: int = 1) -> int:
        calls = tuple(call.parked() for call in self.ledger.outstanding()) or detach.calls
        self.save(status=Parked(since=self.clock.now(), calls=calls, reason=str(detach), failure=detach.failure))
        self.log(f"the process ends, its calls stay outstanding: {detach}")
        self._notify()
        return exit_code

    def _terminated(self, terminated: Terminated) -> int | None:
        """End the process, unless a stop was requested (None: settle it)."""
        if read_stop(self.paths) is not None:
            return None
        outstanding = self.ledger.outstanding()
        reason = f"the process was ended by {terminated.signal_name}"
        self.log(reason)
        if outstanding:
            calls = tuple(record.parked() for record in outstanding)
            self.save(status=Parked(since=self.clock.now(), calls=calls, reason=reason))
        else:
            self.save(status=Interrupted(since=self.clock.now(), signal=terminated.signal_name))
            self._notify()
        return 128 + 15


def _raise_park(wait: Wait) -> NoReturn:
    raise Park(wait)


def _sentence(error: GremlinsError) -> str:
    return f"{error.message} ({error.hint})" if error.hint else error.message


def price_call(model: str, usage: Mapping[str, Any], *, batch: bool, at: datetime) -> Cost:
    """The cost of a call. Unknown models are unpriced, never free."""
    from gremlins.records.prices import price  # 0.3 s: only where a reply has come

    found = price(model, usage, batch=batch, at=at)
    return Cost(usd=None) if found is None else Cost(usd=found.usd, live_usd=found.live_usd)


# ── the process ───────────────────────────────────────────────────────────────────────────────────────────────


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m gremlins.runner ID`: the gremlin's process, with its lock inherited from launcher or waiter."""
    gremlin_id = (argv if argv is not None else sys.argv[1:])[0]
    home = Home.from_env()._replace(cluster="")  # it is of this host alone, whatever is configured since
    paths = home.gremlin(gremlin_id)
    env = take_over(os.environ)
    interrupt = Interrupt()
    interrupt.install()
    try:
        keep_turn_for_a_while()
        lock = _own_lock(paths.lock)
    except GremlinsError as error:
        return _unable(error)
    lock.sign("runner", os.getpid())
    clock = InterruptibleClock(interrupt)
    try:
        from gremlins.clients.registry import make_client

        shutil.rmtree(paths.temporary, ignore_errors=True)
        make_private_dir(paths.temporary)
        tempfile.tempdir = str(paths.temporary)
        run = Run(home, gremlin_id, lock, clock, env, become_waiter, make_client, interrupt)
        return run.go()
    except (GremlinsError, OSError) as error:  # the record cannot be read, or the disk not written
        return _unable(error)
    except Terminated as terminated:  # while the end was being recorded; the record is right as it is
        return _unable(terminated)
    except Exception:  # noqa: BLE001 # the last handler of this process: an exception here is a bug, and is recorded
        try:
            return put_down_bug(home, gremlin_id, lock, clock, env)
        except (GremlinsError, OSError) as error:
            return _unable(error)


def _unable(error: BaseException) -> int:
    """Print to the process's output file. The record stays as it is."""
    print(f"error: {error}", file=sys.stderr)  # noqa: T201 # goes to the process's output file
    return 1


def _own_lock(path: Path) -> GremlinLock:
    inherited = os.environ.pop(LOCK_FD_VARIABLE, "")
    if inherited.isdigit():
        return GremlinLock.inherited(int(inherited))
    return GremlinLock.acquire(path, "runner")


def put_down_bug(home: Home, gremlin_id: str, lock: GremlinLock, clock: Clock, env: Mapping[str, str]) -> int:
    """Write the traceback of the present exception to a crash log, and its path into the record."""
    make_private_dir(home.crashes)
    log = home.crashes / f"{gremlin_id}-{clock.now():%Y%m%dT%H%M%S}.log"
    text = Redactor(env).message(traceback.format_exc().encode(errors="backslashreplace").decode())
    write_atomic(log, text)
    store = RunStore(home, clock)
    record = store.read(gremlin_id)
    calls = Ledger(store.paths(gremlin_id)).readable()[0]
    cost = summarize(calls)
    reason = f"a bug in gremlins: {text.strip().splitlines()[-1][:300]}; see {log}"
    Journal(store.paths(gremlin_id).log, clock)(reason)
    status: Status
    if waiting := tuple(call.parked() for call in outstanding(calls)):
        status = Parked(since=clock.now(), calls=waiting, reason=reason)
    else:
        status = FailedGremlin(
            since=clock.now(), stage=record.stage, failure="unknown", reason=reason, exit_code=INTERNAL_ERROR
        )
    written = store.write(replace(record, status=status, cost=cost, total_cost_usd=cost.total_usd), lock)
    with contextlib.suppress(GremlinsError):  # `frozen.json` may be the unreadable file
        settings = read_frozen(store.paths(gremlin_id).frozen).settings
        if (event := ending_event(written, clock.now())) is not None:
            notify(settings.notify, event, env, record.tree)
    return INTERNAL_ERROR


if __name__ == "__main__":
    sys.exit(main())
