"""The time lines of windows of every (connection, stream, scope): how far they reach, and when they begin anew."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from shared.domain.stream import Stream
from shared.store.database import Connection


async def find_cursors(connection: Connection, connection_id: UUID) -> dict[tuple[Stream, str], datetime]:
    """Up to when each (stream, scope) is known to be complete."""
    cursor = await connection.execute(
        """
        select stream, scope, max(hi) as hi from sync_windows
         where connection_id = %s and state = 'closed' group by stream, scope
        """,
        (connection_id,),
    )
    return {(Stream(row["stream"]), row["scope"]): row["hi"] for row in await cursor.fetchall()}


async def abandon_windows(connection: Connection, connection_id: UUID, job_id: UUID) -> None:
    """Give up open windows of other jobs, which have ended; the next window covers their time again."""
    await connection.execute(
        """
        update sync_windows set state = 'abandoned'
         where connection_id = %s and state = 'open' and job_id is distinct from %s
        """,
        (connection_id, job_id),
    )


async def find_cursor(connection: Connection, connection_id: UUID, stream: Stream, scope: str) -> datetime | None:
    """Up to when one scope of a stream is known to be complete."""
    cursor = await connection.execute(
        """
        select max(hi) as hi from sync_windows
         where connection_id = %s and stream = %s and scope = %s and state = 'closed'
        """,
        (connection_id, stream, scope),
    )
    row = await cursor.fetchone()
    return row["hi"] if row else None


async def restart_lines(connection: Connection, connection_id: UUID, streams: Sequence[Stream] = ()) -> int:
    """Let the next sync read everything, because another question is asked from now on; without streams, of all.

    A sync that is at work with the old question closes nothing any more, nor does its retry.
    """
    cursor = await connection.execute(
        """
        update sync_windows set state = 'abandoned', job_id = null
         where connection_id = %(connection)s and state in ('open', 'closed')
           and (stream = any(%(streams)s) or %(streams)s = '{}'::text[])
        """,
        {"connection": connection_id, "streams": [stream.value for stream in streams]},
    )
    return cursor.rowcount


async def compact_lines(connection: Connection, *, before: datetime) -> int:
    """Join closed windows that meet into one, and drop given up ones, when their jobs are gone; how many went.

    A hole stays a hole: only what meets is joined. The last window of a line is always left as it is.
    """
    given_up = await connection.execute(
        "delete from sync_windows where state = 'abandoned' and job_id is null and opened_at < %s", (before,)
    )
    cursor = await connection.execute(
        """
        with old as (
            select id, connection_id, stream, scope, lo, hi,
                   lo is distinct from lag(hi) over line as begins
              from sync_windows old
             where state = 'closed' and job_id is null and closed_at < %(before)s
               and exists (select from sync_windows later
                            where later.connection_id = old.connection_id and later.stream = old.stream
                              and later.scope = old.scope and later.state = 'closed' and later.hi > old.hi)
            window line as (partition by connection_id, stream, scope order by lo, hi, id)
        ), runs as (
            select *, count(*) filter (where begins) over (
                       partition by connection_id, stream, scope order by lo, hi, id) as run from old
        ), joined as (
            select connection_id, stream, scope, run, min(id) as id, min(lo) as lo, max(hi) as hi, array_agg(id) as ids
              from runs group by connection_id, stream, scope, run having count(*) > 1
        ), summed as (
            select joined.id, joined.lo, joined.hi, sum(pages)::integer as pages, sum(seen)::integer as seen,
                   sum(created)::integer as created, sum(updated)::integer as updated,
                   sum(unchanged)::integer as unchanged, sum(digest) as digest
              from joined join sync_windows of_run on of_run.id = any(joined.ids)
             group by joined.id, joined.lo, joined.hi
        ), kept as (
            update sync_windows
               set lo = summed.lo, hi = summed.hi, pages = summed.pages, seen = summed.seen, created = summed.created,
                   updated = summed.updated, unchanged = summed.unchanged, digest = summed.digest
              from summed where summed.id = sync_windows.id
        )
        delete from sync_windows using joined where sync_windows.id = any(joined.ids) and sync_windows.id <> joined.id
        """,
        {"before": before},
    )
    return given_up.rowcount + cursor.rowcount
