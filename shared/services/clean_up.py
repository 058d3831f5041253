"""Remove what has served its time: ended jobs, files and histories, upload URLs, counts, old payloads, deliveries."""

import logging
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

from shared.blobs import Blobs
from shared.domain.job import Turn
from shared.services.accept_import import sent_blob
from shared.settings import Settings
from shared.store import audit_log, connections, jobs, request_counts, seen, streams, sync_lines, webhook_deliveries
from shared.store.database import Connection, Database
from shared.store.jobs import Job

log = logging.getLogger(__name__)

# Forgets the history of an attempt's orchestration; one that is gone already is as good.
Purge = Callable[[Turn], Awaitable[None]]

_ACTOR = "retention"
# One run removes so many groups of jobs at most; a day that ends more is caught up by the next.
_MOST_ROUNDS = 100


async def _empty_payloads(connection: Connection, now: datetime) -> None:
    for stored in await connections.list_connections(connection, limit=10_000):
        if days := stored.settings.get("payload_days"):
            await streams.empty_payloads(connection, stored.slug, before=now - timedelta(days=days))
            # What a webhook sent is a payload too.
            await webhook_deliveries.purge(connection, before=now - timedelta(days=days), connection_id=stored.id)


async def clean_up(database: Database, blobs: Blobs, settings: Settings, purge: Purge, *, now: datetime) -> int:
    """Delete jobs that ended before the retention, with the files Tributary stored for them; returns how many.

    Files that somebody dropped into the uploads container are theirs and stay. Issues and the audit log stay.
    """
    async with database.connection() as connection:
        await jobs.end_unclaimed_uploads(connection, now=now)
        await request_counts.purge(connection, before=now - timedelta(hours=1))
        await _empty_payloads(connection, now)
        await webhook_deliveries.purge(connection, before=now - timedelta(days=settings.delivery_days))
    removed = 0
    for _ in range(_MOST_ROUNDS):
        before = now - timedelta(days=settings.retention_days)
        found = await _remove_ended(database, blobs, settings, purge, before=before)
        removed += found
        if not found:
            break
    async with database.connection() as connection:
        await sync_lines.compact_lines(connection, before=now - timedelta(days=settings.retention_days))
    if removed:
        log.info("Old jobs removed", extra={"action": "jobs_removed", "jobs": removed})
    return removed


async def _remove_ended(database: Database, blobs: Blobs, settings: Settings, purge: Purge, *, before: datetime) -> int:
    """Some of the ended jobs with their files and histories."""
    async with database.connection() as connection:
        ended = await jobs.list_ended(connection, before=before)
    for job in ended:
        for name in _blobs_of(job):
            await blobs.delete(settings.files_container, name)
        for attempt in range(1, job.attempt + 1):
            await purge(Turn(job.id, attempt, job.kind))
    if not ended:
        return 0
    async with database.transaction() as connection:
        await seen.forget_jobs(connection, [job.id for job in ended])
        removed = await jobs.delete_jobs(connection, [job.id for job in ended])
        await audit_log.append(
            connection,
            actor=_ACTOR,
            action="jobs.removed",
            subject="jobs",
            before={"jobs": [str(job.id) for job in ended]},
            after=None,
        )
    return removed


def _blobs_of(job: Job) -> list[str]:
    """What may lie in our container for a job: the file as it was sent, its rewritten copy, its index."""
    if not job.file_name:
        return []
    return [sent_blob(job.id, job.file_name), f"{job.id}/rewritten", f"{job.id}/index"]
