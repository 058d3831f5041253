"""The watchlist of a connection: set it, and read the history of accounts that were added."""

from collections.abc import Mapping

from shared.domain.caller import Caller
from shared.domain.errors import ConflictError
from shared.domain.stream import Stream
from shared.domain.sync import SyncMode, SyncOptions
from shared.services.accept_sync import accept_sync, require_usable
from shared.services.manage_connections import existing
from shared.services.open_connector import connector_class
from shared.store import audit_log, connections, sync_lines
from shared.store.database import Database
from shared.store.jobs import Job


async def track_users(database: Database, caller: Caller, slug: str, accounts: Mapping[str, str | None]) -> Job | None:
    """Set the watchlist; the job that reads what added accounts had before, None if none were added.

    An emptied list follows everybody again, which is an addition too. Raises ConflictError for sources without one,
    and while the connection's test has not succeeded.
    """
    async with database.transaction() as connection:
        stored = await existing(connection, slug, lock=True)
        require_usable(stored)
        if "tracked_accounts" not in connector_class(stored.source).Settings.model_fields:
            raise ConflictError(f"{stored.source} has no watchlist", hint="Only Jira connections have one")
        added, removed = await connections.replace_tracked(connection, stored.id, accounts)
        widened = bool(added) or (bool(removed) and not accounts)
        if widened:
            # Should the backfill fail, the next sync by schedule reads everything all the same.
            await sync_lines.restart_lines(connection, stored.id, [Stream.ISSUES])
        await audit_log.append(
            connection,
            actor=caller.id,
            action="connection.tracked_users",
            subject=f"connection:{slug}",
            before={"removed": removed},
            after={"added": added},
        )
    if not widened:
        return None
    return await accept_sync(database, caller, slug, SyncOptions(mode=SyncMode.FULL, streams=(Stream.ISSUES,)))
