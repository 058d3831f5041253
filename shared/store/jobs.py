"""Jobs: accepted, planned, watched, ended. Which of them run, turns.py decides."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from psycopg.rows import DictRow
from psycopg.types.json import Jsonb
from pydantic import BaseModel, ConfigDict

from shared.domain.job import ImportOptions, JobKind, JobState, Priority
from shared.domain.sync import SyncOptions
from shared.store.database import Connection


class Job(BaseModel):
    """A row of `jobs`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: UUID
    source: str
    import_source: str
    kind: JobKind
    state: JobState
    priority: Priority
    options: ImportOptions
    file_name: str | None
    file_container: str | None
    file_blob: str | None
    file_bytes: int | None
    file_etag: str | None
    index_blob: str | None
    upload_expires_at: datetime | None
    connection_id: UUID | None
    sync: SyncOptions | None
    parent_id: UUID | None
    requested_by: str
    attempt: int
    layout: dict[str, Any] | None
    planned_at: datetime | None
    compared_attempt: int | None
    rows_total: int | None
    batches_total: int | None
    error: dict[str, Any] | None
    warnings: list[str]
    retry_at: datetime | None
    cancel_requested: bool
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    updated_at: datetime


class Plan(NamedTuple):
    """How a file will be read, and where it and its index lie."""

    source: str
    layout: Mapping[str, Any]
    rows: int
    batches: int
    warnings: list[str]
    container: str
    blob: str
    etag: str | None
    index_blob: str


class NewJob(BaseModel):
    """What is known when a job is accepted."""

    model_config = ConfigDict(frozen=True)

    id: UUID
    source: str
    import_source: str
    priority: Priority = Priority.NORMAL
    options: ImportOptions = ImportOptions()
    file_name: str
    file_container: str
    file_blob: str
    file_bytes: int | None = None
    file_etag: str | None = None
    upload_expires_at: datetime | None = None
    parent_id: UUID | None = None
    idempotency_key: str | None = None
    requested_by: str


async def insert_job(connection: Connection, new: NewJob) -> Job | None:
    """Store an accepted job; None when the caller used this idempotency key before."""
    cursor = await connection.execute(
        """
        insert into jobs (id, source, import_source, kind, priority, options, file_name, file_container, file_blob,
                          file_bytes, file_etag, upload_expires_at, parent_id, idempotency_key, requested_by)
        values (%(id)s, %(source)s, %(import_source)s, %(kind)s, %(priority)s, %(options)s, %(file_name)s,
                %(file_container)s, %(file_blob)s, %(file_bytes)s, %(file_etag)s, %(upload_expires_at)s,
                %(parent_id)s, %(idempotency_key)s, %(requested_by)s)
            on conflict (requested_by, idempotency_key) where idempotency_key is not null do nothing
        returning *
        """,
        {**new.model_dump(exclude={"options"}), "kind": new.options.kind, "options": Jsonb(new.options.model_dump())},
    )
    return _to_job(await cursor.fetchone())


class NewSync(BaseModel):
    """What is known when a sync is asked for."""

    model_config = ConfigDict(frozen=True)

    id: UUID
    source: str
    import_source: str
    connection_id: UUID
    priority: Priority = Priority.NORMAL
    options: SyncOptions
    parent_id: UUID | None = None
    idempotency_key: str | None = None
    requested_by: str


async def insert_sync(connection: Connection, new: NewSync) -> Job | None:
    """Store an accepted sync; None when the caller used this idempotency key before."""
    cursor = await connection.execute(
        """
        insert into jobs (id, source, import_source, kind, priority, connection_id, sync, parent_id, idempotency_key,
                          requested_by)
        values (%(id)s, %(source)s, %(import_source)s, 'sync', %(priority)s, %(connection_id)s, %(sync)s, %(parent_id)s,
                %(idempotency_key)s, %(requested_by)s)
            on conflict (requested_by, idempotency_key) where idempotency_key is not null do nothing
        returning *
        """,
        {**new.model_dump(exclude={"options"}), "sync": Jsonb(new.options.model_dump(mode="json"))},
    )
    return _to_job(await cursor.fetchone())


async def is_busy(connection: Connection, connection_id: UUID) -> bool:
    """Whether a connection has a job that waits or runs."""
    cursor = await connection.execute(
        """
        select exists (select from jobs where connection_id = %s and state in ('queued', 'processing', 'retrying'))
            as busy
        """,
        (connection_id,),
    )
    return bool((await cursor.fetchone() or {"busy": False})["busy"])


