"""The audit log."""

import psycopg
import pytest

from shared.store import audit_log
from shared.store.database import Database


async def given_entries(database: Database, count: int, *, subject: str) -> None:
    async with database.transaction() as connection:
        for number in range(count):
            await audit_log.append(
                connection, actor="key:1", action="job.retried", subject=subject, before={"n": number}, after=None
            )


async def append_and_fail(database: Database) -> None:
    async with database.transaction() as connection:
        await audit_log.append(connection, actor="key:1", action="x", subject="job:1", before=None, after={})
        await connection.execute("select 1 / 0")


async def test_entries_are_paged_newest_first_without_gap_or_repetition(database: Database) -> None:
    await given_entries(database, 7, subject="job:1")

    async with database.connection() as connection:
        pages = [await audit_log.list_entries(connection, limit=3)]
        while pages[-1]:
            pages.append(await audit_log.list_entries(connection, before_id=pages[-1][-1].id, limit=3))

    assert [entry.before for page in pages for entry in page] == [{"n": number} for number in range(6, -1, -1)]


async def test_entries_of_one_subject_are_found(database: Database) -> None:
    await given_entries(database, 2, subject="job:1")
    await given_entries(database, 1, subject="job:2")

    async with database.connection() as connection:
        found = await audit_log.list_entries(connection, subject="job:2")

    assert [(entry.subject, entry.before, entry.after) for entry in found] == [("job:2", {"n": 0}, None)]


async def test_an_entry_goes_with_the_change_it_tells_of(database: Database) -> None:
    with pytest.raises(psycopg.errors.DivisionByZero):
        await append_and_fail(database)

    async with database.connection() as connection:
        assert await audit_log.list_entries(connection) == []
