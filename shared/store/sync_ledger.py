"""The ledger of syncs: windows that tile the time line of every (connection, stream, scope), and the parts of a job."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from psycopg.types.json import Jsonb
from pydantic import BaseModel, ConfigDict

from shared.domain.stream import Stream
from shared.store.database import Connection

COUNTED = ("created", "updated", "unchanged", "stale", "rejected", "deleted", "missed")


class NewPart(NamedTuple):
    """A part of a job's plan; `window` is the position of its window in the plan."""

    kind: str
    stream: Stream
    scope: str
    scope_name: str
    since: datetime | None
    query: Mapping[str, Any]
    window: int | None = None


class NewWindow(NamedTuple):
    """A window of a job's plan; it reaches back to where the last closed one ended."""

    stream: Stream
    scope: str
    hi: datetime
    # The source's clock before any walk began.
    asked_at: datetime


class StoredPart(BaseModel):
    """A row of `sync_parts`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    job_id: UUID
    number: int
    window_id: int | None
    kind: str
    stream: Stream
    scope: str
    scope_name: str
    since: datetime | None
    query: dict[str, Any]
    position: dict[str, Any] | None
    state: str
    claimed_attempt: int | None
    claimed_lane: int | None
    attempts: int
    retry_at: datetime | None
    pages: int
    gaps: int
    counts: dict[str, dict[str, int]]
    read_from: datetime | None
    error: dict[str, Any] | None


async def save_plan(
    connection: Connection, *, job_id: UUID, connection_id: UUID, windows: Sequence[NewWindow], parts: Sequence[NewPart]
) -> None:
    """Open the windows of a job and write its parts, in one transaction with what calls it."""
    ids: list[int] = []
    for window in windows:
        cursor = await connection.execute(
            """
            insert into sync_windows (connection_id, stream, scope, lo, hi, asked_at, job_id)
            select %(connection)s, %(stream)s, %(scope)s, line.until, greatest(%(hi)s, line.until), %(asked_at)s,
                   %(job)s
              from (select coalesce(max(hi), '-infinity') as until from sync_windows
                     where connection_id = %(connection)s and stream = %(stream)s and scope = %(scope)s
                       and state = 'closed') line
            returning id
            """,
            {
                "connection": connection_id,
                "stream": window.stream,
                "scope": window.scope,
                "hi": window.hi,
                "asked_at": window.asked_at,
                "job": job_id,
            },
        )
        row = await cursor.fetchone()
        ids.append(row["id"] if row else 0)
    await add_parts(connection, job_id, parts, ids)


async def add_parts(
    connection: Connection, job_id: UUID, parts: Sequence[NewPart], windows: Sequence[int] = ()
) -> None:
    """Append parts to a job's plan."""
    cursor = await connection.execute(
        "select coalesce(max(number), -1) + 1 as next from sync_parts where job_id = %s", (job_id,)
    )
    first = (await cursor.fetchone() or {"next": 0})["next"]
    async with connection.cursor() as many:
        await many.executemany(
            """
            insert into sync_parts (job_id, number, window_id, kind, stream, scope, scope_name, since, query)
            values (%s, %s, %s, %s, %s, %s, %s, %s, %s)
            """,
            [
                (
                    *(job_id, first + index, None if part.window is None else windows[part.window]),
                    *(part.kind, part.stream, part.scope, part.scope_name, part.since, Jsonb(dict(part.query))),
                )
                for index, part in enumerate(parts)
            ],
        )


async def lock_part(connection: Connection, job_id: UUID, number: int) -> StoredPart | None:
    """The part, held until the transaction ends."""
    cursor = await connection.execute(
        "select * from sync_parts where job_id = %s and number = %s for update", (job_id, number)
    )
    row = await cursor.fetchone()
    return StoredPart.model_validate(row) if row else None


async def save_step(
    connection: Connection,
    part: StoredPart,
    *,
    position: Mapping[str, Any] | None,
    counts: Mapping[str, Mapping[str, int]],
    requests: int,
    read_at: datetime,
    digest: int,
    gaps: int,
) -> StoredPart:
    """Note a stored page in the transaction of its rows; without a position the part is done. Returns the part then.

    Updating the window's row comes after the part's: of two last parts the second waits there, and sees the first done.
    """
    added = {name: sum(of.get(name, 0) for of in counts.values()) for name in COUNTED}
    cursor = await connection.execute(
        """
        update sync_parts
           set position = %(position)s, state = case when %(done)s then 'done' else state end, pages = pages + 1,
               requests = requests + %(requests)s, gaps = gaps + %(gaps)s, counts = %(counts)s,
               error = null, retry_at = null, attempts = 0,
               read_from = coalesce(read_from, %(read_at)s), finished_at = case when %(done)s then now() end
         where job_id = %(job)s and number = %(number)s
        returning *
        """,
        {
            "position": None if position is None else Jsonb(dict(position)),
            "done": position is None,
            "requests": requests,
            "gaps": gaps,
            "counts": Jsonb(_sum(part.counts, counts)),
            "read_at": read_at,
            "job": part.job_id,
            "number": part.number,
        },
    )
    stepped = StoredPart.model_validate(await cursor.fetchone())
    if part.window_id is None:
        return stepped
    await connection.execute(
        """
        update sync_windows
           set pages = pages + 1, created = created + %(created)s, updated = updated + %(updated)s,
               unchanged = unchanged + %(unchanged)s, digest = digest + %(digest)s,
               seen = seen + %(created)s + %(updated)s + %(unchanged)s + %(stale)s + %(rejected)s
         where id = %(window)s
        """,
        {**added, "window": part.window_id, "digest": digest},
    )
    if position is None:
        await close_window(connection, part.window_id)
    return stepped


