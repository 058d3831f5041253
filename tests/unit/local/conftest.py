"""A real HTTP server for webhooks."""

from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from tests.support.hooks import Receiver


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    received = Receiver()
    app = web.Application()
    app.router.add_post("/hooks", received.receive)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    received.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hooks"
    yield received
    await runner.cleanup()
