"""On whose behalf requests are made: how many a piece of work made, and how many it may have on their way.

Both are kept with the task and those it starts: one connector serves all work of its connection in a process.
"""

import asyncio
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass
class Tally:
    """How many requests were sent on behalf of one piece of work, whoever else used the same connector meanwhile."""

    requests: int = 0


_tally: ContextVar[Tally | None] = ContextVar("tally", default=None)


def start_tally() -> Tally:
    """Count the requests of this task, and of those it starts, from now on."""
    tally = Tally()
    _tally.set(tally)
    return tally


def count_request() -> None:
    """Count one that is about to be sent."""
    if (tally := _tally.get()) is not None:
        tally.requests += 1


class Share:
    """A lane's part of the requests a connection may have on their way: other lanes may run in other processes."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.turns = asyncio.Semaphore(size)

    def grow_to(self, size: int) -> None:
        """Take over what lanes that have ended do not need any more; a share never shrinks."""
        for _ in range(size - self.size):
            self.turns.release()
        self.size = max(self.size, size)


_share: ContextVar[Share | None] = ContextVar("share", default=None)


@contextmanager
def sharing(share: Share) -> Generator[None]:
    """Requests of this task, and of those it starts, take their turns within a share."""
    before = _share.set(share)
    try:
        yield
    finally:
        _share.reset(before)


@asynccontextmanager
async def own_turn() -> AsyncGenerator[None]:
    """A turn of the share, where there is one. What a request has to ask before it is sent belongs to its turn."""
    share = _share.get()
    if share is None:
        yield
        return
    async with share.turns:
        before = _share.set(None)
        try:
            yield
        finally:
            _share.reset(before)
