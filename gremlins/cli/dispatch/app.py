"""`gremlins dispatch`: the loop, a single tick, and what there is to say about them."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import typer

from gremlins.cli.current_project import Here
from gremlins.cli.out import dollars, dump, flush_to_reader, note, on_terminal, printable, say
from gremlins.clock import Clock, SystemClock, rfc3339
from gremlins.errors import Conflict, GremlinsError, NotFound, NotReady
from gremlins.fleet.beads.attempts import FLEET, RESET
from gremlins.fleet.beads.bead import task_of
from gremlins.fleet.beads.store.interface import PutEpisode, SetPaused, StoreChange
from gremlins.fleet.dispatch import breaker, locks
from gremlins.fleet.dispatch.admit import Admit, Standing, admit, standing, start_words
from gremlins.fleet.dispatch.local_fleet import LocalFleet
from gremlins.fleet.dispatch.loop import Loop
from gremlins.fleet.dispatch.observation import Missing
from gremlins.fleet.dispatch.plan import episode_notice
from gremlins.fleet.dispatch.policy import Policy
from gremlins.fleet.dispatch.spending import today
from gremlins.fleet.dispatch.tick import Dispatcher, LoopEvent, TickReport
from gremlins.fleet.dispatch.view import blocked_by, breaker_json, explained, status_json, tick_json
from gremlins.fleet.dispatch.world import world_now
from gremlins.fleet.times import span, text_of
from gremlins.processes.interrupt import Interrupt
from gremlins.processes.notify import notify

app = typer.Typer(rich_markup_mode=None, add_completion=False, invoke_without_command=True)

JSON = typer.Option(False, "--json", help="Print JSON.")


@app.callback()
def dispatch(
    context: typer.Context,
    once: bool = typer.Option(False, "--once", help="One tick, then leave."),
    until_idle: bool = typer.Option(False, "--until-idle", help="Leave when no gremlin is at work and no bead is due."),
    pipeline: str = typer.Option(None, "--pipeline", metavar="NAME", help="Instead of the setting's."),
    mode: str = typer.Option(None, "--mode", metavar="live|batch", help="For every agent stage."),
    max_running: int = typer.Option(None, "--max-running", metavar="N", min=1, help="Gremlins at work at a time."),
    retry_cap: int = typer.Option(None, "--retry-cap", metavar="N", min=1, help="Charged attempts per bead."),
    land: bool = typer.Option(False, "--land", help="Land what is finished before its bead closes."),
    explain: str = typer.Option(None, "--explain", metavar="BEAD", help="Say why it is, or is not, started now."),
    json: bool = JSON,
) -> int:
    """Hand ready beads to gremlins until they are done, failed, or need a person."""
    if context.invoked_subcommand is not None:
        return 0
    if json and not once and explain is None:
        raise typer.BadParameter(
            "goes with --once or --explain: the loop has no end to its output", param_hint="--json"
        )
    if once and until_idle:
        raise typer.BadParameter("is one tick only", param_hint="--once")
    if mode not in (None, "live", "batch"):
        raise typer.BadParameter("is live or batch", param_hint="--mode")
    here = Here.find()
    asked: dict[str, Any] = {"pipeline": pipeline, "mode": mode, "land": land or None}
    asked |= {"max_running": max_running, "retry_cap": retry_cap}
    options = {name: value for name, value in asked.items() if value is not None}
    if explain is not None:
        return _explain(here, here.policy_with(**options), explain, json)
    if here.home.cluster:
        return _in_cluster(here, options, once=once, until_idle=until_idle, json=json)
    crew = _assemble(here, lambda: Policy.of(here.settings().settings, **options))
    crew.fleet.readiness.pipeline(crew.policy().pipeline)  # an unknown or wrong one ends the command
    return _once(crew, json) if once else _loop(crew, options, until_idle=until_idle)


def _in_cluster(here: Here, options: dict[str, Any], *, once: bool, until_idle: bool, json: bool) -> int:
    """One tick here, or let the workers run them from now on."""
    from gremlins.cli.dispatch import cluster  # the driver of the database

    if until_idle:
        raise typer.BadParameter("is for a loop of this host alone: in a cluster the workers run it", param_hint="")
    if not once:
        policy = cluster.switch_on(here, options)
        say(f"the cluster's workers dispatch {here.project} with `{policy.pipeline}`")
        note("`gremlins dispatch status` shows it, `gremlins dispatch stop` ends it")
        return 0
    shown: Callable[[LoopEvent], None] = (lambda event: None) if json else LineView(reader_gone=lambda: None)
    with cluster.ticked(here, options, shown, everything=json) as (project, report):
        _say_report(here, report, project.readiness.scopes(), json)
    return _end_of(report)


# --- the loop and the single tick


@dataclass
class Crew:
    """Everything that a tick needs."""

    here: Here
    policy: Callable[[], Policy]
    fleet: LocalFleet
    interrupt: Interrupt
    dispatcher: Dispatcher

    @property
    def draining(self) -> bool:
        return self.interrupt.signal_name is not None


def _assemble(here: Here, policy: Callable[[], Policy]) -> Crew:
    interrupt, clock = Interrupt(), SystemClock()
    here.settings.complain = lambda text: note(f"warning: {text}")
    readiness = here.readiness(policy)
    fleet = LocalFleet(here.home, here.root, clock, readiness.env, readiness, here.observer, interrupt.fd)
    dispatcher = Dispatcher(
        here.store,
        fleet,
        clock,
        here.project,
        policy,
        task=partial(_task, here),
        tell=lambda notice: notify(policy().notify, notice.payload, os.environ, here.root),
        claiming=partial(_claiming, here, clock),
        draining=lambda: interrupt.signal_name is not None,
    )
    return Crew(here, policy, fleet, interrupt, dispatcher)


def _claiming(here: Here, clock: Clock) -> AbstractContextManager[None]:
    return locks.claiming(locks.claim_lock(here.home, here.project), clock)


def _task(here: Here, bead_id: str) -> tuple[str, str]:
    """The task for the plan stage: every text of the bead."""
    issue = here.beads.get(bead_id).issue
    return issue.title, task_of(issue)


def _once(crew: Crew, json: bool) -> int:
    """One tick. Missing credentials and the like are its error, once all else is done."""
    here = crew.here
    if not json:
        crew.dispatcher.say = LineView(reader_gone=lambda: None)
    lock = locks.loop_lock(here.home, here.project)
    with closing(here.store), locks.beside_no_loop(lock, here.clock):
        report = crew.dispatcher.tick(everything=json)
        _say_report(here, report, crew.fleet.scopes(), json)
    return _end_of(report)


def _say_report(here: Here, report: TickReport, scopes: tuple[str, ...], json: bool) -> None:
    if json:
        known = here.store.all_blockers(here.project)
        blocked = {i: deny for i, deny in report.denied.items() if deny.bucket == "blocked"}
        report.denied |= {i: blocked_by(i, deny, known.get(i, ())) for i, deny in blocked.items()}
        dump(tick_json(report, scopes))
    for line in report.bad:
        note(f"warning: cannot be read, and is left alone: {line}")
    if not json and not (report.spawned or report.settled or report.moved or report.missing):
        say("nothing to do" + (f" before {text_of(report.next_due)}" if report.next_due else ""))


def _end_of(report: TickReport) -> int:
    if report.missing is not None:
        raise _not_ready(report.missing)
    return 0


def _not_ready(missing: Missing) -> GremlinsError:
    kinds: dict[int, type[GremlinsError]] = {kind.exit_code: kind for kind in (Conflict, NotReady, NotFound)}
    return kinds.get(missing.exit_code, GremlinsError)(missing.reason, hint=missing.hint)


def _loop(crew: Crew, options: dict[str, Any], *, until_idle: bool) -> int:
    """Run until SIGTERM, Ctrl-C or idleness, then drain: start nothing; running and parked gremlins go on."""
    here, tally = crew.here, Tally()
    lock = locks.loop_lock(here.home, here.project)
    with closing(here.store), locks.only_loop(lock, here.clock, options):
        crew.interrupt.install()
        with _shown(crew) as watch:

            def count_and_watch(report: TickReport) -> None:
                tally.add(report)
                watch(report)

            loop = Loop(
                crew.dispatcher,
                crew.fleet,
                here.clock,
                interval=lambda: crew.policy().interval,
                draining=lambda: crew.draining,
                watch=count_and_watch,
                last=lambda report: until_idle and _is_idle(report, crew.policy()),
            )
            loop.run()
        _say_goodbye(crew, tally)
    return 0


@dataclass
class Tally:
    """The summary of a run of the loop."""

    started: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    """Beads `closed`, `failed` and `held`."""
    cost_usd: float = 0.0

    def add(self, report: TickReport) -> None:
        self.started += len(report.spawned)
        self.ends.update(notice.kind for notice in report.moved)
        self.cost_usd += sum(end.cost_usd for _, end in report.settled)

    def __str__(self) -> str:
        ends = "".join(f", {self.ends[kind]} beads {kind}" for kind in ("closed", "failed", "held") if self.ends[kind])
        return f"{self.started} gremlins started{ends}, {dollars(self.cost_usd)}"


def _is_idle(report: TickReport, policy: Policy) -> bool:
    """True if nothing is at work and nothing comes due but what a person has put off for longer than any backoff."""
    if report.watched or report.spawned or report.settled or report.moved or report.missing is not None:
        return False
    return report.next_due is None or report.next_due - report.now > policy.backoff_max


def _say_goodbye(crew: Crew, tally: Tally) -> None:
    here = crew.here
    works = here.store.view(here.project, here.clock.now().timestamp(), fresh=0).works
    left = [attempt.gremlin_id for work in works if (attempt := work.unsettled) and work.done_and is None]
    names = f": {', '.join(left[:8])}{' …' if len(left) > 8 else ''}" if left else ""
    say(f"{_stamp(here.clock)}  {tally}")
    say(f"{_stamp(here.clock)}  drained; {len(left)} gremlins go on by themselves{names}")


@contextmanager
def _shown(crew: Crew) -> Iterator[Callable[[TickReport], None]]:
    """Progress for a person: a live view on a terminal, else a line for each change."""
    if on_terminal():
        from gremlins.cli.dispatch.view import live_view  # rich: only for the live view

        with live_view(crew.here, crew.policy, crew.fleet, crew.dispatcher) as watch:
            yield watch
        return
    policy = crew.policy()
    crew.dispatcher.say = LineView(reader_gone=lambda: crew.interrupt.trigger("SIGPIPE"))
    say(f"{_stamp(crew.here.clock)}  dispatching {crew.here.project} with `{policy.pipeline}`")
    flush_to_reader()
    yield lambda report: None


@dataclass
class LineView:
    """A line for each thing that happens. A reader that goes away disturbs no tick: what was begun is finished."""

    reader_gone: Callable[[], None]
    gone: bool = False

    def __call__(self, happening: LoopEvent) -> None:
        if self.gone:
            return
        parts = [_stamp(SystemClock()), happening.bead, happening.kind, printable(happening.text)]
        try:
            say("  ".join(part for part in parts if part))
            flush_to_reader()
        except BrokenPipeError:
            self.gone = True
            self.reader_gone()


def _stamp(clock: Clock) -> str:
    return rfc3339(clock.now())


# --- telling how things stand


def _explain(here: Here, policy: Policy, name: str, json: bool) -> int:
    """The admission of a bead, and if it may start, the preflight."""
    bead_id = here.beads.resolve(name)
    work = here.store.work(here.project, bead_id)
    if work is None:
        raise GremlinsError(f"{bead_id}: its rows cannot be read", hint="`gremlins doctor` says more")
    world = world_now(here.store, here, here.project, policy, [work], here.clock.now().timestamp())
    decision = admit(work, world)
    missing = here.readiness(lambda: policy).check(fresh=False) if isinstance(decision, Admit) else None
    where = Standing("ready", missing.reason, "it waits for that") if missing is not None else decision
    if isinstance(where, Admit):
        how = {"fresh": "a fresh gremlin", "rescue": f"gremlin {where.gremlin_id} again"}
        what = how.get(where.how, f"gremlin {where.gremlin_id}, re-attached")
        code = start_words(work, world) if where.how == "fresh" else ""
        probe = ", as the one probe of a breaker" if where.probe_for else ""
        reason, then, bucket, until = f"it may start: the next tick starts {what}{code}{probe}", "", "ready", None
    else:
        where = explained(here.store, work, where)
        reason, then, bucket, until = where.reason, where.next, where.bucket, where.until
    if json:
        shown = {"bead": bead_id, "admitted": isinstance(where, Admit), "bucket": bucket, "reason": reason}
        dump(shown | {"next": then or None, "next_at": text_of(until) if until is not None else None})
    else:
        say(f"{bead_id}: {reason}" + (f"; {then}" if then else ""))
    return 0


@app.command()
def status(json: bool = JSON) -> int:
    """The state of dispatching: loop, slots, buckets, breakers, money."""
    here = Here.find()
    now = here.clock.now().timestamp()
    works = here.store.works(here.project).works
    world = world_now(here.store, here, here.project, here.policy, works, now)
    pid = locks.loop_pid(locks.loop_lock(here.home, here.project))
    shown = status_json(
        here.project, pid, world, [standing(work, world) for work in works], here.store.count(here.project)
    )
    if json:
        if (known := here.dispatching) is not None:
            ticked = rfc3339(known.ticked_at) if known.ticked_at else None
            shown["loop"] = {"pid": None, "host": known.host, "last_tick_at": ticked}
        dump(shown)
        return 0
    say(_loop_words(here, pid) + (f"; paused: {world.paused}" if world.paused else ""))
    say(f"gremlins: {shown['running']} of {shown['max_running']} at work, {shown['parked']} parked")
    say("beads: " + (", ".join(f"{n} {name.replace('_', ' ')}" for name, n in shown["buckets"].items()) or "none open"))
    spend = shown["spend"]
    cap = f"; spend.per_day is ${spend['per_day']:g}" if spend["per_day"] is not None else ""
    say(f"{today(world.day)}{cap}")
    _say_breakers(here, now)
    return 0


def _loop_words(here: Here, pid: int | None) -> str:
    if here.home.cluster:
        from gremlins.cli.dispatch.cluster import loop_words

        return loop_words(here)
    return f"loop: {f'runs, pid {pid}' if pid else 'none runs'}"


@app.command()
def stop() -> int:
    """Let the loop end: nothing more is started or booked. What runs goes on by itself."""
    here = Here.find()
    if here.home.cluster:
        from gremlins.cli.dispatch.cluster import switch_off

        stopped = switch_off(here)
    else:
        pid = locks.loop_pid(locks.loop_lock(here.home, here.project))
        stopped = pid is not None
        if pid is not None:
            with suppress(ProcessLookupError):  # it ends by itself at this moment
                os.kill(pid, signal.SIGTERM)
    say("the loop ends; `gremlins dispatch` starts it again" if stopped else "no loop runs")
    return 0


@app.command()
def pause(reason: str = typer.Argument("paused by a person", help="Why, as a note.")) -> int:
    """Start nothing more in this project until `resume`. What runs goes on and is settled."""
    here = Here.find()
    here.store.commit(SetPaused(here.project, reason))
    say("paused: nothing is started until `gremlins dispatch resume`")
    return 0


@app.command()
def resume() -> int:
    """Start things again."""
    here = Here.find()
    if here.store.paused(here.project) is None:
        say("was not paused")
        return 0
    here.store.commit(SetPaused(here.project, None))
    say("resumed")
    return 0


@app.command("breaker")
def breaker_(
    action: str = typer.Argument(None, metavar="[reset]"),
    scope: str = typer.Argument(None, metavar="[SCOPE]", help="Only this one: `fleet`, or a credential's name."),
    json: bool = JSON,
) -> int:
    """Show the breakers, or close them at once."""
    here = Here.find()
    now = here.clock.now().timestamp()
    if action not in (None, "reset"):
        raise typer.BadParameter(f"`{action}` is not `reset`", param_hint="[reset]")
    if action == "reset":
        _reset(here, scope, now)
    if json:
        dump(breaker_json(here.store.episodes(here.project), here.scopes(), now))
    elif action is None:
        _say_breakers(here, now)
    return 0


def _reset(here: Here, scope: str | None, now: float) -> None:
    """Close what is open; failures up to now open nothing again."""
    for _ in range(20):
        opened = [e for e in here.store.episodes(here.project) if e.open]
        named = [e for e in opened if scope is None or e.scope.startswith(scope)]
        if not named:
            if scope is not None and not FLEET.startswith(scope):
                raise NotFound(f"no open breaker `{scope}`", hint=_scopes_hint([e.scope for e in opened]))
            note("no breaker is open")
            return
        closed = [breaker.close(e, RESET, here.store.last_seq(here.project), now) for e in named]
        changes: list[StoreChange] = []
        for before, after in zip(named, closed, strict=True):
            changes += [PutEpisode(after), *episode_notice(before, after, now)]
        if here.store.commit(*changes):
            for episode in closed:
                note(f"{breaker.title(episode.scope)} is closed")
            return
    raise Conflict("the breakers are being changed all the time", hint="try again")


def _scopes_hint(scopes: list[str]) -> str:
    return f"open are: {', '.join(scopes)}" if scopes else "none is open"


def _say_breakers(here: Here, now: float) -> None:
    opened = [e for e in here.store.episodes(here.project) if e.open]
    if not opened:
        say("breakers: closed")
    for episode in opened:
        if episode.probe is not None:
            state = f"half open, probe {episode.probe}"
        elif breaker.is_due(episode, now):
            state = "half open, one probe goes next"
        else:
            state = f"open for {span(episode.until - now)} more"
        say(f"{breaker.title(episode.scope)}: {state}: {printable(episode.reason)}")
