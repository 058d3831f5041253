"""Streams: the kinds of record a tracker yields, each normalized to one model and kept in one table."""

from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, SkipValidation

from shared.domain.issue import Severity, StatusCategory


class Stream(StrEnum):
    """A kind of record."""

    ISSUES = "issues"
    COMMENTS = "comments"
    WORKLOGS = "worklogs"
    HISTORY = "history"  # the changes of an issue, as the source tells them
    SPRINTS = "sprints"
    USERS = "users"
    PROJECTS = "projects"
    PULL_REQUESTS = "pull_requests"
    COMMITS = "commits"
    RELEASES = "releases"
    BRANCHES = "branches"


Text = str
Identity = Annotated[str, Field(min_length=1, max_length=500)]
Title = Annotated[str, Field(min_length=1, max_length=4_000)]
# A moment outside of the calendar in UTC, though inside in its own zone, is taken by PostgreSQL, and nobody can read it
# again.
Moment = Annotated[AwareDatetime, Field(ge=datetime.min.replace(tzinfo=UTC), le=datetime.max.replace(tzinfo=UTC))]
# What a column of whole numbers holds.
Seconds = Annotated[int, Field(ge=-(2**63), lt=2**63)]


class Record(BaseModel):
    """What every normalized record has. `payload` is the record as the source sent it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    external_id: Identity
    # Nobody reads it as anything but JSON, which it was a moment ago; to check its names would be to copy it.
    payload: SkipValidation[dict[str, Any]]
    source_created_at: Moment | None = None
    source_updated_at: Moment | None = None


class Issue(Record):
    """An issue, incident or error group. Descriptions are Markdown, estimates seconds."""

    key: Text | None = None
    title: Title
    description: Text | None = None
    type: Text | None = None
    status: Text | None = None
    status_category: StatusCategory
    priority: Text | None = None
    severity: Severity | None = None
    assignee: Text | None = None
    reporter: Text | None = None
    labels: tuple[Text, ...] = ()
    components: tuple[Text, ...] = ()
    project: Text | None = None
    parent: Text | None = None
    sprint: Text | None = None
    sprint_ids: tuple[str, ...] = Field(default=(), description="External ids of its sprints")
    environment: dict[str, Any] | None = None
    stack_trace: Text | None = None
    url: Text | None = None
    due_on: date | None = None
    resolution: Text | None = None
    story_points: float | None = None
    estimate_seconds: Seconds | None = None
    resolved_at: Moment | None = None


class IssueChild(Record):
    """A record that belongs to an issue, known by its id or, where the source names only that, by its key."""

    issue_id: Text | None = None
    issue_key: Text | None = None


class Comment(IssueChild):
    """A comment, note or journal entry; `body` is Markdown."""

    author: Text | None = None
    body: Text = ""
    internal: bool = Field(default=False, description="Not shown to customers: work notes, internal notes")
    url: Text | None = None


class Worklog(IssueChild):
    """Time somebody spent on an issue."""

    author: Text | None = None
    started_at: Moment | None = None
    seconds: Seconds = 0
    comment: Text | None = None


class HistoryEntry(IssueChild):
    """A change of an issue as its source tells it: field → {from, to}."""

    author: Text | None = None
    changed_at: Moment
    changes: dict[str, dict[str, str | None]]


class Sprint(Record):
    """A sprint, iteration or milestone."""

    name: Text
    state: Text | None = None
    board: Text | None = None
    goal: Text | None = None
    starts_at: Moment | None = None
    ends_at: Moment | None = None
    completed_at: Moment | None = None


class Person(Record):
    """An account of the source."""

    name: Text | None = None
    login: Text | None = None
    email: Text | None = None
    active: bool | None = None
    time_zone: Text | None = None


class Project(Record):
    """A project or repository."""

    name: Text
    key: Text | None = None
    repository_url: Text | None = None
    description: Text | None = None
    owner: Text | None = None


class PullRequest(Record):
    """A pull or merge request."""

    key: Text | None = None
    project: Text | None = None
    title: Title
    description: Text | None = None
    state: Text = Field(description="open, closed or merged")
    draft: bool = False
    author: Text | None = None
    labels: tuple[Text, ...] = ()
    source_branch: Text | None = None
    target_branch: Text | None = None
    url: Text | None = None
    merged_at: Moment | None = None
    closed_at: Moment | None = None


class Commit(Record):
    """A commit on a followed branch."""

    project: Text | None = None
    sha: Text
    message: Text = ""
    author: Text | None = None
    author_email: Text | None = None
    url: Text | None = None
    committed_at: Moment | None = None


class Release(Record):
    """A published or drafted release."""

    project: Text | None = None
    tag: Text
    name: Text | None = None
    description: Text | None = None
    author: Text | None = None
    draft: bool = False
    prerelease: bool = False
    url: Text | None = None
    published_at: Moment | None = None


class Branch(Record):
    """A branch and where it points."""

    project: Text | None = None
    name: Text
    sha: Text | None = None
    protected: bool = False
    default: bool = False


MODELS: dict[Stream, type[Record]] = {
    Stream.ISSUES: Issue,
    Stream.COMMENTS: Comment,
    Stream.WORKLOGS: Worklog,
    Stream.HISTORY: HistoryEntry,
    Stream.SPRINTS: Sprint,
    Stream.USERS: Person,
    Stream.PROJECTS: Project,
    Stream.PULL_REQUESTS: PullRequest,
    Stream.COMMITS: Commit,
    Stream.RELEASES: Release,
    Stream.BRANCHES: Branch,
}


def to_utc(text: str | None) -> datetime | None:
    """A tracker's ISO 8601 time with zone; `+0000` and `Z` are both understood. ValueError if it has no zone."""
    if not text:
        return None
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone")
    return moment
