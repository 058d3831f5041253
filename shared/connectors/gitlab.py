"""GitLab: issues with their notes, merge requests, milestones, iterations and members over REST v4.

Notes have no list of their own: they are read for every issue that has some and was changed. A note within a minute of
an earlier change leaves the issue's `updated_at` alone, so windows are held back by more than that.
https://docs.gitlab.com/api/rest/
"""

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, ClassVar

import httpx

from shared.connectors import _gitlab_records as records
from shared.connectors._gitlab_api import REFUSED, GitLabAPI
from shared.connectors._gitlab_hooks import HOOKS
from shared.connectors._gitlab_parts import KEY_FORM, Choices, fetch_page
from shared.connectors._gitlab_settings import GitLabCredentials, GitLabSettings
from shared.connectors._gitlab_walk import Rows, rows_of, to_moment
from shared.connectors._http import together
from shared.connectors._protocol import (
    Choice,
    ConnectorCredentials,
    ConnectorSettings,
    Gap,
    Hooks,
    KeyForm,
    Page,
    Part,
    PartKind,
    Probe,
    Quota,
    Renew,
    Scope,
    Sent,
    StreamTraits,
    Walk,
)
from shared.domain.errors import SourceError, Trouble
from shared.domain.stream import Record, Stream

_ISSUES_PER_PIECE = 2_000
_MOST_PIECES = 16
_MOST_COUNTED = 20
_MOST_NAMED = 5
_NEEDED_SCOPES = {"api", "read_api"}
# Planner, the least role that sees confidential issues: https://docs.gitlab.com/user/permissions/
_LEAST_ROLE = 15


