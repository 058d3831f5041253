"""Normalized issues and repositories for readers."""

from datetime import date, datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from shared.domain.errors import NotFoundError
from shared.store import issues
from shared.store.database import Database


class IssueRow(BaseModel):
    """An issue in a list."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    import_source: str = Field(examples=["petrel"])
    external_id: str
    key: str | None = Field(examples=["PETREL-17"])
    title: str
    type: str | None
    status: str | None
    status_category: str
    priority: str | None
    severity: str | None
    assignee: str | None
    reporter: str | None
    labels: list[Any]
    components: list[Any]
    project: str | None
    parent: str | None
    sprint: str | None
    url: str | None
    due_on: date | None
    resolution: str | None
    story_points: float | None
    estimate_seconds: int | None
    source_created_at: datetime | None
    source_updated_at: datetime | None
    resolved_at: datetime | None
    updated_at: datetime = Field(description="When we last stored another version")
    deleted_at: datetime | None
    absence: str | None = Field(description="Why it is gone: deleted, deleted_or_hidden, moved")


class IssueComment(BaseModel):
    """A comment, Markdown."""

    external_id: str
    author: str | None
    body: str
    internal: bool
    url: str | None
    source_created_at: datetime | None
    source_updated_at: datetime | None


class IssueWorklog(BaseModel):
    """Time spent."""

    external_id: str
    author: str | None
    started_at: datetime | None
    seconds: int
    comment: str | None


class IssueHistory(BaseModel):
    """A change, as the source tells it."""

    external_id: str
    author: str | None
    changed_at: datetime
    changes: dict[str, Any]


class IssueChange(BaseModel):
    """A change, as our jobs saw it."""

    job_id: UUID
    changes: dict[str, Any]
    changed_at: datetime


class IssueSprint(BaseModel):
    """A sprint the issue is or was in."""

    external_id: str
    name: str
    state: str | None
    starts_at: datetime | None
    ends_at: datetime | None


class IssueDetails(IssueRow):
    """An issue with all that belongs to it."""

    description: str | None
    environment: dict[str, Any] | None
    stack_trace: str | None
    payload: Any = Field(description="The record as its source sent it")
    comments: list[IssueComment]
    worklogs: list[IssueWorklog]
    history: list[IssueHistory]
    changes: list[IssueChange]
    sprints: list[IssueSprint]


class Repository(BaseModel):
    """A synced repository: what the source says of it, and what its commits and pull requests say."""

    import_source: str
    name: str
    repository_url: str | None
    description: str | None
    owner: str | None
    analysis: dict[str, Any] | None = Field(description="Languages, structure and activity, where the source tells")
    last_90_days: dict[str, float | None]


async def list_issues(
    database: Database, *, filters: dict[str, Any], before: tuple[datetime, str, str] | None, limit: int
) -> list[IssueRow]:
    """A page of issues, newest change first."""
    async with database.connection() as connection:
        rows = await issues.list_issues(connection, filters=filters, before=before, limit=limit)
    return [IssueRow.model_validate(row) for row in rows]


async def find_issue(database: Database, import_source: str, external_id: str) -> IssueDetails:
    """One issue; NotFoundError if there is none. Gone ones are found too."""
    async with database.connection() as connection:
        row = await issues.find_issue(connection, import_source, external_id)
        if row is None:
            raise NotFoundError("There is no such issue", hint="External ids are those of the list, not keys")
        gone = row["deleted_at"]
        return IssueDetails.model_validate(
            {
                **row,
                "comments": await issues.list_comments(connection, import_source, external_id, row["key"], gone),
                "worklogs": await issues.list_worklogs(connection, import_source, external_id, gone),
                "history": await issues.list_history(connection, import_source, external_id, gone),
                "changes": await issues.list_changes(connection, import_source, external_id),
                "sprints": await issues.list_sprints(connection, import_source, external_id),
            }
        )


async def find_repository(database: Database, import_source: str, name: str) -> Repository:
    """A repository with its analysis; NotFoundError if it is not synced."""
    async with database.connection() as connection:
        row = await issues.find_repository(connection, import_source, name)
        if row is None:
            raise NotFoundError("There is no such repository", hint="Sync the connection's `projects` stream first")
        activity = await issues.summarize_activity(connection, import_source, name)
    payload: dict[str, Any] = row["payload"]
    return Repository(
        import_source=import_source,
        name=row["name"],
        repository_url=row["repository_url"],
        description=row["description"],
        owner=row["owner"],
        analysis=payload.get("analysis"),
        last_90_days=activity,
    )


async def list_of_repository(
    database: Database, table: str, import_source: str, name: str, *, limit: int
) -> list[dict[str, Any]]:
    """Commits or pull requests of a repository, newest first."""
    async with database.connection() as connection:
        return await issues.list_repository_rows(connection, table, import_source, name, limit=limit)
