"""Read a file once from end to end: how it is written, where its batches lie, which of its duplicates win."""

import asyncio
import logging
import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO
from uuid import UUID

from shared.blobs import Blobs
from shared.domain.errors import ConflictError, FileRefusedError, NotFoundError, TributaryError
from shared.domain.job import ENDED, JobState
from shared.files.detect import HEAD_BYTES, detect
from shared.files.examine import layout_of_copy
from shared.files.layout import Layout
from shared.files.rewrite import rewrite
from shared.files.scan import Scan, scan_file
from shared.settings import MEBIBYTE, Settings
from shared.store import batches, jobs
from shared.store.batches import Batch
from shared.store.database import Database
from shared.store.jobs import Job

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Place:
    container: str
    blob: str
    etag: str | None
    size: int


async def plan_job(database: Database, blobs: Blobs, settings: Settings, job_id: UUID, attempt: int) -> list[str]:
    """Plan a job's file and write its batch ledger; returns the phases to run, none if the job is at its end.

    An atomic job is checked whole before anything is stored. A job that was planned before keeps its plan, and its
    failed batches are opened again.
    """
    async with database.transaction() as connection:
        job = await jobs.find_job(connection, job_id)
        if job is None or job.attempt != attempt or job.state in ENDED or job.cancel_requested:
            return []
        phases = ["check", "load"] if job.options.atomic else ["load"]
        if job.planned_at:
            await batches.reopen_failed(connection, job_id)
            return phases
    try:
        await _plan(database, blobs, settings, job, phases)
    except (FileRefusedError, NotFoundError, ConflictError) as error:
        await _refuse(database, job, error)
        return []
    return phases


async def _plan(database: Database, blobs: Blobs, settings: Settings, job: Job, phases: list[str]) -> None:
    place = _Place(job.file_container or "", job.file_blob or "", job.file_etag, job.file_bytes or 0)
    if place.size > settings.max_file_bytes:
        limit = settings.max_file_bytes // MEBIBYTE
        raise FileRefusedError("too_large", f"The file is larger than {limit} MB", hint="Split it into several files")
    head = await blobs.head(place.container, place.blob, HEAD_BYTES)
    layout = detect(head, name=job.file_name or place.blob, size=place.size, options=job.options)
    if layout.rewrite:
        place = await _rewrite(blobs, settings, job, layout, place)
        head = await blobs.head(place.container, place.blob, HEAD_BYTES)
        layout = layout_of_copy(head, layout, name=job.file_name or place.blob, size=place.size, options=job.options)

    def open_at(offset: int) -> Iterable[bytes]:
        return blobs.read(place.container, place.blob, offset=offset, etag=place.etag, keep=True)

    with tempfile.TemporaryFile() as index:
        scan = await asyncio.to_thread(
            scan_file,
            open_at,
            layout,
            index,
            size=place.size,
            batch_bytes=settings.batch_bytes,
            duplicates=job.options.duplicates,
        )
        index_blob = f"{job.id}/index"
        size = index.seek(0, os.SEEK_END)
        index.seek(0)
        await blobs.upload(settings.files_container, index_blob, _chunks(index), overwrite=True, keep_bytes=size)
    await _save(database, job, scan, place, index_blob, phases)


async def _rewrite(blobs: Blobs, settings: Settings, job: Job, layout: Layout, original: _Place) -> _Place:
    """Store a copy in which records can be found by their bytes, beside the original, which stays as it came."""
    name = f"{job.id}/rewritten"
    source = blobs.read(original.container, original.blob, etag=original.etag)
    stored = await blobs.upload(settings.files_container, name, rewrite(source, layout), overwrite=True)
    return _Place(settings.files_container, name, stored.etag, stored.size)


async def _save(database: Database, job: Job, scan: Scan, place: _Place, index_blob: str, phases: list[str]) -> None:
    ledger = [
        Batch(
            number=number,
            byte_offset=batch.offset,
            byte_length=batch.length,
            first_row=batch.first_row,
            rows=batch.rows,
            index_offset=batch.index_offset,
            index_length=batch.index_length,
            losers=batch.losers,
        )
        for number, batch in enumerate(scan.batches)
    ]
    async with database.transaction() as connection:
        for phase in phases:
            await batches.insert_batches(connection, job.id, phase, ledger)
        plan = jobs.Plan(
            source=scan.layout.source,
            layout=scan.layout.model_dump(mode="json"),
            rows=scan.rows,
            batches=len(ledger),
            warnings=scan.warnings,
            container=place.container,
            blob=place.blob,
            etag=place.etag,
            index_blob=index_blob,
        )
        await jobs.save_plan(connection, job.id, plan)
    log.info(
        "File planned",
        extra={"action": "file_planned", "job_id": str(job.id), "rows": scan.rows, "batches": len(ledger)},
    )


async def _refuse(database: Database, job: Job, error: TributaryError) -> None:
    described: dict[str, Any] = {"code": error.code, "detail": error.detail, "hint": error.hint}
    if isinstance(error, FileRefusedError):
        described["reason"] = error.reason
    async with database.transaction() as connection:
        await jobs.end_job(connection, job.id, JobState.FAILED, error=described)
        await jobs.log(connection, job.id, "error", error.detail, **described)


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    while chunk := file.read(MEBIBYTE):
        yield chunk
