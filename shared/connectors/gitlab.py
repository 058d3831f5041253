"""GitLab: issues with their notes, merge requests, milestones and members over REST v4.

Notes have no list of their own: they are read for every issue that has some and was changed. A note within a minute of
an earlier change leaves the issue's `updated_at` alone, so windows are held back by more than that.
https://docs.gitlab.com/api/rest/
"""

import asyncio
import math
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, ClassVar
from urllib.parse import quote

import httpx
from pydantic import Field, SecretStr

from shared.connectors import _gitlab_records as records
from shared.connectors._gitlab_refusals import classify, read_quota
from shared.connectors._gitlab_walk import Rows, Step, changed_page, every_row, issues_page, rows_of, to_moment
from shared.connectors._http import Answer, Headers, TrackerHTTP
from shared.connectors._protocol import (
    EVERYTHING,
    Absence,
    Children,
    Choice,
    ConnectorCredentials,
    ConnectorSettings,
    Gap,
    Gone,
    Page,
    Part,
    PartKind,
    Probe,
    Quota,
    Scope,
    Sent,
    StreamTraits,
    Walk,
)
from shared.domain.errors import SourceError, Trouble
from shared.domain.stream import Record, Stream

REFUSED = {Trouble.PERMISSION_DENIED, Trouble.NOT_FOUND}
_ISSUES_PER_PIECE = 2_000
_MOST_PIECES = 16
_MOST_COUNTED = 20
_IIDS_PER_CALL = 50
_NEEDED_SCOPES = {"api", "read_api"}


class TokenKind(StrEnum):
    """How a token is sent."""

    ACCESS_TOKEN = "access_token"  # noqa: S105 - a kind, not a secret
    OAUTH = "oauth"


class GitLabSettings(ConnectorSettings):
    """Which projects to read."""

    projects: tuple[str, ...] = Field(
        default=(), title="Projects", description="Paths or ids", examples=[["tidewater/harbor"]]
    )
    groups: tuple[str, ...] = Field(
        default=(),
        title="Groups",
        description="All projects in them, subgroups too. Neither: all the account is a member of",
        examples=[["tidewater"]],
    )


