"""Sentry as it answers over HTTP: organization-wide issue search with cursors, single issues, events, notes, members.

Lists: https://docs.sentry.io/api/events/list-an-organizations-issues/, cursors: https://docs.sentry.io/api/pagination/.
Comments do not move `lastSeen` in Sentry: give the world a `note_throttle` of `timedelta.max` where that matters.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, ClassVar
from urllib.parse import urlencode

from aiohttp import web

from local.trackers._sentry_hooks import SentryHooks
from local.trackers._sentry_json import (
    BadQueryError,
    Matches,
    millis,
    parse_query,
    slug_of,
    to_event,
    to_listed,
    to_member,
    to_note,
    to_project,
    to_single,
)
from local.trackers.service import Tracker, json_response
from local.trackers.world import Issue, Project, World

_MOST = 100
_SCOPES = ("org:read", "project:read", "event:read", "member:read")
_MISSING = {"detail": "The requested resource does not exist"}
_FORBIDDEN = {"detail": "You do not have permission to perform this action."}
_TOO_OFTEN = "You are attempting to use this endpoint too frequently. Limit is {} requests in {} seconds"
_TOO_MANY = "You are attempting to go above the allowed concurrency for this endpoint. Concurrency limit is {}"


@dataclass(frozen=True)
class Cursor:
    value: int = 0
    offset: int = 0
    is_prev: bool = False
    results: bool = False

    @classmethod
    def parse(cls, text: str | None) -> "Cursor | None":
        """The cursor of a request; ValueError if it is none."""
        if not text:
            return None
        value, offset, is_prev = map(int, text.split(":"))
        return cls(value, offset, bool(is_prev))

    def __str__(self) -> str:
        return f"{self.value}:{self.offset}:{int(self.is_prev)}"


@dataclass(frozen=True)
class Sorted:
    """Issues that match a search, greatest key first; of equal keys the greatest id first."""

    issues: Sequence[Issue]
    # Negated, so that they ascend.
    keys: Sequence[int]

    def first_of(self, key: int) -> int:
        return bisect_left(self.keys, -key)

    def page(self, cursor: Cursor | None, limit: int) -> tuple[Sequence[Issue], Cursor, Cursor]:
        """A page, and the cursors of the pages before and after it."""
        asked = cursor or Cursor()
        count = len(self.issues)
        if not count:
            return (), Cursor(asked.value, asked.offset, is_prev=True), Cursor(asked.value, asked.offset)
        start = self.first_of(asked.value) if asked.value else count if asked.is_prev else 0
        if asked.is_prev:
            high = min(start + asked.offset, count)
            low = max(high - limit, 0)
        else:
            low = start + asked.offset
            high = min(low + limit, count)
        before, after = (-self.keys[min(each, count - 1)] for each in (low, max(high, low)))
        return (
            self.issues[low:high],
            Cursor(before, low - min(self.first_of(before), low), is_prev=True, results=low > 0),
            Cursor(after, high - min(self.first_of(after), high), results=high < count),
        )


class SentryTracker(Tracker):
    """A simulated Sentry with one organization."""

    source: ClassVar[str] = "sentry"
    kind_of_hooks = SentryHooks

    def __init__(self, world: World, *, token: str = "valid-token", latency: float = 0.0) -> None:
        super().__init__(world, token=token, latency=latency)
        self.organization = "tidewater"
        self.scopes = set(_SCOPES)
        # How far issues are counted.
        self.most_hits = 1_000
        self.sso_required = False
        # How long events are kept. An issue without any is in no list, and its latest event is not there.
        self.retention: timedelta | None = None
        # Merged issues: old id → new id. They answer as the new one, or not at all.
        self.merged: dict[int, int] = {}
        self.follows_merged = True
        # Old slug → new slug.
        self.renamed: dict[str, str] = {}
        self.more_entries: tuple[Mapping[str, Any], ...] = ()
        # How a refusal for too many calls looks: `window` or `concurrent`, its body an object or a bare text.
        self.limit_kind = "window"
        self.limit_body = "object"
        self._refusing = 0.0
        self._sorted: dict[tuple[object, ...], Sorted] = {}
        self._sorted_state: object = None

    def merge(self, child: int, parent: int) -> None:
        """Merge an issue into another, as a person does in Sentry."""
        self.world.delete(child)
        self.merged[child] = parent

    def add_routes(self, router: web.UrlDispatcher) -> None:
        org = "/api/0/organizations/{org}/"
        issue = org + "issues/{id}/"
        router.add_get("/api/0/", self._index)
        router.add_get(org, self._needs("org", self._show_organization))
        router.add_get(org + "projects/", self._needs("project", self._list_projects))
        router.add_get("/api/0/projects/{org}/{slug}/", self._needs("project", self._show_project))
        router.add_get(org + "members/", self._needs("member", self._list_members))
        router.add_get(org + "issues/", self._needs("event", self._list_issues))
        router.add_get(issue, self._needs("event", self._show_issue))
        router.add_get(issue + "events/latest/", self._needs("event", self._show_event))
        for name in ("notes/", "comments/"):
            router.add_get(issue + name, self._needs("event", self._list_notes))
        router.add_get(org + "shortids/{key}/", self._needs("event", self._show_short_id))

    # Refusals: src/sentry/api/exceptions.py, src/sentry/middleware/ratelimit.py

    def unauthorized(self, request: web.Request) -> web.Response:
        given = "Authorization" in request.headers
        return _detail("Invalid token" if given else "Authentication credentials were not provided.", 401)

    def token_expired(self, request: web.Request) -> web.Response:
        return _detail("Token expired", 401)

    def limited(self, request: web.Request, seconds: float) -> web.Response:
        self._refusing = max(seconds, 1.0)
        text = _TOO_MANY.format(25) if self.limit_kind == "concurrent" else _TOO_OFTEN.format(40, int(self._refusing))
        return json_response(text if self.limit_body == "string" else {"detail": text}, status=429)

    def quota_headers(self) -> Mapping[str, str]:
        refusing, self._refusing = self._refusing, 0.0
        window, concurrent = (refusing and self.limit_kind == kind for kind in ("window", "concurrent"))
        left = 39 if self.quota is None else max(self.quota, 0)
        return {
            "X-Sentry-Rate-Limit-Limit": "40",
            "X-Sentry-Rate-Limit-Remaining": "0" if window else str(max(left, 1) if concurrent else left),
            "X-Sentry-Rate-Limit-Reset": str(int(self.world.now.timestamp() + (refusing or 1))),
            "X-Sentry-Rate-Limit-ConcurrentLimit": "25",
            "X-Sentry-Rate-Limit-ConcurrentRemaining": "0" if concurrent else "24",
        }

    def _needs(self, kind: str, handler: Callable[[web.Request], web.Response]) -> Any:
        async def guarded(request: web.Request) -> web.Response:
            if self.sso_required:
                extra = {"loginUrl": f"/auth/login/{self.organization}/"}
                return _detail({"code": "sso-required", "message": "Must login via SSO", "extra": extra}, 401)
            if request.match_info["org"] != self.organization:
                return json_response(_MISSING, status=404)
            if f"{kind}:read" not in self.scopes:
                return json_response(_FORBIDDEN, status=403)
            return handler(request)

        return guarded

    # Resources

    async def _index(self, request: web.Request) -> web.Response:
        return json_response({"version": "0", "auth": {"scopes": sorted(self.scopes)}, "user": None})

    def _show_organization(self, request: web.Request) -> web.Response:
        links = {"organizationUrl": f"{self.url}/{self.organization}", "regionUrl": self.url}
        return json_response({"id": "11", "slug": self.organization, "name": "Tidewater", "links": links})

    def _list_projects(self, request: web.Request) -> web.Response:
        projects = sorted(self.world.projects.values(), key=slug_of)
        return self._by_offset(request, [to_project(project) for project in projects])

    def _show_project(self, request: web.Request) -> web.Response:
        slug = request.match_info["slug"]
        if slug in self.renamed:
            address = f"/api/0/projects/{self.organization}/{self.renamed[slug]}/"
            return web.json_response({"slug": self.renamed[slug]}, status=302, headers={"Location": address})
        project = next((each for each in self.world.projects.values() if slug_of(each) == slug), None)
        return json_response(to_project(project)) if project else json_response(_MISSING, status=404)

    def _list_members(self, request: web.Request) -> web.Response:
        return self._by_offset(request, [to_member(user) for user in sorted(self.world.users, key=lambda u: u.email)])

    def _list_issues(self, request: web.Request) -> web.Response:
        query = request.query
        projects = self._chosen(query.getall("project", []))
        if projects is None:
            return json_response(_FORBIDDEN, status=403)
        if not set(query.getall("environment", [])) <= {"production"}:
            return json_response(_MISSING, status=404)
        try:
            cursor, limit = _paging(query)
            found = self._search(projects, query.get("query", "is:unresolved"), query.get("sort", "date"))
        except BadQueryError as error:
            return _detail(str(error), 400)
        page, before, after = found.page(cursor, limit)
        body = [to_listed(self.world, issue, self.organization) for issue in page]
        hits = {"X-Hits": str(min(len(found.issues), self.most_hits)), "X-Max-Hits": str(self.most_hits)}
        return json_response(body, headers={**self._links(request, before, after), **hits})

    def _show_issue(self, request: web.Request) -> web.Response:
        issue = self._find(request)
        if issue is None:
            return json_response(_MISSING, status=404)
        return json_response(to_single(self.world, issue, self.organization))

    def _show_short_id(self, request: web.Request) -> web.Response:
        project, _, number = request.match_info["key"].rpartition("-")
        issue = self.world.find(project.upper(), int(number)) if number.isdigit() else None
        if issue is None or issue.hidden:
            return json_response(_MISSING, status=404)
        group = to_listed(self.world, issue, self.organization)
        return json_response({"shortId": issue.key, "groupId": str(issue.id), "group": group})

    def _show_event(self, request: web.Request) -> web.Response:
        issue = self._find(request)
        if issue is None or self._expired(issue):
            return _detail("No matching event", 404)
        return json_response(to_event(issue, self.more_entries))

    def _list_notes(self, request: web.Request) -> web.Response:
        issue = self._find(request)
        if issue is None:
            return json_response(_MISSING, status=404)
        # By id, newest first: a cursor's value is the id of the next one.
        notes = sorted(issue.comments, key=lambda note: -note.id)
        cursor = Cursor.parse(request.query.get("cursor")) or Cursor()
        start = bisect_left([-note.id for note in notes], -cursor.value) if cursor.value else 0
        per_page = min(int(request.query.get("per_page", _MOST)), _MOST)
        after = notes[start + per_page : start + per_page + 1]
        following = Cursor(after[0].id if after else cursor.value, results=bool(after))
        links = self._links(request, Cursor(cursor.value, 0, is_prev=True, results=start > 0), following)
        return json_response([to_note(note) for note in notes[start : start + per_page]], headers=links)

    # Lists

    def _search(self, projects: tuple[Project, ...], query: str, sort: str) -> Sorted:
        if self._sorted_state != self.world.state:
            self._sorted, self._sorted_state = {}, self.world.state
        # Retention and relative times go by the clock.
        name = (query, sort, *(project.id for project in projects), self.retention and self.world.now)
        if name not in self._sorted:
            time_of = {"new": lambda issue: issue.created, "date": lambda issue: issue.updated}.get(sort)
            if time_of is None:
                raise BadQueryError(f"Sort key '{sort}' not supported.")
            self._sorted[name] = self._sort(projects, parse_query(query, self.world.now), time_of)
        return self._sorted[name]

    def _sort(self, projects: tuple[Project, ...], matches: Matches, time_of: Callable[[Issue], datetime]) -> Sorted:
        keyed = [
            (-millis(time_of(issue)), -issue.id, issue)
            for project in projects
            for issue in self.world.listed(project.key)
            if not issue.hidden and not self._expired(issue) and matches(issue)
        ]
        keyed.sort(key=lambda each: each[:2])
        return Sorted([issue for _, _, issue in keyed], [key for key, _, _ in keyed])

    def _chosen(self, ids: Sequence[str]) -> tuple[Project, ...] | None:
        """The projects asked for; None if one is not there or not to be seen."""
        readable = {str(project.id): project for project in self.world.projects.values() if project.readable}
        if not ids or "-1" in ids:
            return tuple(readable.values())
        return tuple(readable[each] for each in ids) if all(each in readable for each in ids) else None

    def _find(self, request: web.Request) -> Issue | None:
        text = request.match_info["id"]
        issue_id = int(text) if text.isdigit() else 0
        if self.follows_merged:
            issue_id = self.merged.get(issue_id, issue_id)
        issue = self.world.current(issue_id)
        return None if issue is None or issue.hidden else issue

    def _expired(self, issue: Issue) -> bool:
        return self.retention is not None and issue.updated < self.world.now - self.retention

    def _by_offset(self, request: web.Request, items: Sequence[dict[str, Any]]) -> web.Response:
        # A cursor's value is the length of pages here, its offset the number of the page.
        limit = min(int(request.query.get("per_page", _MOST)), _MOST)
        cursor = Cursor.parse(request.query.get("cursor")) or Cursor(limit)
        start = cursor.value * cursor.offset
        after = Cursor(limit, cursor.offset + 1, results=start + limit < len(items))
        before = Cursor(limit, cursor.offset - 1, is_prev=True, results=cursor.offset > 0)
        return json_response(items[start : start + limit], headers=self._links(request, before, after))

    def _links(self, request: web.Request, before: Cursor, after: Cursor) -> dict[str, str]:
        kept = [(name, value) for name, value in request.query.items() if name != "cursor"]
        links = [
            f'<{self.url}{request.path}?{urlencode(kept)}&cursor={cursor}>; rel="{relation}"; '
            f'results="{str(cursor.results).lower()}"; cursor="{cursor}"'
            for relation, cursor in (("previous", before), ("next", after))
        ]
        return {"Link": ", ".join(links)}


def _paging(query: Mapping[str, str]) -> tuple[Cursor | None, int]:
    """The cursor and the length of the page asked for."""
    if "start" in query and query["start"] >= query.get("end", "9999"):
        raise BadQueryError("start must be before end")
    limit = query.get("limit", str(_MOST))
    if not limit.isdigit():
        raise BadQueryError("invalid limit")
    try:
        return Cursor.parse(query.get("cursor")), min(int(limit), _MOST)
    except ValueError:
        raise BadQueryError("Invalid cursor parameter.") from None


def _detail(detail: object, status: int) -> web.Response:
    return json_response({"detail": detail}, status=status)
