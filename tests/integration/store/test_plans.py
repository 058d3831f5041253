"""Queries a person waits for stay cheap when the table is large: their plans, at a million issues."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from shared.domain.job import Kind
from shared.store import issues
from shared.store.records import MIRRORS
from tests.support.explaining import assert_cheap, explaining
from tests.support.postgres import TestDatabases

ISSUES = 1_000_000
_FILL = """
insert into issues (import_source, external_id, key, title, status, status_category, assignee, project, labels,
                    source_updated_at, payload, content_hash, job_id)
select 'source-' || mod(n, 5), n, 'KEY-' || n, 'Title of ' || n, case mod(n, 7) when 0 then 'Done' else 'Open' end,
       case mod(n, 7) when 0 then 'done' else 'open' end, 'person ' || mod(n, 500), 'project ' || mod(n, 40),
       '["backend"]', case when mod(n, 50) > 0 then timestamptz '2025-01-01Z' + n * interval '20 seconds' end, '{}',
       '\\x00', gen_random_uuid()
  from generate_series(1, %s) as n
"""


@pytest.fixture(scope="module")
def large(databases: TestDatabases) -> Iterator[str]:
    """URL of a database with a million issues of five sources."""
    with databases.database() as url:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(_FILL, (ISSUES,))
            connection.execute("vacuum (analyze) issues")
        yield url


@pytest.mark.parametrize(
    "filters",
    [
        {},
        {"import_source": "source-3"},
        {"import_source": "source-3", "status_category": "open"},
        {"import_source": "source-3", "project": "project 8"},
        {"assignee": "person 7"},
        {"updated_since": datetime(2025, 8, 1, tzinfo=UTC)},
        {"label": "backend"},
    ],
    ids=str,
)
@pytest.mark.parametrize("before", [None, (datetime(2025, 5, 1, tzinfo=UTC), "source-2", "77")], ids=["first", "next"])
async def test_a_page_of_issues_costs_its_rows(
    large: str, filters: dict[str, Any], before: tuple[datetime, str, str] | None
) -> None:
    async with explaining(large) as connection:
        await issues.list_issues(connection, filters=filters, before=before, limit=50)

        assert_cheap(connection)


async def test_asking_which_records_are_held_reads_the_index_and_no_rows(large: str) -> None:
    async with explaining(large) as connection:
        ids = [str(number) for number in range(1, 5_000)]
        await MIRRORS[Kind.ISSUES].find_differences(connection, "source-3", ids, bytes(16 * len(ids)))

        plan = json.dumps(connection.plans)
        assert "Index Only Scan" in plan, plan
        assert "Seq Scan" not in plan, plan


async def test_one_issue_is_found_by_its_key(large: str) -> None:
    async with explaining(large) as connection:
        await issues.find_issue(connection, "source-3", "8")

        assert_cheap(connection)
