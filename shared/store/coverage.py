"""How complete the mirror of a connection is: how far each scope is read, what cannot be read, and holes in between."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from shared.domain.stream import Stream
from shared.store.database import Connection
from shared.store.sync_ledger import StoredPart


class Refused(Protocol):
    """Something that could not be read."""

    @property
    def stream(self) -> str: ...
    @property
    def scope(self) -> str: ...
    @property
    def trouble(self) -> str: ...
    @property
    def status(self) -> int | None: ...
    @property
    def detail(self) -> str: ...


async def note_gaps(
    connection: Connection,
    connection_id: UUID,
    gaps: Iterable[Refused],
    *,
    absences: bool = False,
    inside: bool = False,
) -> None:
    """Keep what could not be read; the time since when stays.

    `absences`: only a comparison can take it back. `inside`: the window it was met in goes on, so only a reading of
    everything can.
    """
    for gap in gaps:
        await connection.execute(
            """
            insert into coverage_gaps (connection_id, stream, scope, trouble, status, detail, absences, inside)
            values (%s, %s, %s, %s, %s, %s, %s, %s)
                on conflict (connection_id, stream, scope) do update
               set trouble = excluded.trouble, status = excluded.status, detail = excluded.detail,
                   absences = excluded.absences, inside = coverage_gaps.inside or excluded.inside, last_seen_at = now()
            """,
            (connection_id, gap.stream, gap.scope, gap.trouble, gap.status, gap.detail, absences, inside),
        )


async def close_gaps(
    connection: Connection,
    connection_id: UUID,
    *,
    streams: Sequence[Stream],
    scope: str,
    before: datetime,
    whole: bool,
) -> None:
    """Forget gaps of a scope, and of places in it (`scope:place`), that were not met again since a reading began.

    `whole`: the reading was one of everything.
    """
    await connection.execute(
        """
        delete from coverage_gaps
         where connection_id = %s and stream = any(%s) and (scope = %s or starts_with(scope, %s)) and last_seen_at < %s
           and not absences and (not inside or %s)
        """,
        (connection_id, [stream.value for stream in streams], scope, f"{scope}:", before, whole),
    )


async def close_absences(connection: Connection, connection_id: UUID, stream: Stream, scope: str) -> None:
    """Forget that suspiciously much of a scope was missing."""
    await connection.execute(
        "delete from coverage_gaps where connection_id = %s and stream = %s and scope = %s and absences",
        (connection_id, stream, scope),
    )


async def forget_elsewhere(
    connection: Connection, connection_id: UUID, *, streams: Sequence[Stream], scopes: Sequence[str], absences: bool
) -> None:
    """Forget gaps of streams, of scopes and of places in them, that the connection does not read any more.

    With `absences` also what comparisons told of them: then the settings leave them out, and nothing is missing.
    """
    await connection.execute(
        """
        delete from coverage_gaps
         where connection_id = %(connection)s
           and (stream <> all(%(streams)s)
                or (scope <> all(%(scopes)s) and split_part(scope, ':', 1) <> all(%(scopes)s)
                    and (not absences or %(absences)s)))
        """,
        {
            "connection": connection_id,
            "streams": [stream.value for stream in streams],
            "scopes": list(scopes),
            "absences": absences,
        },
    )


async def list_gaps(connection: Connection, connection_id: UUID) -> list[dict[str, Any]]:
    """What cannot be read: stream, scope and its name, trouble, status, detail, since, last_seen_at, absences."""
    cursor = await connection.execute(
        """
        select gap.stream, gap.scope, coalesce(read.scope_name, project.key, gap.scope) as scope_name,
               trouble, status, detail, since, last_seen_at, absences
          from coverage_gaps gap
          join connections on connections.id = gap.connection_id
          left join lateral (
               select scope_name from sync_states state
                where state.connection_id = gap.connection_id and state.scope = split_part(gap.scope, ':', 1) limit 1
               ) read on true
          left join projects project
            on project.import_source = connections.slug and project.external_id = split_part(gap.scope, ':', 1)
         where gap.connection_id = %s order by since, stream, scope limit 1000
        """,
        (connection_id,),
    )
    return await cursor.fetchall()


async def list_states(connection: Connection, connection_id: UUID) -> list[dict[str, Any]]:
    """Cursor and health of every stream and scope."""
    cursor = await connection.execute(
        """
        select stream, scope, scope_name, cursor_at, last_read_at, last_census_at, last_error, observed_lag_seconds,
               observed_lag_at
          from sync_states
         where connection_id = %s order by stream, scope_name limit 5000
        """,
        (connection_id,),
    )
    return await cursor.fetchall()


async def find_holes(connection: Connection, connection_id: UUID) -> list[dict[str, Any]]:
    """Holes in the time lines of a connection; there should be none, ever."""
    cursor = await connection.execute(
        "select stream, scope, gap_from, gap_to from sync_gaps where connection_id = %s", (connection_id,)
    )
    return await cursor.fetchall()


async def note_read(connection: Connection, connection_id: UUID, part: StoredPart, *, census: bool) -> None:
    """Note that a snapshot or census of a scope ended normally."""
    await connection.execute(
        """
        insert into sync_states (connection_id, stream, scope, scope_name, last_read_at, last_census_at)
        values (%(connection)s, %(stream)s, %(scope)s, %(name)s, now(), case when %(census)s then now() end)
            on conflict (connection_id, stream, scope) do update
           set last_read_at = now(), last_census_at = coalesce(excluded.last_census_at, sync_states.last_census_at),
               last_error = null, updated_at = now()
        """,
        {
            "connection": connection_id,
            "stream": part.stream,
            "scope": part.scope,
            "name": part.scope_name,
            "census": census,
        },
    )


async def note_lag(connection: Connection, connection_id: UUID, part: StoredPart, changed_at: datetime) -> None:
    """Note how late a change was shown that the last closed window should have found; the largest is kept."""
    await connection.execute(
        """
        insert into sync_states (connection_id, stream, scope, scope_name, observed_lag_seconds, observed_lag_at)
        select %(connection)s, %(stream)s, %(scope)s, %(name)s, extract(epoch from asked_at - %(changed_at)s), now()
          from (select hi, asked_at from sync_windows
                 where connection_id = %(connection)s and stream = %(stream)s and scope = %(scope)s
                   and state = 'closed'
                 order by hi desc limit 1) last_one
         where %(changed_at)s < hi and asked_at is not null
            on conflict (connection_id, stream, scope) do update
           set observed_lag_seconds = excluded.observed_lag_seconds, observed_lag_at = now(), updated_at = now()
         where coalesce(sync_states.observed_lag_seconds < excluded.observed_lag_seconds, true)
        """,
        {
            "connection": connection_id,
            "stream": part.stream,
            "scope": part.scope,
            "name": part.scope_name,
            "changed_at": changed_at,
        },
    )


async def find_largest_lag(connection: Connection, connection_id: UUID) -> dict[str, Any] | None:
    """The largest lag that was observed at a connection: stream, scope_name, seconds, at; None if there was none."""
    cursor = await connection.execute(
        """
        select stream, scope_name, observed_lag_seconds as seconds, observed_lag_at as at from sync_states
         where connection_id = %s and observed_lag_seconds is not null order by observed_lag_seconds desc limit 1
        """,
        (connection_id,),
    )
    return await cursor.fetchone()


async def sum_by_connection(connection: Connection) -> list[dict[str, Any]]:
    """Numbers of every connection over the last 24 hours."""
    cursor = await connection.execute(
        """
        with recent as (
            select id, connection_id, state from jobs
             where kind = 'sync' and created_at > now() - interval '24 hours'
        ), read as (
            select recent.connection_id, part.requests, of.value as counts
              from recent join sync_parts part on part.job_id = recent.id
              left join lateral jsonb_each(part.counts) of on true
        ), asked as (
            select recent.connection_id, sum(part.requests) as requests
              from recent join sync_parts part on part.job_id = recent.id group by recent.connection_id
        ), summed as (
            select connection_id, sum((counts ->> 'created')::bigint) as created,
                   sum((counts ->> 'updated')::bigint) as updated, sum((counts ->> 'unchanged')::bigint) as unchanged,
                   sum((counts ->> 'deleted')::bigint) as deleted, sum((counts ->> 'rejected')::bigint) as rejected
              from read group by connection_id
        )
        select connections.slug, connections.source,
               (select count(*) from recent where recent.connection_id = connections.id) as jobs,
               (select count(*) from recent where recent.connection_id = connections.id and state = 'failed')
                   as failed,
               coalesce(asked.requests, 0) as requests,
               coalesce(created, 0) as created, coalesce(updated, 0) as updated,
               coalesce(created + updated + unchanged, 0) as records, coalesce(deleted, 0) as deleted,
               coalesce(rejected, 0) as rejected
          from connections
          left join asked on asked.connection_id = connections.id
          left join summed on summed.connection_id = connections.id
         order by connections.slug
        """
    )
    return await cursor.fetchall()
