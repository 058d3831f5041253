"""A simulated Jira, Cloud or Data Center, with the traps of the real ones.

The search forgets its offset when issues vanish, cuts embedded lists short, reads dates in the account's time zone,
refuses to compare with keys that are gone or moved, and answers nobody with an empty success.
"""

from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson
from aiohttp import web

from local.trackers._jira_access import GATEWAY, HIDDEN, SITES, JiraAccess
from local.trackers._jira_jql import Jql, JqlError, Query, arrange, find_issue, select
from local.trackers._jira_render import Renderer
from local.trackers.service import json_response
from local.trackers.world import Issue, Project, World

_REMOVED = (
    "The requested API has been removed. Please migrate to the /rest/api/3/search/jql API. A full migration guideline "
    "is available at https://developer.atlassian.com/changelog/#CHANGE-2046"
)
_PAGE_WITH_FIELDS = 100
_PAGE_OF_IDS = 5_000
_BULK = 100
_NO_SPRINTS = "The board does not support sprints"


class JiraTracker(JiraAccess):
    """A Jira site. `email` and token are basic authentication; the token alone is a bearer."""

    def __init__(
        self,
        world: World,
        *,
        cloud: bool = True,
        email: str = "ada@tidewater.example",
        token: str = "valid-token",
        latency: float = 0.0,
        time_zone: str = "UTC",
    ) -> None:
        super().__init__(world, cloud=cloud, email=email, token=token, latency=latency)
        self.time_zone = time_zone
        # Data Center: what the administrator lets a page have.
        self.most_results = 1_000
        # Traps that can be switched on.
        self.short_pages = False
        self.stuck_token = False
        # What a search says beside its issues: with a warning some may be missing.
        self.search_warnings: list[str] = []
        # Compare with where a moved issue is now instead of refusing its former key.
        self.follows_moved_keys = False
        # Issues the index counts and the database has lost; Data Center leaves holes for them.
        self.ghosts: set[int] = set()
        # Comments that lists count and do not show.
        self.overcounted = 0
        # Where boards live → the projects their filters name, if others.
        self.boards_about: dict[str, set[str]] = {}
        self.refusing_lists: dict[str, tuple[int, str]] = {}
        self.unserved: set[int] = set()
        # Switched off, issues come without the field `worklog`, and the list of their worklogs is not there.
        self.time_tracking = True
        self.permissions = {"BROWSE_PROJECTS": True, "USER_PICKER": True}
        self._arranged: dict[str, list[Issue]] = {}
        self._arranged_state: object = None

    def add_routes(self, router: web.UrlDispatcher) -> None:
        for path, handler in self.token_routes().items():
            router.add_post(path, handler)
        if self.cloud:
            router.add_get(SITES, self.list_sites)
        for root in ("", GATEWAY) if self.cloud else ("",):
            self._add_api(router, root)

    def _add_api(self, router: web.UrlDispatcher, root: str) -> None:
        versions = ("2", "3") if self.cloud else ("2",)
        for version in versions:
            for method, path, handler in self._common():
                router.add_route(method, f"{root}/rest/api/{version}{path}", handler)
        if self.cloud:
            router.add_post(f"{root}/rest/api/3/search/jql", self._search_cloud)
            router.add_get(f"{root}/rest/api/3/search/jql", self._search_cloud)
            router.add_post(f"{root}/rest/api/3/search/approximate-count", self._count)
            router.add_post(f"{root}/rest/api/3/issue/bulkfetch", self._bulk)
            router.add_get(f"{root}/rest/api/3/issue/{{issue}}/changelog", self._changelog)
            router.add_get(f"{root}/rest/api/3/project/search", self._project_search)
            router.add_get(f"{root}/rest/api/3/users/search", self._users)
            for version in versions:
                router.add_route("*", f"{root}/rest/api/{version}/search", self._removed)
        else:
            router.add_post("/rest/api/2/search", self._search_server)
            router.add_get("/rest/api/2/search", self._search_server)
            router.add_get("/rest/api/2/project", self._projects)
            router.add_get("/rest/api/2/user/search", self._users)
        for version in versions:
            router.add_get(f"{root}/rest/api/{version}/project/{{project}}", self._project)
            router.add_get(f"{root}/rest/api/{version}/issue/{{issue}}", self._issue)
        router.add_get(f"{root}/rest/agile/1.0/board", self._boards)
        router.add_get(f"{root}/rest/agile/1.0/board/{{board}}", self._board)
        router.add_get(f"{root}/rest/agile/1.0/board/{{board}}/sprint", self._sprints)

    def _common(self) -> list[tuple[str, str, Callable[[web.Request], Any]]]:
        return [
            ("GET", "/serverInfo", self._server_info),
            ("GET", "/myself", self._myself),
            ("GET", "/mypermissions", self._my_permissions),
            ("GET", "/configuration", self._configuration),
            ("GET", "/field", self._field),
            ("GET", "/issue/{issue}/comment", self._comments),
            ("GET", "/issue/{issue}/worklog", self._worklogs),
        ]

    # The site

    @property
    def shapes(self) -> Renderer:
        return Renderer(self.world, self.url, self.cloud, self.time_zone, time_tracking=self.time_tracking)

    async def _server_info(self, request: web.Request) -> web.Response:
        return json_response(
            {
                "baseUrl": self.url,
                "version": "1001.0.0-SNAPSHOT" if self.cloud else "9.17.1",
                "deploymentType": "Cloud" if self.cloud else "Server",
                "serverTime": self.shapes.time(self.world.now),
            }
        )

    async def _myself(self, request: web.Request) -> web.Response:
        return json_response(self.shapes.user(self.world.users[0]))

    async def _my_permissions(self, request: web.Request) -> web.Response:
        if self.cloud and "permissions" not in request.query:
            return _error(400, "The 'permissions' query parameter is required.")
        asked = request.query.get("permissions", "").split(",")
        held = {name: {"key": name, "havePermission": has} for name, has in self.permissions.items() if name in asked}
        return json_response({"permissions": held})

    async def _configuration(self, request: web.Request) -> web.Response:
        return json_response({"timeTrackingEnabled": self.time_tracking, "attachmentsEnabled": True})

    async def _field(self, request: web.Request) -> web.Response:
        return json_response(self.shapes.field_list())

    async def _users(self, request: web.Request) -> web.Response:
        if not self.permissions["USER_PICKER"]:
            return _error(403, "You do not have permission to browse users.")
        start, most = _span(request.query, 1_000)
        shown = self.world.users if self.cloud else self.world.users[:1_000]
        return json_response([self.shapes.user(user) for user in shown[start : start + most]])

    # Projects and boards

    def _readable(self) -> list[Project]:
        return sorted((each for each in self.world.projects.values() if each.readable), key=lambda each: each.key)

    async def _projects(self, request: web.Request) -> web.Response:
        return json_response([self.shapes.project(each) for each in self._readable()])

    async def _project_search(self, request: web.Request) -> web.Response:
        return json_response(_paged([self.shapes.project(each) for each in self._readable()], request.query, "values"))

    async def _project(self, request: web.Request) -> web.Response:
        name = request.match_info["project"]
        project = self._named(name)
        return (
            json_response(self.shapes.project(project))
            if project
            else _error(404, f"No project could be found with key '{name}'.")
        )

    def _named(self, name: str) -> Project | None:
        return next((each for each in self._readable() if name.upper() in {each.key, str(each.id)}), None)

    def _all_boards(self) -> list[dict[str, Any]]:
        """A scrum board, a Kanban board and a simple board for each project."""
        kinds = ("scrum", "kanban", "simple")
        return [
            {
                "id": project.id * 10 + index,
                "name": f"{project.key} {kind}",
                "type": kind,
                "location": {"projectId": project.id, "projectKey": project.key},
            }
            for project in self._readable()
            for index, kind in enumerate(kinds)
        ]

    async def _boards(self, request: web.Request) -> web.Response:
        shown = self._all_boards()
        if kind := request.query.get("type"):
            shown = [board for board in shown if board["type"] == kind]
        if (about := request.query.get("projectKeyOrId")) is not None:
            project = self._named(about)
            if project is None:
                return _error(400, f"The project '{about}' does not exist or you do not have access to it.")
            shown = [board for board in shown if self._is_about(board, project)]
        if self.cloud and (location := request.query.get("projectLocation")) is not None:
            project = self._named(location)
            shown = [board for board in shown if project and board["location"]["projectKey"] == project.key]
        return json_response(_paged(shown, request.query, "values"))

    def _is_about(self, board: Mapping[str, Any], project: Project) -> bool:
        """Whether the board's filter names the project, wherever the board lives."""
        home = board["location"]["projectKey"]
        return project.key in self.boards_about.get(home, {home})

    async def _board(self, request: web.Request) -> web.Response:
        wanted = int(request.match_info["board"])
        board = next((each for each in self._all_boards() if each["id"] == wanted), None)
        return json_response(board) if board else _error(404, "The board does not exist.")

    async def _sprints(self, request: web.Request) -> web.Response:
        if refused := self.refusing_lists.get("sprint"):
            return _error(*refused)
        board = int(request.match_info["board"])
        if board % 10:
            return _error(400, _NO_SPRINTS)
        shown = [each for each in self.world.sprints.values() if self.shapes.board_of(each) == board]
        return json_response(_paged([self.shapes.sprint(each) for each in shown], request.query, "values"))

    # Search

    async def _removed(self, request: web.Request) -> web.Response:
        return _error(410, _REMOVED)

    async def _search_cloud(self, request: web.Request) -> web.Response:
        asked = await _asked(request)
        try:
            query, matches = self._matches(str(asked.get("jql") or ""))
            if not query.bounded:
                raise JqlError(  # noqa: TRY301 - one answer for all that is wrong with a query
                    "Unbounded JQL queries are not allowed here. Please add a search restriction to your query."
                )
            start = _offset(asked.get("nextPageToken"), str(asked["jql"]))
        except JqlError as error:
            return _error(400, str(error))
        fields = _names(asked.get("fields"))
        light = set(fields) <= {"id", "key", "updated"}
        most = max(min(int(asked.get("maxResults", 50)), _PAGE_OF_IDS if light else _PAGE_WITH_FIELDS), 1)
        if self.short_pages:
            most = self.world.random.randrange(1, most + 1)
        page = matches[start : start + most]
        shown: dict[str, Any] = {"issues": self._rendered(page, fields, asked)}
        if start + len(page) < len(matches) or self.stuck_token:
            shown["nextPageToken"] = _token(0 if self.stuck_token else start + len(page), str(asked["jql"]))
            shown["isLast"] = False
        else:
            shown["isLast"] = True
        if self.search_warnings:
            shown["warnings"] = self.search_warnings
        return json_response(shown)

    async def _search_server(self, request: web.Request) -> web.Response:
        asked = await _asked(request)
        try:
            strict = asked.get("validateQuery") not in (False, "false", "none", "warn")
            _, matches = self._matches(str(asked.get("jql") or ""), strict=strict)
        except JqlError as error:
            return _error(400, str(error))
        start = int(asked.get("startAt", 0))
        most = min(int(asked.get("maxResults", 50)), self.most_results)
        fields = _names(asked.get("fields")) or ["*navigable"]
        page = [issue for issue in matches[start : start + most] if issue.id not in self.ghosts]
        issues = self._rendered(page, fields, asked)
        shown = {"startAt": start, "maxResults": most, "total": len(matches), "issues": issues}
        return json_response(shown | ({"warningMessages": self.search_warnings} if self.search_warnings else {}))

    async def _count(self, request: web.Request) -> web.Response:
        try:
            query, matches = self._matches(str((await _asked(request)).get("jql") or ""))
        except JqlError as error:
            return _error(400, str(error))
        return json_response({"count": len(matches)}) if query.bounded else _error(400, "The query is not bounded.")

    def _matches(self, jql: str, *, strict: bool = True) -> tuple[Query, Sequence[Issue]]:
        parser = Jql(self.world, self.time_zone, strict=strict, follow_moved=self.follows_moved_keys)
        query = parser.parse(jql)
        if self._arranged_state != self.world.state:
            self._arranged, self._arranged_state = {}, self.world.state
        held = self._arranged.get(query.signature)
        if held is None:
            readable = {project.key for project in self._readable()}
            listed = self.world.listed(query.project)
            visible = [issue for issue in listed if issue.project in readable and not issue.hidden]
            self._arranged[query.signature] = held = arrange(query, visible)
        return query, select(query, held)

    def _rendered(
        self, issues: Sequence[Issue], fields: Sequence[str], asked: Mapping[str, Any]
    ) -> list[orjson.Fragment]:
        shapes, changelog = self.shapes, "changelog" in _names(asked.get("expand"))
        how = (self.cloud, self.time_zone, self.time_tracking, changelog, *fields)
        return [
            self.rendered(issue, how, lambda issue=issue: shapes.issue(issue, fields, changelog=changelog))
            for issue in issues
        ]

    # Issues as they are

    async def _bulk(self, request: web.Request) -> web.Response:
        """What is not there is left out without a word; what could not be served this time is named."""
        asked = await _asked(request)
        wanted: list[str] = asked["issueIdsOrKeys"]
        if len(wanted) > _BULK:
            return _error(400, "You have requested more issues than the limit of 100.")
        found = {issue.id: issue for name in wanted if (issue := find_issue(self.world, name))}
        served = [found[each] for each in sorted(found) if each not in self.unserved]
        errors = [
            {"id": str(each), "errorMessage": "Try again later"} for each in sorted(found) if each in self.unserved
        ]
        issues = self._rendered(served, asked.get("fields") or ["*navigable"], asked)
        return json_response({"issues": issues, "issueErrors": errors})

    async def _issue(self, request: web.Request) -> web.Response:
        issue = find_issue(self.world, request.match_info["issue"])
        if issue is None:
            return _error(404, HIDDEN)
        fields = _names(request.query.get("fields")) or ["*all"]
        changelog = "changelog" in request.query.get("expand", "")
        return json_response(self.shapes.issue(issue, fields, changelog=changelog, whole=not self.cloud))

    async def _comments(self, request: web.Request) -> web.Response:
        return self._own_list(request, "comments", lambda issue: [self.shapes.comment(each) for each in issue.comments])

    async def _worklogs(self, request: web.Request) -> web.Response:
        if not self.time_tracking:
            return _error(404, "Time tracking is not enabled.")
        return self._own_list(
            request, "worklogs", lambda issue: [self.shapes.worklog(issue, each) for each in issue.worklogs]
        )

    async def _changelog(self, request: web.Request) -> web.Response:
        return self._own_list(request, "values", lambda issue: [self.shapes.change(each) for each in issue.changes])

    def _own_list(self, request: web.Request, name: str, read: Callable[[Issue], list[dict[str, Any]]]) -> web.Response:
        issue = find_issue(self.world, request.match_info["issue"])
        if issue is None:
            return _error(404, HIDDEN)
        if refused := self.refusing_lists.get(request.path.rpartition("/")[2]):
            return _error(*refused)
        page = _paged(read(issue), request.query, name)
        if name != "values":
            del page["isLast"]
        if name == "comments":
            page["total"] += self.overcounted
        return json_response(page)


