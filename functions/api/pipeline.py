"""All jobs at a glance, the dead-letter queue, pause and resume."""

from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, Field, StrictBool, model_validator

from functions.api import paging
from functions.api.auth import GuardedRoute, needs
from functions.api.context import InContext
from functions.api.imports import list_page
from functions.api.models import ImportSource, JobDetails, JobPage, Link, Links, Moment, job_links
from functions.api.openapi import problems
from shared.domain.caller import Caller, Role
from shared.domain.job import JobKind, JobState
from shared.services.control_jobs import MOST_RETRIED_AT_ONCE, retry_dead_letters, set_pipeline_paused
from shared.services.job_status import find_log, find_status
from shared.services.pipeline_stats import PipelineStats, find_pipeline_stats

router = APIRouter(prefix="/api/pipeline", route_class=GuardedRoute, tags=["pipeline"])

Reader = Annotated[Caller, Depends(needs(Role.READER))]
Admin = Annotated[Caller, Depends(needs(Role.ADMIN))]


class StatsView(PipelineStats):
    """How the pipeline stands, and what can be done."""

    links: Links


class PipelineState(BaseModel):
    """Whether jobs are started."""

    paused: bool
    changed: bool = Field(description="False if it was so before")
    links: Links


class RetryRequest(BaseModel):
    """Which jobs to take out of the dead-letter queue: some, or the latest 500."""

    job_ids: list[UUID] | None = Field(None, min_length=1, max_length=MOST_RETRIED_AT_ONCE)
    all: StrictBool = False

    @model_validator(mode="after")
    def _one_of_both(self) -> "RetryRequest":
        if (self.job_ids is None) != self.all:
            raise ValueError("name job_ids, or set all to true")
        return self


class Retried(BaseModel):
    """What was queued again; jobs that were not in the dead-letter queue are not in it."""

    retried: int = Field(examples=[2])
    job_ids: list[UUID]


@router.get("/stats", summary="How the pipeline stands", responses=problems())
async def stats(context: InContext, _caller: Reader) -> StatsView:
    """Jobs by state, rows settled within the last hour, open rejections."""
    runtime = context.runtime
    found = await find_pipeline_stats(
        runtime.database, concurrency=runtime.settings.job_concurrency, now=datetime.now(UTC)
    )
    links = {"jobs": Link(method="GET", href="/api/pipeline/jobs"), **_pause_link(paused=found.paused)}
    if found.failed:
        links["dlq"] = Link(method="GET", href="/api/pipeline/dlq")
        links["dlq_retry"] = Link(method="POST", href="/api/pipeline/dlq/retry")
    return StatsView(**found.model_dump(), links=links)


@router.get("/jobs", summary="Jobs, newest first", responses=problems(422))
async def jobs(
    context: InContext,
    _caller: Reader,
    state: Annotated[JobState | None, Query(description="Only jobs in this state")] = None,
    import_source: Annotated[ImportSource | None, Query(description="Only jobs of this label")] = None,
    kind: Annotated[JobKind | None, Query(description="Only jobs of this kind")] = None,
    since: Annotated[Moment | None, Query(description="Only jobs created at this time or later")] = None,
    cursor: paging.Cursor = None,
    limit: paging.Limit = 50,
) -> JobPage:
    """Imports and syncs with their progress, page by page."""
    return await list_page(
        context, state=state, import_source=import_source, kind=kind, since=since, cursor=cursor, limit=limit
    )


@router.get("/jobs/{job_id}", summary="One job and what happened to it", responses=problems(404, 422))
async def job(context: InContext, _caller: Reader, job_id: UUID) -> JobDetails:
    """The job's status and its log, oldest entry first."""
    found = await find_status(context.runtime.database, job_id, now=datetime.now(UTC))
    log = await find_log(context.runtime.database, job_id)
    return JobDetails(**found.model_dump(), links=job_links(found), log=log)


@router.get("/dlq", summary="The dead-letter queue", responses=problems(422))
async def dead_letters(
    context: InContext, _caller: Reader, cursor: paging.Cursor = None, limit: paging.Limit = 50
) -> JobPage:
    """Jobs that failed for good and wait for somebody to look."""
    return await list_page(context, state=JobState.FAILED, cursor=cursor, limit=limit)


@router.post("/dlq/retry", status_code=202, summary="Empty the dead-letter queue", responses=problems(400, 422))
async def retry(context: InContext, caller: Admin, body: RetryRequest) -> Retried:
    """Queue failed jobs again: only what has not succeeded runs again."""
    retried = await retry_dead_letters(context.runtime.database, caller, body.job_ids)
    await context.dispatch()
    return Retried(retried=len(retried), job_ids=retried)


@router.post("/pause", summary="Start no more jobs", responses=problems())
async def pause(context: InContext, caller: Admin) -> PipelineState:
    """Running jobs go on; what is accepted waits until the pipeline is resumed."""
    changed = await set_pipeline_paused(context.runtime.database, caller, paused=True)
    return PipelineState(paused=True, changed=changed, links=_pause_link(paused=True))


@router.post("/resume", summary="Start jobs again", responses=problems())
async def resume(context: InContext, caller: Admin) -> PipelineState:
    """Waiting jobs start at once, as many as may run."""
    changed = await set_pipeline_paused(context.runtime.database, caller, paused=False)
    await context.dispatch()
    return PipelineState(paused=False, changed=changed, links=_pause_link(paused=False))


def _pause_link(*, paused: bool) -> dict[str, Link]:
    name = "resume" if paused else "pause"
    return {name: Link(method="POST", href=f"/api/pipeline/{name}")}
