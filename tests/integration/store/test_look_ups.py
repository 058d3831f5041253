"""What a page or a batch touches is looked up by key, whatever the planner believes of the tables."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import psycopg
import pytest

from shared.domain.job import Kind
from shared.domain.stream import Stream
from shared.store.gone import GoneIssue, Link
from shared.store.records import MIRRORS
from shared.store.streams import Writer
from tests.support.explaining import assert_looked_up, explaining
from tests.support.postgres import TestDatabases

JOB = UUID("00000000-0000-4000-8000-00000000000a")
READ_AT = datetime(2025, 3, 31, 14, 5, tzinfo=UTC)
NAMES = [str(number) for number in range(300)]

# Without the timer that would mend what the planner believes.
_FORGET = """
alter table issues set (autovacuum_enabled = false);
alter table comments set (autovacuum_enabled = false)
"""
_ISSUES = """
insert into issues (import_source, external_id, key, title, status_category, scope, payload, content_hash, job_id,
                    deleted_at)
select %(source)s, n, 'KEY-' || n, n, 'open', 'pumps', '{}', '', %(job)s, case when mod(n, 10) = 0 then now() end
  from generate_series(1, %(rows)s::int) as n
"""
_COMMENTS = """
insert into comments (import_source, external_id, issue_id, issue_key, body, scope, payload, content_hash, job_id)
select %(source)s, n + %(after)s, case when %(per)s > 0 then n / greatest(%(per)s, 1) end, 'KEY-' || n, '', 'pumps',
       '{}', '', %(job)s
  from generate_series(1, %(rows)s::int) as n
"""
BELIEFS = {
    "it knows nothing": [],
    "only other sources have rows": [
        (_ISSUES, "other", 20_000, 1),
        (_COMMENTS, "other", 20_000, 9),
    ],
    "all comments are of one issue": [(_COMMENTS, "tracker", 200, 1_000_000)],
}


@pytest.fixture(scope="module", params=BELIEFS, ids=lambda belief: belief.replace(" ", "-"))
def misled(databases: TestDatabases, request: pytest.FixtureRequest) -> Iterator[str]:
    """URL of a database whose planner has been told one thing, and then much was stored."""
    with databases.database() as url:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(_FORGET)
            for statement, source, rows, per in BELIEFS[request.param]:
                values = {"source": source, "rows": rows, "per": per, "after": 1_000_000, "job": JOB}
                connection.execute(statement, values)
            if BELIEFS[request.param]:
                connection.execute("analyze issues, comments")
            rows = {"source": "tracker", "rows": 20_000, "per": 9, "after": 0, "job": JOB}
            connection.execute(_ISSUES, rows)
            connection.execute(_COMMENTS, rows)
        yield url


@pytest.mark.parametrize("lock", [False, True])
async def test_what_is_held_of_a_tracker(misled: str, lock: bool) -> None:
    async with explaining(misled) as connection:
        for stream in (Stream.ISSUES, Stream.COMMENTS):
            await writer_on(connection).find_held(stream, NAMES, lock=lock)

    assert_looked_up(connection)


async def test_what_is_kept_of_issues_that_are_read_in_part(misled: str) -> None:
    async with explaining(misled) as connection:
        await writer_on(connection).find_kept(NAMES, ["title"], [])

    assert_looked_up(connection)


async def test_what_is_gone(misled: str) -> None:
    async with explaining(misled, [{"place": "(0,1)", "external_id": "1"}]) as connection:
        await writer_on(connection).mark_gone(Stream.COMMENTS, NAMES, "deleted")
        for column in ("issue_id", "issue_key"):
            await writer_on(connection).mark_children_gone(Link(Stream.COMMENTS, column), NAMES, NAMES)

    assert_looked_up(connection)


async def test_what_goes_and_comes_back_with_issues(misled: str) -> None:
    async with explaining(misled, [{"place": "(0,1)", "absence": "deleted", "deleted_at": READ_AT}]) as connection:
        await writer_on(connection).follow(NAMES)
        await writer_on(connection).bring_back([GoneIssue(name, f"KEY-{name}", READ_AT) for name in NAMES])

    assert_looked_up(connection)


async def test_which_issues_are_gone(misled: str) -> None:
    async with explaining(misled) as connection:
        for column in ("external_id", "key"):
            await writer_on(connection).find_gone_issues(column, NAMES)

    assert_looked_up(connection)


async def test_what_is_held_of_a_file(misled: str) -> None:
    async with explaining(misled) as connection:
        await MIRRORS[Kind.ISSUES].find_differences(connection, "tracker", NAMES, b"x" * 16 * len(NAMES))

    assert_looked_up(connection)


def writer_on(connection: Any) -> Writer:
    return Writer(connection, source="tracker", job_id=JOB, read_at=READ_AT)
