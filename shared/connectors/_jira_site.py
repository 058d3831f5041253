"""One Jira, Cloud or Data Center, behind the same calls: search, read by id, count, and lists counted by offset."""

import asyncio
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import batched
from typing import Any
from urllib.parse import quote, urlsplit

from shared.connectors._http import Answer, TrackerHTTP
from shared.connectors._jira_login import GATEWAY, Login
from shared.connectors._jira_query import Mark, issue_names
from shared.connectors._jira_records import Fields, as_count, as_list, as_object, is_object, parse_fields, scope_of
from shared.connectors._jira_refusals import refuse_nobody
from shared.connectors._jira_settings import Deployment, JiraSettings
from shared.connectors._kept import Kept
from shared.domain.errors import SourceError, Trouble

# https://developer.atlassian.com/cloud/jira/platform/rest/v3/api-group-issues/#api-rest-api-3-issue-bulkfetch-post
BULK = 100
_LIST_PAGE = 100
_SECONDS_KEPT = 600
_READINGS = 5
_KEY = re.compile(r".+-[0-9]+")
_ID_OR_KEY = re.compile(r"[0-9]+|[A-Za-z][A-Za-z0-9_]*-[0-9]+")


@dataclass(frozen=True, kw_only=True)
class Look:
    """What of an issue is asked for, and how many at once."""

    fields: Sequence[str]
    expand: Sequence[str] = ()
    most: int = 100


@dataclass(frozen=True, kw_only=True)
class Found:
    """A page of a search. `more` leads on inside the same query, and drifts as issues come and go."""

    issues: list[dict[str, Any]]
    ended: bool
    more: Mapping[str, Any] | None
    read_at: datetime
    warnings: Sequence[str] = ()


