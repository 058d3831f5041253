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
    they came. Reading named issues is short: it has one more place of its own, waits for no other sync of its
    connection, and lets none wait; while a source makes one wait, others have its place. Call inside a transaction.
    """
    await connection.execute("select pg_advisory_xact_lock(%s)", (_CLAIM_LOCK,))
    cursor = await connection.execute(
        """
        with told as (
            select *, coalesce(sync ->> 'mode' = 'keys', false) as short
              from jobs where state in ('queued', 'processing', 'retrying')
        ), running as (
            select import_source, short, state from told where state <> 'queued'
        ), first_of_each as (
            select distinct on (import_source, short) id, short, priority_rank, created_at
              from told waiting
             where state = 'queued' and (file_bytes is not null or kind = 'sync')
               and not exists (select from running
                                where running.import_source = waiting.import_source and running.short = waiting.short)
             order by import_source, short, priority_rank, created_at
        ), placed as (
            select id, short, row_number() over (partition by short order by priority_rank, created_at) as place
              from first_of_each where not (select paused from pipeline)
        )
        update jobs
           set state = 'processing', attempt = attempt + 1, claimed_at = now(), retry_at = null,
               started_at = coalesce(started_at, now()), updated_at = now()
          from placed
         where jobs.id = placed.id and jobs.state = 'queued'
           and place <= case when placed.short then 1 else %(limit)s end
                      - (select count(*) from running
                          where running.short = placed.short and (not running.short or running.state = 'processing'))
        returning jobs.id, attempt, kind
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
