"""What the audit calls `before` is what the change found, also when somebody else was quicker."""

import asyncio
from collections.abc import Awaitable
from uuid import UUID

import pytest

from shared.domain.caller import Caller, Role
from shared.domain.errors import ConflictError
from shared.domain.job import JobState
from shared.services.control_jobs import cancel_job, retry_dead_letters, retry_job
from shared.store import audit_log, jobs
from shared.store.database import Connection, Database
from tests.integration.store.test_jobs import claim, given_job

CALLER = Caller(id="key:test", name="test", role=Role.ADMIN)
WAIT_SECONDS = 20


async def somebody_waits(connection: Connection) -> None:
    """Until another connection of this database waits for a lock."""
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            cursor = await connection.execute(
                """
                select exists (select from pg_stat_activity
                                where datname = current_database() and wait_event_type = 'Lock') as waits
                """
            )
            row = await cursor.fetchone()
            if row and row["waits"]:
                return


async def given_failed(database: Database, label: str) -> UUID:
    job = await given_job(database, label)
    async with database.connection() as connection:
        await jobs.end_job(connection, job, JobState.FAILED, error={"code": "first"})
    return job


async def beaten[Result](database: Database, job: UUID, change: str, call: Awaitable[Result]) -> Result:
    """Make the call while a change of the job is under way, which is committed as soon as the call waits for it."""
    async with database.transaction() as connection:
        await connection.execute(f"update jobs set {change} where id = '{job}'")  # pyright: ignore[reportArgumentType]
        task = asyncio.ensure_future(call)
        async with database.connection() as other:
            await somebody_waits(other)
    return await task


async def before_of(database: Database, job: UUID) -> dict[str, object]:
    async with database.connection() as connection:
        [entry, *_] = await audit_log.list_entries(connection, subject=f"job:{job}")
    assert entry.before is not None
    return dict(entry.before)


async def test_cancel_of_a_job_that_ends_meanwhile_says_how_it_ended(database: Database) -> None:
    job = await given_job(database, "a")
    await claim(database)

    with pytest.raises(ConflictError, match="failed"):
        await beaten(database, job, "state = 'failed', finished_at = now()", cancel_job(database, CALLER, job))


async def test_retry_audits_the_error_it_took_away(database: Database) -> None:
    job = await given_failed(database, "a")

    await beaten(database, job, """error = '{"code": "second"}'""", retry_job(database, CALLER, job))

    assert (await before_of(database, job))["error"] == {"code": "second"}


async def test_dead_letters_audit_the_error_they_took_away(database: Database) -> None:
    job = await given_failed(database, "a")

    change = """error = '{"code": "second"}'"""
    retried = await beaten(database, job, change, retry_dead_letters(database, CALLER, None))

    assert retried == [job]
    assert (await before_of(database, job))["error"] == {"code": "second"}


async def test_dead_letter_that_was_retried_meanwhile_is_left_alone(database: Database) -> None:
    job = await given_failed(database, "a")

    retried = await beaten(database, job, "state = 'queued'", retry_dead_letters(database, CALLER, [job]))

    assert retried == []


async def test_second_cancel_of_a_running_job_changes_nothing(database: Database) -> None:
    job = await given_job(database, "a")
    await claim(database)

    await cancel_job(database, CALLER, job)
    await cancel_job(database, CALLER, job)

    async with database.connection() as connection:
        entries = await audit_log.list_entries(connection, subject=f"job:{job}")
    assert [entry.action for entry in entries] == ["job.cancelled"]
