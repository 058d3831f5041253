"""Jira, Cloud (REST v3) and Data Center (REST v2): issues and what belongs to them, sprints, users, projects.

A project is walked by key, because keys do not change while issues are edited, and every page begins at the last issue
of the page before it. An issue that moves gets a new key and a new time of change, so the next window sees it.
https://developer.atlassian.com/cloud/jira/platform/rest/v3/intro/
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from math import ceil
from typing import Any, ClassVar
from urllib.parse import quote

import httpx

from shared.connectors._http import TrackerHTTP
from shared.connectors._jira_children import Families
from shared.connectors._jira_hooks import HOOKS
from shared.connectors._jira_lists import Lists
from shared.connectors._jira_login import Login
from shared.connectors._jira_query import of_project, of_settings
from shared.connectors._jira_records import (
    as_object,
    parse_comment,
    parse_history,
    parse_issue,
    parse_project,
    parse_sprint,
    parse_user,
    parse_worklog,
)
from shared.connectors._jira_refusals import classify, read_quota
from shared.connectors._jira_settings import JiraCredentials, JiraSettings
from shared.connectors._jira_site import BULK, JiraSite, told
from shared.connectors._jira_walk import PAGE, IssueWalk
from shared.connectors._protocol import (
    EVERYTHING,
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

# Of issues, the share with an embedded list that is cut short.
_OVERFLOWING = 0.02
# Server, fields, projects and the first pages of the site's lists.
_FIXED_CALLS = 8
_COUNTED_PROJECTS = 20
_MOST_CHOICES = 5_000
_ABSENT = frozenset({Trouble.NOT_FOUND, Trouble.PERMISSION_DENIED, Trouble.BAD_REQUEST})
# https://support.atlassian.com/jira-cloud-administration/docs/permissions-for-company-managed-projects/
_PERMISSIONS = {"BROWSE_PROJECTS": "no issue can be read", "USER_PICKER": "users cannot be listed"}
_PARSERS: Mapping[Stream, Callable[[dict[str, Any], Mapping[str, Any]], Record]] = {
    Stream.ISSUES: parse_issue,
    Stream.COMMENTS: parse_comment,
    Stream.WORKLOGS: parse_worklog,
    Stream.HISTORY: parse_history,
    Stream.SPRINTS: parse_sprint,
    Stream.USERS: parse_user,
    Stream.PROJECTS: parse_project,
}


class JiraConnector:
    """One Jira site, as one account sees it."""

    source: ClassVar[str] = "jira"
    title: ClassVar[str] = "Jira"
    Settings: ClassVar[type[ConnectorSettings]] = JiraSettings
    Credentials: ClassVar[type[ConnectorCredentials]] = JiraCredentials
    streams: ClassVar[Mapping[Stream, StreamTraits]] = {
        Stream.ISSUES: StreamTraits(walk=Walk.WINDOW, census=True),
        Stream.COMMENTS: StreamTraits(walk=Walk.CHILD, parent=Stream.ISSUES),
        Stream.WORKLOGS: StreamTraits(walk=Walk.CHILD, parent=Stream.ISSUES),
        Stream.HISTORY: StreamTraits(walk=Walk.CHILD, parent=Stream.ISSUES),
        Stream.SPRINTS: StreamTraits(walk=Walk.SNAPSHOT, per_scope=False),
        Stream.USERS: StreamTraits(walk=Walk.SNAPSHOT, per_scope=False),
        Stream.PROJECTS: StreamTraits(walk=Walk.SNAPSHOT, per_scope=False),
    }
    # The search follows writes after seconds, at times minutes.
    # https://developer.atlassian.com/cloud/jira/platform/search-and-reconcile/
    index_lag: ClassVar[timedelta] = timedelta(minutes=5)
    keys_per_part: ClassVar[int] = BULK
    keys_need_scope: ClassVar[bool] = False
    key_form: ClassVar[KeyForm | None] = None
    hooks: ClassVar[Hooks] = HOOKS

    def __init__(
        self,
        client: httpx.AsyncClient,
        base_url: str,
        settings: ConnectorSettings,
        credentials: ConnectorCredentials,
        renew: Renew | None = None,
    ) -> None:
        if not isinstance(settings, JiraSettings) or not isinstance(credentials, JiraCredentials):
            raise TypeError("Jira takes JiraSettings and JiraCredentials")
        self._settings = settings
        self._login = Login(client, base_url, credentials, renew)
        self._http = TrackerHTTP(
            client,
            base_url=self._login.address,
            authorize=self._login.headers,
            renounce=self._login.renounce,
            classify=classify,
            read_quota=read_quota,
            concurrency=settings.concurrency,
        )
        self._site = JiraSite(self._http, self._login, base_url, settings)
        self._named = frozenset(name.upper() for name in settings.projects)
        self._filters = of_settings(settings)
        self._families = Families(self._site, frozenset(settings.streams or self.streams))
        self._walk = IssueWalk(self._site, self._families, self._filters, self._named)
        self._lists = Lists(self._site, self._named)

    @property
    def requests(self) -> int:
        """How many requests were sent so far."""
        return self._http.requests + self._login.requests

    @property
    def quota(self) -> Quota | None:
        """What the last answer said of the rate limit."""
        return self._http.quota

    async def check(self) -> Probe:
        """Who the account is, what it may do, and about how many issues it can see."""
        cloud, _ = await self._site.about()
        me = await self._site.get(await self._site.api("myself"))
        granted, missing = await self._permissions()
        if self._settings.field_mapping:
            # Raises where it names a field that is not there.
            await self._site.fields()
        scopes, gaps = await self.scopes()
        warnings = [f"{gap.scope}: {gap.detail}" for gap in gaps]
        if Stream.WORKLOGS in self._families.wanted and not await self._site.tracks_time():
            warnings.append("Time tracking is switched off in this Jira, so it shows no worklogs")
        person = told(me)
        return Probe(
            account=str(person.get("displayName") or person.get("accountId") or person.get("name") or ""),
            deployment="Cloud" if cloud else "Data Center",
            time_zone=person.get("timeZone"),
            server_time=me.server_time,
            granted=granted,
            missing=[*missing, *await self._refusals(granted)],
            counts=await self._counts(scopes),
            quota=self.quota,
            warnings=warnings,
        )

    async def _permissions(self) -> tuple[list[str], list[str]]:
        """What the account may do, and what it may not.

        https://developer.atlassian.com/cloud/jira/platform/rest/v3/api-group-permissions/
        """
        try:
            path, asked = await self._site.api("mypermissions"), ",".join(_PERMISSIONS)
            answer = await self._site.get(path, {"permissions": asked})
        except SourceError as error:
            if error.trouble is not Trouble.PERMISSION_DENIED:
                raise
            return [], [f"mypermissions: what this account may do is not known: {error.detail}"]
        held = as_object(told(answer).get("permissions"))
        granted = [name for name in _PERMISSIONS if as_object(held.get(name)).get("havePermission")]
        return granted, [f"{name}: {without}" for name, without in _PERMISSIONS.items() if name not in granted]

    async def _refusals(self, granted: Sequence[str]) -> list[str]:
        """Streams that a missing scope keeps away, found out by asking; nothing lists the scopes of a token."""
        asked = [Stream.SPRINTS, *([Stream.USERS] if "USER_PICKER" in granted else [])]
        streams = [each for each in asked if each in (self._settings.streams or self.streams)]
        refused = await asyncio.gather(*map(self._lists.refused, streams))
        return [f"{stream}: {detail}" for stream, detail in zip(streams, refused, strict=True) if detail]

    async def _counts(self, scopes: Sequence[Scope]) -> dict[str, int]:
        if not scopes:
            return {}
        if len(scopes) > _COUNTED_PROJECTS:
            # A query has to be bounded; naming every project would make it too long.
            everywhere = " AND ".join(["project is not EMPTY", *self._filters])
            return {EVERYTHING: await self._site.count(everywhere)}
        queries = [" AND ".join([of_project(scope.id), *self._filters]) for scope in scopes]
        counts = await asyncio.gather(*map(self._site.count, queries))
        return {scope.id: count for scope, count in zip(scopes, counts, strict=True)}

    async def now(self) -> datetime:
        """Jira's clock."""
        answer = await self._site.get(await self._site.api("myself"))
        return answer.server_time or answer.read_at

    async def discover(self, kind: str) -> list[Choice]:
        """`projects`, `users` or `boards`."""
        if kind == "boards":
            rows = await self._site.whole_list("rest/agile/1.0/board", "values")
            return [
                Choice(
                    id=str(row["id"]), name=str(row.get("name") or row["id"]), description=str(row.get("type") or "")
                )
                for row in rows
            ]
        stream = {"projects": Stream.PROJECTS, "users": Stream.USERS}.get(kind)
        if stream is None:
            raise SourceError(Trouble.BAD_REQUEST, f"Jira has no {kind} to choose from")
        sent = await self._all_of(stream, Lists(self._site, frozenset()))
        return [_project_choice(each.raw) if kind == "projects" else _user_choice(each.raw) for each in sent]

    async def _all_of(self, stream: Stream, lists: Lists) -> list[Sent]:
        sent: dict[str, Sent] = {}
        position: Mapping[str, Any] | None = {}
        while position is not None and len(sent) < _MOST_CHOICES:
            page = await lists.page(stream, position, None)
            sent |= {str(each.raw.get("accountId") or each.raw.get("key")): each for each in page.records}
            position = page.next
        return list(sent.values())

    async def scopes(self) -> tuple[list[Scope], list[Gap]]:
        """The projects, by their ids, which outlive a change of key."""
        if not self._settings.projects:
            sent = await self._all_of(Stream.PROJECTS, self._lists)
            return [Scope(id=str(each.raw["id"]), name=str(each.raw["key"])) for each in sent], []
        found = await asyncio.gather(*map(self._scope, self._settings.projects))
        scopes = {each.id: each for each in found if isinstance(each, Scope)}
        return list(scopes.values()), [each for each in found if isinstance(each, Gap)]

    async def _scope(self, name: str) -> Scope | Gap:
        """A project the settings name.

        https://developer.atlassian.com/cloud/jira/platform/rest/v3/api-group-projects/
        """
        try:
            project = told(await self._site.get(await self._site.api(f"project/{quote(name, safe='')}")))
        except SourceError as error:
            if error.trouble not in _ABSENT:
                raise
            return Gap(Stream.ISSUES, name, error.trouble, error.detail, error.status)
        if project.get("archived"):
            return Gap(Stream.ISSUES, name, Trouble.NOT_FOUND, "The project is archived; Jira's search leaves it out")
        return Scope(id=str(project["id"]), name=str(project["key"]))

    async def split(self, part: Part) -> list[Part]:
        """Ranges of keys, for a walk from the beginning."""
        if part.stream is not Stream.ISSUES or part.since or part.query or part.kind is PartKind.KEYS:
            return [part]
        return await self._walk.split(part)

    async def fetch(self, part: Part, position: Mapping[str, Any] | None, *, most: int | None = None) -> Page:
        """One page of a part."""
        if part.kind is PartKind.KEYS:
            return await self._walk.named(part, preview=most is not None)
        if part.stream is not Stream.ISSUES:
            return await self._lists.page(part.stream, position, most)
        if part.kind is PartKind.CENSUS:
            return await self._walk.census(part, position)
        return await self._walk.page(part, position, most)

    def normalize(self, sent: Sent) -> Record:
        """The record in our words."""
        return _PARSERS[sent.stream](sent.raw, sent.context)

    def estimate_calls(self, issues: int) -> int:
        """Pages, and the lists of about two in a hundred issues that are too long to come with them."""
        return ceil(issues / (PAGE - 1)) + ceil(issues * _OVERFLOWING * len(self._families.wanted)) + _FIXED_CALLS


def _project_choice(raw: Mapping[str, Any]) -> Choice:
    return Choice(id=str(raw["key"]), name=str(raw.get("name") or raw["key"]), description=str(raw["key"]))


def _user_choice(raw: Mapping[str, Any]) -> Choice:
    account = str(raw.get("accountId") or raw.get("name") or raw.get("key"))
    return Choice(id=account, name=str(raw.get("displayName") or account), description=raw.get("emailAddress") or "")


CONNECTOR = JiraConnector