async def close_window(connection: Connection, window_id: int) -> bool:
    """Close a window whose parts are all done, and move the cursor to its end; False while one is not."""
    cursor = await connection.execute(
        """
        with closed as (
            update sync_windows set state = 'closed', closed_at = now()
             where id = %(id)s and state = 'open'
               and not exists (select from sync_parts where window_id = %(id)s and state <> 'done')
            returning connection_id, stream, scope, hi
        )
        insert into sync_states (connection_id, stream, scope, scope_name, cursor_at, last_read_at)
        select closed.connection_id, closed.stream, closed.scope,
               (select scope_name from sync_parts where window_id = %(id)s limit 1), closed.hi, now()
          from closed
            on conflict (connection_id, stream, scope) do update
           set cursor_at = excluded.cursor_at, last_read_at = excluded.last_read_at, scope_name = excluded.scope_name,
               last_error = null, updated_at = now()
        """,
        {"id": window_id},
    )
    return cursor.rowcount == 1


async def find_began(connection: Connection, window_id: int) -> datetime | None:
    """When the reading of a window began, if all its parts are done."""
    cursor = await connection.execute(
        "select min(read_from) as began from sync_parts where window_id = %s having bool_and(state = 'done')",
        (window_id,),
    )
    row = await cursor.fetchone()
    return row["began"] if row else None


async def count_requests(connection: Connection, job_id: UUID, requests: int) -> None:
    """Add what planning took to the first part, so that the sum of the parts is what the source was asked."""
    await connection.execute(
        "update sync_parts set requests = requests + %s where job_id = %s and number = 0", (requests, job_id)
    )


async def count_deleted(connection: Connection, part: StoredPart, deleted: int) -> None:
    """Add records a comparison marked as gone to the counts of a part."""
    current = await lock_part(connection, part.job_id, part.number) if deleted else None
    if current is not None:
        await connection.execute(
            "update sync_parts set counts = %s where job_id = %s and number = %s",
            (Jsonb(_sum(current.counts, {part.stream.value: {"deleted": deleted}})), part.job_id, part.number),
        )


async def reopen_parts(connection: Connection, job_id: UUID) -> None:
    """Let failed parts of a job run again, from where they stopped."""
    await connection.execute(
        """
        update sync_parts
           set state = 'waiting', attempts = 0, retry_at = null, claimed_attempt = null, claimed_lane = null
         where job_id = %s and state = 'failed'
        """,
        (job_id,),
    )
    await connection.execute(
        """
        update sync_windows set state = 'open'
         where job_id = %s and state = 'abandoned'
           and not exists (select from sync_windows later
                            where later.connection_id = sync_windows.connection_id
                              and later.stream = sync_windows.stream and later.scope = sync_windows.scope
                              and later.id > sync_windows.id)
        """,
        (job_id,),
    )


async def list_parts(connection: Connection, job_id: UUID) -> list[StoredPart]:
    """All parts of a job, in order."""
    cursor = await connection.execute("select * from sync_parts where job_id = %s order by number", (job_id,))
    return [StoredPart.model_validate(row) for row in await cursor.fetchall()]


class SyncProgress(BaseModel):
    """Sums over the parts of one job."""

    model_config = ConfigDict(frozen=True)

    parts_total: int
    parts_done: int
    parts_failed: int
    parts_skipped: int
    requests: int
    streams: dict[str, dict[str, int]]
    last_error: dict[str, Any] | None


async def find_progress_of(connection: Connection, job_ids: Sequence[UUID]) -> dict[UUID, SyncProgress]:
    """Progress of several jobs at once; one without parts is left out."""
    cursor = await connection.execute(
        """
        select job_id, count(*) as parts_total, count(*) filter (where state = 'done') as parts_done,
               count(*) filter (where state = 'failed') as parts_failed,
               count(*) filter (where state = 'skipped') as parts_skipped, sum(requests)::bigint as requests,
               jsonb_agg(counts) filter (where counts <> '{}') as counts,
               (array_agg(error) filter (where error is not null))[1] as last_error
          from sync_parts where job_id = any(%s) group by job_id
        """,
        (list(job_ids),),
    )
    found: dict[UUID, SyncProgress] = {}
    for row in await cursor.fetchall():
        streams: dict[str, dict[str, int]] = {}
        for counts in row.pop("counts") or ():
            streams = _sum(streams, counts)
        found[row.pop("job_id")] = SyncProgress(streams=streams, **row)
    return found


def _sum(old: Mapping[str, Mapping[str, int]], new: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, int]]:
    return {
        stream: {name: old.get(stream, {}).get(name, 0) + new.get(stream, {}).get(name, 0) for name in COUNTED}
        for stream in {**old, **new}
    }
