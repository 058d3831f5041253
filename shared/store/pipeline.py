"""The pipeline as a whole: whether it is paused, and figures over all jobs."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from shared.store.database import Connection


class Throughput(BaseModel):
    """What was settled since some time."""

    model_config = ConfigDict(frozen=True)

    jobs_completed: int
    jobs_failed: int
    rows: int = Field(description="Rows whose fate was settled")


async def find_throughput(connection: Connection, *, since: datetime) -> Throughput:
    """Jobs that ended and rows that were settled since a time."""
    cursor = await connection.execute(
        """
        select (select count(*) from jobs where finished_at >= %(since)s and state = 'completed') as jobs_completed,
               (select count(*) from jobs where finished_at >= %(since)s and state = 'failed') as jobs_failed,
               (select coalesce(sum(rows), 0)::bigint
                  from job_batches
                 where finished_at >= %(since)s and state = 'done' and phase = 'load') as rows
        """,
        {"since": since},
    )
    return Throughput.model_validate(await cursor.fetchone())


async def count_open_rejections(connection: Connection) -> int:
    """Rejections of all jobs that nobody has dealt with."""
    cursor = await connection.execute("select count(*) as records from rejections where state = 'open'")
    row = await cursor.fetchone()
    return row["records"] if row else 0


async def set_paused(connection: Connection, *, paused: bool) -> None:
    """Stop or resume claiming; running jobs go on."""
    await connection.execute("update pipeline set paused = %s, updated_at = now()", (paused,))


async def is_paused(connection: Connection) -> bool:
    """Whether the pipeline is paused."""
    cursor = await connection.execute("select paused from pipeline")
    row = await cursor.fetchone()
    return bool(row and row["paused"])


async def lock_paused(connection: Connection) -> bool:
    """The same, held until the transaction ends."""
    cursor = await connection.execute("select paused from pipeline for update")
    row = await cursor.fetchone()
    return bool(row and row["paused"])
