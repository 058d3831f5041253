"""The rate limit across instances."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from shared.domain.caller import Caller, Role
from shared.domain.errors import TooManyRequestsError
from shared.services.limit_requests import limit_requests
from shared.store import request_counts
from shared.store.database import Database

NOW = datetime(2026, 3, 4, 12, 0, 45, tzinfo=UTC)
CALLER = Caller(id="key:1", name="CI", role=Role.READER)


@pytest.fixture
async def second_instance(database_url: str) -> AsyncIterator[Database]:
    other = Database(database_url)
    await other.open()
    yield other
    await other.close()


async def test_the_hundred_and_first_request_is_refused_wherever_it_arrives(
    database: Database, second_instance: Database
) -> None:
    left = await asyncio.gather(
        *(limit_requests(each, CALLER, limit=100, now=NOW) for _ in range(50) for each in (database, second_instance))
    )

    assert sorted(each.remaining for each in left) == list(range(100))
    for instance in (database, second_instance):
        with pytest.raises(TooManyRequestsError) as refused:
            await limit_requests(instance, CALLER, limit=100, now=NOW)
        assert refused.value.retry_after == 15


async def test_the_next_minute_begins_anew(database: Database) -> None:
    await limit_requests(database, CALLER, limit=1, now=NOW)

    left = await limit_requests(database, CALLER, limit=1, now=NOW + timedelta(seconds=15))

    assert (left.remaining, left.resets_in) == (0, 60)


async def test_clients_do_not_use_up_each_others_requests(database: Database) -> None:
    await limit_requests(database, CALLER, limit=1, now=NOW)

    assert await limit_requests(database, CALLER.model_copy(update={"id": "key:2"}), limit=1, now=NOW)


async def test_old_windows_are_forgotten_and_the_present_one_kept(database: Database) -> None:
    await limit_requests(database, CALLER, limit=9, now=NOW - timedelta(hours=2))
    await limit_requests(database, CALLER, limit=9, now=NOW)

    async with database.connection() as connection:
        assert await request_counts.purge(connection, before=NOW - timedelta(hours=1)) == 1

    assert (await limit_requests(database, CALLER, limit=9, now=NOW)).used == 2
