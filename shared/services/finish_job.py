"""Sum a job up and end it."""

import logging
from typing import Any
from uuid import UUID

from shared.blobs import Blobs
from shared.domain.job import ATOMIC_REJECTED, ENDED, JobState
from shared.services.give_up import give_up
from shared.store import batches, jobs
from shared.store.database import Database
from shared.telemetry import jobs_finished

log = logging.getLogger(__name__)


async def finish_job(database: Database, blobs: Blobs, job_id: UUID, attempt: int) -> JobState | None:
    """Decide how the job ended from its ledger; None if this attempt no longer owns it."""
    async with database.transaction() as connection:
        job = await jobs.find_job(connection, job_id)
        if job is None or job.attempt != attempt:
            return None
        if job.state in ENDED:
            return job.state
        progress = await batches.find_progress(connection, job_id)
        state, error = _verdict(job, progress)
        await jobs.end_job(connection, job_id, state, error=error)
        level = "info" if state is JobState.COMPLETED else "error"
        await jobs.log(connection, job_id, level, f"Job {state}", **progress.counts.model_dump())
    blobs.forget_copies(job.file_blob, job.index_blob)
    jobs_finished(state)
    log.info(
        "Job ended",
        extra={"action": "job_finished", "job_id": str(job_id), "state": state, "counts": progress.counts.model_dump()},
    )
    return state


async def give_up_job(
    database: Database, blobs: Blobs, job_id: UUID, attempt: int, *, error: dict[str, Any]
) -> JobState | None:
    """End a job that cannot be summed up, or of which nobody can say what is left to do."""
    job = await give_up(database, job_id, attempt, error=error, message="Job given up")
    if job is None:
        return None
    blobs.forget_copies(job.file_blob, job.index_blob)
    return JobState.FAILED


def _verdict(job: jobs.Job, progress: batches.Progress) -> tuple[JobState, dict[str, Any] | None]:
    if job.cancel_requested:
        return JobState.CANCELLED, {"code": "cancelled", "detail": "Cancelled on request; what was stored before stays"}
    if job.options.atomic and progress.counts.rejected:
        return JobState.FAILED, {
            "code": ATOMIC_REJECTED,
            "detail": f"{progress.counts.rejected} records were rejected, so nothing was stored (atomic import)",
            "hint": "Mend the listed records and import the file again, or import without atomic",
        }
    if job.batches_total is None:
        return JobState.FAILED, job.error or {"code": "not_planned", "detail": "The file could not be planned"}
    if progress.batches_done < job.batches_total:
        return JobState.FAILED, progress.last_error or {
            "code": "incomplete",
            "detail": "Not every part could be loaded",
        }
    return JobState.COMPLETED, None
