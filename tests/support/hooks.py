"""Where the simulated trackers' webhooks end in tests, and what makes them send."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web

from local.trackers._hooks import Hook
from local.trackers.service import Tracker
from local.trackers.world import World, seeded

SECRET = "tide-tables-and-ropes"


@dataclass
class Call:
    headers: Mapping[str, str]
    body: bytes
    query: str

    @property
    def json(self) -> dict[str, Any]:
        return orjson.loads(self.body)


@dataclass
class Receiver:
    """Keeps what it is sent; answers what it is told to, then 200."""

    url: str = ""
    calls: list[Call] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    seconds: float = 0.0

    async def receive(self, request: web.Request) -> web.Response:
        self.calls.append(Call(dict(request.headers), await request.read(), request.query_string))
        await asyncio.sleep(self.seconds)
        status = self.answers.pop(0) if self.answers else 200
        return web.Response(status=status, headers={"Location": self.url} if status == 302 else {})


def small() -> World:
    return seeded(4, comments=1)


@asynccontextmanager
async def told(tracker: Tracker, receiver: Receiver, **values: Any) -> AsyncIterator[Hook]:
    """A running tracker that tells the receiver of everything; pings are forgotten."""
    tracker.hooks.set_pace(retry_seconds=0, late_seconds=0.02)
    async with tracker:
        hook = tracker.hooks.register(receiver.url, values.pop("secret", SECRET), **values)
        await tracker.hooks.drain()
        receiver.calls.clear()
        yield hook
        await tracker.hooks.drain()


def first(tracker: Tracker, **wanted: Any) -> int:
    """The id of an issue that has such values."""
    issues = tracker.world.all_current()
    return next(each.id for each in issues if all(getattr(each, name) == value for name, value in wanted.items()))
