"""Run jobs in this process, step by step as the orchestration does, without one."""

from uuid import UUID

from shared.blobs import Blobs
from shared.domain.job import JobState, Turn
from shared.services.dispatch_jobs import dispatch
from shared.services.finish_job import finish_job
from shared.services.list_batches import list_batches
from shared.services.load_batch import load_batch
from shared.services.plan_job import plan_job
from shared.settings import Settings
from shared.store.database import Database


async def run_job(
    database: Database, blobs: Blobs, settings: Settings, job_id: UUID, attempt: int = 1
) -> JobState | None:
    """One attempt at a job that was claimed: plan, load every batch once, sum up."""
    for phase in await plan_job(database, blobs, settings, job_id, attempt):
        todo = await list_batches(database, job_id, attempt, phase, limit=1_000)
        for number in todo["waiting"] + todo["failed"]:
            await load_batch(database, blobs, settings, job_id, attempt, phase, number)
    return await finish_job(database, blobs, job_id, attempt)


async def run_started_jobs(
    database: Database, blobs: Blobs, settings: Settings, started: list[tuple[UUID, int]]
) -> None:
    """Run what was handed to orchestrations, and what may start behind it, until nothing is left."""

    async def start(turn: Turn) -> None:
        started.append((turn.job_id, turn.attempt))

    while started:
        job_id, attempt = started.pop(0)
        await run_job(database, blobs, settings, job_id, attempt)
        await dispatch(database, start, concurrency=settings.job_concurrency)


class RecordingPurge:
    """Takes note of the histories it is asked to forget."""

    def __init__(self) -> None:
        self.forgotten: list[tuple[UUID, int]] = []

    async def __call__(self, turn: Turn) -> None:
        self.forgotten.append((turn.job_id, turn.attempt))
