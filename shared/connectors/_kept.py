"""Answers that hold for a while, such as the fields of a site or the time zone of an account.

A connector lives as long as its worker, which may be days: what it once learned of its source must not be believed for
ever.
"""

import asyncio
from collections.abc import Awaitable, Callable


class Kept[T]:
    """An answer that is asked for when it is needed, and again when it is old."""

    def __init__(self, ask: Callable[[], Awaitable[T]], *, seconds: float) -> None:
        self._ask = ask
        self._seconds = seconds
        self._held: tuple[float, T] | None = None
        self._asking = asyncio.Lock()

    async def get(self) -> T:
        """The answer. Raises what asking raises; nothing is kept then."""
        async with self._asking:
            now = asyncio.get_running_loop().time()
            if self._held is None or now >= self._held[0]:
                self._held = (now + self._seconds, await self._ask())
            return self._held[1]
