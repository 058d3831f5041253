"""Files in, and the jobs they become."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Query, Response
from pydantic import BaseModel, Field, StrictBool

from functions.api import paging
from functions.api.auth import GuardedRoute, needs
from functions.api.context import Context, InContext
from functions.api.forms import IdempotencyKey, Sent, chunks_of
from functions.api.models import Accepted, ImportSource, JobPage, JobView, Link, Links, Moment, Word, accepted, job_view
from functions.api.openapi import problems
from shared.connectors import connectors
from shared.domain.caller import Caller, Role
from shared.domain.job import ImportOptions, ImportRequest, JobKind, JobState, Kind, Priority
from shared.files.schema import csv_template, record_schema
from shared.services.accept_import import accept_file, import_source_from, reserve_upload
from shared.services.control_jobs import cancel_job, retry_job
from shared.services.job_status import find_status, list_statuses
from shared.services.manage_connections import list_views
from shared.services.preview_file import Preview, assert_format, preview_file

router = APIRouter(prefix="/api/import", route_class=GuardedRoute, tags=["import"])

Reader = Annotated[Caller, Depends(needs(Role.READER))]
Operator = Annotated[Caller, Depends(needs(Role.OPERATOR))]
_LOCATION: dict[str, Any] = {
    "headers": {"Location": {"description": "Where to follow the job", "schema": {"type": "string"}}}
}


class FileSource(StrEnum):
    """Sources a file can come from; `auto` looks at the file."""

    CSV = "csv"
    JSON = "json"
    AUTO = "auto"

    @property
    def expected(self) -> str | None:
        """The format a file has to have."""
        return None if self is FileSource.AUTO else self.value


Format = Annotated[FileSource, Path(description="The format the file has to have; `auto` takes either")]


class UploadOptions(ImportOptions):
    """The options of an import, in JSON."""

    atomic: StrictBool = Field(default=False, description="Any rejection, and nothing is stored")


class UploadRequest(BaseModel):
    """A file that will be sent to the storage itself."""

    file_name: Word = Field(examples=["bugs-2025-03.csv"])
    import_source: ImportSource | None = Field(
        None, description="Label of the records; by default made of the file's name", examples=["petrel-bugs"]
    )
    priority: Priority = Priority.NORMAL
    options: UploadOptions = UploadOptions()


class UploadOffer(BaseModel):
    """Where the file may be sent, and the job that waits for it."""

    job_id: UUID
    upload_url: str = Field(description="Takes this one file and nothing else, until it expires")
    method: Literal["PUT"] = "PUT"
    headers: dict[str, str] = Field(
        description="Have to be sent with the file", examples=[{"x-ms-blob-type": "BlockBlob"}]
    )
    expires_at: datetime
    links: Links


class Tool(BaseModel):
    """A source records can come from."""

    source: str = Field(examples=["csv"])
    title: str
    description: str
    connected: bool = Field(
        description="Whether it can be used now: files always can, trackers once a connection passed its test"
    )
    extensions: list[str]
    links: Links


class ToolList(BaseModel):
    """What can be imported."""

    items: list[Tool]


class PublishedSchema(BaseModel):
    """The predefined record: a file that looks like this needs no mapping."""

    model_config = {"populate_by_name": True}

    kind: Kind
    record: dict[str, Any] = Field(description="JSON Schema of one record")
    csv_header: str = Field(description="First line of a CSV", examples=["external_id,key,title\r\n"])


_TOOLS = [
    ("csv", "CSV", "Exports of trackers and spreadsheets, in any usual encoding and dialect", [".csv", ".tsv", ".txt"]),
    ("json", "JSON", "An array, an object with one array in it, or one object a line", [".json", ".ndjson", ".jsonl"]),
]


@router.post("", status_code=202, summary="Import a file", responses={202: _LOCATION, **problems(400, 409, 413, 422)})
async def import_file(context: InContext, caller: Operator, response: Response, sent: Sent) -> Accepted:
    """Store the file and queue a job for it. The format is found out from the file; a broken one fails the job with a
    clear reason.
    """
    return await _accept(context, caller, response, sent)


@router.post(
    "/uploads",
    status_code=201,
    summary="Get an address for a large file",
    responses={201: _LOCATION, **problems(400, 409, 413, 422)},
)
async def create_upload(
    context: InContext,
    caller: Operator,
    response: Response,
    body: UploadRequest,
    idempotency_key: IdempotencyKey = None,
) -> UploadOffer:
    """Queue a job that waits for its file. Send the file with PUT and the given headers to `upload_url`; the job starts
    when the file has arrived, and is cancelled if none does.
    """
    runtime = context.runtime
    request = ImportRequest(
        file_name=body.file_name,
        import_source=body.import_source or import_source_from(body.file_name),
        options=body.options,
        priority=body.priority,
        idempotency_key=idempotency_key,
    )
    now = datetime.now(UTC)
    job, url = await reserve_upload(
        runtime.database, runtime.blobs, runtime.settings, caller=caller, request=request, now=now
    )
    answer = accepted(job)
    response.headers["Location"] = answer.links["status"].href
    return UploadOffer(
        job_id=job.id,
        upload_url=url,
        headers={"x-ms-blob-type": "BlockBlob"},
        expires_at=job.upload_expires_at or now,
        links=answer.links,
    )


@router.post("/{source}/preview", summary="See what an import would do", responses=problems(400, 413, 422))
async def preview(context: InContext, _caller: Operator, source: Format, sent: Sent) -> Preview:
    """Detect, normalize and compare with what is stored, without storing anything. Counts of large files are estimated
    and marked so (`exact`).
    """
    return await preview_file(
        context.runtime.database,
        sent.file,
        name=sent.name,
        size=sent.size,
        import_source=sent.request.import_source,
        options=sent.request.options,
        expected=source.expected,
    )


@router.post(
    "/{source}/execute",
    status_code=202,
    summary="Import a file of a known format",
    responses={202: _LOCATION, **problems(400, 409, 413, 422)},
)
async def execute(context: InContext, caller: Operator, response: Response, source: Format, sent: Sent) -> Accepted:
    """As `POST /api/import`, but a file that is of another format, or cannot be read at all, is refused at once."""
    await assert_format(
        sent.file, name=sent.name, size=sent.size, options=sent.request.options, expected=source.expected
    )
    return await _accept(context, caller, response, sent)


@router.get("/tools", summary="What can be imported", responses=problems())
async def tools(context: InContext, _caller: Reader) -> ToolList:
    """Sources, and whether they are connected."""
    files = [
        Tool(
            source=source,
            title=title,
            description=description,
            connected=True,
            extensions=extensions,
            links={
                "preview": Link(method="POST", href=f"/api/import/{source}/preview"),
                "execute": Link(method="POST", href=f"/api/import/{source}/execute"),
                "schema": Link(method="GET", href="/api/import/schema"),
            },
        )
        for source, title, description, extensions in _TOOLS
    ]
    tested = {
        view.source for view in await list_views(context.runtime.database, after="", limit=1_000) if view.test_passed
    }
    trackers = [
        Tool(
            source=source,
            title=each.title,
            description=f"{', '.join(each.streams)} of a connection",
            connected=source in tested,
            extensions=[],
            links={
                "connections": Link(method="GET", href="/api/integrations"),
                "form": Link(method="GET", href="/api/integrations/sources"),
                "preview": Link(method="POST", href=f"/api/import/{source}/preview"),
                "execute": Link(method="POST", href=f"/api/import/{source}/execute"),
            },
        )
        for source, each in sorted(connectors().items())
    ]
    return ToolList(items=[*files, *trackers])


@router.get("/schema", summary="The predefined record", responses=problems(422))
async def schema(
    _caller: Reader, kind: Annotated[Kind, Query(description="What the records are")] = Kind.ISSUES
) -> PublishedSchema:
    """JSON Schema of a record, and the header of a CSV, that need no mapping."""
    return PublishedSchema(kind=kind, record=record_schema(kind), csv_header=csv_template(kind))


@router.get("/status/{job_id}", summary="How a job stands", responses=problems(404, 422))
async def status(context: InContext, _caller: Reader, job_id: UUID) -> JobView:
    """State, progress and counts; changes at least every second while rows flow."""
    return job_view(await find_status(context.runtime.database, job_id, now=datetime.now(UTC)))


@router.get("/history", summary="Jobs, newest first", responses=problems(422))
async def history(
    context: InContext,
    _caller: Reader,
    state: Annotated[JobState | None, Query(description="Only jobs in this state")] = None,
    import_source: Annotated[ImportSource | None, Query(description="Only jobs of this label")] = None,
    kind: Annotated[JobKind | None, Query(description="Only jobs of this kind")] = None,
    since: Annotated[Moment | None, Query(description="Only jobs created at this time or later")] = None,
    cursor: paging.Cursor = None,
    limit: paging.Limit = 50,
) -> JobPage:
    """Jobs with their progress, page by page."""
    return await list_page(
        context, state=state, import_source=import_source, kind=kind, since=since, cursor=cursor, limit=limit
    )


@router.post("/{job_id}/retry", status_code=202, summary="Run a job again", responses=problems(404, 409, 422))
async def retry(context: InContext, caller: Operator, job_id: UUID) -> JobView:
    """Queue a failed or cancelled job again: only what has not succeeded runs again."""
    await retry_job(context.runtime.database, caller, job_id)
    await context.dispatch()
    return job_view(await find_status(context.runtime.database, job_id, now=datetime.now(UTC)))


@router.post("/{job_id}/cancel", status_code=202, summary="Cancel a job", responses=problems(404, 409, 422))
async def cancel(context: InContext, caller: Operator, job_id: UUID) -> JobView:
    """A waiting job is cancelled at once, a running one after the batches it is at. What is stored stays."""
    await cancel_job(context.runtime.database, caller, job_id)
    return job_view(await find_status(context.runtime.database, job_id, now=datetime.now(UTC)))


async def list_page(context: Context, *, cursor: str | None, limit: int, **filters: Any) -> JobPage:
    """A page of jobs and the cursor of the next."""
    found = await list_statuses(
        context.runtime.database,
        now=datetime.now(UTC),
        limit=limit + 1,
        before=paging.decode_time_and_id(cursor),
        **filters,
    )
    page = found[:limit]
    last = page[-1] if len(found) > limit else None
    return JobPage(
        items=[job_view(each) for each in page],
        next_cursor=paging.encode(last.created_at.isoformat(), last.job_id) if last else None,
    )


async def _accept(context: Context, caller: Caller, response: Response, sent: Sent) -> Accepted:
    runtime = context.runtime
    job, _ = await accept_file(
        runtime.database,
        runtime.blobs,
        runtime.settings,
        caller=caller,
        request=sent.request,
        content=chunks_of(sent.file),
    )
    await context.dispatch()
    answer = accepted(job)
    response.headers["Location"] = answer.links["status"].href
    return answer
