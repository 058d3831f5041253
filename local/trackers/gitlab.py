"""GitLab's REST API over a world, with its traps.

Project issues have keyset pages (18.3 and later) or offsets; offsets are counted in the order of that moment and end at
50,000; totals vanish above a limit; parameters it does not know are ignored; a plus in a query is a blank.
https://docs.gitlab.com/api/rest/
"""

import base64
import random
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import orjson
from aiohttp import web

from local.trackers._gitlab_access import GitLabAccess, Json
from local.trackers._gitlab_hooks import GitLabHooks
from local.trackers._gitlab_json import (
    GROUP,
    MergeRequest,
    change_json,
    issue_json,
    merge_request_json,
    milestone_json,
    note_json,
    path_of,
    project_json,
    stamp,
    time_json,
    user,
)
from local.trackers.service import json_response
from local.trackers.world import Issue, Project, World

_MOST = 100
_OFFSET_CAP = 50_000


class GitLabTracker(GitLabAccess):
    """gitlab.com, or a server of one's own."""

    kind_of_hooks = GitLabHooks

    def __init__(self, world: World, *, token: str = "glpat-valid", latency: float = 0.0) -> None:
        super().__init__(world, token=token, latency=latency)
        # Lists longer than this have no totals.
        self.count_cap = 10_000
        # The account's role in every project: 20 is Reporter.
        self.role = 20
        # What links name instead of the address by which the server is reached.
        self.external_url = ""
        # Former path of a project → its id.
        self.moved: dict[str, int] = {}
        self.merge_requests: list[MergeRequest] = []
        # Whether the server answers GraphQL, and what it says instead of data.
        self.graphql = True
        self.graphql_error = ""
        # Milestones of the group, which its projects share; iterations, which only Premium has.
        self.group_milestones: list[Json] = []
        self.iterations: list[Json] | None = None
        self._sorted: dict[tuple[str, str], tuple[object, list[Issue]]] = {}
        for key in world.projects:
            self._open_some(key)

    def _open_some(self, key: str) -> None:
        pick = random.Random(self.world.seed)
        issues = self.world.all_current(key)
        for number in range(1, min(max(3, len(issues) // 10), 100) + 1):
            at = pick.choice(issues).created if issues else self.world.now
            self.merge_requests.append(
                MergeRequest(
                    id=self.world.next_id(),
                    iid=number,
                    project=key,
                    title=f"Change {number}",
                    author=self.world.users[number % len(self.world.users)],
                    created=at,
                    updated=at + timedelta(hours=2),
                    merged=at + timedelta(hours=2) if pick.random() < 0.5 else None,
                )
            )

    # Addresses

    def add_routes(self, router: web.UrlDispatcher) -> None:
        base = "/api/v4"
        inside = f"{base}/projects/{{project}}"
        router.add_post("/api/graphql", self._graphql)
        router.add_post("/oauth/token", self.give_token)
        for path, handler in (
            *self.account_routes(base),
            (f"{base}/projects", self._projects),
            (f"{base}/groups/{{group}}/projects", self._group_projects),
            (inside, self._project),
            (f"{inside}/issues", self._issues),
            (f"{inside}/issues/{{iid}}", self._issue),
            (f"{inside}/issues/{{iid}}/notes", self._notes),
            (f"{inside}/merge_requests", self._list_merge_requests),
            (f"{inside}/milestones", self._milestones),
            (f"{inside}/iterations", self._iterations),
            (f"{inside}/members/all", self._members),
        ):
            router.add_get(path, self.guarded(handler))

    def _projects(self, request: web.Request) -> web.Response:
        return self._project_page(request, [each for each in self.world.projects.values() if each.readable])

    def _group_projects(self, request: web.Request) -> web.Response:
        if request.match_info["group"] != GROUP:
            return _not_found("Group")
        return self._projects(request)

    def _project_page(self, request: web.Request, found: Sequence[Project]) -> web.Response:
        return self._by_offset(request, [self._project_json(each) for each in sorted(found, key=lambda each: each.id)])

    def _project_json(self, project: Project) -> Json:
        return project_json(project, self.url, self.world.now, self.role)

    def _project(self, request: web.Request) -> web.Response:
        name = request.match_info["project"]
        if name in self.moved:
            where = f"{self.url}/api/v4/projects/{self.moved[name]}"
            return web.Response(status=301, headers={"Location": where})
        project = self.named(name)
        return json_response(self._project_json(project)) if project else _not_found("Project")

    def _find(self, request: web.Request) -> Project | None:
        return self.named(request.match_info["project"])

    def named(self, name: str) -> Project | None:
        """The project with this id or path, if it may be read."""
        for each in self.world.projects.values():
            if each.readable and name in {str(each.id), path_of(each)}:
                return each
        return None

    # Issues

    def _issues(self, request: web.Request) -> web.Response:
        project = self._find(request)
        if project is None:
            return _not_found("Project")
        query = request.query
        order = query.get("order_by", "created_at")
        if order not in {"created_at", "updated_at", "id"}:
            return json_response({"error": "order_by does not have a valid value"}, status=400)
        if "iids[]" in query:
            wanted = [int(iid) for iid in query.getall("iids[]") if iid.isdecimal()]
            found = [issue for iid in wanted if (issue := self.world.find(project.key, iid)) and not issue.hidden]
            return json_response([self._issue_json(issue, project) for issue in found])
        try:
            kept = self._filtered(project, order, query)
        except ValueError as error:
            return json_response({"error": str(error)}, status=400)
        if query.get("sort", "desc") == "desc":
            kept = kept[::-1]
        size = _size(request)
        if query.get("pagination") == "keyset" and self.keyset:
            return self._by_key(request, project, kept, order, size)
        return self._by_offset(request, kept, lambda issue: self._issue_json(issue, project))

    def _filtered(self, project: Project, order: str, query: Any) -> list[Issue]:
        kept = _within(self._in_order(project.key, order), query)
        if query.get("state", "all") in {"opened", "closed"}:
            done = query["state"] == "closed"
            kept = [issue for issue in kept if (issue.status == "done") is done]
        return kept

    def _in_order(self, key: str, order: str) -> list[Issue]:
        state, found = self._sorted.get((key, order), (None, []))
        if state != self.world.state or not found:
            by = {
                "created_at": lambda issue: (_cut(issue.created), issue.id),
                "updated_at": lambda issue: (_cut(issue.updated), issue.id),
                "id": lambda issue: issue.id,
            }[order]
            found = sorted((issue for issue in self.world.listed(key) if not issue.hidden), key=by)
            self._sorted[key, order] = (self.world.state, found)
        return found

    def _by_key(self, request: web.Request, project: Project, kept: list[Issue], order: str, size: int) -> web.Response:
        """Pages that begin behind a row: its value of the order, and its id."""
        value = {
            "created_at": lambda i: stamp(i.created),
            "updated_at": lambda i: stamp(i.updated),
            "id": lambda i: i.id,
        }[order]
        if "cursor" in request.query:
            behind = orjson.loads(base64.urlsafe_b64decode(request.query["cursor"]))
            kept = [issue for issue in kept if [value(issue), issue.id] > behind]
        page = kept[:size]
        headers: dict[str, str] = {}
        if len(kept) > size:
            cursor = base64.urlsafe_b64encode(orjson.dumps([value(page[-1]), page[-1].id])).decode()
            pairs = [(name, each) for name, each in request.query.items() if name != "cursor"]
            link = f"{self.external_url or self.url}{request.path}?{urlencode([*pairs, ('cursor', cursor)])}"
            headers["Link"] = f'<{link}>; rel="next"'
        return json_response([self._issue_json(issue, project) for issue in page], headers=headers)

    def _by_offset(
        self, request: web.Request, rows: Sequence[Any], render: Callable[[Any], Json] = lambda row: row
    ) -> web.Response:
        """Pages by number, counted in the order of this moment."""
        number = int(request.query.get("page", "1") or "1")
        size = _size(request)
        start = (number - 1) * size
        if start > _OFFSET_CAP:
            said = f"Offset pagination has a maximum allowed offset of {_OFFSET_CAP}"
            return json_response({"error": said}, status=405)
        more = start + size < len(rows)
        headers = {
            "x-page": str(number),
            "x-per-page": str(size),
            "x-next-page": str(number + 1) if more else "",
            "x-prev-page": str(number - 1) if number > 1 else "",
        }
        last = max(-(-len(rows) // size), 1) if len(rows) <= self.count_cap else None
        if last:
            headers |= {"x-total": str(len(rows)), "x-total-pages": str(last)}
        headers["Link"] = self._links(request, {"next": number + 1 if more else None, "first": 1, "last": last})
        return json_response([render(row) for row in rows[start : start + size]], headers=headers)

    def _links(self, request: web.Request, pages: Mapping[str, int | None]) -> str:
        kept = [(name, each) for name, each in request.query.items() if name != "page"]
        return ", ".join(
            f'<{self.external_url or self.url}{request.path}?{urlencode([*kept, ("page", page)])}>; rel="{relation}"'
            for relation, page in pages.items()
            if page
        )

    def _issue(self, request: web.Request) -> web.Response:
        project, issue = self._find_issue(request)
        return json_response(self._issue_json(issue, project)) if issue and project else _not_found("Issue")

    def _find_issue(self, request: web.Request) -> tuple[Project | None, Issue | None]:
        project = self._find(request)
        iid = request.match_info["iid"]
        issue = self.world.find(project.key, int(iid)) if project and iid.isdecimal() else None
        return project, None if issue and issue.hidden else issue

    def _issue_json(self, issue: Issue, project: Project) -> Json:
        return issue_json(issue, project, self.world.sprints, self.url)

    def _notes(self, request: web.Request) -> web.Response:
        _, issue = self._find_issue(request)
        if issue is None:
            return _not_found("Issue")
        notes = [note_json(comment, issue, self.url) for comment in issue.comments]
        notes += [change_json(change, issue, self.url) for change in issue.changes]
        name = request.query.get("order_by", "created_at")
        notes.sort(key=lambda note: (note[name], note["id"]), reverse=request.query.get("sort", "desc") == "desc")
        return self._by_offset(request, notes)

    # GraphQL, of which only time spent on issues is known

    async def _graphql(self, request: web.Request) -> web.Response:
        if not self.graphql:
            return _not_found("Page")
        asked: Json = orjson.loads(await request.read())
        variables: Json = asked["variables"]
        project = next((each for each in self.world.projects.values() if path_of(each) == variables["project"]), None)
        if self.graphql_error or "timelogs" not in asked["query"]:
            said = self.graphql_error or "Field doesn't exist on type 'Project'"
            return json_response({"errors": [{"message": said}]})
        if project is None or not project.readable:
            return json_response({"data": {"project": None}})
        iids: list[str] = variables.get("iids") or [variables["iid"]]
        found = [issue for iid in iids if (issue := self.world.find(project.key, int(iid))) and not issue.hidden]
        issues = [time_json(issue, variables.get("after")) for issue in found]
        of_project = {"issues": {"nodes": issues}} if "iids" in variables else {"issue": issues[0] if issues else None}
        return json_response({"data": {"project": of_project}})

    # The rest of a project

    def _list_merge_requests(self, request: web.Request) -> web.Response:
        project = self._find(request)
        if project is None:
            return _not_found("Project")
        found = _within([each for each in self.merge_requests if each.project == project.key], request.query)
        if "iids[]" in request.query:
            found = [each for each in found if str(each.iid) in request.query.getall("iids[]")]
        by_change = request.query.get("order_by") == "updated_at"
        found.sort(key=lambda each: (each.updated if by_change else each.created, each.id))
        if request.query.get("sort", "desc") == "desc":
            found.reverse()
        return self._by_offset(request, found, lambda each: merge_request_json(each, project, self.url))

    def _milestones(self, request: web.Request) -> web.Response:
        project = self._find(request)
        if project is None:
            return _not_found("Project")
        if {"include_parent_milestones", "include_ancestors"} <= set(request.query):
            said = "include_ancestors, include_parent_milestones are mutually exclusive"
            return json_response({"error": said}, status=400)
        found = [each for each in self.world.sprints.values() if each.project == project.key]
        inherited = "true" in {request.query.get("include_parent_milestones"), request.query.get("include_ancestors")}
        own = [milestone_json(each, project.id) for each in found]
        return self._by_offset(request, [*own, *(self.group_milestones if inherited else [])])

    def _iterations(self, request: web.Request) -> web.Response:
        if self._find(request) is None:
            return _not_found("Project")
        if self.iterations is None:
            return json_response({"message": "403 Forbidden"}, status=403)
        return self._by_offset(request, self.iterations)

    def _members(self, request: web.Request) -> web.Response:
        if self._find(request) is None:
            return _not_found("Project")
        people = [{**(user(each, self.url) or {}), "access_level": 30, "expires_at": None} for each in self.world.users]
        return self._by_offset(request, people)


def _not_found(what: str) -> web.Response:
    return json_response({"message": f"404 {what} Not Found"}, status=404)


def _size(request: web.Request) -> int:
    text = request.query.get("per_page", "20")
    return max(1, min(int(text) if text.isdecimal() else 20, _MOST))


def _cut(moment: datetime) -> datetime:
    """Milliseconds are what GitLab shows and compares."""
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def _within[T: (Issue, MergeRequest)](rows: Sequence[T], query: Mapping[str, str]) -> list[T]:
    """The rows within the times a query names; both ends belong to it."""
    kept = list(rows)
    for field in ("updated", "created"):
        if (name := f"{field}_after") in query:
            at = _moment(query[name], name)
            kept = [row for row in kept if _cut(getattr(row, field)) >= at]
        if (name := f"{field}_before") in query:
            at = _moment(query[name], name)
            kept = [row for row in kept if _cut(getattr(row, field)) <= at]
    return kept


def _moment(text: str, name: str) -> datetime:
    """A time of a filter; a plus that was not escaped came as a blank."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"{name} is invalid") from error
    return _cut(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
