"""What a sync saw of the scopes it read whole, and how that differs from what is stored."""

from collections.abc import Sequence
from datetime import datetime
from functools import cache
from typing import NamedTuple
from uuid import UUID

from psycopg import sql

from shared.domain.stream import Stream
from shared.store.database import Connection
from shared.store.stream_rows import TABLES
from shared.store.streams import columns_of

NEVER_AGAIN = 2_147_483_647
"""`jobs.compared_attempt` of a job whose seen ids are gone."""


async def note_seen(
    connection: Connection, job_id: UUID, stream: Stream, scope: str, seen: Sequence[tuple[str, datetime | None]]
) -> None:
    """Remember ids a census, a snapshot or a full reading saw."""
    await connection.execute(
        """
        insert into seen_ids (job_id, stream, scope, external_id, source_updated_at)
        select %s, %s, %s, id, nullif(updated, '')::timestamptz
          from unnest(%s::text[], %s::text[]) as seen(id, updated) order by id
            on conflict (job_id, stream, external_id) do update
           set scope = excluded.scope, source_updated_at = excluded.source_updated_at
         where seen_ids.source_updated_at < excluded.source_updated_at or seen_ids.source_updated_at is null
        """,
        (
            job_id,
            stream,
            scope,
            [external_id for external_id, _ in seen],
            [updated.isoformat() if updated else "" for _, updated in seen],
        ),
    )


async def forget_seen(connection: Connection, connection_id: UUID, *, but: UUID | None = None) -> None:
    """Drop what note_seen kept for ended jobs of a connection, which can then never be compared again.

    A failed job that is retried goes on with what it saw; `but` names the one that may.
    """
    await connection.execute(
        """
        with ended as (
            select id from jobs
             where connection_id = %(connection)s and id is distinct from %(but)s
               and state in ('completed', 'failed', 'cancelled') and compared_attempt is distinct from %(never)s
        ), gone as (
            delete from seen_ids using ended where seen_ids.job_id = ended.id
        )
        update jobs set compared_attempt = %(never)s from ended where jobs.id = ended.id
        """,
        {"connection": connection_id, "but": but, "never": NEVER_AGAIN},
    )


async def forget_jobs(connection: Connection, job_ids: Sequence[UUID]) -> None:
    """Drop what note_seen kept for jobs that are removed."""
    await connection.execute("delete from seen_ids where job_id = any(%s)", (list(job_ids),))


class Difference(NamedTuple):
    """What a census found in one scope."""

    known: int
    absent: list[tuple[str, str | None]]  # (external id, key) of records the source did not show
    missed: list[tuple[str, str | None]]  # records the source shows and the table lacks or has older
    doubtful: list[tuple[str, str | None]]  # records the source shows that are held as gone, or have a newer version


@cache
def _difference(stream: Stream) -> sql.Composed:
    keyed = "key" in columns_of(stream)
    return sql.SQL(
        """
        with seen as (
            select external_id, source_updated_at from seen_ids
             where job_id = %(job_id)s and stream = %(stream)s
        ), mine as (
            select external_id, source_updated_at from seen_ids
             where job_id = %(job_id)s and stream = %(stream)s and scope = %(scope)s
        ), differing as (
            select mine.external_id, {key} as key,
                   coalesce(t.external_id is null or t.source_updated_at < mine.source_updated_at, false) as missed
              from mine
              left join {table} t on t.import_source = %(source)s and t.external_id = mine.external_id
             where (t.external_id is null or t.source_updated_at < mine.source_updated_at
                    or (coalesce(t.read_at < %(began)s, true)
                        and (t.deleted_at is not null or t.source_updated_at > mine.source_updated_at)))
               and coalesce(mine.source_updated_at < %(cursor)s, true)
               and not exists (select from rejections
                                where rejections.job_id = %(job_id)s and state = 'open'
                                  and rejections.external_id = mine.external_id)
        )
        select (select count(*) from {table}
                 where import_source = %(source)s and scope = %(scope)s and deleted_at is null) as known,
               (select coalesce(jsonb_agg(jsonb_build_array(external_id, {key}) order by external_id), '[]')
                  from {table} held
                 where import_source = %(source)s and scope = %(scope)s
                   and deleted_at is null and (read_at is null or read_at < %(began)s)
                   and job_id is distinct from %(job_id)s
                   and coalesce(source_updated_at < %(settled)s, true)
                   and not exists (select from seen where seen.external_id = held.external_id)) as absent,
               (select coalesce(jsonb_agg(jsonb_build_array(external_id, key) order by external_id), '[]')
                  from differing where missed) as missed,
               (select coalesce(jsonb_agg(jsonb_build_array(external_id, key) order by external_id), '[]')
                  from differing where not missed) as doubtful
        """
    ).format(table=sql.Identifier(TABLES[stream]), key=sql.SQL("key" if keyed else "null::text"))


async def compare_seen(
    connection: Connection,
    *,
    source: str,
    job_id: UUID,
    stream: Stream,
    scope: str,
    began: datetime,
    cursor: datetime | None,
    settled: datetime | None = None,
) -> Difference:
    """Compare what a job saw of a scope with the table.

    Absent is what nobody saw in any scope of the job, the job did not write, and no reading since `began` brought: the
    clocks of workers differ, so that what the job wrote may seem to have been read before it. It was also there before
    `settled`: what a webhook brought may be younger than what lists show. Missed is what the source shows with a time
    of change before `cursor`, up to which everything should be known; what was rejected is known. Doubtful is where a
    list may lag behind a webhook, or what was hidden is seen again: only the source can tell.
    """
    found = await connection.execute(
        _difference(stream),
        {
            "source": source,
            "job_id": job_id,
            "stream": stream.value,
            "scope": scope,
            "began": began,
            "cursor": cursor,
            "settled": settled,
        },
    )
    row = await found.fetchone() or {"known": 0, "absent": [], "missed": [], "doubtful": []}
    pairs = ([tuple(pair) for pair in row[name]] for name in ("absent", "missed", "doubtful"))
    return Difference(row["known"], *pairs)
