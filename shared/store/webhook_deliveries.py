"""Webhook deliveries: stored, taken up by a job, settled; and calls that were refused."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID

from psycopg.rows import DictRow
from psycopg.types.json import Jsonb
from pydantic import BaseModel, ConfigDict

from shared.domain.sync import NamedIssue
from shared.store.database import Connection


class NewDelivery(BaseModel):
    """A delivery that was proven and read."""

    model_config = ConfigDict(frozen=True)

    connection_id: UUID
    delivery_id: str
    event: str
    headers: Mapping[str, str]
    payload: bytes
    signature: str
    issues: Sequence[NamedIssue] = ()
    status: str
    error: str | None = None


class StoredDelivery(BaseModel):
    """A row of `webhook_deliveries`, without its payload."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    connection_id: UUID
    delivery_id: str
    event: str
    headers: dict[str, str]
    signature: str
    issues: tuple[NamedIssue, ...]
    status: str
    error: str | None
    attempts: int
    retry_at: datetime | None
    repeats: int
    job_id: UUID | None
    received_at: datetime
    settled_at: datetime | None


_COLUMNS: LiteralString = """
connection_id, delivery_id, event, headers, signature, issues, status, error, attempts, retry_at, repeats, job_id,
received_at, settled_at
"""


async def insert_delivery(connection: Connection, new: NewDelivery) -> tuple[StoredDelivery, bool]:
    """Store a delivery, or count one more arrival of it; returns it and whether it is new."""
    cursor = await connection.execute(
        f"""
        insert into webhook_deliveries (connection_id, delivery_id, event, headers, payload, signature, issues, status,
                                        error, settled_at)
        values (%(connection_id)s, %(delivery_id)s, %(event)s, %(headers)s, %(payload)s, %(signature)s, %(issues)s,
                %(status)s, %(error)s, case when %(status)s <> 'pending' then now() end)
            on conflict (connection_id, delivery_id) do update set repeats = webhook_deliveries.repeats + 1
        returning {_COLUMNS}, repeats = 0 as is_new
        """,
        {
            **new.model_dump(exclude={"issues", "headers"}),
            "headers": Jsonb(new.headers),
            "issues": Jsonb([issue.model_dump(mode="json", exclude_none=True) for issue in new.issues]),
        },
    )
    row = await cursor.fetchone()
    if row is None:
        raise LookupError("An insert that returns its row returned none")
    return StoredDelivery.model_validate(row), row["is_new"]


async def count_refusal(connection: Connection, connection_id: UUID, reason: str) -> None:
    """Note a call that proved nothing."""
    await connection.execute(
        """
        insert into webhook_refusals (connection_id, refusals, reason, last_at) values (%s, 1, %s, now())
            on conflict (connection_id) do update
           set refusals = webhook_refusals.refusals + 1, reason = excluded.reason, last_at = excluded.last_at
        """,
        (connection_id, reason),
    )


async def list_waiting_connections(connection: Connection, *, now: datetime) -> list[UUID]:
    """Connections with deliveries that may be taken up, or whose job has ended."""
    cursor = await connection.execute(
        """
        select distinct delivery.connection_id
          from webhook_deliveries delivery left join jobs on jobs.id = delivery.job_id
         where delivery.status in ('pending', 'processing')
           and ((delivery.status = 'pending' and (delivery.retry_at is null or delivery.retry_at <= %s))
                or (delivery.status = 'processing'
                    and (jobs.id is null or jobs.state in ('completed', 'failed', 'cancelled'))))
         limit 1000
        """,
        (now,),
    )
    return [row["connection_id"] for row in await cursor.fetchall()]


async def lock_connection(connection: Connection, connection_id: UUID) -> bool:
    """Hold a connection's deliveries until the transaction ends; False if somebody else does."""
    cursor = await connection.execute(
        "select pg_try_advisory_xact_lock(hashtextextended(%s, 7)) as held", (f"webhooks:{connection_id}",)
    )
    return bool((await cursor.fetchone() or {"held": False})["held"])


async def has_job(connection: Connection, connection_id: UUID) -> bool:
    """Whether a job for deliveries of a connection waits or runs; what comes meanwhile is taken up behind it."""
    cursor = await connection.execute(
        """
        select exists (select from jobs where connection_id = %s and requested_by = 'webhook'
                                          and state in ('queued', 'processing', 'retrying')) as there
        """,
        (connection_id,),
    )
    return bool((await cursor.fetchone() or {"there": False})["there"])


async def list_pending(
    connection: Connection, connection_id: UUID, *, now: datetime, limit: int
) -> list[StoredDelivery]:
    """Deliveries that may be taken up now, the oldest first."""
    cursor = await connection.execute(
        f"""
        select {_COLUMNS} from webhook_deliveries
         where connection_id = %s and status = 'pending' and (retry_at is null or retry_at <= %s)
         order by received_at, delivery_id limit %s
        """,
        (connection_id, now, limit),
    )
    return [StoredDelivery.model_validate(row) for row in await cursor.fetchall()]


async def take_up(connection: Connection, connection_id: UUID, job_id: UUID, delivery_ids: Collection[str]) -> None:
    """Hand deliveries to a job."""
    await connection.execute(
        """
        update webhook_deliveries set status = 'processing', job_id = %s, attempts = attempts + 1, retry_at = null
         where connection_id = %s and delivery_id = any(%s)
        """,
        (job_id, connection_id, list(delivery_ids)),
    )


