"""Find jobs whose orchestration is gone, and continue them from their batch ledger."""

import logging
from datetime import datetime, timedelta
from typing import Protocol

from shared.domain.job import Turn
from shared.services.dispatch_jobs import Starter
from shared.store import jobs, turns
from shared.store.database import Database

log = logging.getLogger(__name__)

# A job claimed a moment ago may not have been handed to its orchestration yet.
GRACE = timedelta(seconds=2)


class IsAlive(Protocol):
    """Whether the orchestration of one attempt at a job still exists and has not ended."""

    async def __call__(self, turn: Turn) -> bool: ...


async def recover(database: Database, is_alive: IsAlive, start: Starter, *, now: datetime) -> int:
    """Restart every running job that nobody works on, as a new attempt; returns how many."""
    async with database.connection() as connection:
        running = await turns.list_running(connection, claimed_before=now - GRACE)
    recovered = 0
    for turn in running:
        if await is_alive(turn):
            continue
        job_id, attempt, kind = turn
        async with database.transaction() as connection:
            taken = await turns.begin_new_attempt(connection, job_id, attempt)
            if taken:
                await jobs.log(
                    connection, job_id, "warning", "Continued after its worker was lost", attempt=attempt + 1
                )
        if taken:
            log.warning("Job recovered", extra={"action": "job_recovered", "job_id": str(job_id)})
            await start(Turn(job_id, attempt + 1, kind))
            recovered += 1
    return recovered
