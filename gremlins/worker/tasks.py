"""The worker of a host: the engine's tasks, the processes of its steps, and the watch over them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from gremlins.clock import Clock, SystemClock
from gremlins.cluster import rows, ticks
from gremlins.cluster.database import ClusterAway, check_version, options
from gremlins.cluster.hands import host_name, open_patiently
from gremlins.cluster.jobs import EVERYONE, POLL, STEP, TEND, TICK, account_queue, host_queue
from gremlins.cluster.rows import Taken
from gremlins.config import Settings
from gremlins.errors import GremlinsError, NotReady
from gremlins.files import make_private_dir, write_atomic
from gremlins.fleet.sweep import sweep
from gremlins.paths import GremlinPaths, Home
from gremlins.processes.children import holders, signal_process
from gremlins.processes.credentials import CREDENTIALS_FD_VARIABLE, hand_on, split
from gremlins.retry import exponential
from gremlins.worker.dispatching import Ticks
from gremlins.worker.polling import poll_account
from gremlins.worker.readiness import abilities, queues
from gremlins.worker.step import CANNOT, FENCED, LATER, TRIES

LATEST = 600.0
FIRST = 15.0
"""Seconds until a step is tried again that database or remote ended: doubled each time, at most LATEST."""
HOSTS = 5
"""Steps in a row that could not begin on the hosts that took them, before a person decides."""
FIRST_PAUSE, LONGEST = 2.0, 30.0
"""Seconds until a worker without its database begins anew: doubled each time."""
ROOM = 64 * 2**20
"""Bytes that must be free where the state root is, for a step to begin."""
SWEEP = 3600.0
"""Seconds between looks for copies of gremlins that were removed."""
GRACE = 60.0
"""Seconds that a worker which was asked to end waits for its steps; the rest is taken up by others."""


@dataclass
class Worker:
    """One worker process. `held` are the gremlins whose steps run here."""

    home: Home
    env: Mapping[str, str]
    settings: Settings
    slots: int = 4
    held: dict[str, tuple[Taken, int]] = field(default_factory=dict)
    alone: bool = False
    """The connection of the watch has dropped, and that is said."""

    def __post_init__(self) -> None:
        self.host = host_name(self.home)
        self.db = open_patiently(self.home)
        self.heartbeat, self.stale = self.settings.cluster.heartbeat, self.settings.cluster.stale
        self.able = abilities(self.env, self.settings)
        self.ticks = Ticks(self.home, self.env, self.host, self.stale, self._warn)
        self.app = self._app()

    def _app(self) -> Any:
        import procrastinate

        from gremlins.worker.engine import Connector

        app = procrastinate.App(connector=Connector(self.home.cluster))
        app.task(name=STEP, pass_context=True)(self.step)
        app.task(name=POLL, queue=EVERYONE)(self.poll)
        app.task(name=TICK, pass_context=True)(self.tick)
        every = max(1, int(self.heartbeat / 4))  # with 1.5 heartbeats of silence, below two of them
        tend = app.task(name=TEND, queue=EVERYONE)(self.tend)
        app.periodic(cron=f"* * * * * */{every}", periodic_id=TEND)(tend)
        return app

    async def run(self) -> None:
        """Work until SIGTERM or SIGINT. Raises one of `AWAY` where the engine ends by itself, NotReady where the
        database was migrated meanwhile."""
        async with self.app.open_async():
            engine = asyncio.create_task(self._engine())
            watch, sweep = asyncio.create_task(self._watch(engine)), asyncio.create_task(self._sweep())
            try:
                await _until_asked(engine)
            except asyncio.CancelledError:
                if watch.done():
                    watch.result()
                raise
            finally:
                watch.cancel()
                sweep.cancel()
                self.ticks.close()
                self.db.close()

    async def _engine(self) -> None:
        await self.app.run_worker_async(
            queues=queues(self.able, self.env, self.host),
            concurrency=self.slots + 2,
            name=self.host,
            fetch_job_polling_interval=1.0,
            shutdown_graceful_timeout=GRACE,
            delete_jobs="successful",
            update_heartbeat_interval=self.heartbeat,
            stalled_worker_timeout=self.stale,
            install_signal_handlers=False,
        )

    # ── tasks ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def step(self, context: Any, gremlin_id: str) -> None:
        """Take the gremlin if it is due, and let it go on in a process of its own, until it parks or ends."""
        if shutil.disk_usage(self.home.root).free < ROOM:
            self._warn(f"{gremlin_id} is left to others: the disk of {self.home.root} is full")
            return  # `tend` hands it out again
        take = partial(rows.take_step, self.db, gremlin_id, worker=context.job.worker_id, host=self.host)
        taken = await asyncio.to_thread(take, stale=self.stale)
        if taken is None:
            return
        paths = self.home.gremlin(gremlin_id)
        try:
            child = self._start(paths, taken)
        except (GremlinsError, OSError) as error:
            self._warn(f"{gremlin_id} cannot begin here: {error}")
            await asyncio.to_thread(self._conclude, taken, CANNOT)
            return
        self.held[gremlin_id] = taken, child.pid
        try:
            code = await asyncio.to_thread(child.wait)
        except asyncio.CancelledError:
            self._kill(gremlin_id)
            child.wait()
            self.db.patience = 0.0
            rows.again(self.db, taken, seconds=0.0, limit=TRIES)
            raise
        finally:
            self.held.pop(gremlin_id, None)
        await asyncio.to_thread(self._conclude, taken, code)

    @staticmethod
    def _tell(line: str) -> None:
        print(line, file=sys.stderr, flush=True)  # noqa: T201 # the worker's own output

    def _warn(self, line: str) -> None:
        self._tell(f"warning: {line}")

    def _start(self, paths: GremlinPaths, taken: Taken) -> subprocess.Popen[bytes]:
        make_private_dir(paths.root)
        public, secret = split(self.env)
        credentials = hand_on(secret)
        out = os.open(paths.output, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        words = [taken.id, str(taken.fence), taken.remote, taken.needs, str(taken.crashes), self.host, taken.host or ""]
        try:
            return subprocess.Popen(
                [sys.executable, "-P", "-m", "gremlins.worker.step", *words],
                cwd="/",
                env={
                    **public,
                    "GREMLINS_HOME": str(self.home.root),
                    CREDENTIALS_FD_VARIABLE: str(credentials),
                },
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                pass_fds=(credentials,),
                start_new_session=True,
            )
        finally:
            os.close(out)
            os.close(credentials)

    def _conclude(self, taken: Taken, code: int) -> None:
        """Give the gremlin back as its process has left it."""
        if code == FENCED:
            return
        if code == LATER:
            seconds = min(FIRST * 2**taken.crashes, LATEST)
            rows.again(self.db, taken, seconds=seconds, limit=2 * TRIES, queue=host_queue(self.host))
        elif code == CANNOT:
            seconds = min(FIRST * 2**taken.crashes, LATEST)
            rows.again(self.db, taken, seconds=seconds, limit=HOSTS)
        elif code < 0:
            rows.again(self.db, taken, seconds=0.0, limit=rows.CRASHES)
        elif code == 0 and self._parked(taken):
            rows.give_back(self.db, taken)
        else:
            rows.ended(self.db, taken)

    def _parked(self, taken: Taken) -> bool:
        """True if its own process has said when it goes on."""
        return bool(
            self.db.value(
                "SELECT parked FROM gremlin WHERE id = %(id)s AND fence = %(fence)s",
                {"id": taken.id, "fence": taken.fence},
            )
        )

    async def poll(self, account: str) -> None:
        await asyncio.to_thread(poll_account, self.db, account, self.env, self.settings.batch)

    async def tick(self, context: Any, project: str) -> None:
        """One tick of dispatching a project, if no other one is under way."""
        await asyncio.to_thread(self.ticks.run, self.db, project, context.job.worker_id)

    async def tend(self, timestamp: int) -> None:
        """For all workers, by one: steps of those that are gone, lost jobs, polls and ticks that are due."""
        manager = self.app.job_manager
        for job in await manager.get_stalled_jobs(seconds_since_heartbeat=self.stale):
            if job.task_name == STEP:
                await manager.retry_job(job)
            else:  # the next one does its work
                await manager.finish_job_by_id_async(job_id=job.id, status=_failed(), delete_job=True)
        await asyncio.to_thread(self._defer_lost)
        accounts = await asyncio.to_thread(self._due_accounts)
        for account in accounts:
            with contextlib.suppress(_already_enqueued()):
                deferred = self.app.configure_task(POLL, queue=account_queue(account), queueing_lock=f"poll-{account}")
                await deferred.defer_async(account=account)
        for project, queue in await asyncio.to_thread(ticks.due, self.db, stale=self.stale):
            with contextlib.suppress(_already_enqueued()):
                deferred = self.app.configure_task(TICK, queue=queue, queueing_lock=f"tick-{project}")
                await deferred.defer_async(project=project)

    def _due_accounts(self) -> list[str]:
        found = self.db.rows(
            "SELECT fingerprint FROM account a WHERE next_poll <= now() "
            "AND EXISTS (SELECT FROM gremlin g WHERE g.account = a.fingerprint)"
        )
        return [row[0] for row in found]

    def _defer_lost(self) -> None:
        for gremlin_id in rows.overdue(self.db, late=self.heartbeat, stale=self.stale):
            rows.wake(self.db, gremlin_id)

    # ── the watch ─────────────────────────────────────────────────────────────────────────────────────────────

    async def _watch(self, engine: asyncio.Task[None]) -> None:
        """Hear of stops at once, and end the processes of gremlins that another worker has taken. Ends the engine, and
        raises NotReady, where the tables are not of this version any more."""
        from gremlins.worker.engine import reason

        while True:
            try:
                await self._listen()
            except NotReady:
                engine.cancel()
                raise
            except Exception as error:  # noqa: BLE001 # psycopg's errors: the connection has dropped
                if not self.alone:
                    self._warn(reason(error))
                self.alone = True
                await asyncio.sleep(1.0)

    async def _listen(self) -> None:
        import psycopg

        async with await psycopg.AsyncConnection.connect(autocommit=True, **options(self.home.cluster)) as connection:
            await connection.execute("LISTEN gremlins_stop")
            self.alone = False
            while True:
                async for notice in connection.notifies(timeout=self.heartbeat / 2, stop_after=1):
                    await asyncio.to_thread(self._stop, notice.payload)
                await asyncio.to_thread(self._end_lost)
                await asyncio.to_thread(check_version, self.db)

    async def _sweep(self) -> None:
        """Remove this host's copies of gremlins that were removed elsewhere."""
        while True:
            try:
                await asyncio.to_thread(sweep, self.home, self.db, SystemClock(), self._tell)
            except (GremlinsError, OSError) as error:
                self._warn(f"copies of removed gremlins stay here: {error}")
            await asyncio.sleep(SWEEP)

    def _stop(self, gremlin_id: str) -> None:
        """Put the request where its process looks for it, and tell it."""
        taken, pid = self.held.get(gremlin_id, (None, 0))
        if taken is None:
            return
        row = self.db.value(
            "SELECT content FROM document WHERE gremlin = %(id)s AND name = 'stop.json'", {"id": gremlin_id}
        )
        paths = self.home.gremlin(gremlin_id)
        if row is not None and paths.state.exists():
            write_atomic(paths.stop, bytes(row))
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)

    def _end_lost(self) -> None:
        held = [taken for taken, _ in self.held.values()]
        for gremlin_id in rows.lost(self.db, held) if held else []:
            self._kill(gremlin_id)

    def _kill(self, gremlin_id: str) -> None:
        """End its process, then the agents and commands of that."""
        _, pid = self.held.get(gremlin_id, (None, 0))
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for other in holders(self.home.gremlin(gremlin_id).work_lock):
            signal_process(other, signal.SIGKILL)


