"""Rejections to look at, to download for mending, and to dismiss. How they come back: replay_rejections.py."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import PurePath
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from shared.domain.caller import Caller
from shared.domain.errors import NotFoundError
from shared.domain.rejection import RejectionState
from shared.files import corrections
from shared.files.corrections import Rejected
from shared.store import audit_log, jobs, rejections
from shared.store.database import Connection, Database
from shared.store.jobs import Job
from shared.store.rejections import Rejection

# One download, so that an answer stays within memory; the next call takes the next ones.
MOST_DOWNLOADED = 20_000
_PAGE = 1_000
_AUDITED_IDS = 1_000


@dataclass(frozen=True)
class Selection:
    """Which rejections of a job: in a state, with a problem, behind an id."""

    job_id: UUID
    state: RejectionState | None = None
    code: str | None = None
    after: int = 0

    async def page(self, connection: Connection, limit: int) -> list[Rejection]:
        """The first of them, in the order they were found."""
        return await rejections.list_rejections(
            connection, self.job_id, state=self.state, code=self.code, after=self.after, limit=limit
        )

    async def pages(self, connection: Connection, most: int) -> AsyncIterator[list[Rejection]]:
        """All of them up to a number, some at a time."""
        rest = self
        while most > 0 and (page := await rest.page(connection, min(_PAGE, most))):
            yield page
            most -= len(page)
            rest = replace(rest, after=page[-1].id)


class RejectionPage(BaseModel):
    """Some of a job's rejections, and what there is in all."""

    model_config = ConfigDict(frozen=True)

    items: list[Rejection]
    header: list[str] = Field(description="Columns the cells of a payload belong to; empty for JSON")
    by_state: dict[RejectionState, int]
    by_code: dict[str, int] = Field(description="Open rejections by problem", examples=[{"missing_title": 4}])


class DownloadFormat(StrEnum):
    CSV = "csv"
    NDJSON = "ndjson"


@dataclass(frozen=True)
class Download:
    """A file of rejections; `last_id` is set when more follow behind it."""

    name: str
    content: bytes
    last_id: int | None


async def list_rejections(database: Database, selection: Selection, *, limit: int) -> RejectionPage:
    """One page, in the order of the file's batches."""
    async with database.connection() as connection:
        job = await existing_job(connection, selection.job_id)
        return RejectionPage(
            items=await selection.page(connection, limit),
            header=_header(job),
            by_state=await rejections.count_by_state(connection, job.id),
            by_code=await rejections.count_by_code(connection, job.id),
        )


async def download_rejections(database: Database, selection: Selection, form: DownloadFormat) -> Download:
    """The records as a file that can be mended and sent back."""
    async with database.connection() as connection:
        job = await existing_job(connection, selection.job_id)
        header = _header(job)
        columns = header or await _keys(connection, selection)
        parts = [corrections.csv_header(columns)] if form is DownloadFormat.CSV else []
        last_id = selection.after
        async for page in selection.pages(connection, MOST_DOWNLOADED):
            told = as_rejected(page)
            last_id = page[-1].id
            if form is DownloadFormat.CSV:
                parts.append(corrections.csv_rows(columns, told))
            else:
                parts.append(corrections.json_lines(header, told))
        more = await replace(selection, after=last_id).page(connection, 1)
    name = f"{PurePath(job.file_name or job.import_source).stem}-rejections.{form}"
    return Download(name=name, content=b"".join(parts), last_id=last_id if more else None)


async def dismiss_rejections(database: Database, caller: Caller, job_id: UUID, ids: Sequence[int] | None) -> list[int]:
    """Close open rejections for good, all of a job's without `ids`; returns those that were open."""
    async with database.transaction() as connection:
        await existing_job(connection, job_id)
        dismissed = await rejections.dismiss(connection, job_id, ids)
        if dismissed:
            told = {"rejections": len(dismissed), "ids": dismissed[:_AUDITED_IDS]}
            await audit_log.append(
                connection,
                actor=caller.id,
                action="rejections.dismissed",
                subject=f"job:{job_id}",
                before=told | {"state": RejectionState.OPEN},
                after=told | {"state": RejectionState.DISMISSED},
            )
    return dismissed


async def existing_job(connection: Connection, job_id: UUID) -> Job:
    """The job; NotFoundError if there is none."""
    job = await jobs.find_job(connection, job_id)
    if job is None:
        raise NotFoundError("There is no job with this id", hint="Ended jobs are removed after some days")
    return job


def as_rejected(page: Sequence[Rejection]) -> list[Rejected]:
    """The rejections as files show them."""
    return [Rejected(each.id, each.row_number, each.problems, each.payload) for each in page]


def _header(job: Job) -> list[str]:
    return list(job.layout.get("header", ())) if job.layout else []


async def _keys(connection: Connection, selection: Selection) -> list[str]:
    """Every key of the JSON objects that a download holds."""
    found: dict[str, None] = {}
    async for page in selection.pages(connection, MOST_DOWNLOADED):
        found |= dict.fromkeys(corrections.json_columns(as_rejected(page)))
    return list(found)
