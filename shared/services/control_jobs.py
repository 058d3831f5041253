"""What people do to jobs and the pipeline: retry, cancel, empty the dead-letter queue, pause and resume."""

import logging
from collections.abc import Sequence
from uuid import UUID

from shared.domain.caller import Caller
from shared.domain.errors import ConflictError, NotFoundError
from shared.domain.job import ATOMIC_REJECTED, ENDED, JobState
from shared.store import audit_log, jobs, pipeline
from shared.store.database import Connection, Database
from shared.store.jobs import Job

log = logging.getLogger(__name__)

# One call retries at most so many, so that it answers in time; the next call takes the next ones.
MOST_RETRIED_AT_ONCE = 500


async def retry_job(database: Database, caller: Caller, job_id: UUID) -> Job:
    """Queue a failed or cancelled job again; only what has not succeeded runs again."""
    async with database.transaction() as connection:
        before = await _locked(connection, job_id)
        after = await _requeue(connection, caller, before)
    if after is None:
        if _is_rejected_whole(before):
            raise ConflictError(
                "Records of this atomic import were rejected, and the same file would be again",
                hint="Mend the listed records and import the file anew, or import it without atomic",
            )
        if _is_orphan(before):
            raise ConflictError("The connection of this job was removed", hint="Sync the connection that replaced it")
        if before.state in {JobState.FAILED, JobState.CANCELLED}:
            raise ConflictError("The file of this job never arrived", hint="Start a new import")
        raise ConflictError(f"The job is {before.state}; only failed and cancelled jobs can be retried")
    return after


async def cancel_job(database: Database, caller: Caller, job_id: UUID) -> Job:
    """Cancel a waiting job at once, or ask a running one to stop after its current batches."""
    async with database.transaction() as connection:
        before = await _locked(connection, job_id)
        if before.cancel_requested and before.state not in ENDED:
            return before
        after = await jobs.request_cancel(connection, job_id)
        if after is None:
            raise ConflictError(f"The job has ended already: it is {before.state}")
        await _audit(connection, caller, "job.cancelled", before, after)
        await jobs.log(connection, job_id, "info", "Cancelled by hand", by=caller.id)
    log.info("Job cancelled", extra={"action": "job_cancelled", "job_id": str(job_id)})
    return after


async def retry_dead_letters(database: Database, caller: Caller, job_ids: Sequence[UUID] | None) -> list[UUID]:
    """Queue failed jobs again, without `job_ids` the latest 500; returns those that were in the queue."""
    async with database.transaction() as connection:
        if job_ids is None:
            latest = await jobs.list_jobs(connection, state=JobState.FAILED, limit=MOST_RETRIED_AT_ONCE)
            job_ids = [job.id for job in latest]
        locked = await jobs.lock_jobs(connection, job_ids)
        failed = sorted((job for job in locked if job.state is JobState.FAILED), key=lambda job: job.created_at)
        return [job.id for job in failed if await _requeue(connection, caller, job)]


async def set_pipeline_paused(database: Database, caller: Caller, *, paused: bool) -> bool:
    """Stop or resume starting jobs; running ones go on. Returns whether that changed anything."""
    async with database.transaction() as connection:
        before = await pipeline.lock_paused(connection)
        if before == paused:
            return False
        await pipeline.set_paused(connection, paused=paused)
        await audit_log.append(
            connection,
            actor=caller.id,
            action="pipeline.paused" if paused else "pipeline.resumed",
            subject="pipeline",
            before={"paused": before},
            after={"paused": paused},
        )
    return True


async def _locked(connection: Connection, job_id: UUID) -> Job:
    """The job as it is until this transaction ends: what the audit calls `before` must be what the change found."""
    job = await jobs.lock_job(connection, job_id)
    if job is None:
        raise NotFoundError("There is no job with this id", hint="Ended jobs are removed after some days")
    return job


async def _requeue(connection: Connection, caller: Caller, before: Job) -> Job | None:
    if before.state not in ENDED or _is_rejected_whole(before) or _is_orphan(before):
        return None
    after = await jobs.requeue(connection, before.id)
    if after is not None:
        await _audit(connection, caller, "job.retried", before, after)
        await jobs.log(connection, before.id, "info", "Queued again by hand", by=caller.id)
    return after


def _is_rejected_whole(job: Job) -> bool:
    return job.state is JobState.FAILED and (job.error or {}).get("code") == ATOMIC_REJECTED


def _is_orphan(job: Job) -> bool:
    return job.sync is not None and job.connection_id is None


async def _audit(connection: Connection, caller: Caller, action: str, before: Job, after: Job) -> None:
    told = {"state", "cancel_requested", "error"}
    await audit_log.append(
        connection,
        actor=caller.id,
        action=action,
        subject=f"job:{before.id}",
        before=before.model_dump(mode="json", include=told),
        after=after.model_dump(mode="json", include=told),
    )
