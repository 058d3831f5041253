"""How a job stands: one read of its row, one of its ledger."""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from shared.domain.errors import NotFoundError
from shared.domain.job import ENDED, Counts, DateOrder, ImportOptions, JobKind, JobState, Priority
from shared.domain.stream import Stream
from shared.domain.sync import SyncMode, SyncOptions
from shared.files.remarks import Remarks
from shared.store import batches, jobs, sync_ledger
from shared.store.batches import NO_PROGRESS, Progress
from shared.store.database import Database
from shared.store.jobs import Job
from shared.store.sync_ledger import SyncProgress


class WaitingFor(StrEnum):
    """Why a job does nothing at the moment."""

    FILE = "file"  # an upload address was given out
    TURN = "turn"  # other jobs are ahead, or the pipeline is paused
    RETRY = "retry"  # until retry_at, after a failure or because the source said "later"


class BatchCounts(BaseModel):
    """The parts of the file."""

    model_config = ConfigDict(frozen=True)

    total: int | None = Field(description="Unknown until the file is planned")
    done: int
    failed: int


class JobError(BaseModel):
    """Why a job failed, or why its last try did."""

    model_config = ConfigDict(frozen=True, extra="allow")

    code: str = Field(examples=["file_refused"])
    detail: str = Field("", examples=["A quote opened in row 118 is never closed"])
    hint: str = ""
    reason: str | None = Field(None, description="Of a refused file: a stable word", examples=["truncated"])


class LayoutSummary(BaseModel):
    """How the file is read."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    format: str = Field(examples=["csv"])
    encoding: str = Field(examples=["utf-8"])
    delimiter: str | None = Field(examples=[","])
    preset: str = Field(description="The export it was recognized as", examples=["jira"])
    mapping: dict[str, list[str]] = Field(
        description="Field → columns it is read from", examples=[{"external_id": ["Issue key"], "title": ["Summary"]}]
    )
    date_order: DateOrder | None = None
    header: list[str] = Field(description="Columns in the file's order; empty for JSON")


class SyncSummary(BaseModel):
    """What a sync does, and what came of it so far."""

    model_config = ConfigDict(frozen=True)

    options: SyncOptions
    streams: dict[str, dict[str, int]] = Field(
        description="Stream → created, updated, unchanged, stale, rejected, deleted, missed",
        examples=[{"issues": {"created": 12, "unchanged": 3}}],
    )
    requests: int = Field(description="Calls to the source so far")
    skipped: int = Field(description="Parts the source refused; they are in the connection's coverage")


class JobStatus(BaseModel):
    """A job and its progress."""

    model_config = ConfigDict(frozen=True)

    job_id: UUID
    state: JobState
    waiting_for: WaitingFor | None = Field(None, description="Why a job does nothing at the moment")
    import_source: str = Field(examples=["petrel-bugs"])
    source: str = Field(description="The system the file comes from; `file` until it is planned", examples=["bugzilla"])
    kind: JobKind
    priority: Priority
    file_name: str | None = Field(examples=["bugs-2025-03.csv"])
    file_bytes: int | None = Field(description="Unknown while the file is awaited")
    options: ImportOptions
    percent: float = Field(ge=0, le=100)
    counts: Counts
    rows_total: int | None = Field(description="Unknown until the file is planned")
    batches: BatchCounts
    seconds: float | None = Field(description="Since the job started, until it ended")
    rows_per_second: float | None
    estimated_seconds_left: float | None = Field(description="Only while rows flow")
    attempt: int
    retry_at: datetime | None
    cancel_requested: bool
    error: JobError | None
    warnings: list[str]
    layout: LayoutSummary | None = Field(description="Unknown until the file is planned")
    sync: SyncSummary | None = Field(None, description="Of a job that syncs a connection")
    parent_id: UUID | None = Field(description="The job whose rejections this one mends")
    requested_by: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    upload_expires_at: datetime | None


class LogEntry(BaseModel):
    """Something that happened to a job."""

    model_config = ConfigDict(frozen=True)

    level: str = Field(examples=["warning"])
    message: str = Field(examples=["Trying again in 4 s"])
    data: dict[str, Any]
    created_at: datetime


async def find_status(database: Database, job_id: UUID, *, now: datetime) -> JobStatus:
    """One job; NotFoundError if there is none under this id, or no longer."""
    async with database.connection() as connection:
        job = await jobs.find_job(connection, job_id)
        if job is None:
            raise NotFoundError("There is no job with this id", hint="Ended jobs are removed after some days")
        if job.sync:
            return to_sync_status(job, (await sync_ledger.find_progress_of(connection, [job_id])).get(job_id), now=now)
        progress = await batches.find_progress(connection, job_id)
    return to_status(job, progress, now=now)


async def find_log(database: Database, job_id: UUID) -> list[LogEntry]:
    """What happened to a job, oldest first."""
    async with database.connection() as connection:
        return [LogEntry.model_validate(row) for row in await jobs.list_logs(connection, job_id)]


async def list_statuses(
    database: Database,
    *,
    now: datetime,
    limit: int,
    state: JobState | None = None,
    import_source: str | None = None,
    kind: JobKind | None = None,
    since: datetime | None = None,
    before: tuple[datetime, UUID] | None = None,
) -> list[JobStatus]:
    """Jobs, newest first; `before` is (created_at, id) of the last job of the page before."""
    async with database.connection() as connection:
        found = await jobs.list_jobs(
            connection,
            state=state,
            import_source=import_source,
            kind=kind,
            created_since=since,
            before=before,
            limit=limit,
        )
        progress = await batches.find_progress_of(connection, [job.id for job in found if not job.sync])
        synced = await sync_ledger.find_progress_of(connection, [job.id for job in found if job.sync])
    return [
        to_sync_status(job, synced.get(job.id), now=now)
        if job.sync
        else to_status(job, progress.get(job.id, NO_PROGRESS), now=now)
        for job in found
    ]


def to_sync_status(job: Job, progress: SyncProgress | None, *, now: datetime) -> JobStatus:
    """Join a sync's row and the sums of its parts; `counts` are those of all streams together."""
    streams = progress.streams if progress else {}
    sums = {name: sum(of.get(name, 0) for of in streams.values()) for name in sync_ledger.COUNTED}
    fates = {name: sums[name] for name in ("created", "updated", "unchanged", "stale", "rejected")}
    flow = Progress(
        counts=Counts(rows=sum(fates.values()), **fates),
        checked_rows=0,
        batches_done=(progress.parts_done + progress.parts_skipped) if progress else 0,
        batches_failed=progress.parts_failed if progress else 0,
        last_error=progress.last_error if progress else None,
    )
    status = to_status(job, flow, now=now)
    total = progress.parts_total if progress else 0
    share = 100 * flow.batches_done / total if total else 0
    return status.model_copy(
        update={
            "percent": 100 if job.state is JobState.COMPLETED else min(99.9, round(share, 1)),
            "warnings": [*status.warnings, *_unfound_keys(job, streams)],
            "batches": status.batches.model_copy(update={"total": total or None}),
            "sync": SyncSummary(
                options=job.sync or SyncOptions(),
                streams=streams,
                requests=progress.requests if progress else 0,
                skipped=progress.parts_skipped if progress else 0,
            ),
        }
    )