async def list_ended(connection: Connection, connection_id: UUID, *, limit: int) -> list[DictRow]:
    """Deliveries whose job has ended, or is gone, with its state and error: delivery_id, issues, job_id, state, why."""
    cursor = await connection.execute(
        """
        select delivery.delivery_id, delivery.issues, delivery.job_id, delivery.attempts, jobs.state,
               jobs.error ->> 'detail' as why
          from webhook_deliveries delivery left join jobs on jobs.id = delivery.job_id
         where delivery.connection_id = %s and delivery.status = 'processing'
           and (jobs.id is null or jobs.state in ('completed', 'failed', 'cancelled'))
         order by delivery.received_at limit %s
        """,
        (connection_id, limit),
    )
    return await cursor.fetchall()


async def settle(
    connection: Connection,
    connection_id: UUID,
    delivery_ids: Collection[str],
    *,
    status: str,
    error: str | None = None,
    retry_at: datetime | None = None,
) -> None:
    """Write down what became of deliveries."""
    await connection.execute(
        """
        update webhook_deliveries
           set status = %(status)s, error = %(error)s, retry_at = %(retry_at)s,
               settled_at = case when %(status)s <> 'pending' then now() end
         where connection_id = %(connection)s and delivery_id = any(%(ids)s)
        """,
        {
            "status": status,
            "error": error,
            "retry_at": retry_at,
            "connection": connection_id,
            "ids": list(delivery_ids),
        },
    )


async def replay(connection: Connection, connection_id: UUID, delivery_id: str) -> StoredDelivery | None:
    """Let a failed delivery be taken up again; None if it has not failed, or names nothing to ask for."""
    cursor = await connection.execute(
        f"""
        update webhook_deliveries set status = 'pending', attempts = 0, retry_at = null, settled_at = null
         where connection_id = %s and delivery_id = %s and status = 'failed' and issues <> '[]'
        returning {_COLUMNS}
        """,
        (connection_id, delivery_id),
    )
    row = await cursor.fetchone()
    return StoredDelivery.model_validate(row) if row else None


async def find_delivery(connection: Connection, connection_id: UUID, delivery_id: str) -> StoredDelivery | None:
    """One delivery."""
    cursor = await connection.execute(
        f"select {_COLUMNS} from webhook_deliveries where connection_id = %s and delivery_id = %s",
        (connection_id, delivery_id),
    )
    row = await cursor.fetchone()
    return StoredDelivery.model_validate(row) if row else None


async def list_deliveries(
    connection: Connection,
    connection_id: UUID,
    *,
    status: str | None = None,
    before: tuple[datetime, str] | None = None,
    limit: int = 50,
) -> list[StoredDelivery]:
    """Deliveries of a connection, newest first; `before` is the (received_at, id) of the last of the page before."""
    cursor = await connection.execute(
        f"""
        select {_COLUMNS} from webhook_deliveries
         where connection_id = %(connection)s and (%(status)s::text is null or status = %(status)s)
           and (%(at)s::timestamptz is null or (received_at, delivery_id) < (%(at)s, %(id)s))
         order by received_at desc, delivery_id desc limit %(limit)s
        """,
        {
            "connection": connection_id,
            "status": status,
            "at": before[0] if before else None,
            "id": before[1] if before else None,
            "limit": limit,
        },
    )
    return [StoredDelivery.model_validate(row) for row in await cursor.fetchall()]


async def summarize(connection: Connection) -> dict[UUID, dict[str, Any]]:
    """Of every connection how its webhook fares.

    Fields: paused, last_at, counts (by status, over 24 hours), last_error, waiting, refusals, refused_at, why.
    """
    cursor = await connection.execute(
        """
        select connections.id, coalesce(schedules.paused, false) as paused, last.received_at as last_at,
               failed.error as last_error, waiting.number as waiting,
               coalesce(counted.counts, '{}') as counts, refusals.refusals, refusals.last_at as refused_at,
               refusals.reason as why
          from connections
          left join lateral (select received_at from webhook_deliveries where connection_id = connections.id
                              order by received_at desc limit 1) last on true
          left join lateral (select error from webhook_deliveries
                              where connection_id = connections.id and error is not null and status <> 'ignored'
                                and received_at > now() - interval '24 hours'
                              order by received_at desc limit 1) failed on true
          left join lateral (select count(*) as number from webhook_deliveries
                              where connection_id = connections.id and status in ('pending', 'processing'))
               waiting on true
          left join lateral (select jsonb_object_agg(status, number) as counts
                               from (select status, count(*) as number from webhook_deliveries
                                      where connection_id = connections.id
                                        and received_at > now() - interval '24 hours'
                                      group by status) by_status) counted on true
          left join schedules on schedules.connection_id = connections.id
          left join webhook_refusals refusals on refusals.connection_id = connections.id
        """
    )
    return {row["id"]: row for row in await cursor.fetchall()}


async def purge(connection: Connection, *, before: datetime, connection_id: UUID | None = None) -> int:
    """Forget deliveries that came before a time, of one connection or of all; returns how many."""
    cursor = await connection.execute(
        """
        delete from webhook_deliveries
         where received_at < %(before)s and (%(connection)s::uuid is null or connection_id = %(connection)s)
        """,
        {"before": before, "connection": connection_id},
    )
    return cursor.rowcount
