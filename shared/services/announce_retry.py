"""Show on a job that it waits before its next try."""

from datetime import datetime, timedelta
from uuid import UUID

from shared.store import jobs
from shared.store.database import Database


async def announce_retry(database: Database, job_id: UUID, *, seconds: int, now: datetime) -> None:
    """Mark the job as retrying until then; the waiting itself is the orchestration's durable timer."""
    async with database.transaction() as connection:
        await jobs.mark_retrying(connection, job_id, until=now + timedelta(seconds=seconds))
        await jobs.log(connection, job_id, "warning", f"Trying again in {seconds} s", seconds=seconds)


async def announce_wait(database: Database, job_id: UUID, *, until: datetime) -> None:
    """Mark the job as waiting for its source until then."""
    async with database.transaction() as connection:
        await jobs.mark_retrying(connection, job_id, until=until)
        await jobs.log(connection, job_id, "info", f"Waiting until {until:%H:%M:%S} UTC", until=until.isoformat())
