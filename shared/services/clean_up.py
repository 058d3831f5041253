"""Remove what has served its time: ended jobs with their files, expired upload URLs, request counts, old payloads."""

import logging
from datetime import datetime, timedelta

from shared.blobs import Blobs
from shared.settings import Settings
from shared.store import connections, jobs, request_counts, seen, streams, sync_lines
from shared.store.database import Connection, Database

log = logging.getLogger(__name__)


async def _empty_payloads(connection: Connection, now: datetime) -> None:
    for stored in await connections.list_connections(connection, limit=10_000):
        if days := stored.settings.get("payload_days"):
            await streams.empty_payloads(connection, stored.slug, before=now - timedelta(days=days))


async def clean_up(database: Database, blobs: Blobs, settings: Settings, *, now: datetime) -> int:
    """Delete jobs that ended before the retention, with the files Tributary stored for them; returns how many.

    Files that somebody dropped into the uploads container are theirs and stay. Issues and the audit log stay.
    """
    async with database.connection() as connection:
        await jobs.end_unclaimed_uploads(connection, now=now)
        await request_counts.purge(connection, before=now - timedelta(hours=1))
        ended = await jobs.list_ended(connection, before=now - timedelta(days=settings.retention_days))
        await _empty_payloads(connection, now)
    for job in ended:
        if job.file_container == settings.files_container and job.file_blob:
            await blobs.delete(settings.files_container, job.file_blob)
        if job.index_blob:
            await blobs.delete(settings.files_container, job.index_blob)
    async with database.connection() as connection:
        await seen.forget_jobs(connection, [job.id for job in ended])
        deleted = await jobs.delete_jobs(connection, [job.id for job in ended])
        await sync_lines.compact_lines(connection, before=now - timedelta(days=settings.retention_days))
    if deleted:
        log.info("Old jobs removed", extra={"action": "jobs_removed", "jobs": deleted})
    return deleted
