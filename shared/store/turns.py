"""Which jobs run: claimed for an orchestration, given back, taken over from one that is gone."""

from datetime import datetime
from uuid import UUID

from psycopg.rows import DictRow

from shared.domain.job import JobKind, Turn
from shared.store.database import Connection

# Serializes claiming: two dispatchers must not both see the last free place.
_CLAIM_LOCK = 0x54524942


async def claim_jobs(connection: Connection, *, limit: int) -> list[Turn]:
    """Move the next jobs to processing, by priority, then age.

    At most `limit` jobs run at once, and one per import_source, so that the files of one label are loaded in the order
    they came. Call inside a transaction.
    """
    await connection.execute("select pg_advisory_xact_lock(%s)", (_CLAIM_LOCK,))
    cursor = await connection.execute(
        """
        update jobs
           set state = 'processing', attempt = attempt + 1, claimed_at = now(), retry_at = null,
               started_at = coalesce(started_at, now()), updated_at = now()
         where state = 'queued'
           and id in (
               select id
                 from (select distinct on (import_source) id, priority_rank, created_at
                         from jobs waiting
                        where state = 'queued'
                          and (file_bytes is not null or kind = 'sync')
                          and not exists (select from jobs running
                                           where running.import_source = waiting.import_source
                                             and running.state in ('processing', 'retrying'))
                        order by import_source, priority_rank, created_at) first_of_each
                where not (select paused from pipeline)
                order by priority_rank, created_at
                limit (select greatest(0, %(limit)s - count(*)) from jobs where state in ('processing', 'retrying')))
        returning id, attempt, kind
        """,
        {"limit": limit},
    )
    return [_to_turn(row) for row in await cursor.fetchall()]


async def return_to_queue(connection: Connection, job_id: UUID, attempt: int) -> None:
    """Undo a claim whose orchestration could not be started."""
    await connection.execute(
        "update jobs set state = 'queued', updated_at = now() where id = %s and attempt = %s and state = 'processing'",
        (job_id, attempt),
    )


async def list_running(connection: Connection, *, claimed_before: datetime) -> list[Turn]:
    """Jobs that should have a live orchestration."""
    cursor = await connection.execute(
        """
        select id, attempt, kind from jobs
         where state in ('processing', 'retrying') and claimed_at < %s order by claimed_at limit 1000
        """,
        (claimed_before,),
    )
    return [_to_turn(row) for row in await cursor.fetchall()]


async def begin_new_attempt(connection: Connection, job_id: UUID, attempt: int) -> bool:
    """Take over a job whose orchestration is gone; False if somebody else did."""
    cursor = await connection.execute(
        """
        update jobs set attempt = attempt + 1, state = 'processing', claimed_at = now(), updated_at = now()
         where id = %s and attempt = %s and state in ('processing', 'retrying')
        """,
        (job_id, attempt),
    )
    return cursor.rowcount == 1


def _to_turn(row: DictRow) -> Turn:
    return Turn(row["id"], row["attempt"], JobKind(row["kind"]))
