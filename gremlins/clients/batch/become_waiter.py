"""Replaces a waiting process by the small waiter: writes its plan and executes it, with the lock."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from gremlins.clients.account import find_account
from gremlins.clients.base import Wait
from gremlins.clients.batch import waiter
from gremlins.clients.batch.shared_poll import AccountPoll
from gremlins.config import BatchSettings
from gremlins.errors import NotReady
from gremlins.files import make_private_dir, write_replacing
from gremlins.paths import GremlinPaths, Home
from gremlins.processes.credentials import CREDENTIALS_FD_VARIABLE, hand_on, split
from gremlins.processes.interrupt import start_without_signals
from gremlins.processes.locks import LOCK_FD_VARIABLE, GremlinLock
from gremlins.records.gremlin import OVERDUE
from gremlins.records.wait import WaitPlan, WatchedBatch, read_wait
from gremlins.retry import RETRY_AFTER_CEILING

TURN_FD_VARIABLE = "GREMLINS_TURN_FD"
TURN_SECONDS = 30.0
"""Seconds a woken gremlin keeps its turn: enough to collect a reply and to send the next request."""

BecomeWaiter = Callable[[GremlinPaths, Wait, BatchSettings, GremlinLock, Mapping[str, str]], None]


def account_here(paths: GremlinPaths, env: Mapping[str, str]) -> AccountPoll | None:
    """The shared poll of an environment's account, or None without credentials."""
    try:
        fingerprint = find_account(env).fingerprint
    except NotReady:
        return None
    home = Home(paths.root.parent.parent)
    return AccountPoll(home.polls / fingerprint)


def leave_account(paths: GremlinPaths, gremlin_id: str, env: Mapping[str, str]) -> None:
    """Remove the gremlin from the shared poll of its account."""
    account = account_here(paths, env)
    if account is not None and account.folder.is_dir():
        account.leave(gremlin_id)


def write_plan(paths: GremlinPaths, wait: Wait, settings: BatchSettings, lock_fd: int, env: Mapping[str, str]) -> None:
    """Write the waiter's plan, and register its batches with the account's shared poll."""
    gremlin_id = paths.root.name
    account = account_here(paths, env)
    calls = tuple(
        WatchedBatch(
            batch_id=call.batch_id,
            submitted_at=call.submitted_at.timestamp(),
            overdue_at=(call.expires_at + OVERDUE).timestamp() if call.expires_at else None,
        )
        for call in wait.calls
        if call.batch_id is not None and call.submitted_at is not None
    )
    if account is not None and calls:
        account.register(gremlin_id, [(call.batch_id, call.submitted_at) for call in calls])
    plan = WaitPlan(
        until=wait.until.timestamp(),
        polls=_polls_so_far(paths, calls),
        calls=calls,
        longest=max(settings.poll_max, settings.retry_max, RETRY_AFTER_CEILING) * 1.2,
        pollable=wait.pollable and bool(calls) and account is not None,
        why=wait.why,
        poll_initial=settings.poll_initial,
        poll_max=settings.poll_max,
        http_timeout=settings.http_timeout,
        answer=str(account.answer) if account else "",
        lock_fd=lock_fd,
        poll=(sys.executable, "-P", "-m", "gremlins.clients.batch.shared_poll", str(paths.wait), gremlin_id),
        runner=(sys.executable, "-P", "-m", "gremlins.runner", gremlin_id),
        turns=tuple(_turns(account.folder.parent)) if account else (),
        turn_variable=TURN_FD_VARIABLE,
        fork_server=(sys.executable, "-P", "-m", "gremlins.fork_server", str(account.folder.parent)) if account else (),
        fork_folder=str(account.folder.parent) if account else "",
        descriptors=(LOCK_FD_VARIABLE, CREDENTIALS_FD_VARIABLE, TURN_FD_VARIABLE),
    )
    write_replacing(paths.wait, msgspec.json.encode(plan).decode())


def become_waiter(
    paths: GremlinPaths, wait: Wait, settings: BatchSettings, lock: GremlinLock, env: Mapping[str, str]
) -> None:
    """Replace this process by the waiter, which lets the signals in that the caller keeps back. Raises OSError.

    env: the whole environment, whose credentials the waiter hands on to what it starts.
    """
    write_plan(paths, wait, settings, lock.fd, env)
    credentials = hand_on(split(env)[1])
    os.set_inheritable(lock.fd, True)
    os.environ |= {LOCK_FD_VARIABLE: str(lock.fd), CREDENTIALS_FD_VARIABLE: str(credentials)}
    script = str(Path(waiter.__file__))
    try:
        os.execv(sys.executable, [sys.executable, "-I", "-S", script, str(paths.root)])
    except OSError:
        os.set_inheritable(lock.fd, False)
        os.close(credentials)
        raise


def _turns(folder: Path) -> list[str]:
    """Lock files that limit the number of gremlins that wake up at the same time."""
    make_private_dir(folder)
    return [str(folder / f"turn-{n}") for n in range(4 * (os.cpu_count() or 1))]


def keep_turn_for_a_while() -> None:
    """Release the turn that the waiter took after TURN_SECONDS, or when this process ends or parks."""
    text = os.environ.pop(TURN_FD_VARIABLE, "")
    if not text.isdigit():
        return
    fd = int(text)
    os.set_inheritable(fd, False)
    timer = threading.Timer(TURN_SECONDS, os.close, (fd,))
    timer.daemon = True
    start_without_signals(timer)


def _polls_so_far(paths: GremlinPaths, calls: tuple[WatchedBatch, ...]) -> int:
    """Number of polls of these batches by earlier processes."""
    old = read_wait(paths.wait)
    if old is None or not {call.batch_id for call in old.calls} & {call.batch_id for call in calls}:
        return 0
    return old.polls