async def find_last_success(connection: Connection, connection_id: UUID) -> datetime | None:
    """When a sync of a connection last ended well; one for webhooks proves nothing about the rest."""
    cursor = await connection.execute(
        """
        select max(finished_at) as at from jobs
         where connection_id = %s and state = 'completed' and requested_by <> 'webhook'
        """,
        (connection_id,),
    )
    row = await cursor.fetchone()
    return row["at"] if row else None


async def find_by_idempotency_key(connection: Connection, requested_by: str, key: str) -> Job | None:
    """The job this caller started under this key."""
    cursor = await connection.execute(
        "select * from jobs where requested_by = %s and idempotency_key = %s", (requested_by, key)
    )
    return _to_job(await cursor.fetchone())


async def find_job(connection: Connection, job_id: UUID) -> Job | None:
    """One job."""
    cursor = await connection.execute("select * from jobs where id = %s", (job_id,))
    return _to_job(await cursor.fetchone())


async def find_awaited_upload(connection: Connection, container: str, blob: str) -> Job | None:
    """The job that gave out an upload URL for this blob and still waits for it."""
    cursor = await connection.execute(
        """
        select * from jobs
         where file_container = %s and file_blob = %s and file_bytes is null and state = 'queued'
        """,
        (container, blob),
    )
    return _to_job(await cursor.fetchone())


async def record_arrival(connection: Connection, job_id: UUID, *, size: int, etag: str) -> bool:
    """Note that an awaited file has arrived; False if that was known already."""
    cursor = await connection.execute(
        """
        update jobs set file_bytes = %s, file_etag = %s, updated_at = now()
         where id = %s and file_bytes is null and state = 'queued'
        """,
        (size, etag, job_id),
    )
    return cursor.rowcount == 1


async def save_plan(connection: Connection, job_id: UUID, plan: Plan) -> None:
    """Record how a file will be read. From here on its place may be that of a rewritten copy."""
    await connection.execute(
        """
        update jobs
           set layout = %(layout)s, rows_total = %(rows)s, batches_total = %(batches)s, warnings = %(warnings)s,
               source = %(source)s, index_blob = %(index_blob)s, file_container = %(container)s,
               file_blob = %(blob)s, file_etag = %(etag)s, planned_at = now(), updated_at = now(), error = null
         where id = %(id)s
        """,
        {**plan._asdict(), "id": job_id, "layout": Jsonb(plan.layout), "warnings": Jsonb(plan.warnings)},
    )


async def lock_job(connection: Connection, job_id: UUID) -> Job | None:
    """One job, held until the transaction ends."""
    cursor = await connection.execute("select * from jobs where id = %s for update", (job_id,))
    return _to_job(await cursor.fetchone())


async def lock_jobs(connection: Connection, job_ids: Sequence[UUID]) -> list[Job]:
    """Jobs, held until the transaction ends; always in one order, so that no two wait for each other."""
    cursor = await connection.execute("select * from jobs where id = any(%s) order by id for update", (list(job_ids),))
    return [Job.model_validate(row) for row in await cursor.fetchall()]


async def mark_planned(connection: Connection, job_id: UUID, *, parts: int) -> None:
    """Note that the parts of a sync are written."""
    await connection.execute(
        "update jobs set planned_at = now(), batches_total = %s, updated_at = now(), error = null where id = %s",
        (parts, job_id),
    )


async def mark_compared(connection: Connection, job_id: UUID, attempt: int) -> None:
    """Note that an attempt at a sync has compared what was seen with what is stored."""
    await connection.execute("update jobs set compared_attempt = %s where id = %s", (attempt, job_id))


async def mark_retrying(connection: Connection, job_id: UUID, *, until: datetime) -> None:
    """Show that the job waits before its next try."""
    await connection.execute(
        "update jobs set state = 'retrying', retry_at = %s, updated_at = now() where id = %s and state = 'processing'",
        (until, job_id),
    )


async def mark_processing(connection: Connection, job_id: UUID) -> None:
    """Show that the wait is over."""
    await connection.execute(
        """
        update jobs set state = 'processing', retry_at = null, updated_at = now() where id = %s and state = 'retrying'
        """,
        (job_id,),
    )


async def end_job(
    connection: Connection, job_id: UUID, state: JobState, *, error: Mapping[str, Any] | None = None
) -> bool:
    """Move a job to its end; False if it had ended before."""
    cursor = await connection.execute(
        """
        update jobs
           set state = %s, error = %s, retry_at = null, finished_at = now(), updated_at = now()
         where id = %s and state in ('queued', 'processing', 'retrying')
        """,
        (state, Jsonb(error) if error else None, job_id),
    )
    return cursor.rowcount == 1