class JiraSite:
    """The calls; every one of them raises SourceError with the class of trouble."""

    def __init__(self, http: TrackerHTTP, login: Login, base_url: str, settings: JiraSettings) -> None:
        self._http = http
        self._login = login
        self._base_url = base_url.rstrip("/")
        self._settings = settings
        self._root = Kept(self._find_root, seconds=_SECONDS_KEPT)
        self._about = Kept(self._ask_about, seconds=_SECONDS_KEPT)
        self._fields = Kept(self._ask_fields, seconds=_SECONDS_KEPT)
        self._tracks_time = Kept(self._ask_tracking, seconds=_SECONDS_KEPT)

    async def get(self, path: str, params: Mapping[str, Any] | None = None) -> Answer:
        """GET, by a known account."""
        answer = await self._http.get(await self._root.get() + path, params)
        refuse_nobody(answer)
        return answer

    async def post(self, path: str, json: Any) -> Answer:
        """POST a question, by a known account."""
        answer = await self._http.post(await self._root.get() + path, json)
        refuse_nobody(answer)
        return answer

    async def _find_root(self) -> str:
        """Where the site's API is. An app may be authorized for several sites; the gateway knows them by number.

        https://developer.atlassian.com/cloud/jira/platform/oauth-2-3lo-apps/#3--make-calls-to-the-api-using-the-access-token
        """
        if not self._login.by_site:
            return ""
        sites = rows_of(await self._http.get("oauth/token/accessible-resources"), "id", "url")
        wanted = urlsplit(self._base_url).netloc.lower()
        for site in sites:
            if urlsplit(str(site["url"])).netloc.lower() == wanted:
                return f"{GATEWAY[1:]}{quote(str(site['id']), safe='')}/"
        known = ", ".join(sorted({str(site["url"]) for site in sites})) or "no site at all"
        raise SourceError(
            Trouble.AUTH_INVALID,
            f"The app is not authorized for {wanted}, but for {known}",
            hint="Check the address, or authorize the app again and choose this site",
        )

    async def about(self) -> tuple[bool, str]:
        """Whether this is Cloud, and the address people use.

        https://developer.atlassian.com/cloud/jira/platform/rest/v3/api-group-server-info/
        """
        return await self._about.get()

    async def _ask_about(self) -> tuple[bool, str]:
        if self._login.by_site:
            return True, self._base_url
        set_to = self._settings.deployment
        gateway = GATEWAY in self._base_url
        if set_to is not Deployment.AUTO and not gateway:
            return set_to is Deployment.CLOUD, self._base_url
        info = told(await self._http.get("rest/api/2/serverInfo"))
        cloud = info.get("deploymentType") == "Cloud" if set_to is Deployment.AUTO else set_to is Deployment.CLOUD
        # Behind the gateway only the site itself knows the address of its pages.
        return cloud, str(info.get("baseUrl") or self._base_url).rstrip("/") if gateway else self._base_url

    async def api(self, path: str) -> str:
        """The path under the newest API this Jira has."""
        cloud, _ = await self.about()
        return f"rest/api/{3 if cloud else 2}/{path}"

    async def fields(self) -> Fields:
        """The custom fields and what they are for.

        https://developer.atlassian.com/cloud/jira/platform/rest/v3/api-group-issue-fields/#api-rest-api-3-field-get
        """
        return await self._fields.get()

    async def _ask_fields(self) -> Fields:
        return parse_fields((await self.get(await self.api("field"))).data, self._settings.field_mapping)

    async def tracks_time(self) -> bool:
        """Whether people may log work here; where that is not told, it is taken for granted.

        https://developer.atlassian.com/cloud/jira/platform/rest/v3/api-group-jira-settings/#api-rest-api-3-configuration-get
        """
        return await self._tracks_time.get()

    async def _ask_tracking(self) -> bool:
        try:
            return told(await self.get(await self.api("configuration"))).get("timeTrackingEnabled") is not False
        except SourceError as error:
            if error.trouble not in {Trouble.PERMISSION_DENIED, Trouble.NOT_FOUND}:
                raise
            return True

    async def search(self, jql: str, look: Look, more: Mapping[str, Any] | None = None) -> Found:
        """A page of issues.

        Cloud: neither total nor offsets, nothing but ids unless asked for, and short pages that are not the last.
        https://developer.atlassian.com/cloud/jira/platform/rest/v3/api-group-issue-search/#api-rest-api-3-search-jql-post
        Data Center: the administrator limits maxResults; what counts is the number in the answer.
        https://support.atlassian.com/jira/kb/how-to-use-the-maxresults-api-parameter-for-jira-issue-search-rest-api/
        """
        cloud, _ = await self.about()
        body: dict[str, Any] = {"jql": jql, "fields": list(look.fields), "maxResults": look.most, **(more or {})}
        if look.expand:
            body["expand"] = ",".join(look.expand) if cloud else list(look.expand)
        answer = await self.post(await self.api("search/jql" if cloud else "search"), body)
        data = told(answer)
        issues: list[dict[str, Any]] = _told_issues(data)
        ended, onward = _by_token(data) if cloud else _by_offset(data, len(issues))
        warnings = [str(each) for each in as_list(data.get("warnings") or data.get("warningMessages"))]
        return Found(issues=issues, ended=ended, more=onward, read_at=answer.read_at, warnings=warnings)

    async def count(self, jql: str) -> int:
        """About how many issues a query finds.

        https://developer.atlassian.com/cloud/jira/platform/rest/v3/api-group-issue-search/#api-rest-api-3-search-approximate-count-post
        """
        cloud, _ = await self.about()
        if cloud:
            answer = await self.post(await self.api("search/approximate-count"), {"jql": jql})
            return as_count(told(answer).get("count")) or 0
        answer = await self.post(await self.api("search"), {"jql": jql, "maxResults": 0})
        return as_count(told(answer).get("total")) or 0

    async def read(self, wanted: Sequence[str], look: Look) -> tuple[list[dict[str, Any]], list[str], datetime]:
        """Issues by id or key as they are, not as the search knows them; the names without one; and when this began."""
        cloud, _ = await self.about()
        askable = [name for name in wanted if _ID_OR_KEY.fullmatch(name)]
        if cloud and askable:
            answer = await self._bulk(askable, look)
            found = _told_issues(told(answer))
        else:
            # A refusal of every single issue would not tell when it was asked for.
            answer, found = await self.get(await self.api("myself")), []
        answered = {str(issue["id"]) for issue in found} | {str(issue["key"]).upper() for issue in found}
        # Jira leaves out what it has not, what it hides and what it could not serve this time, and gives moved issues
        # under their new key. One by one every name gets an answer.
        left = [name for name in askable if name.upper() not in answered]
        singly = await asyncio.gather(*(self._one(name, look) for name in left))
        issues = {str(issue["id"]): issue for issue in [*found, *(each for each in singly if each is not None)]}
        absent = [name for name, issue in zip(left, singly, strict=True) if issue is None]
        return list(issues.values()), [*absent, *(name for name in wanted if name not in askable)], answer.read_at

    async def _bulk(self, wanted: Sequence[str], look: Look) -> Answer:
        body = {"issueIdsOrKeys": list(wanted), "fields": list(look.fields), "expand": list(look.expand)}
        return await self.post("rest/api/3/issue/bulkfetch", body)

    async def _one(self, name: str, look: Look) -> dict[str, Any] | None:
        params = {"fields": ",".join(look.fields), "expand": ",".join(look.expand)}
        try:
            issue = told(await self.get(await self.api(f"issue/{name}"), params))
        except SourceError as error:
            if error.trouble is Trouble.NOT_FOUND:
                return None
            raise
        return _told_issues({"issues": [issue]})[0]

    async def exists(self, issue_id: str) -> bool:
        """Whether an issue is there for this account."""
        return await self._one(issue_id, Look(fields=["project"])) is not None

    async def marks(self, scope: str, wanted: Iterable[str]) -> list[Mark]:
        """Which of these ids and keys are issues of a project now, under their present keys."""
        cloud, _ = await self.about()
        look = Look(fields=["project"])
        found: list[dict[str, Any]] = []
        for some in batched(wanted, BULK, strict=False):
            if cloud:
                found += _told_issues(told(await self._bulk(some, look)))
            else:
                # Unchecked, a query may name issues that are gone.
                # https://docs.atlassian.com/software/jira/docs/api/REST/9.17.0/#api/2/search-searchUsingSearchRequest
                more = {"validateQuery": False}
                found += (await self.search(f"issuekey in {issue_names(some)}", look, more)).issues
        return [Mark.at(issue) for issue in found if scope_of(issue) == scope]

    async def foothold(self, mark: Mark, scope: str) -> Mark | None:
        """The nearest issue at or below a mark that is still in its project; None if there is none."""
        for beneath in range(0, mark.number, BULK - 1):
            wanted = [*([] if beneath else [mark.id]), *mark.below(BULK - 1, beneath=beneath)]
            there = [each for each in await self.marks(scope, wanted) if each.number <= mark.number]
            if there:
                return max(there, key=lambda each: each.number)
        return None

    async def whole_list(self, path: str, name: str, params: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """All rows of a list that is paged by offset and counted, such as the comments of an issue.

        Pages overlap by one row: if that is another one now, rows were removed meanwhile, and the list is read again.
        Two readings that fall short of the count alike show that it counts rows this account may not see.
        """
        short: list[str] | None = None
        for _ in range(_READINGS):
            rows, counted = await self._reading(path, name, params or {})
            if counted or (rows is not None and short == [str(row["id"]) for row in rows]):
                return rows or []
            short = None if rows is None else [str(row["id"]) for row in rows]
        raise SourceError(Trouble.SERVER_ERROR, "A list of Jira changes faster than it can be read")

    async def whole_history(self, issue_id: str) -> list[dict[str, Any]]:
        """All changes of an issue as they come with the issue itself."""
        params = {"fields": "project", "expand": "changelog"}
        issue = told(await self.get(await self.api(f"issue/{issue_id}"), params))
        return _told_list(as_object(issue.get("changelog")), "histories")

    async def _reading(
        self, path: str, name: str, params: Mapping[str, Any]
    ) -> tuple[list[dict[str, Any]] | None, bool]:
        """The rows of a list, None if they shifted, and whether they are as many as it counts."""
        held: list[dict[str, Any]] = []
        while True:
            page = {**params, "startAt": max(len(held) - 1, 0), "maxResults": _LIST_PAGE}
            data = told(await self.get(path, page))
            rows = _told_list(data, name)
            if held and (not rows or rows[0]["id"] != held[-1]["id"]):
                return None, False
            fresh = rows[1:] if held else rows
            held += fresh
            total = as_count(data.get("total"))
            if data.get("isLast") is True or (total is not None and len(held) >= total):
                return held, True
            if not fresh:
                return held, total is None


def _by_token(data: Mapping[str, Any]) -> tuple[bool, dict[str, Any] | None]:
    token, last = data.get("nextPageToken"), data.get("isLast")
    ended = last is True or (not token and last is not False)
    return ended, {"nextPageToken": token} if token and not ended else None


def _by_offset(data: Mapping[str, Any], count: int) -> tuple[bool, dict[str, Any] | None]:
    start, total, most = (as_count(data.get(name)) for name in ("startAt", "total", "maxResults"))
    if start is None or total is None or most is None:
        raise SourceError(Trouble.PAYLOAD_INVALID, "Jira's answer does not say which part of the issues it is")
    # The index may count issues that the database has lost: such a page is short, and not the last.
    onward = start + max(most, count)
    ended = start + count >= total or (count == 0 and onward >= total)
    return ended, None if ended else {"startAt": onward}


def told(answer: Answer) -> dict[str, Any]:
    """The object Jira answered with."""
    if is_object(answer.data):
        return answer.data
    raise SourceError(Trouble.PAYLOAD_INVALID, "Jira answered with something else than was asked for")


def _told_list(data: Mapping[str, Any], name: str, needs: Sequence[str] = ("id",)) -> list[dict[str, Any]]:
    if name in data and isinstance(data[name], list):
        rows = as_list(data[name])
        if all(is_object(row) and all(row.get(need) for need in needs) for row in rows):
            return rows
    raise SourceError(Trouble.PAYLOAD_INVALID, f"Jira's answer lacks the list {name}, or what its rows are known by")


def _told_issues(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    issues = _told_list(data, "issues", ("id", "key"))
    if all(_KEY.fullmatch(str(issue["key"])) for issue in issues):
        return issues
    raise SourceError(Trouble.PAYLOAD_INVALID, "Jira sent an issue whose key has no number")


def rows_of(answer: Answer, *needs: str) -> list[dict[str, Any]]:
    """The rows of a list, bare or wrapped in a page."""
    return _told_list(answer.data if is_object(answer.data) else {"values": answer.data}, "values", needs)
