"""Queries on webhook deliveries stay cheap when a lively tracker has filled the table for thirty days."""

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from uuid import UUID

import psycopg
import pytest

from shared.store import webhook_deliveries
from tests.support.explaining import Explaining, assert_cheap, explaining
from tests.support.postgres import TestDatabases

CONNECTION = UUID("0b3e8c1e-58a5-4f0e-9d0b-0a4f6c1f2d11")
NOW = datetime(2025, 6, 1, tzinfo=UTC)
_FILL = """
insert into webhook_deliveries (connection_id, delivery_id, event, payload, signature, status, received_at)
select %s, 'd-' || n, 'jira:issue_updated', '{}', 'hmac',
       case when n > 299990 then 'pending' when mod(n, 50000) = 0 then 'failed' else 'done' end,
       timestamptz '2025-05-01Z' + n * interval '8 seconds'
  from generate_series(1, 300000) as n
"""


@pytest.fixture(scope="module")
def lively(databases: TestDatabases) -> Iterator[str]:
    with databases.database() as url:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(
                "insert into connections (id, slug, source, base_url) values (%s, 'petrel', 'jira', 'https://x')",
                (CONNECTION,),
            )
            connection.execute(_FILL, (CONNECTION,))
            connection.execute("vacuum (analyze) webhook_deliveries")
        yield url


@pytest.fixture
async def connection(lively: str) -> AsyncIterator[Explaining]:
    async with explaining(lively) as connection:
        yield connection


@pytest.mark.parametrize("status", [None, "failed", "done"])
@pytest.mark.parametrize("before", [None, (datetime(2025, 5, 15, tzinfo=UTC), "d-1")], ids=["first", "next"])
async def test_a_page_of_deliveries_costs_its_rows(
    connection: Explaining, status: str | None, before: tuple[datetime, str] | None
) -> None:
    await webhook_deliveries.list_deliveries(connection, CONNECTION, status=status, before=before, limit=50)

    assert_cheap(connection)


async def test_what_waits_is_found_without_what_is_done(connection: Explaining) -> None:
    await webhook_deliveries.list_pending(connection, CONNECTION, now=NOW, limit=2_000)

    assert_cheap(connection)


async def test_the_minute_timer_does_not_read_the_table(connection: Explaining) -> None:
    await webhook_deliveries.list_waiting_connections(connection, now=NOW)

    [plan] = connection.plans
    assert plan["Plan"]["Total Cost"] < 500, plan
