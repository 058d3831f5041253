"""Normalized issues and repositories, to read."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query
from pydantic import BaseModel, Field

from functions.api import paging
from functions.api.auth import GuardedRoute, needs
from functions.api.context import InContext
from functions.api.models import ImportSource, Moment
from functions.api.openapi import problems
from shared.domain.caller import Caller, Role
from shared.domain.issue import StatusCategory
from shared.services.read_issues import (
    IssueDetails,
    IssueRow,
    Repository,
    find_issue,
    find_repository,
    list_issues,
    list_of_repository,
)

router = APIRouter(prefix="/api/issues", route_class=GuardedRoute, tags=["issues"])
repositories = APIRouter(prefix="/api/repositories", route_class=GuardedRoute, tags=["issues"])

Reader = Annotated[Caller, Depends(needs(Role.READER))]
Words = Annotated[str | None, Query(max_length=300, pattern=r"^[^\x00]*$")]
Name = Annotated[
    str, Path(max_length=300, pattern=r"^[^\x00]+$", description="What the source knows it by", examples=["PETREL-17"])
]
RepositoryName = Annotated[str, Query(max_length=300, description="Name of the repository", examples=["petrel/app"])]
SourceInPath = Annotated[str, Path(pattern=r"^[a-z0-9][a-z0-9._-]{0,99}$", description="Label of the source")]
# Behind every real time, for issues whose source tells none.
_NO_TIME = datetime.min.replace(tzinfo=UTC)


class IssuePage(BaseModel):
    """Issues, newest change first."""

    items: list[IssueRow]
    next_cursor: str | None = Field(description="Give it as `cursor` for the next page; absent on the last")


class RepositoryRows(BaseModel):
    """Commits or pull requests, newest first."""

    items: list[dict[str, Any]]


@router.get("", summary="Issues", responses=problems(422))
async def listed(  # noqa: PLR0913, PLR0917 - one parameter for each filter
    context: InContext,
    _caller: Reader,
    import_source: Annotated[ImportSource | None, Query(description="Label of the source")] = None,
    status: Annotated[Words, Query(description="As the source has it", examples=["In Review"])] = None,
    status_category: Annotated[StatusCategory | None, Query(description="How far they are")] = None,
    assignee: Annotated[Words, Query(description="Name of the person", examples=["Ada Vale"])] = None,
    project: Annotated[Words, Query(description="Name of the project or repository", examples=["petrel/app"])] = None,
    label: Annotated[Words, Query(description="One of their labels", examples=["q2"])] = None,
    text: Annotated[Words, Query(description="In the title, or the whole key")] = None,
    updated_since: Annotated[Moment | None, Query(description="Changed at the source then or later")] = None,
    deleted: Annotated[bool | None, Query(description="Those that are gone, instead of those that are there")] = None,
    cursor: paging.Cursor = None,
    limit: paging.Limit = 50,
) -> IssuePage:
    """Issues of all sources, newest change first, page by page."""
    filters = {
        "import_source": import_source,
        "status": status,
        "status_category": status_category,
        "assignee": assignee,
        "project": project,
        "label": label,
        "text": text,
        "updated_since": updated_since,
        "deleted": bool(deleted),
    }
    found = await list_issues(
        context.runtime.database, filters=filters, before=paging.decode_issue(cursor), limit=limit + 1
    )
    page = found[:limit]
    last = page[-1] if len(found) > limit else None
    at = (last.source_updated_at or _NO_TIME).isoformat() if last else ""
    return IssuePage(items=page, next_cursor=paging.encode(at, last.import_source, last.external_id) if last else None)


@router.get("/{import_source}/{external_id:path}", summary="One issue", responses=problems(404, 422))
async def one(context: InContext, _caller: Reader, import_source: SourceInPath, external_id: Name) -> IssueDetails:
    """With description, comments, worklogs, sprints and both histories: the source's own and what our jobs saw."""
    return await find_issue(context.runtime.database, import_source, external_id)


@repositories.get("/{import_source}/analysis", summary="Analysis of a repository", responses=problems(404, 422))
async def analysis(
    context: InContext, _caller: Reader, import_source: SourceInPath, repository: RepositoryName
) -> Repository:
    """Languages, structure and activity of a synced repository."""
    return await find_repository(context.runtime.database, import_source, repository.replace("\0", ""))


@repositories.get("/{import_source}/{rows}", summary="Commits or pull requests", responses=problems(422))
async def rows_of(
    context: InContext,
    _caller: Reader,
    import_source: SourceInPath,
    rows: Annotated[Literal["commits", "pull_requests"], Path(description="What of it")],
    repository: RepositoryName,
    limit: paging.Limit = 50,
) -> RepositoryRows:
    """The newest of a synced repository."""
    name = repository.replace("\0", "")
    return RepositoryRows(
        items=await list_of_repository(context.runtime.database, rows, import_source, name, limit=limit)
    )
