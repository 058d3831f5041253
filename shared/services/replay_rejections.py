"""Import a job's rejections again: mended in a file, read with other options, or simply once more."""

import asyncio
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, BinaryIO
from uuid import UUID

from shared.blobs import Blobs
from shared.domain.caller import Caller
from shared.domain.errors import ConflictError
from shared.domain.job import ENDED, ImportOptions, ImportRequest, JobKind, JobState, Priority
from shared.domain.rejection import RejectionState
from shared.files import corrections
from shared.files.detect import HEAD_BYTES, detect
from shared.files.layout import Format, Layout
from shared.files.rewrite import rewrite
from shared.services.accept_import import accept_file
from shared.services.rejections import Selection, as_rejected, existing_job
from shared.settings import Settings
from shared.store.database import Database
from shared.store.jobs import Job

_CHUNK_BYTES = 1024 * 1024
# Records stored as rejections; larger files are mended at their source.
_MOST_REPLAYED = 1_000_000


@dataclass(frozen=True)
class Correction:
    """A mended file somebody sent."""

    name: str
    size: int
    file: BinaryIO


@dataclass(frozen=True)
class Replay:
    """What is asked for: the mended file if there is one, and options to change."""

    correction: Correction | None = None
    changes: Mapping[str, Any] = field(default_factory=dict[str, Any])
    priority: Priority | None = None
    idempotency_key: str | None = None


async def replay_rejections(
    database: Database, blobs: Blobs, settings: Settings, *, caller: Caller, job_id: UUID, replay: Replay
) -> tuple[Job, bool]:
    """Queue a job of its own for a job's rejections; (job, False) if the caller used this idempotency key before.

    The new job inherits label and options. Each record it takes up closes the rejection it came from; one that is still
    wrong is a rejection of the new job.
    """
    async with database.connection() as connection:
        parent = await existing_job(connection, job_id)
    layout = _replayable(parent)
    options = _inherit(parent, layout, replay.changes)
    as_json = layout.format is Format.NDJSON
    with tempfile.SpooledTemporaryFile(_CHUNK_BYTES) as file:
        if replay.correction is None:
            await _rebuild(database, parent, layout, file)
        else:
            as_json = await asyncio.to_thread(_read_correction, replay.correction, options, file, as_json=as_json)
        file.seek(0)
        name = PurePath(parent.file_name or parent.import_source).stem
        request = ImportRequest(
            file_name=f"{name}-replay.{'ndjson' if as_json else 'csv'}",
            import_source=parent.import_source,
            options=options.model_copy(update={"encoding": "utf-8", "delimiter": None if as_json else ","}),
            priority=replay.priority or parent.priority,
            idempotency_key=replay.idempotency_key,
            parent_id=parent.id,
        )
        return await accept_file(database, blobs, settings, caller=caller, request=request, content=_chunks(file))


def _replayable(job: Job) -> Layout:
    """How the job's file was read; ConflictError if its rejections cannot be imported by themselves."""
    if job.state not in ENDED:
        raise ConflictError(f"The job is still {job.state}", hint="Wait for its end, or cancel it")
    if job.kind is JobKind.SYNC:
        raise ConflictError(
            "Records of a tracker are mended there",
            hint="The next sync reads them again; dismiss what nobody will mend",
        )
    if job.layout is None:
        raise ConflictError("This file was refused as a whole", hint="Import a mended file as a new job")
    if job.options.atomic and job.state is not JobState.COMPLETED:
        raise ConflictError(
            "Nothing of this file was stored, because the import was atomic", hint="Import the whole mended file again"
        )
    return Layout.model_validate(job.layout)


def _inherit(parent: Job, layout: Layout, changes: Mapping[str, Any]) -> ImportOptions:
    """The parent's options with the changes; a date order found over the whole file still holds for a part of it."""
    inherited = parent.options.model_dump() | {"atomic": False, "encoding": None, "delimiter": None}
    inherited["date_order"] = layout.date_order
    return ImportOptions.model_validate(inherited | dict(changes) | {"kind": parent.kind})


async def _rebuild(database: Database, parent: Job, layout: Layout, out: Any) -> None:
    empty = True
    async with database.connection() as connection:
        async for page in Selection(parent.id, RejectionState.OPEN).pages(connection, _MOST_REPLAYED):
            out.write(corrections.rebuild(layout, as_rejected(page), first=empty))
            empty = False
    if empty:
        raise ConflictError("The job has no open rejections to replay")


def _read_correction(correction: Correction, options: ImportOptions, out: Any, *, as_json: bool) -> bool:
    """Copy a mended file without our columns and apostrophes; True if the copy is JSON."""
    head = correction.file.read(HEAD_BYTES)
    layout = detect(head, name=correction.name, size=correction.size, options=options)
    correction.file.seek(0)
    chunks = _chunks(correction.file)
    if layout.rewrite:
        chunks = rewrite(chunks, layout)
    if layout.format is Format.NDJSON:
        out.writelines(chunks)
        return True
    out.writelines(corrections.read_corrections(_behind(chunks, layout.data_offset), layout, as_json=as_json))
    return as_json


def _behind(chunks: Iterator[bytes], offset: int) -> Iterator[bytes]:
    for chunk in chunks:
        yield chunk[offset:]
        offset = max(0, offset - len(chunk))


def _chunks(file: Any) -> Iterator[bytes]:
    return iter(lambda: file.read(_CHUNK_BYTES), b"")
