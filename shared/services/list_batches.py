"""Tell an orchestration what is left to load."""

from typing import Any
from uuid import UUID

from shared.store import batches, jobs
from shared.store.database import Database


async def list_batches(database: Database, job_id: UUID, attempt: int, phase: str, *, limit: int) -> dict[str, Any]:
    """Open batches of a phase: {"waiting": numbers, "failed": numbers, "stop": bool}.

    `stop` is true when the job was cancelled, belongs to a newer attempt, or is atomic and already has a rejection.
    """
    async with database.transaction() as connection:
        job = await jobs.find_job(connection, job_id)
        if job is None or job.attempt != attempt or job.cancel_requested:
            return {"waiting": [], "failed": [], "stop": True}
        await jobs.mark_processing(connection, job_id)
        if phase == "load" and job.options.atomic:
            progress = await batches.find_progress(connection, job_id)
            if progress.counts.rejected:
                return {"waiting": [], "failed": [], "stop": True}
        waiting = await batches.list_open(connection, job_id, phase, state="waiting", limit=limit)
        failed = await batches.list_open(connection, job_id, phase, state="failed", limit=limit)
    return {"waiting": waiting, "failed": failed, "stop": False}
