"""Carrying out a stop: every outstanding batch is canceled, and its end awaited and booked."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import timedelta

from gremlins.clients.base import Client, Detach, Session, Wait
from gremlins.clients.batch.booking import Books
from gremlins.clients.batch.client import BatchCapable
from gremlins.clients.transport import ApiFailure
from gremlins.errors import NotReady
from gremlins.records.calls import BatchCall

FIRST_LOOK = 0.1
"""Seconds. A person waits at the terminal, so the first looks are close together."""
WATCHED = 0.7
"""Seconds between polls while `stop` waits."""
UNWATCHED = 10.0
STEPS = 8
"""More than a call can need: intent → found → submitted → ended → collected."""

MakeClient = Callable[[str, Session], Client]


def settle_stopped_calls(
    session: Session, make_client: MakeClient, show: Callable[[Wait], None], *, give_up: bool = False
) -> None:
    """Return once nothing is outstanding. Waits as long as the API takes.

    Raises NotReady, and Detach for a call that cannot be followed, once all the others are settled. With `give_up`
    such a call is booked at an unknown cost instead, and so are all of them once the API has been silent for the time
    that a stop waits.
    """
    began = session.clock.monotonic()
    pause = FIRST_LOOK
    while True:
        try:
            waiting, wished, lost = settle_round(session, make_client, unsettled_calls(session))
        except NotReady as error:
            if not give_up:
                raise
            _give_up(session, unsettled_calls(session), error.message)
            return
        if not waiting:
            break
        watched = session.clock.monotonic() - began < session.settings.batch.stop_wait
        if give_up and not watched and (silence := _silence(session, make_client, waiting[0])):
            _give_up(session, waiting, silence)
            break
        seconds = max(wished, min(pause, WATCHED if watched else UNWATCHED))
        _show(session, waiting, seconds, show)
        session.clock.sleep(seconds)
        pause *= 1.5
    for detach in lost:
        if not give_up:
            raise detach
        _give_up(session, [call for call in unsettled_calls(session) if call not in waiting], str(detach))


def _give_up(session: Session, calls: Iterable[BatchCall], why: str) -> None:
    for call in calls:
        Books(session).undecided(call, why)


def _silence(session: Session, make_client: MakeClient, record: BatchCall) -> str:
    """The reason the API does not answer now; empty if it does."""
    client = make_client(record.client, session)
    try:
        if isinstance(client, BatchCapable):
            client.engine.api.page(limit=1)
    except ApiFailure as failure:
        return failure.message
    return ""


def settle_round(
    session: Session, make_client: MakeClient, records: Iterable[BatchCall]
) -> tuple[list[BatchCall], float, list[Detach]]:
    """Move each of these calls on towards the end of a stop, as far as it goes now.

    Returns those that must wait, the seconds that the API asks for, and what cannot be followed.
    """
    waiting: list[BatchCall] = []
    lost: list[Detach] = []
    wished = 0.0
    for record in records:
        try:
            wait = _step(session, make_client, record)
        except Detach as detach:
            lost.append(detach)
            continue
        if wait is not None:
            waiting.append(record)
            wished = max(wished, wait)
    return waiting, wished, lost


def unsettled_calls(session: Session) -> list[BatchCall]:
    return [call for call in session.ledger.batch_calls() if not call.settled]


def _show(session: Session, waiting: list[BatchCall], seconds: float, show: Callable[[Wait], None]) -> None:
    until = session.clock.now() + timedelta(seconds=seconds)
    show(Wait(until, calls=tuple(r.parked() for r in waiting), why="waiting for the end of a canceled batch"))


def _step(session: Session, make_client: MakeClient, record: BatchCall) -> float | None:
    """Move one call on until it is settled (None) or must wait (at least so many seconds)."""
    client = make_client(record.client, session)
    if not isinstance(client, BatchCapable):
        return None
    for _ in range(STEPS):
        current = next((call for call in session.ledger.batch_calls() if call.key == record.key), None)
        if current is None or current.settled:
            return None
        if (wait := client.engine.settle_stop(current)) is not None:
            return wait
    return 0.0