def _unfound_keys(job: Job, streams: dict[str, dict[str, int]]) -> list[str]:
    if job.state is not JobState.COMPLETED or job.sync is None or job.sync.mode is not SyncMode.KEYS:
        return []
    wanted = len(set(job.sync.keys))
    fates = streams.get(Stream.ISSUES, {})
    found = sum(fates.get(name, 0) for name in ("created", "updated", "unchanged", "stale", "rejected"))
    if found >= wanted:
        return []
    return [f"Of {wanted} keys the source knows {found}; the others are misspelt, gone, or hidden from this account"]


def to_status(job: Job, progress: Progress, *, now: datetime) -> JobStatus:
    """Join a job's row and the sums of its ledger."""
    seconds = ((job.finished_at or now) - job.started_at).total_seconds() if job.started_at else None
    rate = progress.counts.rows / seconds if seconds and progress.counts.rows else None
    error = job.error or (progress.last_error if job.state not in ENDED else None)
    return JobStatus(
        job_id=job.id,
        waiting_for=_waiting_for(job),
        percent=_percent(job, progress),
        counts=progress.counts,
        batches=BatchCounts(total=job.batches_total, done=progress.batches_done, failed=progress.batches_failed),
        seconds=_rounded(seconds),
        rows_per_second=_rounded(rate),
        estimated_seconds_left=_seconds_left(job, progress, now),
        error=JobError.model_validate(error) if error else None,
        layout=summarize_layout(job.layout) if job.layout else None,
        warnings=[*job.warnings, *_remarks(job, progress)],
        **job.model_dump(include=_COPIED),
        options=job.options,
    )


# What a status has under the name the row has it.
_COPIED = set(JobStatus.model_fields) & set(Job.model_fields) - {"error", "layout", "options", "sync", "warnings"}


def _remarks(job: Job, progress: Progress) -> list[str]:
    return Remarks(**progress.remarks).sentences((job.layout or {}).get("other_encoding"))


def _waiting_for(job: Job) -> WaitingFor | None:
    if job.state is JobState.RETRYING:
        return WaitingFor.RETRY
    if job.state is JobState.QUEUED:
        return WaitingFor.FILE if job.file_bytes is None and not job.sync else WaitingFor.TURN
    return None


def _steps(job: Job, progress: Progress) -> tuple[int, int]:
    """(done, all); rows of an atomic job are checked before they are loaded, so they count twice."""
    if job.options.atomic:
        return progress.checked_rows + progress.counts.rows, 2 * (job.rows_total or 0)
    return progress.counts.rows, job.rows_total or 0


def _percent(job: Job, progress: Progress) -> float:
    if job.state is JobState.COMPLETED:
        return 100
    done, of = _steps(job, progress)
    return min(99.9, round(100 * done / of, 1)) if of else 0


def _seconds_left(job: Job, progress: Progress, now: datetime) -> float | None:
    done, of = _steps(job, progress)
    if job.state is not JobState.PROCESSING or not done or job.planned_at is None:
        return None
    return _rounded((of - done) * max((now - job.planned_at).total_seconds(), 0) / done)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(max(value, 0), 2)


def summarize_layout(layout: dict[str, Any]) -> LayoutSummary:
    """The part of a stored layout that people want to see."""
    header: Sequence[str] = layout.get("header", ())
    return LayoutSummary(
        format=layout["format"],
        encoding=layout.get("original_encoding") or layout["encoding"],
        delimiter=layout["delimiter"] if header else None,
        preset=layout["preset"],
        mapping={field: list(columns) for field, columns in layout["columns"].items()},
        date_order=layout.get("date_order"),
        header=list(header),
    )
