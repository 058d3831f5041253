"""Connections and their schedules, watchlists, and the fields their records are known to have."""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.rows import DictRow
from psycopg.types.json import Jsonb
from pydantic import BaseModel, ConfigDict

from shared.store.database import Connection


class StoredConnection(BaseModel):
    """A row of `connections`; credentials are sealed, and so is the access token got with them."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: UUID
    slug: str
    source: str
    base_url: str
    settings: dict[str, Any]
    credentials: dict[str, Any]
    lease: dict[str, Any] | None
    active: bool
    origin: str
    version: int
    tested_at: datetime | None
    test: dict[str, Any] | None
    test_passed: bool | None
    blocked_until: datetime | None
    quota: dict[str, Any] | None
    created_at: datetime
    updated_at: datetime


class Schedule(BaseModel):
    """A row of `schedules`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    connection_id: UUID
    cron: str
    time_zone: str
    census_hours: int
    paused: bool
    paused_reason: str | None
    next_run_at: datetime
    next_census_at: datetime
    last_started_at: datetime | None
    failures: int
    failure_class: str | None
    rung: int


async def insert_connection(
    connection: Connection,
    *,
    connection_id: UUID,
    slug: str,
    source: str,
    base_url: str,
    settings: Mapping[str, Any],
    credentials: Mapping[str, Any],
    origin: str,
) -> StoredConnection | None:
    """Store a connection; None if the slug is taken."""
    cursor = await connection.execute(
        """
        insert into connections (id, slug, source, base_url, settings, credentials, origin)
        values (%s, %s, %s, %s, %s, %s, %s) on conflict (slug) do nothing returning *
        """,
        (connection_id, slug, source, base_url, Jsonb(settings), Jsonb(credentials), origin),
    )
    return _to_connection(await cursor.fetchone())


async def update_connection(
    connection: Connection,
    connection_id: UUID,
    *,
    base_url: str,
    settings: Mapping[str, Any],
    credentials: Mapping[str, Any],
    active: bool,
    must_test: bool,
) -> StoredConnection | None:
    """Replace what an admin may change; with `must_test` the last test, the lease and a wait for a limit are over."""
    cursor = await connection.execute(
        """
        update connections
           set base_url = %(base_url)s, settings = %(settings)s, credentials = %(credentials)s, active = %(active)s,
               version = version + 1, updated_at = now(),
               test_passed = case when %(must_test)s then null else test_passed end,
               lease = case when %(must_test)s then null else lease end,
               blocked_until = case when %(must_test)s then null else blocked_until end
         where id = %(id)s returning *
        """,
        {
            "id": connection_id,
            "base_url": base_url,
            "settings": Jsonb(settings),
            "credentials": Jsonb(credentials),
            "active": active,
            "must_test": must_test,
        },
    )
    return _to_connection(await cursor.fetchone())


async def find_connection(connection: Connection, slug: str, *, lock: bool = False) -> StoredConnection | None:
    """A connection by its slug."""
    statement = "select * from connections where slug = %s"
    cursor = await connection.execute(f"{statement} for update" if lock else statement, (slug,))
    return _to_connection(await cursor.fetchone())


async def find_by_id(connection: Connection, connection_id: UUID) -> StoredConnection | None:
    """A connection by its id."""
    cursor = await connection.execute("select * from connections where id = %s", (connection_id,))
    return _to_connection(await cursor.fetchone())


async def list_connections(connection: Connection, *, after: str = "", limit: int = 200) -> list[StoredConnection]:
    """Connections by slug."""
    cursor = await connection.execute(
        "select * from connections where slug > %s order by slug limit %s", (after, limit)
    )
    return [StoredConnection.model_validate(row) for row in await cursor.fetchall()]


async def delete_connection(connection: Connection, connection_id: UUID) -> None:
    """Remove a connection with its schedule and ledger; what it brought stays."""
    await connection.execute("delete from connections where id = %s", (connection_id,))


async def save_test(connection: Connection, tested: StoredConnection, *, result: Mapping[str, Any]) -> bool:
    """Keep what a test found out; False if the connection is not any more what was tested."""
    cursor = await connection.execute(
        """
        update connections set tested_at = now(), test_passed = %s, test = %s where id = %s and version = %s
        """,
        (result["passed"], Jsonb(result), tested.id, tested.version),
    )
    return bool(cursor.rowcount)


async def save_credentials(
    connection: Connection, connection_id: UUID, credentials: Mapping[str, Any], lease: Mapping[str, Any] | None
) -> None:
    """Replace the sealed credentials and lease by the same secrets under another key."""
    await connection.execute(
        "update connections set credentials = %s, lease = %s, version = version + 1 where id = %s",
        (Jsonb(credentials), Jsonb(lease) if lease else None, connection_id),
    )


