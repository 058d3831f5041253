"""Who runs next, and how a job moves from state to state."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from shared.domain.job import JobState, Priority
from shared.store import jobs, pipeline, turns
from shared.store.database import Database
from shared.store.jobs import NewJob

NOW = datetime.now(UTC)


async def given_job(
    database: Database, import_source: str, priority: Priority = Priority.NORMAL, **over: object
) -> UUID:
    new = NewJob.model_validate(
        {
            "id": uuid4(),
            "source": "file",
            "import_source": import_source,
            "priority": priority,
            "file_name": "a.csv",
            "file_container": "files",
            "file_blob": "a.csv",
            "file_bytes": 10,
            "requested_by": "key:test",
            **over,
        }
    )
    async with database.connection() as connection:
        job = await jobs.insert_job(connection, new)
    assert job is not None
    return job.id


async def claim(database: Database, limit: int = 3) -> list[UUID]:
    async with database.transaction() as connection:
        return [turn.job_id for turn in await turns.claim_jobs(connection, limit=limit)]


async def state_of(database: Database, job_id: UUID) -> JobState:
    async with database.connection() as connection:
        job = await jobs.find_job(connection, job_id)
    assert job is not None
    return job.state


async def test_most_urgent_job_goes_first_then_the_oldest(database: Database) -> None:
    await given_job(database, "a", Priority.LOW)
    older = await given_job(database, "b")
    newer = await given_job(database, "c")
    urgent = await given_job(database, "d", Priority.CRITICAL)

    assert [await claim(database, limit) for limit in (1, 2, 3)] == [[urgent], [older], [newer]]


async def test_jobs_of_one_label_run_one_after_the_other(database: Database) -> None:
    first = await given_job(database, "a")
    second = await given_job(database, "a")

    assert await claim(database) == [first]
    assert await claim(database) == []
    async with database.connection() as connection:
        await jobs.end_job(connection, first, JobState.COMPLETED)
    assert await claim(database) == [second]


async def test_ten_dispatchers_never_exceed_the_limit(database: Database) -> None:
    for number in range(12):
        await given_job(database, f"label-{number}")

    claimed = await asyncio.gather(*(claim(database) for _ in range(8)))

    assert sum(map(len, claimed)) == 3


async def test_paused_pipeline_claims_nothing(database: Database) -> None:
    job = await given_job(database, "a")
    async with database.connection() as connection:
        await pipeline.set_paused(connection, paused=True)

    assert await claim(database) == []
    async with database.connection() as connection:
        await pipeline.set_paused(connection, paused=False)
    assert await claim(database) == [job]


async def test_job_waits_for_its_upload_and_is_cancelled_when_none_comes(database: Database) -> None:
    job = await given_job(database, "a", file_bytes=None, upload_expires_at=NOW)

    assert await claim(database) == []
    async with database.connection() as connection:
        await jobs.end_unclaimed_uploads(connection, now=NOW + timedelta(minutes=1))
    assert await state_of(database, job) is JobState.CANCELLED


async def test_cancel_ends_a_waiting_job_and_asks_a_running_one(database: Database) -> None:
    running, waiting = await given_job(database, "a"), await given_job(database, "a")
    await claim(database)

    async with database.connection() as connection:
        asked = await jobs.request_cancel(connection, running)
        await jobs.request_cancel(connection, waiting)

    assert asked is not None
    assert (asked.state, asked.cancel_requested) == (JobState.PROCESSING, True)
    assert await state_of(database, waiting) is JobState.CANCELLED


async def test_failed_job_goes_back_in_the_queue_and_a_completed_one_does_not(database: Database) -> None:
    failed, completed = await given_job(database, "a"), await given_job(database, "b")
    await claim(database)
    async with database.connection() as connection:
        await jobs.end_job(connection, failed, JobState.FAILED, error={"code": "x"})
        await jobs.end_job(connection, completed, JobState.COMPLETED)
        requeued = await jobs.requeue(connection, failed)
        refused = await jobs.requeue(connection, completed)

    assert requeued is not None
    assert requeued.state is JobState.QUEUED
    assert refused is None


async def test_same_idempotency_key_is_stored_once(database: Database) -> None:
    first = await given_job(database, "a", idempotency_key="build-17")
    async with database.connection() as connection:
        again = await jobs.find_by_idempotency_key(connection, "key:test", "build-17")
    assert again is not None
    assert again.id == first
