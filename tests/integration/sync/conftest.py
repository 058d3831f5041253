"""A connected source, ready to be synced."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from local.trackers.service import Tracker
from local.trackers.world import World
from shared.store.database import Database
from tests.support.settings import make_settings
from tests.support.sources import SOURCES
from tests.support.sync import SyncRunner

Connect = Callable[..., AbstractAsyncContextManager[SyncRunner]]


@pytest.fixture
def connected(database: Database) -> Connect:
    """`async with connected("jira", world) as runner`: a tracker of a world, and a tested connection to it."""

    @asynccontextmanager
    async def connect(
        name: str, world: World, *, prepare: Callable[[Tracker], object] | None = None, **settings: Any
    ) -> AsyncIterator[SyncRunner]:
        source = SOURCES[name]
        async with source.tracker(world) as tracker:
            if prepare:
                prepare(tracker)
            runner = SyncRunner(
                database,
                make_settings(sync_part_tries=2),
                tracker,
                connection_settings={**source.settings, "streams": source.streams, **settings},
                credentials=source.credentials(tracker),
            )
            probe = await runner.connect()
            assert probe.passed, probe.error
            yield runner

    return connect
