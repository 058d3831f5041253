"""Records that could not be stored: look, download, mend, replay, dismiss."""

from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel, Field, StrictBool, model_validator

from functions.api import paging
from functions.api.auth import GuardedRoute, needs
from functions.api.context import InContext
from functions.api.forms import (
    IdempotencyKey,
    OptionalFilePart,
    Options,
    PriorityField,
    file_name,
    refuse_too_large,
)
from functions.api.models import Accepted, Link, Links, Word, accepted
from functions.api.openapi import problems
from shared.domain.caller import Caller, Role
from shared.domain.rejection import RejectionState
from shared.services.rejections import (
    DownloadFormat,
    RejectionPage,
    Selection,
    dismiss_rejections,
    download_rejections,
    list_rejections,
)
from shared.services.replay_rejections import Correction, Replay, replay_rejections

router = APIRouter(prefix="/api/import/{job_id}/rejections", route_class=GuardedRoute, tags=["rejections"])

Reader = Annotated[Caller, Depends(needs(Role.READER))]
Operator = Annotated[Caller, Depends(needs(Role.OPERATOR))]
_MEDIA_TYPES = {DownloadFormat.CSV: "text/csv; charset=utf-8", DownloadFormat.NDJSON: "application/x-ndjson"}
_FILES: dict[str, Any] = {
    "content": {
        "text/csv": {
            "schema": {"type": "string"},
            "example": "_rejection_id,_row,_reason,_hint,Issue key,Summary\r\n"
            "4711,17,Summary: The title is empty,Fill the column Summary,PETREL-17,\r\n",
        },
        "application/x-ndjson": {
            "schema": {"type": "string"},
            "example": '{"_rejection_id":4711,"_row":17,"_reason":"The title is empty","_hint":"…","id":"PETREL-17"}\n',
        },
    },
    "headers": {
        "Link": {"description": "Of a download that was cut: where it goes on", "schema": {"type": "string"}},
        "Content-Disposition": {"description": "Of a download: its file name", "schema": {"type": "string"}},
    },
}


class ListFormat(StrEnum):
    """How rejections are shown."""

    JSON = "json"
    CSV = "csv"
    NDJSON = "ndjson"


class RejectionList(RejectionPage):
    """A page of rejections."""

    next_cursor: str | None = Field(description="Give it as `cursor` for the next page; absent on the last")
    links: Links


class DismissRequest(BaseModel):
    """Which rejections to close: some, or all that are open."""

    ids: list[Annotated[int, Field(ge=1, lt=2**63)]] | None = Field(
        None, min_length=1, max_length=10_000, examples=[[4711, 4712]]
    )
    all: StrictBool = False

    @model_validator(mode="after")
    def _one_of_both(self) -> "DismissRequest":
        if (self.ids is None) != self.all:
            raise ValueError("name ids, or set all to true")
        return self


class Dismissed(BaseModel):
    """What was closed; ids that were not open rejections of this job are not in it."""

    dismissed: int = Field(examples=[2])
    ids: list[int]


@router.get(
    "",
    summary="Rejected records",
    response_model=RejectionList,
    responses={200: _FILES, **problems(404, 422)},
)
async def listed(
    context: InContext,
    _caller: Reader,
    job_id: UUID,
    shape: Annotated[ListFormat, Query(alias="format", description="json pages; csv and ndjson are downloads")] = (
        ListFormat.JSON
    ),
    state: Annotated[RejectionState | None, Query(description="json: by default every state; files: open ones")] = None,
    code: Annotated[Word | None, Query(description="Only records with this problem", examples=["invalid_date"])] = None,
    cursor: paging.Cursor = None,
    limit: paging.Limit = 50,
) -> RejectionList | Response:
    """What was refused and why.

    `format=csv` has the columns of the file behind `_rejection_id`, `_row`, `_reason` and `_hint`; mend it and send it
    to `replay`. A cell that a spreadsheet would run as a formula has an apostrophe in front; `replay` takes it off.
    `format=ndjson` keeps the shape of nested JSON. Downloads hold up to 20,000 records; `Link` names the rest.
    """
    after = paging.decode_id(cursor) or 0
    if shape is not ListFormat.JSON:
        selection = Selection(job_id, state or RejectionState.OPEN, code, after)
        return await _download(context, selection, DownloadFormat(shape.value))
    page = await list_rejections(context.runtime.database, Selection(job_id, state, code, after), limit=limit + 1)
    items = page.items[:limit]
    base = f"/api/import/{job_id}/rejections"
    return RejectionList(
        **page.model_dump(exclude={"items"}),
        items=items,
        next_cursor=paging.encode(items[-1].id) if len(page.items) > limit else None,
        links={
            "job": Link(method="GET", href=f"/api/import/status/{job_id}"),
            "csv": Link(method="GET", href=f"{base}?format=csv"),
            "replay": Link(method="POST", href=f"{base}/replay"),
            "dismiss": Link(method="POST", href=f"{base}/dismiss"),
        },
    )


@router.post(
    "/replay",
    status_code=202,
    summary="Import rejected records again",
    responses={
        202: {"headers": {"Location": {"description": "Where to follow the job", "schema": {"type": "string"}}}},
        **problems(400, 404, 409, 413, 422),
    },
)
async def replay(
    context: InContext,
    caller: Operator,
    response: Response,
    job_id: UUID,
    fields: Options,
    file: OptionalFilePart = None,
    priority: PriorityField = None,
    idempotency_key: IdempotencyKey = None,
) -> Accepted:
    """Queue a job for the records that were refused.

    With a mended file it takes its records, recognized by `_rejection_id`; without one all open rejections as they
    came, for example with another `date_order` or `mapping`. Other options are those of the first job.
    """
    runtime = context.runtime
    correction = None
    if file is not None:
        size = refuse_too_large(file, runtime.settings.max_request_bytes)
        correction = Correction(file_name(file), size, file.file)
    job, _ = await replay_rejections(
        runtime.database,
        runtime.blobs,
        runtime.settings,
        caller=caller,
        job_id=job_id,
        replay=Replay(correction, fields.given, priority, idempotency_key),
    )
    await context.dispatch()
    answer = accepted(job)
    response.headers["Location"] = answer.links["status"].href
    return answer


@router.post("/dismiss", summary="Close rejections for good", responses=problems(400, 404, 422))
async def dismiss(context: InContext, caller: Operator, job_id: UUID, body: DismissRequest) -> Dismissed:
    """Nobody will mend these records; they stay listed as dismissed until the job is removed."""
    dismissed = await dismiss_rejections(context.runtime.database, caller, job_id, body.ids)
    return Dismissed(dismissed=len(dismissed), ids=dismissed)


async def _download(context: InContext, selection: Selection, form: DownloadFormat) -> Response:
    download = await download_rejections(context.runtime.database, selection, form)
    ascii_name = download.name.encode("ascii", "replace").decode().replace("?", "_").replace('"', "_")
    headers = {"Content-Disposition": f'attachment; filename="{ascii_name}"'}
    if download.last_id is not None:
        cursor = paging.encode(download.last_id)
        rest = f"/api/import/{selection.job_id}/rejections?format={form}&state={selection.state}&cursor={cursor}"
        headers["Link"] = f'<{rest}>; rel="next"'
    return Response(download.content, media_type=_MEDIA_TYPES[form], headers=headers)
