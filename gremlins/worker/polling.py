"""One poll of an account for every gremlin of the cluster that waits for a batch of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gremlins.clients.account import find_account
from gremlins.clients.batch.api import LARGEST_PAGE, PAGE_SIZE, AnthropicBatchApi, BatchApi, Page
from gremlins.clients.batch.shared_poll import LIST_SLACK, TOO_MANY, retrieve_statuses
from gremlins.clients.transport import ApiFailure
from gremlins.cluster import rows
from gremlins.cluster.database import ClusterDb
from gremlins.config import BatchSettings
from gremlins.retry import RETRY_AFTER_CEILING, parse_retry_after, poll_interval

ONE_BY_ONE = 3
"""So few batches are asked for by name; more are listed."""
BY_NAME = 20
"""Batches of one poll that are asked for by name because a list lacks them."""


def poll_account(db: ClusterDb, fingerprint: str, env: Mapping[str, str], settings: BatchSettings) -> int:
    """Ask once for all, if that is due, and wake the gremlins whose batch has ended. Returns how many.

    The row of the account is taken by a conditional update, so one worker asks, whatever their number.
    """
    taken = _begin(db, fingerprint, settings)
    if taken is None:
        return 0
    wanted = dict(
        db.rows(
            "SELECT batch_id, extract(epoch FROM submitted_at)::float8 FROM waiting w "
            "JOIN gremlin g ON g.id = w.gremlin WHERE w.account = %(account)s AND g.account = w.account",
            {"account": fingerprint},
        )
    )
    account = find_account(env)
    if not wanted or account.fingerprint != fingerprint:
        return 0
    turn, listed_to = taken
    try:
        seen = look(AnthropicBatchApi(account, timeout=settings.http_timeout), wanted, listed_to, turn)
    except ApiFailure as failure:
        _pause(db, fingerprint, parse_retry_after(failure.retry_after, db.clock.now()))
        return 0
    db.run(
        "UPDATE account SET listed_to = %(to)s WHERE fingerprint = %(account)s",
        {"to": seen.listed_to, "account": fingerprint},
    )
    ready = db.rows(
        "SELECT DISTINCT w.gremlin FROM waiting w JOIN gremlin g ON g.id = w.gremlin "
        "WHERE w.batch_id = ANY(%(over)s) AND g.account = w.account",
        {"over": sorted(batch for batch, status in seen.statuses.items() if status in ("ended", "?"))},
    )
    for (gremlin_id,) in ready:
        rows.wake(db, gremlin_id)
    return len(ready)


def _begin(db: ClusterDb, fingerprint: str, settings: BatchSettings) -> tuple[int, str | None] | None:
    """Take the poll of this interval, and say when the next one is. Returns its number, and to where lists went.

    The interval is that of the youngest batch, shorter where the account's list takes several polls to look through.
    """
    count, age = db.rows(
        "SELECT count(*), extract(epoch FROM now() - max(submitted_at))::float8 FROM waiting "
        "WHERE account = %(account)s",
        {"account": fingerprint},
    )[0]
    if age is None:
        return None
    seconds = poll_interval(max(0.0, age), initial=settings.poll_initial, maximum=settings.poll_max, jitter=lambda: 1.0)
    found = db.rows(
        "UPDATE account SET polled_at = now(), requests = requests + 1, "
        "next_poll = now() + make_interval(secs => %(seconds)s) "
        "WHERE fingerprint = %(account)s AND next_poll <= now() RETURNING requests, listed_to",
        {"account": fingerprint, "seconds": max(settings.poll_initial, seconds / math.ceil(count / LARGEST_PAGE))},
    )
    return found[0] if found else None


def _pause(db: ClusterDb, fingerprint: str, seconds: float | None) -> None:
    """Ask for nothing so long, as the API has said: its limit counts all requests of the account together."""
    if seconds:
        db.run(
            "UPDATE account SET next_poll = greatest(next_poll, now() + make_interval(secs => %(seconds)s)) "
            "WHERE fingerprint = %(account)s",
            {"seconds": min(seconds, RETRY_AFTER_CEILING), "account": fingerprint},
        )


@dataclass(frozen=True)
class Seen:
    """Statuses of batches by id, "?" for a final error. listed_to: the batch after which the next poll lists on."""

    statuses: dict[str, str]
    listed_to: str | None = None


def look(api: BatchApi, wanted: Mapping[str, float], listed_to: str | None, turn: int) -> Seen:
    """Ask for the batches (id, epoch of submission) in a number of requests that does not depend on theirs.

    The newest are listed each time; the older ones are a page further each time, and again from the newest on after the
    oldest. Raises ApiFailure where nothing could be learned.
    """
    if len(wanted) <= ONE_BY_ONE:
        return Seen(retrieve_statuses(api, wanted))
    pages, on = _list(api, wanted, listed_to)
    found = {batch.id: batch.status for page in pages for batch in page.batches if batch.id in wanted}
    lacking = sorted(_lacking(wanted, pages) if pages else wanted)
    start = turn * BY_NAME % len(lacking) if lacking else 0
    found |= retrieve_statuses(api, [*lacking[start:], *lacking[:start]][:BY_NAME])
    return Seen(found, on)


def _list(api: BatchApi, wanted: Mapping[str, float], listed_to: str | None) -> tuple[Sequence[Page], str | None]:
    """The newest page and one more; none where the API has no list."""
    oldest = min(wanted.values()) - LIST_SLACK
    pages: list[Page] = []
    try:
        first = api.page(limit=PAGE_SIZE if len(wanted) < PAGE_SIZE else LARGEST_PAGE)
        pages.append(first)
        if wanted.keys() <= {batch.id for batch in first.batches} or _ends(first, oldest):
            return pages, None
        after = listed_to or first.batches[-1].id
        second = api.page(limit=LARGEST_PAGE, after=after)
        pages.append(second)
        on = None if _ends(second, oldest) or second.batches[-1].id == after else second.batches[-1].id
    except ApiFailure as failure:  # the batch that it should list on from may be deleted
        if failure.status == TOO_MANY:
            raise
        return pages, None
    return pages, on


def _ends(page: Page, oldest: float) -> bool:
    """True if no page after this one has what is wanted."""
    last = page.batches[-1].created_at if page.batches else None
    return not page.has_more or not page.batches or (last is not None and last.timestamp() < oldest)


def _lacking(wanted: Mapping[str, float], pages: Sequence[Page]) -> set[str]:
    """Those that one of the pages should have, by its times, and that are in none. Clocks differ, so those that are
    near the end of a page are not among them."""
    oldest = min(wanted.values()) - LIST_SLACK
    lacking: set[str] = set()
    for page in pages:
        times = [batch.created_at.timestamp() for batch in page.batches if batch.created_at is not None]
        newest = math.inf if page is pages[0] else max(times, default=math.inf) - LIST_SLACK
        last = -math.inf if _ends(page, oldest) else min(times, default=-math.inf) + LIST_SLACK
        lacking.update(name for name, at in wanted.items() if last < at < newest)
    return lacking - {batch.id for page in pages for batch in page.batches}
