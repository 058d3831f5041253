"""The batch ledger: which part of a file was loaded, and what came of it."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb
from pydantic import BaseModel, ConfigDict

from shared.domain.job import Counts
from shared.store.database import Connection

COUNTED = ("created", "updated", "unchanged", "stale", "skipped", "duplicates", "rejected")


class Batch(BaseModel):
    """A byte range of a file, cut at record boundaries."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    number: int
    byte_offset: int
    byte_length: int
    first_row: int
    rows: int
    index_offset: int
    index_length: int
    losers: tuple[int, ...] = ()
    state: str = "waiting"
    attempts: int = 0


async def insert_batches(connection: Connection, job_id: UUID, phase: str, batches: Sequence[Batch]) -> None:
    """Write the ledger of a phase; planning again replaces nothing that is there."""
    await connection.cursor().executemany(
        """
        insert into job_batches (job_id, phase, number, byte_offset, byte_length, first_row, rows, index_offset,
                                 index_length, losers)
        values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s) on conflict do nothing
        """,
        [
            (
                job_id,
                phase,
                batch.number,
                batch.byte_offset,
                batch.byte_length,
                batch.first_row,
                batch.rows,
                batch.index_offset,
                batch.index_length,
                list(batch.losers),
            )
            for batch in batches
        ],
    )


async def list_open(connection: Connection, job_id: UUID, phase: str, *, state: str, limit: int) -> list[int]:
    """Numbers of the batches of a phase in a state (waiting or failed)."""
    cursor = await connection.execute(
        "select number from job_batches where job_id = %s and phase = %s and state = %s order by number limit %s",
        (job_id, phase, state, limit),
    )
    return [row["number"] for row in await cursor.fetchall()]


async def find_batch(connection: Connection, job_id: UUID, phase: str, number: int) -> Batch | None:
    """One batch of the ledger."""
    cursor = await connection.execute(
        "select * from job_batches where job_id = %s and phase = %s and number = %s", (job_id, phase, number)
    )
    row = await cursor.fetchone()
    return Batch.model_validate(row) if row else None


async def lock_batch(connection: Connection, job_id: UUID, phase: str, number: int) -> Batch | None:
    """The batch, held until the transaction ends, so that a repeated activity waits and then finds it done."""
    cursor = await connection.execute(
        "select * from job_batches where job_id = %s and phase = %s and number = %s for update",
        (job_id, phase, number),
    )
    row = await cursor.fetchone()
    return Batch.model_validate(row) if row else None


async def close_batch(
    connection: Connection, job_id: UUID, phase: str, number: int, counts: Counts, remarks: Mapping[str, int]
) -> None:
    """Mark a batch done with its counts and remarks, in the transaction of its rows."""
    await connection.execute(
        """
        update job_batches
           set state = 'done', attempts = attempts + 1, error = null, finished_at = now(),
               created = %(created)s, updated = %(updated)s, unchanged = %(unchanged)s, stale = %(stale)s,
               skipped = %(skipped)s, duplicates = %(duplicates)s, rejected = %(rejected)s, remarks = %(remarks)s
         where job_id = %(job_id)s and phase = %(phase)s and number = %(number)s
        """,
        {
            **counts.model_dump(exclude={"rows"}),
            "remarks": Jsonb(remarks),
            "job_id": job_id,
            "phase": phase,
            "number": number,
        },
    )


async def fail_batch(connection: Connection, job_id: UUID, phase: str, number: int, error: Mapping[str, Any]) -> None:
    """Mark a batch failed, unless a twin finished it meanwhile."""
    await connection.execute(
        """
        update job_batches set state = 'failed', attempts = attempts + 1, error = %s
         where job_id = %s and phase = %s and number = %s and state <> 'done'
        """,
        (Jsonb(error), job_id, phase, number),
    )


async def reopen_failed(connection: Connection, job_id: UUID) -> None:
    """Let every failed batch run again."""
    await connection.execute(
        "update job_batches set state = 'waiting' where job_id = %s and state = 'failed'", (job_id,)
    )


class Progress(BaseModel):
    """Sums over the ledger of one job."""

    model_config = ConfigDict(frozen=True)

    counts: Counts
    checked_rows: int
    batches_done: int
    batches_failed: int
    last_error: dict[str, Any] | None
    remarks: dict[str, int] = {}


NO_PROGRESS = Progress(counts=Counts(), checked_rows=0, batches_done=0, batches_failed=0, last_error=None)


async def find_progress(connection: Connection, job_id: UUID) -> Progress:
    """Counts of one job so far; `counts.rows` is the number of rows whose fate is settled."""
    return (await find_progress_of(connection, [job_id])).get(job_id, NO_PROGRESS)


async def find_progress_of(connection: Connection, job_ids: Sequence[UUID]) -> dict[UUID, Progress]:
    """The same for several jobs at once; one without a ledger is left out."""
    cursor = await connection.execute(
        """
        select job_id,
               coalesce(sum(created) filter (where phase = 'load'), 0)::bigint as created,
               coalesce(sum(updated) filter (where phase = 'load'), 0)::bigint as updated,
               coalesce(sum(unchanged) filter (where phase = 'load'), 0)::bigint as unchanged,
               coalesce(sum(stale) filter (where phase = 'load'), 0)::bigint as stale,
               coalesce(sum(skipped) filter (where phase = 'load'), 0)::bigint as skipped,
               coalesce(sum(duplicates) filter (where phase = 'load'), 0)::bigint as duplicates,
               coalesce(sum(rejected), 0)::bigint as rejected,
               coalesce(sum(rows) filter (where phase = 'load' and state = 'done'), 0)::bigint as rows,
               coalesce(sum(rows) filter (where phase = 'check' and state = 'done'), 0)::bigint as checked_rows,
               count(*) filter (where phase = 'load' and state = 'done') as batches_done,
               count(*) filter (where state = 'failed') as batches_failed,
               (array_agg(error) filter (where state = 'failed'))[1] as last_error,
               greatest(sum((remarks ->> 'short')::bigint) filter (where phase = 'load'),
                        sum((remarks ->> 'short')::bigint) filter (where phase = 'check'))::bigint as short,
               greatest(sum((remarks ->> 'recoded')::bigint) filter (where phase = 'load'),
                        sum((remarks ->> 'recoded')::bigint) filter (where phase = 'check'))::bigint as recoded
          from job_batches
         where job_id = any(%s)
         group by job_id
        """,
        (list(job_ids),),
    )
    return {
        row["job_id"]: Progress(
            counts=Counts(**{name: row[name] for name in (*COUNTED, "rows")}),
            checked_rows=row["checked_rows"],
            batches_done=row["batches_done"],
            batches_failed=row["batches_failed"],
            last_error=row["last_error"],
            remarks={name: row[name] for name in ("short", "recoded") if row[name]},
        )
        for row in await cursor.fetchall()
    }