async def block(connection: Connection, connection_id: UUID, until: datetime) -> None:
    """Hold every worker off a source that said "later", with all connections of the same account.

    Sources count calls by account, not by token; who the account is, a connection's test found out.
    """
    await connection.execute(
        """
        with concerned as (
            select other.id from connections mine
              join connections other
                on other.id = mine.id
                or (other.source = mine.source and other.base_url = mine.base_url
                    and other.test ->> 'account' = mine.test ->> 'account')
             where mine.id = %s
             order by other.id for update of other
        )
        update connections set blocked_until = greatest(blocked_until, %s)
          from concerned where connections.id = concerned.id
        """,
        (connection_id, until),
    )


async def find_blocked_until(connection: Connection, connection_id: UUID, *, now: datetime) -> datetime | None:
    """Until when the source wants no calls, if that is not over."""
    cursor = await connection.execute(
        "select blocked_until from connections where id = %s and blocked_until > %s", (connection_id, now)
    )
    row = await cursor.fetchone()
    return row["blocked_until"] if row else None


async def save_quota(connection: Connection, connection_id: UUID, quota: Mapping[str, Any]) -> None:
    """Keep what the source last said of its rate limit."""
    await connection.execute("update connections set quota = %s where id = %s", (Jsonb(quota), connection_id))


async def insert_schedule(
    connection: Connection, connection_id: UUID, *, cron: str, time_zone: str, next_run_at: datetime
) -> None:
    """Give a connection its schedule."""
    await connection.execute(
        """
        insert into schedules (connection_id, cron, time_zone, next_run_at) values (%s, %s, %s, %s)
            on conflict do nothing
        """,
        (connection_id, cron, time_zone, next_run_at),
    )


async def find_schedule(connection: Connection, connection_id: UUID, *, lock: bool = False) -> Schedule | None:
    """The schedule of a connection."""
    statement = "select * from schedules where connection_id = %s"
    cursor = await connection.execute(f"{statement} for update" if lock else statement, (connection_id,))
    row = await cursor.fetchone()
    return Schedule.model_validate(row) if row else None


async def save_schedule(connection: Connection, schedule: Schedule) -> None:
    """Write a schedule back."""
    await connection.execute(
        """
        update schedules
           set cron = %(cron)s, time_zone = %(time_zone)s, census_hours = %(census_hours)s, paused = %(paused)s,
               paused_reason = %(paused_reason)s, next_run_at = %(next_run_at)s, next_census_at = %(next_census_at)s,
               last_started_at = %(last_started_at)s, failures = %(failures)s, failure_class = %(failure_class)s,
               rung = %(rung)s, updated_at = now()
         where connection_id = %(connection_id)s
        """,
        schedule.model_dump(),
    )


async def claim_due(connection: Connection, *, now: datetime, limit: int = 50) -> list[tuple[Schedule, bool]]:
    """Schedules that are due, held until the transaction ends, and whether their connection is at work already.

    Only connections whose last test passed are due. Reading named issues keeps no connection from its schedule.
    """
    cursor = await connection.execute(
        """
        select schedules.*,
               exists (select from jobs where jobs.connection_id = schedules.connection_id
                                          and jobs.state in ('queued', 'processing', 'retrying')
                                          and jobs.sync ->> 'mode' <> 'keys') as busy
          from schedules
          join connections on connections.id = schedules.connection_id
         where next_run_at <= %s and not paused and active and test_passed
         order by next_run_at limit %s
           for update of schedules skip locked
        """,
        (now, limit),
    )
    return [(Schedule.model_validate(row), row["busy"]) for row in await cursor.fetchall()]


async def list_tracked(connection: Connection, connection_id: UUID) -> list[DictRow]:
    """The watchlist: account, name, added_at, backfilled_at."""
    cursor = await connection.execute(
        """
        select account, name, added_at, backfilled_at from tracked_users where connection_id = %s
         order by account limit 1000
        """,
        (connection_id,),
    )
    return await cursor.fetchall()


async def replace_tracked(
    connection: Connection, connection_id: UUID, accounts: Mapping[str, str | None]
) -> tuple[list[str], list[str]]:
    """Set the watchlist; returns (added, removed) accounts."""
    removed = await connection.execute(
        "delete from tracked_users where connection_id = %s and account <> all(%s) returning account",
        (connection_id, list(accounts)),
    )
    gone = [row["account"] for row in await removed.fetchall()]
    added = await connection.execute(
        """
        insert into tracked_users (connection_id, account, name)
        select %s, unnest(%s::text[]), unnest(%s::text[]) on conflict do nothing returning account
        """,
        (connection_id, list(accounts), list(accounts.values())),
    )
    return [row["account"] for row in await added.fetchall()], gone