class GitLabCredentials(ConnectorCredentials):
    """A personal, project or group access token, or an OAuth access token."""

    token: SecretStr = Field(title="Token", description="With the scope read_api", examples=["glpat-…"])
    kind: TokenKind = Field(default=TokenKind.ACCESS_TOKEN, title="Kind of token")


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
        Stream.PULL_REQUESTS: StreamTraits(walk=Walk.WINDOW),
        Stream.SPRINTS: StreamTraits(walk=Walk.SNAPSHOT),
        Stream.USERS: StreamTraits(walk=Walk.SNAPSHOT),
        Stream.PROJECTS: StreamTraits(walk=Walk.SNAPSHOT, per_scope=False),
    }
    # More than the minute in which a note leaves `updated_at` alone (ThrottledTouch in GitLab's source).
    index_lag: ClassVar[timedelta] = timedelta(minutes=2)
    keys_per_part: ClassVar[int] = 100
    keys_need_scope: ClassVar[bool] = False

    def __init__(
        self, client: httpx.AsyncClient, base_url: str, settings: ConnectorSettings, credentials: ConnectorCredentials
    ) -> None:
        if not isinstance(settings, GitLabSettings) or not isinstance(credentials, GitLabCredentials):
            raise TypeError("GitLab needs its own settings and credentials")
        self._settings = settings
        self._credentials = credentials
        base = base_url.rstrip("/").removesuffix("/api/v4")
        self._http = TrackerHTTP(
            client,
            base_url=f"{base}/api/v4",
            authorize=self._authorize,
            classify=classify,
            read_quota=read_quota,
            concurrency=settings.concurrency,
        )

    @property
    def requests(self) -> int:
        return self._http.requests

    @property
    def quota(self) -> Quota | None:
        return self._http.quota

    async def check(self) -> Probe:
        with _as_described():
            return await self._probe()

    async def now(self) -> datetime:
        answer = await self._http.get("version")
        if answer.server_time is None:
            raise SourceError(Trouble.SCHEMA_CHANGED, "GitLab's answer has no Date header")
        return answer.server_time

    async def discover(self, kind: str) -> list[Choice]:
        with _as_described():
            if kind == "projects":
                found, _ = await self._member_projects()
                return [_choice(raw) for raw in found]
            if kind == "users":
                scopes, _ = await self.scopes()
                lists = await asyncio.gather(*(self._members(scope.id) for scope in scopes))
                people = {raw["username"]: raw.get("name") or "" for rows, _ in lists for raw in rows}
                return [Choice(id=login, name=login, description=name) for login, name in sorted(people.items())]
            return []

    async def scopes(self) -> tuple[list[Scope], list[Gap]]:
        with _as_described():
            found, gaps = await self._projects()
            return [Scope(str(raw["id"]), raw["path_with_namespace"]) for raw in found], gaps

    async def split(self, part: Part) -> list[Part]:
        """Cut by time of creation, which never changes; both ends of a piece are inclusive, so pieces overlap."""
        if part.stream is not Stream.ISSUES or part.since or part.query or part.kind is not PartKind.WINDOW:
            return [part]
        with _as_described():
            path = f"projects/{part.scope}"
            answer = await self._http.get(f"{path}/issues", {"scope": "all", "per_page": 1})
            total = answer.headers.get("x-total", "")
            # More than 10,000 rows are not counted: https://docs.gitlab.com/user/gitlab_com/#pagination-response-headers
            pieces = math.ceil(int(total) / _ISSUES_PER_PIECE) if total.isdecimal() else _MOST_PIECES
            if pieces <= 1 or answer.link("next") is None or answer.server_time is None:
                return [part]
            project = (await self._http.get(path)).data
            begin = datetime.fromisoformat(project["created_at"])
            first = rows_of(
                await self._http.get(
                    f"{path}/issues", {"scope": "all", "per_page": 1, "order_by": "created_at", "sort": "asc"}
                )
            )
            begin = min(begin, *(datetime.fromisoformat(row["created_at"]) for row in first))
            return _slices(part, begin, answer.server_time, min(pieces, _MOST_PIECES))

    async def fetch(self, part: Part, position: Mapping[str, Any] | None, *, most: int | None = None) -> Page:
        with _as_described():
            if part.kind is PartKind.KEYS:
                return await self._named(part)
            match part.stream:
                case Stream.ISSUES:
                    return await self._issues(part, position, most)
                case Stream.PULL_REQUESTS:
                    return await self._merge_requests(part, position, most)
                case Stream.SPRINTS:
                    return await self._whole(part, "milestones", {"state": "all"})
                case Stream.USERS:
                    return await self._whole(part, "members/all", {})
                case Stream.PROJECTS:
                    found, gaps = await self._projects()
                    read_at = (await self._http.get("version")).read_at
                    sent = [Sent(Stream.PROJECTS, raw, EVERYTHING) for raw in found]
                    return Page(read_at=read_at, records=sent, gaps=gaps)
                case _:
                    raise SourceError(Trouble.BAD_REQUEST, f"GitLab has no stream {part.stream} of its own")

    def normalize(self, sent: Sent) -> Record:
        try:
            if sent.stream in {Stream.COMMENTS, Stream.HISTORY}:
                return records.parse_note(sent.raw, sent.context["issue_id"])
            return _PARSERS[sent.stream](sent.raw)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"The record is not as GitLab describes it: {error!r}") from error

    def estimate_calls(self, issues: int) -> int:
        """Pages of issues, and the notes of two issues in three, which have some."""
        notes = math.ceil(issues * 2 / 3) if self._wants(Stream.COMMENTS) else 0
        return math.ceil(issues / 100) + notes + 10

    async def _authorize(self) -> Headers:
        token = self._credentials.token.get_secret_value().strip()
        if self._credentials.kind is TokenKind.OAUTH:
            return {"Authorization": f"Bearer {token}"}
        return {"PRIVATE-TOKEN": token}

    def _wants(self, stream: Stream) -> bool:
        return not self._settings.streams or stream in self._settings.streams

    async def _probe(self) -> Probe:
        user = await self._http.get("user")
        version = (await self._http.get("version")).data
        token = await self._own_token()
        scopes, gaps = await self.scopes()
        granted: list[str] = token.get("scopes") or []
        missing = [] if not granted or _NEEDED_SCOPES & set(granted) else ["read_api: nothing can be read without it"]
        warnings = [f"{gap.scope}: {gap.detail}" for gap in gaps]
        if "api" in granted:
            warnings.append("This token may write as well; one with read_api is enough")
        return Probe(
            account=user.data["username"],
            deployment=f"GitLab {version.get('version', '')}".strip(),
            server_time=user.server_time,
            granted=granted,
            missing=missing,
            expires_at=_midnight(token.get("expires_at")),
            quota=self.quota,
            counts=await self._counts(scopes[:_MOST_COUNTED]),
            warnings=warnings,
        )

    async def _own_token(self) -> dict[str, Any]:
        """What GitLab says of the token itself; OAuth tokens have no such page.

        https://docs.gitlab.com/api/personal_access_tokens/#self-inform
        """
        try:
            answer = await self._http.get("personal_access_tokens/self")
        except SourceError as error:
            if error.trouble not in REFUSED | {Trouble.AUTH_INVALID}:
                raise
            return {}
        return answer.data

    async def _counts(self, scopes: Sequence[Scope]) -> dict[str, int]:
        async def count(scope: Scope) -> tuple[str, int | None]:
            answer = await self._http.get(f"projects/{scope.id}/issues", {"scope": "all", "per_page": 1})
            total = answer.headers.get("x-total", "")
            if total.isdecimal():
                return scope.id, int(total)
            # Too many to be counted: the newest number says about how many there are.
            return scope.id, max((row["iid"] for row in rows_of(answer)), default=0)

        counted = await asyncio.gather(*(count(scope) for scope in scopes))
        return {scope: total for scope, total in counted if total is not None}

    async def _projects(self) -> tuple[Rows, list[Gap]]:
        """The projects the settings name, each once, and those that cannot be read."""
        if not self._settings.projects and not self._settings.groups:
            return await self._member_projects()
        found: dict[int, dict[str, Any]] = {}
        gaps: list[Gap] = []
        for name in self._settings.projects:
            try:
                raw = (await self._http.get(f"projects/{quote(name, safe='')}")).data
                found[raw["id"]] = raw
            except SourceError as error:
                gaps.append(_gap(Stream.PROJECTS, name, error))
        for name in self._settings.groups:
            path = f"groups/{quote(name, safe='')}/projects"
            try:
                rows, _ = await every_row(self._http.get, path, {"include_subgroups": "true", "order_by": "id"})
                found |= {raw["id"]: raw for raw in rows}
            except SourceError as error:
                gaps.append(_gap(Stream.PROJECTS, name, error))
        return list(found.values()), gaps

    async def _member_projects(self) -> tuple[Rows, list[Gap]]:
        rows, _ = await every_row(self._http.get, "projects", {"membership": "true", "order_by": "id", "sort": "asc"})
        return rows, []

    async def _members(self, scope: str) -> tuple[Rows, bool]:
        return await every_row(self._http.get, f"projects/{scope}/members/all", {})

    async def _issues(self, part: Part, position: Mapping[str, Any] | None, most: int | None) -> Page:
        filters = {"scope": "all", **part.query}
        if part.since:
            filters["updated_after"] = to_moment(part.since)
        step = await issues_page(self._http.get, f"projects/{part.scope}/issues", filters, position, most)
        with_notes = most is None and part.kind is PartKind.WINDOW
        return await self._page(step, step.rows, part.scope, with_notes=with_notes, census=part.kind is PartKind.CENSUS)

    async def _page(self, step: Step, rows: Rows, scope: str, *, with_notes: bool, census: bool = False) -> Page:
        sent = [Sent(Stream.ISSUES, raw, scope) for raw in rows]
        complete: list[Children] = []
        gaps: list[Gap] = []
        if self._wants(Stream.WORKLOGS):
            worked = [raw for raw in rows if records.seconds_spent(raw)]
            sent += [Sent(Stream.WORKLOGS, raw, scope) for raw in worked]
            ids = {str(raw["id"]): f"{raw['id']}-total" for raw in worked}
            complete += [
                Children(Stream.WORKLOGS, issue, frozenset({ids[issue]} if issue in ids else ()))
                for issue in (str(raw["id"]) for raw in rows)
            ]
        if with_notes and (self._wants(Stream.COMMENTS) or self._wants(Stream.HISTORY)):
            for notes, children, gap in await asyncio.gather(*(self._notes(raw, scope) for raw in rows)):
                sent += notes
                complete += children
                gaps += gap
        seen = [(str(raw["id"]), datetime.fromisoformat(raw["updated_at"])) for raw in rows] if census else []
        read_at = step.answer.read_at
        return Page(read_at=read_at, records=sent, next=step.next, complete=complete, gaps=gaps, seen=seen)

    async def _notes(self, raw: Mapping[str, Any], scope: str) -> tuple[list[Sent], list[Children], list[Gap]]:
        """The notes of an issue, if it has some; people's as comments, GitLab's own as history."""
        issue = str(raw["id"])
        if not raw.get("user_notes_count"):
            return [], [Children(Stream.COMMENTS, issue, frozenset())], []
        path = f"projects/{raw['project_id']}/issues/{raw['iid']}/notes"
        try:
            rows, certain = await every_row(self._http.get, path, {"sort": "asc", "order_by": "created_at"})
        except SourceError as error:
            if error.trouble is Trouble.NOT_FOUND:
                # Deleted or hidden since the list was made; the census tells.
                return [], [], []
            if error.trouble is not Trouble.PERMISSION_DENIED:
                raise
            return [], [], [_gap(Stream.COMMENTS, scope, error)]
        context = {"issue_id": issue}
        sent: list[Sent] = []
        complete: list[Children] = []
        for stream, system in ((Stream.COMMENTS, False), (Stream.HISTORY, True)):
            if not self._wants(stream):
                continue
            own = [row for row in rows if bool(row.get("system")) is system]
            sent += [Sent(stream, row, scope, context) for row in own]
            if certain:
                complete.append(Children(stream, issue, frozenset(str(row["id"]) for row in own)))
        return sent, complete, []

    async def _merge_requests(self, part: Part, position: Mapping[str, Any] | None, most: int | None) -> Page:
        filters: dict[str, Any] = {"scope": "all", "state": "all"}
        if part.since:
            filters["updated_after"] = to_moment(part.since)
        path = f"projects/{part.scope}/merge_requests"
        step = await changed_page(self._http.get, path, filters, position, most)
        sent = [Sent(Stream.PULL_REQUESTS, raw, part.scope) for raw in step.rows]
        return Page(read_at=step.answer.read_at, records=sent, next=step.next)

    async def _whole(self, part: Part, path: str, params: Mapping[str, Any]) -> Page:
        """A short list of a project, whole on one page."""
        read_at = (await self._http.get("version")).read_at
        rows, certain = await every_row(self._http.get, f"projects/{part.scope}/{path}", params)
        detail = f"{path} changed while they were read; the next sync reads them again"
        gaps = [] if certain else [Gap(part.stream, part.scope, Trouble.PAYLOAD_INVALID, detail)]
        return Page(read_at=read_at, records=[Sent(part.stream, raw, part.scope) for raw in rows], gaps=gaps)

    async def _named(self, part: Part) -> Page:
        """Issues by their keys, `group/project#iid`; lists by iid come from the database, not from a search."""
        asked = [(str(each["id"]), str(each["key"])) for each in part.query.get("issues", ())]
        asked += [(str(key), str(key)) for key in part.query.get("keys", ())]
        by_project: dict[str, dict[str, str]] = {}
        for identity, key in asked:
            project, _, iid = key.rpartition("#")
            by_project.setdefault(project, {})[iid] = identity
        read_at = (await self._http.get("version")).read_at
        pages = await asyncio.gather(*(self._of_project(name, iids) for name, iids in by_project.items()))
        return Page(
            read_at=read_at,
            records=[sent for page, _ in pages for sent in page.records],
            complete=[each for page, _ in pages for each in page.complete],
            gaps=[gap for page, _ in pages for gap in page.gaps],
            gone=[gone for _, missing in pages for gone in missing],
        )

    async def _of_project(self, project: str, identities: Mapping[str, str]) -> tuple[Page, list[Gone]]:
        """Issues of one project by iid → the id asked for; what is missing is deleted, hidden, or was moved away."""
        path = f"projects/{quote(project, safe='')}"
        iids = [iid for iid in identities if iid.isdecimal()]
        rows: Rows = []
        answer: Answer | None = None
        try:
            scope = str((await self._http.get(path)).data["id"])
            for start in range(0, len(iids), _IIDS_PER_CALL):
                some = iids[start : start + _IIDS_PER_CALL]
                answer = await self._http.get(
                    f"{path}/issues", {"scope": "all", "iids[]": some, "per_page": _IIDS_PER_CALL}
                )
                rows += rows_of(answer)
        except SourceError as error:
            if error.trouble is not Trouble.NOT_FOUND:
                raise
            scope = project
        there = {str(row["iid"]) for row in rows}
        gone = [
            Gone(Stream.ISSUES, identity, Absence.DELETED_OR_HIDDEN)
            for iid, identity in identities.items()
            if iid not in there
        ]
        if answer is None:
            return Page(read_at=datetime.now(UTC)), gone
        return await self._page(Step(rows, answer, None), rows, scope, with_notes=True), gone


