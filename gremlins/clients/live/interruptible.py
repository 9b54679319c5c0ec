"""Work in an event loop of its own that a signal to the gremlin ends at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

from gremlins.clients.base import Session

T = TypeVar("T")


def run_interruptibly(session: Session, work: Coroutine[Any, Any, T]) -> T:
    """Run to the end. Raises the exception of `session.check` when the process is asked to end."""
    return asyncio.run(_until_over(session, work))


async def _until_over(session: Session, work: Coroutine[Any, Any, T]) -> T:
    task = asyncio.ensure_future(work)
    loop, fd = asyncio.get_running_loop(), session.interrupt_fd
    if fd is not None:
        loop.add_reader(fd, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        session.check()
        raise
    finally:
        if fd is not None:
            loop.remove_reader(fd)


async def patiently(events: AsyncIterator[T], patience: float) -> AsyncIterator[T]:
    """The events, as they come. Raises TimeoutError when one is awaited for longer than so many seconds."""
    while True:
        async with asyncio.timeout(patience):
            try:
                event = await anext(events)
            except StopAsyncIteration:
                return
        yield event
