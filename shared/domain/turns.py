"""Long work on the event loop, in turns."""

import asyncio
from collections.abc import AsyncGenerator, Iterable

_ITEMS_A_TURN = 16


async def in_turns[T](items: Iterable[T]) -> AsyncGenerator[T]:
    """The items one by one, for work that keeps the interpreter busy.

    Every few items others have a turn: requests leave and answers come in while a page is worked on. In a thread such
    work would hold the interpreter in slices of 5 ms against each of them.
    """
    for number, item in enumerate(items):
        if number % _ITEMS_A_TURN == 0:
            await asyncio.sleep(0)
        yield item
