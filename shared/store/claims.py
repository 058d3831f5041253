"""Which lane of a sync reads which part, and what is left to be read."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from psycopg import sql
from psycopg.types.json import Jsonb

from shared.store.database import Connection
from shared.store.sync_ledger import StoredPart


async def claim_part(
    connection: Connection, job_id: UUID, *, attempt: int, lane: int, now: datetime
) -> StoredPart | None:
    """The next part for a lane: its own unfinished one, else one nobody of this attempt has.

    A lane that is run again finds the part its lost twin had; a new attempt may take everything. What another lane is
    about to claim is passed by. If nothing else is left it is waited for: the session that holds it may be that of a
    worker that died, and the part would be read by nobody.
    """
    # One walker of a lane from the front, the other from the back: large pages and small ones come together then.
    values = {"job": job_id, "attempt": attempt, "lane": lane, "now": now, "backwards": lane % 2 == 1}
    cursor = await connection.execute(_CLAIM.format(_PREFERRED, sql.SQL("skip locked")), values)
    row = await cursor.fetchone()
    if row is None:
        cursor = await connection.execute(_CLAIM.format(_IN_ORDER, sql.SQL("")), values)
        row = await cursor.fetchone()
    return StoredPart.model_validate(row) if row else None


_CLAIM = sql.SQL(
    """
    update sync_parts set claimed_attempt = %(attempt)s, claimed_lane = %(lane)s
     where job_id = %(job)s
       and number = (
           select number from sync_parts
            where job_id = %(job)s and state = 'waiting' and (retry_at is null or retry_at <= %(now)s)
              and (claimed_attempt is distinct from %(attempt)s or claimed_lane = %(lane)s)
            order by {} limit 1 for update {})
    returning *
    """
)
_PREFERRED = sql.SQL(
    "claimed_attempt is not distinct from %(attempt)s desc, case when %(backwards)s then -number else number end"
)
# A part that was waited for in vain stays locked while the next is tried: in two orders they would block each other.
_IN_ORDER = sql.SQL("number")


async def release_part(connection: Connection, part: StoredPart) -> None:
    """Give a part back, for any lane to go on with; a lane that lost it to another attempt changes nothing."""
    await connection.execute(
        """
        update sync_parts set claimed_attempt = null, claimed_lane = null
         where job_id = %s and number = %s and claimed_attempt = %s and claimed_lane = %s
        """,
        (part.job_id, part.number, part.claimed_attempt, part.claimed_lane),
    )


async def postpone_part(
    connection: Connection, part: StoredPart, *, state: str, retry_at: datetime | None, error: Mapping[str, Any]
) -> bool:
    """Note a failed step: to be tried again at a time, or for good; False if the part is not the caller's any more."""
    cursor = await connection.execute(
        """
        update sync_parts
           set state = %(state)s, retry_at = %(retry_at)s, attempts = attempts + 1, error = %(error)s,
               claimed_attempt = null, claimed_lane = null
         where job_id = %(job)s and number = %(number)s and state = 'waiting'
           and claimed_attempt = %(attempt)s and claimed_lane = %(lane)s
        """,
        {
            "attempt": part.claimed_attempt,
            "lane": part.claimed_lane,
            "state": state,
            "retry_at": retry_at,
            "error": Jsonb(dict(error)),
            "job": part.job_id,
            "number": part.number,
        },
    )
    return cursor.rowcount == 1


class Left(NamedTuple):
    """What is left of a job's plan."""

    ready: int
    retry_at: datetime | None


async def find_left(connection: Connection, job_id: UUID, *, now: datetime) -> Left:
    """How many parts may run now, and when the first of the others may."""
    cursor = await connection.execute(
        """
        select count(*) filter (where retry_at is null or retry_at <= %(now)s) as ready,
               min(retry_at) filter (where retry_at > %(now)s) as retry_at
          from sync_parts where job_id = %(job)s and state = 'waiting'
        """,
        {"job": job_id, "now": now},
    )
    row = await cursor.fetchone()
    return Left(row["ready"], row["retry_at"]) if row else Left(0, None)


async def find_last_lanes(connection: Connection, job_id: UUID, *, attempt: int, now: datetime) -> list[int]:
    """The lanes of an attempt that still hold parts, if there is no other part to claim; else none."""
    cursor = await connection.execute(
        """
        with ready as not materialized (
            select claimed_attempt, claimed_lane from sync_parts
             where job_id = %(job)s and state = 'waiting' and (retry_at is null or retry_at <= %(now)s)
        )
        select distinct claimed_lane from ready
         where not exists (select from ready where claimed_attempt is distinct from %(attempt)s)
        """,
        {"job": job_id, "attempt": attempt, "now": now},
    )
    return [row["claimed_lane"] for row in await cursor.fetchall()]