def _failed() -> Any:
    from procrastinate.jobs import Status

    return Status.FAILED


def _already_enqueued() -> type[Exception]:
    from procrastinate.exceptions import AlreadyEnqueued

    found: type[Exception] = AlreadyEnqueued
    return found


async def _until_asked(engine: asyncio.Task[None]) -> None:
    """Wait for the engine, which a signal asks to end. It ends without a word too when its sign of life cannot be
    written."""
    from gremlins.worker.engine import AWAY

    asked = False

    def ask() -> None:
        nonlocal asked
        asked = True
        engine.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ask)
    try:
        await engine
    except (asyncio.CancelledError, *AWAY):
        if not asked:
            raise
    else:
        raise ClusterAway("the cluster's database could not be reached for a while")


class Runs(Protocol):
    async def run(self) -> None: ...


def work(make: Callable[[], Runs], clock: Clock, tell: Callable[[str], None]) -> int:
    """Run a worker until it is asked to end. Where its database goes away, or has given its jobs to others because it
    was silent for too long, it begins anew, ever later while that does not work."""
    from gremlins.worker.engine import AWAY, reason

    failures = 0
    while True:
        try:
            worker = make()
            if failures:
                tell("the database is there again")
            failures = 0
            asyncio.run(worker.run())
            return 0
        except AWAY as error:
            if not failures:
                tell(f"warning: {reason(error)}; beginning anew when it is there")
            failures += 1
            clock.sleep(exponential(failures, initial=FIRST_PAUSE, maximum=LONGEST))
