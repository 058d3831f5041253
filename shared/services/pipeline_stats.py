"""How the whole pipeline stands."""

from datetime import datetime, timedelta

from pydantic import BaseModel, ConfigDict, Field

from shared.domain.job import JobState
from shared.store import jobs, pipeline
from shared.store.database import Database
from shared.store.pipeline import Throughput


class PipelineStats(BaseModel):
    """Jobs by state, and what was done within the last hour."""

    model_config = ConfigDict(frozen=True)

    paused: bool
    concurrency: int = Field(description="Jobs that may run at once")
    running: int
    queued: int
    failed: int = Field(description="Jobs in the dead-letter queue")
    jobs: dict[JobState, int]
    rejections_open: int
    last_hour: Throughput


async def find_pipeline_stats(database: Database, *, concurrency: int, now: datetime) -> PipelineStats:
    """Count what there is; jobs older than the retention are not in it."""
    async with database.connection() as connection:
        counted = await jobs.count_by_state(connection)
        by_state = {state: counted.get(state, 0) for state in JobState}
        return PipelineStats(
            paused=await pipeline.is_paused(connection),
            concurrency=concurrency,
            running=by_state[JobState.PROCESSING] + by_state[JobState.RETRYING],
            queued=by_state[JobState.QUEUED],
            failed=by_state[JobState.FAILED],
            jobs=by_state,
            rejections_open=await pipeline.count_open_rejections(connection),
            last_hour=await pipeline.find_throughput(connection, since=now - timedelta(hours=1)),
        )
