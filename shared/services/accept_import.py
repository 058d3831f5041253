"""Turn a file that came through any of the three doors into a queued job."""

import logging
import re
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from hashlib import sha256
from uuid import UUID, uuid4

from pydantic import ValidationError

from shared.blobs import Blobs
from shared.domain.caller import Caller
from shared.domain.errors import ConflictError, InvalidRequestError
from shared.domain.job import ImportOptions, ImportRequest, Priority
from shared.settings import Settings
from shared.store import audit_log, connections, jobs
from shared.store.database import Connection, Database
from shared.store.jobs import Job, NewJob

log = logging.getLogger(__name__)

CONTAINER_ACTOR = "container"
# Until the file is planned nobody knows whether it is CSV or JSON.
_UNKNOWN_SOURCE = "file"
_OPTION_NAMES = frozenset(ImportOptions.model_fields) - {"mapping"}


async def accept_file(
    database: Database,
    blobs: Blobs,
    settings: Settings,
    *,
    caller: Caller,
    request: ImportRequest,
    content: Iterable[bytes],
) -> tuple[Job, bool]:
    """Store a file sent with a request and queue its job; (job, False) if the caller used this key before."""
    if request.idempotency_key:
        async with database.connection() as connection:
            earlier = await jobs.find_by_idempotency_key(connection, caller.id, request.idempotency_key)
        if earlier:
            return earlier, False
    await _require_free_label(database, request.import_source)
    job_id = uuid4()
    blob = sent_blob(job_id, request.file_name)
    stored = await blobs.upload(settings.files_container, blob, content, metadata={"job_id": str(job_id)})
    new = NewJob(
        id=job_id,
        source=_UNKNOWN_SOURCE,
        **request.model_dump(exclude={"options"}),
        options=request.options,
        file_container=settings.files_container,
        file_blob=blob,
        file_bytes=stored.size,
        file_etag=stored.etag,
        requested_by=caller.id,
    )
    job, created = await _insert(database, new)
    if not created:
        await blobs.delete(settings.files_container, blob)
    return job, created


async def reserve_upload(
    database: Database, blobs: Blobs, settings: Settings, *, caller: Caller, request: ImportRequest, now: datetime
) -> tuple[Job, str]:
    """Queue a job that waits for its file, and make the write-only URL the file may be sent to.

    Raises ConflictError if this idempotency key belongs to a job that has its file already.
    """
    await _require_free_label(database, request.import_source)
    job_id = uuid4()
    blob = f"{request.import_source}/{job_id}/{blob_file_name(request.file_name)}"
    new = NewJob(
        id=job_id,
        source=_UNKNOWN_SOURCE,
        **request.model_dump(exclude={"options"}),
        options=request.options,
        file_container=settings.uploads_container,
        file_blob=blob,
        upload_expires_at=now + timedelta(minutes=settings.upload_url_minutes),
        requested_by=caller.id,
    )
    job, created = await _insert(database, new)
    if not created and (job.file_bytes is not None or job.file_blob is None):
        raise ConflictError(
            "This idempotency key belongs to an import that has its file already",
            hint=f"Look at job {job.id}, or send another Idempotency-Key",
        )
    url = await blobs.upload_url(settings.uploads_container, job.file_blob or blob, minutes=settings.upload_url_minutes)
    return job, url


async def accept_blob(database: Database, blobs: Blobs, settings: Settings, *, name: str) -> Job | None:
    """Queue the job for a file that appeared in the uploads container; None if it was queued before.

    The first folder of the path names the import_source, or the blob's metadata does; other metadata with the names of
    import options (`kind`, `duplicates`, `atomic`, `date_order`, `encoding`, `delimiter`, `priority`) is honoured.
    """
    container = settings.uploads_container
    found = await blobs.properties(container, name)
    async with database.transaction() as connection:
        awaited = await jobs.find_awaited_upload(connection, container, name)
        if awaited:
            arrived = await jobs.record_arrival(connection, awaited.id, size=found.size, etag=found.etag)
            return await jobs.find_job(connection, awaited.id) if arrived else None
    metadata = {key.lower(): value for key, value in found.metadata.items()}
    label = _label(metadata.get("import_source") or _label_in(name))
    await _require_free_label(database, label)
    options, priority, complaint = _options_from(metadata)
    identity = sha256(f"{container}/{name}/{found.etag}".encode()).hexdigest()
    new = NewJob(
        id=uuid4(),
        source=_UNKNOWN_SOURCE,
        import_source=label,
        priority=priority,
        options=options,
        file_name=name.rsplit("/", 1)[-1],
        file_container=container,
        file_blob=name,
        file_bytes=found.size,
        file_etag=found.etag,
        idempotency_key=identity,
        requested_by=CONTAINER_ACTOR,
    )
    job, created = await _insert(database, new)
    if created and complaint:
        async with database.connection() as connection:
            await jobs.log(connection, job.id, "warning", complaint)
    return job if created else None


def sent_blob(job_id: UUID, file_name: str) -> str:
    """Where a sent file lies: in a folder of its own, for it may be called as the copy or the index beside it."""
    return f"{job_id}/sent/{blob_file_name(file_name)}"


def blob_file_name(name: str) -> str:
    """A file name that is safe inside a blob path and still recognizable."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name.rsplit("/", 1)[-1].rsplit("\\", 1)[-1])[-100:].lstrip(".") or "file"


def import_source_from(file_name: str) -> str:
    """The label a file gets when nobody named one: its name without folder and ending."""
    return _label(file_name.rsplit("/", 1)[-1].rsplit(".", 1)[0])


async def _require_free_label(database: Database, import_source: str) -> None:
    """Files stay out of what a connection brings: its next census would take their records for deleted ones."""
    async with database.connection() as connection:
        if await connections.find_connection(connection, import_source):
            raise ConflictError(
                f"{import_source!r} is the label of what a connection brings", hint="Choose another import_source"
            )


async def _insert(database: Database, new: NewJob) -> tuple[Job, bool]:
    async with database.transaction() as connection:
        job = await jobs.insert_job(connection, new)
        if job is None:
            return await _earlier(connection, new), False
        await audit_log.append(
            connection,
            actor=new.requested_by,
            action="job.accepted",
            subject=f"job:{job.id}",
            before=None,
            after=job.model_dump(mode="json", include={"import_source", "file_name", "priority", "parent_id"}),
        )
    log.info("Job accepted", extra={"action": "job_accepted", "job_id": str(job.id), "bytes": job.file_bytes})
    return job, True


async def _earlier(connection: Connection, new: NewJob) -> Job:
    job = await jobs.find_by_idempotency_key(connection, new.requested_by, new.idempotency_key or "")
    if job is None:
        raise ConflictError("The import under this idempotency key was just removed; send the request again")
    return job


def _options_from(metadata: Mapping[str, str]) -> tuple[ImportOptions, Priority, str | None]:
    wanted = {key: value for key, value in metadata.items() if key in _OPTION_NAMES}
    try:
        return ImportOptions.model_validate(wanted), Priority(metadata.get("priority", Priority.NORMAL)), None
    except (ValidationError, ValueError):
        return (
            ImportOptions(),
            Priority.NORMAL,
            f"The blob's metadata was ignored, because it is not understood: {wanted}",
        )


def _label_in(path: str) -> str:
    folder, _, rest = path.partition("/")
    return folder if rest else import_source_from(folder)


def _label(text: str) -> str:
    label = re.sub(r"[^a-z0-9._-]+", "-", text.strip().lower()).strip("-._")[:100]
    if not label:
        raise InvalidRequestError("No import_source can be made of this name", hint="Name an import_source")
    return label