@contextmanager
def _as_described() -> Generator[None]:
    """Say that an answer is not as the API describes it, instead of stumbling over it."""
    try:
        yield
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        detail = "GitLab's answer is not as its API describes it"
        raise SourceError(Trouble.SCHEMA_CHANGED, f"{detail}: {type(error).__name__}") from error


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


def _gap(stream: Stream, scope: str, error: SourceError) -> Gap:
    if error.trouble not in REFUSED:
        raise error
    return Gap(stream, scope, error.trouble, error.detail, error.status)


def _choice(raw: Mapping[str, Any]) -> Choice:
    updated = raw.get("last_activity_at")
    return Choice(
        id=raw["path_with_namespace"],
        name=raw["path_with_namespace"],
        description=raw.get("description") or "",
        updated_at=datetime.fromisoformat(updated) if updated else None,
    )


def _midnight(day: str | None) -> datetime | None:
    return datetime.fromisoformat(f"{day}T00:00:00+00:00") if day else None


_PARSERS: Mapping[Stream, Callable[[Mapping[str, Any]], Record]] = {
    Stream.ISSUES: records.parse_issue,
    Stream.WORKLOGS: records.parse_worklog,
    Stream.PULL_REQUESTS: records.parse_merge_request,
    Stream.SPRINTS: records.parse_milestone,
    Stream.USERS: records.parse_member,
    Stream.PROJECTS: records.parse_project,
}

CONNECTOR = GitLabConnector