async def request_cancel(connection: Connection, job_id: UUID) -> Job | None:
    """Cancel a waiting job at once, or ask a running one to stop; None if it has ended.

    A sync that waits for its source may do so for an hour; none of it is at work, and it finds itself cancelled then.
    """
    cursor = await connection.execute(
        """
        update jobs
           set cancel_requested = true, updated_at = now(),
               state = case when state = 'queued' or (state = 'retrying' and kind = 'sync') then 'cancelled'
                            else state end,
               retry_at = case when state = 'retrying' and kind = 'sync' then null else retry_at end,
               finished_at = case when state = 'queued' or (state = 'retrying' and kind = 'sync') then now() end
         where id = %s and state in ('queued', 'processing', 'retrying')
        returning *
        """,
        (job_id,),
    )
    return _to_job(await cursor.fetchone())


async def requeue(connection: Connection, job_id: UUID) -> Job | None:
    """Put a failed or cancelled job back in the queue; what its batches stored stays stored. None if it is neither."""
    cursor = await connection.execute(
        """
        update jobs
           set state = 'queued', error = null, finished_at = null, cancel_requested = false, updated_at = now()
         where id = %s and state in ('failed', 'cancelled') and (file_bytes is not null or kind = 'sync')
        returning *
        """,
        (job_id,),
    )
    return _to_job(await cursor.fetchone())


async def list_jobs(
    connection: Connection,
    *,
    state: JobState | None = None,
    import_source: str | None = None,
    kind: JobKind | None = None,
    created_since: datetime | None = None,
    before: tuple[datetime, UUID] | None = None,
    limit: int = 50,
) -> list[Job]:
    """Jobs, newest first; `before` is the (created_at, id) of the last job of the page before."""
    cursor = await connection.execute(
        """
        select * from jobs
         where (%(state)s::text is null or state = %(state)s)
           and (%(import_source)s::text is null or import_source = %(import_source)s)
           and (%(kind)s::text is null or kind = %(kind)s)
           and (%(since)s::timestamptz is null or created_at >= %(since)s)
           and (%(before_at)s::timestamptz is null or (created_at, id) < (%(before_at)s, %(before_id)s))
         order by created_at desc, id desc
         limit %(limit)s
        """,
        {
            "state": state,
            "import_source": import_source,
            "kind": kind,
            "since": created_since,
            "before_at": before[0] if before else None,
            "before_id": before[1] if before else None,
            "limit": limit,
        },
    )
    return [Job.model_validate(row) for row in await cursor.fetchall()]


async def count_by_state(connection: Connection) -> dict[str, int]:
    """How many jobs are in each state."""
    cursor = await connection.execute("select state, count(*) as jobs from jobs group by state")
    return {row["state"]: row["jobs"] for row in await cursor.fetchall()}


async def end_unclaimed_uploads(connection: Connection, *, now: datetime) -> int:
    """Cancel jobs whose upload URL expired without a file."""
    cursor = await connection.execute(
        """
        update jobs
           set state = 'cancelled', finished_at = now(), updated_at = now(), error = %s
         where state = 'queued' and file_bytes is null and upload_expires_at < %s
        """,
        (Jsonb({"code": "upload_expired", "detail": "No file arrived before the upload URL expired"}), now),
    )
    return cursor.rowcount


async def list_ended(connection: Connection, *, before: datetime, limit: int = 500) -> list[Job]:
    """Jobs that ended before a time, oldest first; used by clean-up."""
    cursor = await connection.execute(
        "select * from jobs where finished_at < %s order by finished_at limit %s", (before, limit)
    )
    return [Job.model_validate(row) for row in await cursor.fetchall()]


async def delete_jobs(connection: Connection, job_ids: list[UUID]) -> int:
    """Remove jobs with their batches, logs and rejections; what they stored stays."""
    cursor = await connection.execute("delete from jobs where id = any(%s)", (job_ids,))
    return cursor.rowcount


async def log(connection: Connection, job_id: UUID, level: str, message: str, **data: object) -> None:
    """Append to the job's log, which its status page shows."""
    await connection.execute(
        "insert into sync_logs (job_id, level, message, data) values (%s, %s, %s, %s)",
        (job_id, level, message, Jsonb(data)),
    )


async def list_logs(connection: Connection, job_id: UUID, *, limit: int = 200) -> list[DictRow]:
    """The job's log, oldest first: level, message, data, created_at."""
    cursor = await connection.execute(
        "select level, message, data, created_at from sync_logs where job_id = %s order by id limit %s",
        (job_id, limit),
    )
    return await cursor.fetchall()


def _to_job(row: DictRow | None) -> Job | None:
    return Job.model_validate(row) if row else None
