"""The shared poll: one short-lived process lists an account's batches for every gremlin that waits on it.

The holder of the account's lock leaves the answer in a file. It imports neither the SDK nor pydantic, because it
starts every few seconds while anything is parked.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from gremlins.clients.account import find_account
from gremlins.clients.batch.api import LARGEST_PAGE, PAGE_SIZE, AnthropicBatchApi, BatchApi, pages
from gremlins.clients.batch.waiter import FRESH_SHARE, NOTHING_LEARNED, NOTHING_NEW, SOMETHING_TO_DO
from gremlins.clients.transport import ApiFailure
from gremlins.clock import Clock, SystemClock
from gremlins.errors import GremlinsError
from gremlins.files import make_private_dir, read_file, write_replacing
from gremlins.processes.credentials import take_over
from gremlins.processes.locks import locked
from gremlins.records.wait import read_wait
from gremlins.retry import RETRY_AFTER_CEILING, parse_retry_after

FORGET_AFTER = 26 * 3600.0
"""Seconds until a registration is stale: batches expire after 24 hours."""
LOCK_PATIENCE = 5.0
LIST_SLACK = 600.0
"""Seconds between our clock, which dates registrations, and the server's, which dates batches."""
TOO_MANY = 429


@dataclass(frozen=True)
class AccountPoll:
    """The files that the gremlins waiting on one account share."""

    folder: Path

    @property
    def answer(self) -> Path:
        return self.folder / "answer.json"

    @property
    def lock(self) -> Path:
        return self.folder / "lock"

    @property
    def waiting(self) -> Path:
        return self.folder / "waiting"

    @property
    def pause_file(self) -> Path:
        return self.folder / "pause"

    def pause(self, now: float, seconds: float | None) -> None:
        """Stop all polling of the account for so long: its rate limit counts all requests together."""
        if seconds:
            write_replacing(self.pause_file, json.dumps(now + min(seconds, RETRY_AFTER_CEILING)))

    def must_pause(self, now: float) -> bool:
        try:
            return 0 < float(json.loads(read_file(self.pause_file))) - now <= RETRY_AFTER_CEILING
        except (OSError, ValueError, TypeError, RecursionError):
            return False

    def register(self, gremlin_id: str, calls: Iterable[tuple[str, float]]) -> None:
        """Record the batches that a gremlin waits for (id, epoch of submission), so that lists reach the oldest."""
        make_private_dir(self.waiting)
        write_replacing(self.waiting / gremlin_id, json.dumps(list(calls)))

    def leave(self, gremlin_id: str) -> None:
        (self.waiting / gremlin_id).unlink(missing_ok=True)

    def others(self, gremlin_id: str, now: float) -> dict[str, float]:
        """Batches that other gremlins wait for: id to epoch of submission. Removes stale registrations."""
        found: dict[str, float] = {}
        for path in self.waiting.iterdir() if self.waiting.is_dir() else ():
            if path.name == gremlin_id or path.name.startswith("."):
                continue
            try:
                calls = [(str(batch_id), float(at)) for batch_id, at in json.loads(read_file(path))]
            except (OSError, ValueError, TypeError, RecursionError):
                continue
            if all(now - at > FORGET_AFTER for _, at in calls):
                path.unlink(missing_ok=True)
            found.update(calls)
        return found


def ask(
    account: AccountPoll, api: BatchApi, gremlin_id: str, mine: dict[str, float], fresh: float, clock: Clock
) -> bool:
    """Bring the shared answer up to date for `mine`. True when one of them has ended or the runner should look.

    Raises ApiFailure where nothing could be learned.
    """
    make_private_dir(account.folder)
    with locked(account.lock, clock=clock, patience=LOCK_PATIENCE) as held:
        now = clock.now().timestamp()
        if account.must_pause(now):
            raise ApiFailure("the API asked for a pause", phase="unsent")
        try:
            if not held:  # its holder may hang: ask for our own batches
                return _is_over(retrieve_statuses(api, mine))
            return _is_over(_share(account, api, gremlin_id, mine, fresh, now))
        except ApiFailure as failure:
            account.pause(now, parse_retry_after(failure.retry_after, clock.now()))
            raise


def _share(
    account: AccountPoll, api: BatchApi, gremlin_id: str, mine: dict[str, float], fresh: float, now: float
) -> dict[str, str]:
    """Statuses of `mine`, from a fresh answer or from the API, and the shared answer updated."""
    answer = _fresh_answer(account, now, fresh)
    if answer is None:
        others = account.others(gremlin_id, now)
        answer = PollAnswer(now, list_statuses(api, {**others, **mine}) if others else {})
    missing = [batch_id for batch_id in mine if batch_id not in answer.batches]
    answer.batches.update(retrieve_statuses(api, missing))
    # Its date stays: the statuses of other batches are no fresher.
    write_replacing(account.answer, json.dumps({"at": answer.at, "batches": answer.batches}))
    return {batch_id: answer.batches.get(batch_id, "") for batch_id in mine}


@dataclass(frozen=True)
class PollAnswer:
    """The statuses of an account's batches by id, and the epoch of the poll."""

    at: float
    batches: dict[str, str]


def _fresh_answer(account: AccountPoll, now: float, fresh: float) -> PollAnswer | None:
    try:
        answer = json.loads(read_file(account.answer))
        found = PollAnswer(float(answer["at"]), dict(answer["batches"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return found if -1.0 <= now - found.at <= fresh else None


def list_statuses(api: BatchApi, wanted: dict[str, float]) -> dict[str, str]:
    """Statuses of the wanted batches, from as many pages as reach them all; those of the first pages where a later
    one fails."""
    found: dict[str, str] = {}
    oldest = min(wanted.values(), default=0.0) - LIST_SLACK
    try:
        for page in pages(api, limit=PAGE_SIZE if len(wanted) < PAGE_SIZE else LARGEST_PAGE):
            found |= {batch.id: batch.status for batch in page.batches if batch.id in wanted}
            last = page.batches[-1].created_at if page.batches else None
            if len(found) == len(wanted) or (last and last.timestamp() < oldest):
                break
    except ApiFailure as failure:
        if failure.status == TOO_MANY:
            raise
    return found


def retrieve_statuses(api: BatchApi, wanted: Iterable[str]) -> dict[str, str]:
    """Statuses, one request each. "?" for a final error, which the runner then reports."""
    found: dict[str, str] = {}
    for batch_id in wanted:
        try:
            found[batch_id] = api.retrieve(batch_id).status
        except ApiFailure as failure:
            if not failure.is_final:
                raise
            found[batch_id] = "?"
    return found


def _is_over(statuses: dict[str, str]) -> bool:
    return any(status in ("ended", "?") for status in statuses.values())


def main(argv: list[str]) -> int:
    """`poll WAIT_JSON GREMLIN_ID`. The exit codes are those of `gremlins.clients.batch.waiter`."""
    env = take_over(os.environ)
    plan = read_wait(argv[0])
    if plan is None:
        return NOTHING_LEARNED
    mine = {call.batch_id: call.submitted_at for call in plan.calls}
    account = AccountPoll(Path(plan.answer).parent)
    try:
        api = AnthropicBatchApi(find_account(env), timeout=plan.http_timeout)
        over = ask(account, api, argv[1], mine, plan.poll_initial * FRESH_SHARE, SystemClock())
    except (ApiFailure, OSError):
        return NOTHING_LEARNED
    except GremlinsError:
        return SOMETHING_TO_DO  # no credentials: the runner says it properly
    return SOMETHING_TO_DO if over else NOTHING_NEW


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