async def mark_backfilled(connection: Connection, connection_id: UUID, *, since: datetime) -> None:
    """Note that a reading that began then read the history of every account that was watched."""
    await connection.execute(
        """
        update tracked_users set backfilled_at = now()
         where connection_id = %s and backfilled_at is null and added_at <= %s
        """,
        (connection_id, since),
    )


async def lock_fields(connection: Connection, connection_id: UUID) -> None:
    """Let one page at a time write down fields, until its transaction ends: two would wait for each other's rows."""
    await connection.execute("select pg_advisory_xact_lock(hashtextextended(%s, 0))", (str(connection_id),))


async def learn_fields(
    connection: Connection, connection_id: UUID, stream: str, types: Mapping[str, str]
) -> list[tuple[str, str | None, str]]:
    """Remember fields; returns those that are new or have a type they never had: (path, types before, type).

    A field may have several types, joined by ` or `; one that changes to and fro is told once.
    """
    cursor = await connection.execute(
        """
        with incoming as (
            select unnest(%(paths)s::text[]) as path, unnest(%(types)s::text[]) as type
        ), before as (
            select path, type from known_fields where connection_id = %(connection)s and stream = %(stream)s
        ), written as (
            insert into known_fields (connection_id, stream, path, type)
            select %(connection)s, %(stream)s, path, type from incoming order by path
                on conflict (connection_id, stream, path) do update
               set type = case when excluded.type = any(string_to_array(known_fields.type, ' or '))
                               then known_fields.type else known_fields.type || ' or ' || excluded.type end,
                   vanished_at = null
             where excluded.type <> all(string_to_array(known_fields.type, ' or '))
                or known_fields.vanished_at is not null
            returning path
        )
        -- Of two pages that learn the same at once, only the one that wrote it tells it.
        select incoming.path, before.type as was, incoming.type
          from incoming join written using (path) left join before using (path)
         where before.type is null or incoming.type <> all(string_to_array(before.type, ' or '))
        """,
        {"connection": connection_id, "stream": stream, "paths": list(types), "types": list(types.values())},
    )
    return [(row["path"], row["was"], row["type"]) for row in await cursor.fetchall()]


async def note_fields(
    connection: Connection, connection_id: UUID, job_id: UUID, stream: str, paths: Collection[str]
) -> None:
    """Remember that records of a job had these fields."""
    await connection.execute(
        """
        update known_fields set seen_job = %s, vanished_at = null
         where connection_id = %s and stream = %s and path = any(%s) and seen_job is distinct from %s
        """,
        (job_id, connection_id, stream, list(paths), job_id),
    )


async def mark_vanished(connection: Connection, connection_id: UUID, job_id: UUID) -> list[tuple[str, str]]:
    """Note fields that no record of a full reading had; returns (stream, path) of those not noted before.

    Only streams count of which the job read something.
    """
    cursor = await connection.execute(
        """
        update known_fields gone set vanished_at = now()
         where connection_id = %(connection)s and seen_job is distinct from %(job)s and vanished_at is null
           and exists (select from known_fields other
                        where other.connection_id = gone.connection_id and other.stream = gone.stream
                          and other.seen_job = %(job)s)
        returning stream, path
        """,
        {"connection": connection_id, "job": job_id},
    )
    return [(row["stream"], row["path"]) for row in await cursor.fetchall()]


async def log(connection: Connection, connection_id: UUID, level: str, message: str, **data: object) -> None:
    """Append to the connection's log, for what belongs to no job."""
    await connection.execute(
        "insert into sync_logs (connection_id, level, message, data) values (%s, %s, %s, %s)",
        (connection_id, level, message, Jsonb(data)),
    )


async def list_logs(
    connection: Connection, connection_id: UUID, *, before: int | None = None, limit: int = 50
) -> list[DictRow]:
    """What happened to a connection and in its jobs, newest first: id, job_id, level, message, data, created_at."""
    cursor = await connection.execute(
        """
        select id, job_id, level, message, data, created_at from sync_logs
         where (connection_id = %(connection)s
                or job_id in (select id from jobs where jobs.connection_id = %(connection)s))
           and (%(before)s::bigint is null or id < %(before)s)
         order by id desc limit %(limit)s
        """,
        {"connection": connection_id, "before": before, "limit": limit},
    )
    return await cursor.fetchall()


def _to_connection(row: DictRow | None) -> StoredConnection | None:
    return StoredConnection.model_validate(row) if row else None