def _error(status: int, message: str, *, headers: Mapping[str, str] | None = None) -> web.Response:
    return json_response({"errorMessages": [message], "errors": {}}, status=status, headers=headers)


async def _asked(request: web.Request) -> dict[str, Any]:
    return dict(request.query) if request.method == "GET" else orjson.loads(await request.read())


def _names(value: Any) -> list[str]:
    return [name for name in value.split(",") if name] if isinstance(value, str) else list(value or ())


def _span(query: Mapping[str, str], most: int) -> tuple[int, int]:
    return int(query.get("startAt", 0)), min(int(query.get("maxResults", 50)), most)


def _paged(rows: Sequence[dict[str, Any]], query: Mapping[str, str], name: str) -> dict[str, Any]:
    start, most = _span(query, 100)
    page = rows[start : start + most]
    last = start + len(page) >= len(rows)
    return {"startAt": start, "maxResults": most, "total": len(rows), "isLast": last, name: page}


def _token(offset: int, jql: str) -> str:
    return b64encode(orjson.dumps([offset, jql])).decode()


def _offset(token: Any, jql: str) -> int:
    """A token is an offset in disguise: when issues before it vanish, it skips as many."""
    if not token:
        return 0
    offset, asked = orjson.loads(b64decode(str(token)))
    if asked != jql:
        raise JqlError("The nextPageToken does not belong to this query.")
    return int(offset)
