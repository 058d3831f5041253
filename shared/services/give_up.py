"""End a job that cannot be summed up."""

from typing import Any
from uuid import UUID

from shared.domain.job import ENDED, JobState
from shared.store import jobs
from shared.store.database import Database
from shared.store.jobs import Job
from shared.telemetry import jobs_finished


async def give_up(database: Database, job_id: UUID, attempt: int, *, error: dict[str, Any], message: str) -> Job | None:
    """Let a job fail; left running, it would be continued for ever and keep its place. None if it is not ours."""
    async with database.transaction() as connection:
        job = await jobs.lock_job(connection, job_id)
        if job is None or job.attempt != attempt or job.state in ENDED:
            return None
        await jobs.end_job(connection, job_id, JobState.FAILED, error=error)
        await jobs.log(connection, job_id, "error", message, error=error)
    jobs_finished(JobState.FAILED)
    return job
