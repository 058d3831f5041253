"""Act on stored deliveries: ask the source again for what they name, in jobs that each take up all that waits.

A delivery is a hint. A burst becomes one job of the connection, then one more for what came meanwhile. What a failed
job had taken up is tried again a few times.
"""

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from shared.domain.job import WEBHOOK_ACTOR, JobState
from shared.domain.sync import NamedIssue, SyncMode, SyncOptions
from shared.services.accept_sync import insert_sync
from shared.store import connections, sync_ledger, webhook_deliveries
from shared.store.connections import StoredConnection
from shared.store.database import Connection, Database
from shared.store.jobs import NewSync
from shared.store.sync_ledger import StoredPart
from shared.store.webhook_deliveries import StoredDelivery

log = logging.getLogger(__name__)

MOST_TRIES = 3
_WAITS: tuple[timedelta, ...] = (timedelta(minutes=1), timedelta(minutes=5))
_MOST_ISSUES = 500
_MOST_DELIVERIES = 2_000


async def take_up_deliveries(database: Database, *, now: datetime, connection_id: UUID | None = None) -> int:
    """Settle deliveries whose job has ended, and queue jobs for those that wait; returns how many jobs.

    Run after every delivery, at the end of every sync and once a minute, so that no single lost call matters.
    """
    if connection_id is None:
        async with database.connection() as connection:
            waiting = await webhook_deliveries.list_waiting_connections(connection, now=now)
    else:
        waiting = [connection_id]
    queued = 0
    for each in waiting:
        async with database.transaction() as connection:
            # Somebody else who is at it sees what we would; what came since is taken up behind their job.
            if await webhook_deliveries.lock_connection(connection, each):
                await _settle_ended(connection, each, now)
                queued += await _take_up(connection, each, now)
    return queued


async def _take_up(connection: Connection, connection_id: UUID, now: datetime) -> int:
    stored = await connections.find_by_id(connection, connection_id)
    if stored is None or not await _may_call(connection, stored, now):
        return 0
    pending = await webhook_deliveries.list_pending(connection, connection_id, now=now, limit=_MOST_DELIVERIES)
    taken, issues = coalesce(pending, most=_MOST_ISSUES)
    if not issues:
        return 0
    job_id = uuid4()
    await insert_sync(
        connection,
        NewSync(
            id=job_id,
            source=stored.source,
            import_source=stored.slug,
            connection_id=stored.id,
            options=SyncOptions(mode=SyncMode.KEYS, issues=tuple(issues)),
            requested_by=WEBHOOK_ACTOR,
        ),
    )
    await webhook_deliveries.take_up(connection, connection_id, job_id, taken)
    log.info(
        "Deliveries taken up",
        extra={"action": "deliveries_taken_up", "slug": stored.slug, "deliveries": len(taken), "issues": len(issues)},
    )
    return 1


async def _may_call(connection: Connection, stored: StoredConnection, now: datetime) -> bool:
    """Whether the connection may be used now; until then deliveries wait."""
    if not stored.active or not stored.test_passed or (stored.blocked_until and stored.blocked_until > now):
        return False
    schedule = await connections.find_schedule(connection, stored.id)
    if schedule is None or schedule.paused:
        return False
    return not await webhook_deliveries.has_job(connection, stored.id)


def coalesce(pending: Sequence[StoredDelivery], *, most: int) -> tuple[list[str], list[NamedIssue]]:
    """Ids of the deliveries to take up, and what they name, each once and as the newest of them calls it."""
    named: dict[tuple[str, str], NamedIssue] = {}
    taken: list[str] = []
    for delivery in pending:
        # What failed before may be what made the others fail: it must not do so again.
        again = {"alone": delivery.attempts > 0}
        more = {(issue.stream, issue.name): issue.model_copy(update=again) for issue in delivery.issues}
        if len(named.keys() | more.keys()) > most:
            break
        named |= more
        taken.append(delivery.delivery_id)
    return taken, list(named.values())


async def _settle_ended(connection: Connection, connection_id: UUID, now: datetime) -> None:
    """Deliveries of jobs that have ended: done, to be tried again, or failed."""
    by_job: dict[UUID | None, list[Mapping[str, Any]]] = {}
    for row in await webhook_deliveries.list_ended(connection, connection_id, limit=_MOST_DELIVERIES):
        by_job.setdefault(row["job_id"], []).append(row)
    for job_id, rows in by_job.items():
        unread = await _unread(connection, job_id, rows[0]["state"])
        done = [row["delivery_id"] for row in rows if unread is not None and not unread & _names(row)]
        await webhook_deliveries.settle(connection, connection_id, done, status="done")
        why = rows[0]["why"] or "The source did not show what was asked for; the job knows more"
        cancelled = rows[0]["state"] == JobState.CANCELLED
        for row in rows:
            if row["delivery_id"] not in done:
                await _try_again(connection, connection_id, row, why, None if cancelled else now)


async def _try_again(
    connection: Connection, connection_id: UUID, row: Mapping[str, Any], why: str, now: datetime | None
) -> None:
    """What failed too often, or was cancelled by somebody (`now` is None), waits for a person."""
    ids = [row["delivery_id"]]
    tries: int = row["attempts"]
    if now is None or tries >= MOST_TRIES:
        await webhook_deliveries.settle(connection, connection_id, ids, status="failed", error=why)
    else:
        retry_at = now + _WAITS[min(tries, len(_WAITS)) - 1]
        await webhook_deliveries.settle(connection, connection_id, ids, status="pending", error=why, retry_at=retry_at)


async def _unread(connection: Connection, job_id: UUID | None, state: str | None) -> frozenset[str] | None:
    """Names of issues the job could not read; None when it read none at all."""
    if job_id is None or state is None:
        return None
    parts = await sync_ledger.list_parts(connection, job_id)
    if not parts and state != JobState.COMPLETED:
        return None
    return frozenset(name for part in parts if part.state != "done" for name in _asked(part))


def _asked(part: StoredPart) -> list[str]:
    query = part.query
    return [*query.get("ids", ()), *query.get("keys", ()), *(str(each["id"]) for each in query.get("issues", ()))]


def _names(row: Mapping[str, Any]) -> set[str]:
    return {NamedIssue.model_validate(issue).name for issue in row["issues"]}
