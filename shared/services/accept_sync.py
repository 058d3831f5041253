"""Turn a wish to sync into a queued job."""

import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from shared.domain.caller import Caller
from shared.domain.errors import ConflictError, InvalidRequestError, NotFoundError, SourceError, Trouble
from shared.domain.job import Priority
from shared.domain.sync import SyncMode, SyncOptions
from shared.services.open_connector import connector_class
from shared.store import audit_log, connections, jobs
from shared.store.connections import StoredConnection
from shared.store.database import Connection, Database
from shared.store.jobs import Job, NewSync

log = logging.getLogger(__name__)


async def accept_sync(
    database: Database,
    caller: Caller,
    slug: str,
    options: SyncOptions,
    *,
    priority: Priority = Priority.NORMAL,
    idempotency_key: str | None = None,
    parent_id: UUID | None = None,
) -> Job:
    """Queue a sync of a connection; the same key gives the same job.

    Raises ConflictError while the connection's test has not succeeded, or it is switched off.
    """
    async with database.transaction() as connection:
        # Held, so that it is neither removed nor changed before its job is there.
        stored = await connections.find_connection(connection, slug, lock=True)
        if stored is None:
            raise NotFoundError(f"There is no connection {slug!r}")
        require_usable(stored)
        _check(stored, options)
        return await insert_sync(
            connection,
            NewSync(
                id=uuid4(),
                source=stored.source,
                import_source=stored.slug,
                connection_id=stored.id,
                priority=priority,
                options=options,
                parent_id=parent_id,
                idempotency_key=idempotency_key,
                requested_by=caller.id,
            ),
        )


async def insert_sync(connection: Connection, new: NewSync) -> Job:
    """Store an accepted sync, or find the one under its key."""
    job = await jobs.insert_sync(connection, new)
    if job is None:
        earlier = await jobs.find_by_idempotency_key(connection, new.requested_by, new.idempotency_key or "")
        if earlier is None:
            raise ConflictError("The job under this idempotency key was just removed; send the request again")
        return earlier
    await audit_log.append(
        connection,
        actor=new.requested_by,
        action="job.accepted",
        subject=f"job:{job.id}",
        before=None,
        after={"import_source": new.import_source, "sync": _told(new.options)},
    )
    log.info("Sync accepted", extra={"action": "sync_accepted", "job_id": str(job.id), "mode": new.options.mode})
    return job


def _told(options: SyncOptions) -> dict[str, Any]:
    """What the audit log keeps for ever; hundreds of issues of each burst of webhooks it need not."""
    return options.model_dump(mode="json", exclude_defaults=True, exclude={"issues"})


def require_active(stored: StoredConnection) -> None:
    """Nothing is read of a connection that is switched off, whatever was under way. Raises ConflictError."""
    if not stored.active:
        raise ConflictError(f"The connection {stored.slug!r} is switched off", hint="Set active to true")


def require_usable(stored: StoredConnection) -> None:
    """Nothing is done with a connection before its test succeeded. Raises ConflictError."""
    require_active(stored)
    if not stored.test_passed:
        raise ConflictError(
            f"The connection {stored.slug!r} has not passed its test",
            hint=f"POST /api/integrations/{stored.slug}/test first",
        )


def require_open(stored: StoredConnection, *, now: datetime) -> None:
    """No calls while the source wants none, whoever was told so. Raises SourceError with the time they are allowed."""
    until = stored.blocked_until
    if until is not None and until > now:
        raise SourceError(
            Trouble.RATE_LIMIT,
            f"The source wants no calls before {until.astimezone(UTC):%H:%M:%S} UTC",
            retry_at=until,
            hint="Try again then; syncs wait by themselves",
        )


def _check(stored: StoredConnection, options: SyncOptions) -> None:
    streams = connector_class(stored.source).streams
    unknown = [stream for stream in options.streams if stream not in streams]
    if unknown:
        raise InvalidRequestError(
            f"{stored.source} has no {', '.join(unknown)}",
            hint=f"It has {', '.join(streams)}",
            fields={"streams": "unknown"},
        )
    read = stored.settings.get("streams") or list(streams)
    if options.streams and not set(options.streams) & set(read):
        raise InvalidRequestError(
            f"The connection's settings leave out {', '.join(options.streams)}",
            hint=f"It reads {', '.join(read)}",
            fields={"streams": "left out by the settings"},
        )
    if options.mode is SyncMode.KEYS and not options.keys:
        raise InvalidRequestError("Mode `keys` needs keys", fields={"keys": "must not be empty"})
    _check_keys(stored.source, options.keys)


def _check_keys(source: str, keys: Sequence[str]) -> None:
    """In the job, one that cannot even be asked for would cost the others that are asked for with it."""
    form = connector_class(source).key_form
    wrong = {number: key for number, key in enumerate(keys) if form and not form.pattern.fullmatch(key)}
    if form and wrong:
        raise InvalidRequestError(
            f"{next(iter(wrong.values()))!r} is no key of {source}",
            hint=f"Keys look like {form.example}",
            fields={f"keys.{number}": f"must look like {form.example}" for number in wrong},
        )
