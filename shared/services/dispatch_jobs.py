"""Hand waiting jobs to orchestrations, as many as the pipeline allows; the database decides who is next."""

import logging
from typing import Protocol

from shared.domain.job import Turn
from shared.store import turns
from shared.store.database import Database

log = logging.getLogger(__name__)


class Starter(Protocol):
    """Starts the orchestration of one attempt at a job; an orchestration that exists already counts as started."""

    async def __call__(self, turn: Turn) -> None: ...


async def dispatch(database: Database, start: Starter, *, concurrency: int) -> int:
    """Claim every job that may run now and start it; returns how many were started.

    Run after every accepted job, at the end of every job and once a minute, so that no single lost call matters.
    """
    async with database.transaction() as connection:
        claimed = await turns.claim_jobs(connection, limit=concurrency)
    for turn in claimed:
        try:
            await start(turn)
        except Exception:
            async with database.connection() as connection:
                await turns.return_to_queue(connection, turn.job_id, turn.attempt)
            raise
        log.info("Job started", extra={"action": "job_started", "job_id": str(turn.job_id), "attempt": turn.attempt})
    return len(claimed)