class GitLabConnector:
    """A connection to gitlab.com or a self-managed GitLab."""

    source: ClassVar[str] = "gitlab"
    title: ClassVar[str] = "GitLab"
    Settings: ClassVar[type[ConnectorSettings]] = GitLabSettings
    Credentials: ClassVar[type[ConnectorCredentials]] = GitLabCredentials
    streams: ClassVar[Mapping[Stream, StreamTraits]] = {
        Stream.ISSUES: StreamTraits(walk=Walk.WINDOW, census=True),
        Stream.COMMENTS: StreamTraits(walk=Walk.CHILD, parent=Stream.ISSUES),
        Stream.HISTORY: StreamTraits(walk=Walk.CHILD, parent=Stream.ISSUES),
        Stream.WORKLOGS: StreamTraits(walk=Walk.CHILD, parent=Stream.ISSUES),
        Stream.PULL_REQUESTS: StreamTraits(walk=Walk.WINDOW, census=True),
        Stream.SPRINTS: StreamTraits(walk=Walk.SNAPSHOT),
        Stream.USERS: StreamTraits(walk=Walk.SNAPSHOT),
        Stream.PROJECTS: StreamTraits(walk=Walk.SNAPSHOT, per_scope=False),
    }
    # More than the minute in which a note leaves `updated_at` alone (ThrottledTouch in GitLab's source).
    index_lag: ClassVar[timedelta] = timedelta(minutes=2)
    keys_per_part: ClassVar[int] = 100
    keys_need_scope: ClassVar[bool] = False
    key_form: ClassVar[KeyForm | None] = KEY_FORM
    hooks: ClassVar[Hooks] = HOOKS

    def __init__(
        self,
        client: httpx.AsyncClient,
        base_url: str,
        settings: ConnectorSettings,
        credentials: ConnectorCredentials,
        renew: Renew | None = None,
    ) -> None:
        if not isinstance(settings, GitLabSettings) or not isinstance(credentials, GitLabCredentials):
            raise TypeError("GitLab needs its own settings and credentials")
        self._choices = Choices(settings.streams)
        self._api = GitLabAPI(
            client,
            base_url,
            credentials=credentials,
            renew=renew,
            projects=settings.projects,
            groups=settings.groups,
            concurrency=settings.concurrency,
        )

    @property
    def requests(self) -> int:
        return self._api.requests

    @property
    def quota(self) -> Quota | None:
        return self._api.http.quota

    async def check(self) -> Probe:
        with _as_described():
            return await self._probe()

    async def now(self) -> datetime:
        answer = await self._api.version()
        if answer.server_time is None:
            raise SourceError(Trouble.SCHEMA_CHANGED, "GitLab's answer has no Date header")
        return answer.server_time

    async def discover(self, kind: str) -> list[Choice]:
        with _as_described():
            if kind == "projects":
                return [_choice(raw) for raw in await self._api.member_projects()]
            if kind == "users":
                scopes, _ = await self.scopes()
                lists = await together(self._api.members(scope.id) for scope in scopes)
                people = {raw["username"]: raw.get("name") or "" for rows in lists for raw in rows}
                return [Choice(id=login, name=login, description=name) for login, name in sorted(people.items())]
            return []

    async def scopes(self) -> tuple[list[Scope], list[Gap]]:
        with _as_described():
            found, gaps = await self._api.projects()
            return _scopes(found), gaps

    async def split(self, part: Part) -> list[Part]:
        """Cut by time of creation, which never changes; both ends of a piece are inclusive, so pieces overlap."""
        if part.stream is not Stream.ISSUES or part.since or part.query or part.kind is not PartKind.WINDOW:
            return [part]
        with _as_described():
            path = f"projects/{part.scope}/issues"
            newest = await self._api.get(path, {"scope": "all", "per_page": 1})
            total = newest.headers.get("x-total", "")
            # More than 10,000 rows are not counted: https://docs.gitlab.com/user/gitlab_com/#pagination-response-headers
            pieces = math.ceil(int(total) / _ISSUES_PER_PIECE) if total.isdecimal() else _MOST_PIECES
            if pieces <= 1 or newest.link("next") is None:
                return [part]
            oldest = await self._api.get(path, {"scope": "all", "per_page": 1, "order_by": "created_at", "sort": "asc"})
            born = [datetime.fromisoformat(row["created_at"]) for row in (*rows_of(oldest), *rows_of(newest))]
            return _slices(part, min(born), max(born), min(pieces, _MOST_PIECES))

    async def fetch(self, part: Part, position: Mapping[str, Any] | None, *, most: int | None = None) -> Page:
        with _as_described():
            return await fetch_page(self._api, part, position, most, self._choices)

    def normalize(self, sent: Sent) -> Record:
        try:
            if sent.stream in {Stream.COMMENTS, Stream.HISTORY}:
                return records.parse_note(sent.raw, sent.context["issue_id"])
            if sent.stream is Stream.SPRINTS and sent.context.get("iteration"):
                return records.parse_iteration(sent.raw)
            if sent.stream is Stream.WORKLOGS:
                return records.parse_worklog(sent.raw, sent.context)
            return _PARSERS[sent.stream](sent.raw)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"The record is not as GitLab describes it: {error!r}") from error

    def estimate_calls(self, issues: int) -> int:
        """Pages of issues, as many for time spent on them, and the notes of two issues in three, which have some."""
        notes = math.ceil(issues * 2 / 3) if self._choices.notes else 0
        pages = math.ceil(issues / 100)
        return pages + (pages if self._choices.wants(Stream.WORKLOGS) else 0) + notes + 10

    async def _probe(self) -> Probe:
        user = await self._api.get("user")
        version = (await self._api.version()).data
        token = await self._api.token_facts()
        found, gaps = await self._api.projects()
        scopes = _scopes(found)
        warnings = [f"{gap.scope}: {gap.detail}" for gap in gaps]
        if token.short_lived:
            warnings.append(
                "This token ends after hours and is not renewed; a schedule needs an application's refresh token"
            )
        if "api" in token.scopes:
            warnings.append("This token may write as well; one with read_api is enough")
        if scopes and self._choices.wants(Stream.SPRINTS) and not await self._has_iterations(scopes[0]):
            warnings.append("This GitLab has no iterations, which are part of Premium; milestones are the sprints")
        return Probe(
            account=user.data["username"],
            deployment=f"GitLab {version.get('version', '')}".strip(),
            server_time=user.server_time,
            granted=token.scopes,
            missing=_missing(token.scopes, found),
            expires_at=token.expires_at,
            quota=self.quota,
            counts=await self._counts(scopes[:_MOST_COUNTED]),
            warnings=warnings,
        )

    async def _has_iterations(self, scope: Scope) -> bool:
        try:
            await self._api.get(f"projects/{scope.id}/iterations", {"per_page": 1})
        except SourceError as error:
            if error.trouble not in REFUSED:
                raise
            return False
        return True

    async def _counts(self, scopes: Sequence[Scope]) -> dict[str, int]:
        counted = await together(self._count(scope) for scope in scopes)
        return {scope.id: total for scope, total in zip(scopes, counted, strict=True) if total is not None}

    async def _count(self, scope: Scope) -> int | None:
        try:
            answer = await self._api.get(f"projects/{scope.id}/issues", {"scope": "all", "per_page": 1})
        except SourceError as error:
            if error.trouble not in REFUSED:
                raise
            return None
        total = answer.headers.get("x-total", "")
        # Where there are too many to be counted the newest number says about how many.
        return int(total) if total.isdecimal() else max((row["iid"] for row in rows_of(answer)), default=0)


