"""One poll of an account for every gremlin of the cluster that waits for a batch of it."""

from __future__ import annotations

from collections.abc import Mapping

from gremlins.clients.account import find_account
from gremlins.clients.batch.api import AnthropicBatchApi, BatchApi
from gremlins.clients.batch.shared_poll import list_statuses, retrieve_statuses
from gremlins.clients.transport import ApiFailure
from gremlins.cluster import rows
from gremlins.cluster.database import ClusterDb
from gremlins.config import BatchSettings
from gremlins.retry import poll_interval

ONE_BY_ONE = 3
"""Batches that are asked for by name; more are listed."""


def poll_account(db: ClusterDb, fingerprint: str, env: Mapping[str, str], settings: BatchSettings) -> int:
    """Ask once for all, if that is due, and wake the gremlins whose batch has ended. Returns how many.

    The row of the account is taken by a conditional update, so one worker asks, whatever their number.
    """
    if not _begin(db, fingerprint, settings):
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
    try:
        over = _over(AnthropicBatchApi(account, timeout=settings.http_timeout), wanted)
    except ApiFailure:
        return 0
    ready = db.rows(
        "SELECT DISTINCT w.gremlin FROM waiting w JOIN gremlin g ON g.id = w.gremlin "
        "WHERE w.batch_id = ANY(%(over)s) AND g.account = w.account",
        {"over": sorted(over)},
    )
    for (gremlin_id,) in ready:
        rows.wake(db, gremlin_id)
    return len(ready)


def _begin(db: ClusterDb, fingerprint: str, settings: BatchSettings) -> bool:
    """Take the poll of this interval, and say when the next one is. The interval is that of the youngest batch."""
    age = db.value(
        "SELECT extract(epoch FROM now() - max(submitted_at))::float8 FROM waiting WHERE account = %(account)s",
        {"account": fingerprint},
    )
    if age is None:
        return False
    seconds = poll_interval(max(0.0, age), initial=settings.poll_initial, maximum=settings.poll_max, jitter=lambda: 1.0)
    return bool(
        db.run(
            "UPDATE account SET polled_at = now(), requests = requests + 1, "
            "next_poll = now() + make_interval(secs => %(seconds)s) "
            "WHERE fingerprint = %(account)s AND next_poll <= now()",
            {"account": fingerprint, "seconds": seconds},
        )
    )


def _over(api: BatchApi, wanted: Mapping[str, float]) -> set[str]:
    """The batches that have ended, or that the runner should look at."""
    if len(wanted) <= ONE_BY_ONE:
        found = retrieve_statuses(api, wanted)
    else:
        found = list_statuses(api, dict(wanted))
        found |= retrieve_statuses(api, [batch for batch in wanted if batch not in found])
    return {batch for batch, status in found.items() if status in ("ended", "?")}