@contextmanager
def _as_described() -> Generator[None]:
    """Say that an answer is not as the API describes it, instead of stumbling over it."""
    try:
        yield
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        detail = "GitLab's answer is not as its API describes it"
        raise SourceError(Trouble.SCHEMA_CHANGED, f"{detail}: {type(error).__name__}") from error


def _scopes(projects: Rows) -> list[Scope]:
    return [Scope(str(raw["id"]), raw["path_with_namespace"]) for raw in projects]


def _missing(granted: Sequence[str], projects: Rows) -> list[str]:
    """The scope that is needed, and the projects in which the account's role hides confidential issues."""
    missing = [] if not granted or _NEEDED_SCOPES & set(granted) else ["read_api: nothing can be read without it"]
    low = [raw["path_with_namespace"] for raw in projects if _is_low(raw.get("permissions") or {})]
    if low:
        more = f" and {len(low) - _MOST_NAMED} more" if len(low) > _MOST_NAMED else ""
        missing.append(f"role Reporter (for confidential issues) in {', '.join(low[:_MOST_NAMED])}{more}")
    return missing


def _is_low(permissions: Mapping[str, Any]) -> bool:
    """Whether the account is less than a planner here; of projects it is no member of nothing is told."""
    levels = [each["access_level"] for each in permissions.values() if each]
    return bool(levels) and max(levels) < _LEAST_ROLE


def _slices(part: Part, begin: datetime, end: datetime, pieces: int) -> list[Part]:
    step = (end - begin) / pieces
    slices: list[Part] = []
    for number in range(pieces):
        query: dict[str, Any] = {}
        if number:
            query["created_after"] = to_moment(begin + step * number)
        if number < pieces - 1:
            query["created_before"] = to_moment(begin + step * (number + 1))
        slices.append(Part(kind=part.kind, stream=part.stream, scope=part.scope, query=query))
    return slices


def _choice(raw: Mapping[str, Any]) -> Choice:
    updated = raw.get("last_activity_at")
    return Choice(
        id=raw["path_with_namespace"],
        name=raw["path_with_namespace"],
        description=raw.get("description") or "",
        updated_at=datetime.fromisoformat(updated) if updated else None,
    )


_PARSERS: Mapping[Stream, Callable[[Mapping[str, Any]], Record]] = {
    Stream.ISSUES: records.parse_issue,
    Stream.PULL_REQUESTS: records.parse_merge_request,
    Stream.SPRINTS: records.parse_milestone,
    Stream.USERS: records.parse_member,
    Stream.PROJECTS: records.parse_project,
}

CONNECTOR = GitLabConnector
