"""A simulated ServiceNow instance: Table API, OAuth, and their traps.

Each project of the world is a task table, in the order of TASKS. The traps: rows that the account may not see count
against the limit and in X-Total-Count; invalid parts of a query are ignored; times in queries are read in the account's
zone; a query that takes too long ends in a broken 200.
https://www.servicenow.com/docs/r/api-reference/rest-apis/c_TableAPI.html
"""

from base64 import b64encode
from collections.abc import Callable, Hashable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, ClassVar
from zoneinfo import ZoneInfo

from aiohttp import web

from local.trackers._servicenow_hooks import ServiceNowHooks
from local.trackers._servicenow_rows import (
    COLUMNS,
    JOURNAL,
    OF_INCIDENTS,
    TASK_COLUMNS,
    TASKS,
    Entered,
    Task,
    task_fields,
)
from local.trackers._servicenow_tables import Entry, Field, Reader, Row, Table, entry_fields, stamp, sys_id
from local.trackers.service import Tracker, json_response
from local.trackers.world import START, Issue, User, World

ACCOUNT = "tributary.reader"
CLIENT = "5f0c3a7be1d24e0c9a1b"
_EPOCH = START - timedelta(days=400)


class ServiceNowTracker(Tracker):
    source: ClassVar[str] = "servicenow"
    kind_of_hooks = ServiceNowHooks

    def __init__(self, world: World, *, token: str = "valid-token", latency: float = 0.0) -> None:
        super().__init__(world, token=token, latency=latency)
        self.time_zone = "UTC"
        # What the user record says; empty: the system's default, which may not be readable.
        self.shown_zone: str | None = None
        # Some instances read plain times in queries as UTC whatever the account's zone.
        self.literals_in_utc = False
        self.refused: set[str] = set()
        self.no_range: frozenset[str] = frozenset()
        self.hidden_tables: set[str] = set()
        self.mfa = False
        # Queries for more rows than this are cancelled while the answer is on the way.
        self.most_rows: int | None = None
        # Table → a table that extends it and holds its stories.
        self.children: dict[str, str] = {}
        # Every other journal entry is filed under the name of the parent table.
        self.files_under_task = False
        self.token_seconds = 1_800
        self.tokens: dict[str, datetime] = {}
        self._limit = 0
        self._tables: dict[str, Table] = {}
        self._tasks: dict[tuple[str, object], list[Task]] = {}

    def add_routes(self, router: web.UrlDispatcher) -> None:
        router.add_post("/oauth_token.do", self._give_token)
        for version in ("", "/v2"):
            router.add_get(f"/api/now{version}/table/{{table}}", self._list)
            router.add_get(f"/api/now{version}/table/{{table}}/{{sys_id}}", self._show)

    # Who may

    def open_to_all(self, request: web.Request) -> bool:
        return request.path == "/oauth_token.do"

    def authorized(self, request: web.Request) -> bool:
        kind, _, value = request.headers.get("Authorization", "").partition(" ")
        if kind == "Bearer":
            return self.tokens.get(value, self.world.now) > self.world.now
        return not self.mfa and kind == "Basic" and value == b64encode(f"{ACCOUNT}:{self.token}".encode()).decode()

    def unauthorized(self, request: web.Request) -> web.Response:
        headers = {"X-MFA_TOKEN": "invalid"} if self.mfa else {}
        return _refusal(401, "User Not Authenticated", "Required to provide Auth information", headers)

    def limited(self, request: web.Request, seconds: float) -> web.Response:
        said = f"Rate limit of {self._limit or 100} requests per hour for Table API exceeded"
        return _refusal(429, "Rate limit exceeded", said, {**self.limits(seconds), "Retry-After": f"{seconds:.0f}"})

    def limits(self, seconds: float) -> dict[str, str]:
        resets = int((self.world.now + timedelta(seconds=seconds)).timestamp())
        rule = sys_id("rule", 1)
        return {
            "X-RateLimit-Limit": str(self._limit or 100),
            "X-RateLimit-Reset": str(resets),
            "X-RateLimit-Rule": rule,
        }

    def quota_headers(self) -> Mapping[str, str]:
        if self.quota is None:
            return {}
        self._limit = max(self._limit, self.quota)
        return self.limits(3_600)

    def maintenance(self, request: web.Request) -> web.Response:
        """An instance that sleeps answers everything with a page that says so."""
        page = "<html><head><title>Instance Hibernating page</title></head><body>Sleeping</body></html>"
        return web.Response(text=page, content_type="text/html")

    async def _give_token(self, request: web.Request) -> web.Response:
        form = await request.post()
        client = (form.get("client_id"), form.get("client_secret")) == (CLIENT, self.token)
        user = (form.get("username"), form.get("password")) == (ACCOUNT, self.token)
        if not client or (form.get("grant_type") == "password" and not user):
            said = {"error": "access_denied" if client else "invalid_client", "error_description": "access_denied"}
            return json_response(said, status=401)
        if form.get("grant_type") not in {"password", "client_credentials"}:
            return json_response({"error": "unsupported_grant_type"}, status=400)
        token = sys_id("token", self.world.next_id())
        self.tokens[token] = self.world.now + timedelta(seconds=self.token_seconds)
        self.expired = False
        body = {"access_token": token, "expires_in": self.token_seconds, "token_type": "Bearer", "scope": "useraccount"}
        return json_response(body)

    # Answers

    async def _list(self, request: web.Request) -> web.Response:
        name = request.match_info["table"]
        if refused := self._refused(name):
            return refused
        table, asked = self._table(name), request.query
        chosen = table.select(self._reader().parse(asked.get("sysparm_query", ""), table), self._state())
        limit, offset = int(asked.get("sysparm_limit", "10000")), int(asked.get("sysparm_offset", "0"))
        rows = [row for row in chosen.page(offset, limit) if not self._hides(name, row)]
        if self.most_rows is not None and limit > self.most_rows and len(rows) > self.most_rows:
            return _broken_off()
        fields = [column for column in asked.get("sysparm_fields", "").split(",") if column in table.fields]
        how = asked.get("sysparm_display_value", "false")
        shown = {column: table.fields[column] for column in fields or table.fields if fields or "." not in column}
        headers = {} if asked.get("sysparm_no_count") == "true" else {"X-Total-Count": str(chosen.total)}
        if asked.get("sysparm_suppress_pagination_header") != "true":
            headers["Link"] = _links(request, chosen.total, offset, limit)
        asked_for = (name, how, *fields, self._state())
        return json_response({"result": [self._shown(row, shown, how, asked_for) for row in rows]}, headers=headers)

    def _shown(self, row: Row, fields: Mapping[str, Field], how: str, asked_for: Hashable) -> object:
        if isinstance(row, Task | Entered):
            version = row.issue if isinstance(row, Task) else row.comment
            return self.rendered(version, (row.sys_id, asked_for), lambda: _show(row, fields, how))
        return _show(row, fields, how)

    async def _show(self, request: web.Request) -> web.Response:
        name = request.match_info["table"]
        if refused := self._refused(name):
            return refused
        table = self._table(name)
        query = self._reader().parse(f"sys_id={request.match_info['sys_id']}", table)
        rows = [row for row in table.select(query, self._state()).page(0, 1) if not self._hides(name, row)]
        if not rows:
            return _refusal(404, "No Record found", "Record doesn't exist or ACL restricts the record retrieval")
        how = request.query.get("sysparm_display_value", "false")
        return json_response({"result": _show(rows[0], table.fields, how)})

    def _refused(self, name: str) -> web.Response | None:
        if self._table(name) is None:
            return _refusal(400, f"Invalid table {name}", None)
        project = self.projects.get(name)
        if name in self.refused or (project and not self.world.projects[project].readable):
            return _refusal(403, "User Not Authorized", "Failed API level ACL Validation")
        return None

    def _hides(self, name: str, row: Row) -> bool:
        return row.hidden or name in self.hidden_tables

    def _reader(self) -> Reader:
        zone = "UTC" if self.literals_in_utc else self.time_zone
        return Reader(user_id=sys_id("user", 0), user_name=ACCOUNT, zone=ZoneInfo(zone), no_range=self.no_range)

    # Tables

    @property
    def projects(self) -> dict[str, str]:
        """Task table → project of the world."""
        return dict(zip(TASKS, self.world.projects, strict=False))

    def _state(self) -> object:
        return (self.world.state, self.time_zone, self.shown_zone, len(self.children))

    def _table(self, name: str) -> Any:
        if name not in self._tables and (made := self._made(name)):
            self._tables[name] = made
        return self._tables.get(name)

    def _made(self, name: str) -> Table | None:
        if name in {"task", *TASKS, *self.children.values()}:
            return Table(name, task_fields(lambda: self.time_zone), lambda: self.tasks(name), self._current_task(name))
        entries: dict[str, Callable[[], Iterator[Entry]]] = {
            "sys_audit_delete": self._audits,
            "sys_db_object": self._db_objects,
            "sys_dictionary": self._dictionary,
            "sys_properties": self._properties,
        }
        if name in entries:
            rows = entries[name]
            columns = COLUMNS[name]
            return Table(name, entry_fields(columns), lambda: sorted(rows(), key=lambda row: row.sys_id))
        if name == "sys_user":
            users = entry_fields(COLUMNS[name])
            return Table(name, users, lambda: sorted(self._users(), key=lambda row: row.sys_id))
        return Table(name, JOURNAL, self._journal) if name == "sys_journal_field" else None

    def tasks(self, name: str) -> list[Task]:
        """Rows of a task table by sys_id, those of its children too."""
        key = (name, self._state())
        if key not in self._tasks:
            if len(self._tasks) > 8:
                self._tasks.clear()
            names = [table for table in self.projects if name in {"task", table, self.children.get(table)}]
            made = (self._task(table, issue) for table in names for issue in self.world.listed(self.projects[table]))
            self._tasks[key] = sorted(
                (task for task in made if name not in self.children.values() or task.class_name == name),
                key=lambda task: task.sys_id,
            )
        return self._tasks[key]

    def table_of(self, issue: Issue) -> str | None:
        """The table that an issue's row is filed under; None if its project has none."""
        table = next((name for name, project in self.projects.items() if project == issue.project), None)
        return self._task(table, issue).class_name if table else None

    def _task(self, table: str, issue: Issue) -> Task:
        child = table in self.children and issue.type == "Story"
        return Task(issue, self.children[table] if child else table, sys_id("issue", issue.id), issue.hidden)

    def _current_task(self, name: str) -> Callable[[str], Task | None]:
        ids: dict[str, int] = {}

        def find(wanted: str) -> Task | None:
            if wanted not in ids:
                ids.update((sys_id("issue", issue.id), issue.id) for issue in self.world.all_current())
            issue = self.world.current(ids.get(wanted, 0))
            table = next((each for each, project in self.projects.items() if issue and issue.project == project), None)
            if issue is None or table is None:
                return None
            task = self._task(table, issue)
            return task if name in {"task", table, task.class_name} else None

        return find

    def _journal(self) -> list[Entered]:
        entries = (
            Entered(comment, task, "task" if self.files_under_task and comment.id % 2 else task.class_name)
            for task in self.tasks("task")
            for comment in task.issue.comments
        )
        return sorted(entries, key=lambda entry: entry.sys_id)

    def _users(self) -> Iterator[Entry]:
        zone = self.time_zone if self.shown_zone is None else self.shown_zone
        account = User(id=0, login=ACCOUNT, name="Tributary Reader", email="reader@tidewater.example")
        for user in (account, *self.world.users):
            values = {
                "sys_id": sys_id("user", user.id),
                "user_name": user.login,
                "name": user.name,
                "email": user.email,
                "active": "true",
                "time_zone": "" if user.id else zone,
                "sys_created_on": stamp(_EPOCH),
                "sys_updated_on": stamp(_EPOCH + timedelta(days=user.id)),
            }
            yield Entry(values["sys_id"], values)

    def _audits(self) -> Iterator[Entry]:
        for number, at in self.world.deletions:
            if at > self.world.now - self.world.index_lag:
                continue
            issue = self.world._versions[number][-1]  # noqa: SLF001 - nothing else knows what is deleted
            values = {
                "sys_id": sys_id("deletion", number),
                "tablename": self.table_of(issue) or "task",
                "documentkey": sys_id("issue", number),
                "display_value": issue.title,
                "sys_created_on": stamp(at),
            }
            yield Entry(values["sys_id"], values)

    def _db_objects(self) -> Iterator[Entry]:
        parents = {
            "task": "",
            **dict.fromkeys(TASKS, "task"),
            **{child: table for table, child in self.children.items()},
        }
        for index, (name, parent) in enumerate([*parents.items(), ("sys_user", "")]):
            label = TASKS[name][1] if name in TASKS else name.replace("_", " ").title()
            above = parents.get(parent, "")
            values = {"sys_id": sys_id("table", index), "name": name, "label": label, "super_class.name": parent}
            values |= {"super_class.super_class.name": above}
            yield Entry(values["sys_id"], values)

    def _dictionary(self) -> Iterator[Entry]:
        columns = [("task", each) for each in TASK_COLUMNS if "." not in each and each not in OF_INCIDENTS]
        columns += [("incident", each) for each in OF_INCIDENTS]
        columns += [("sys_user", each) for each in COLUMNS["sys_user"]]
        refers = {"assigned_to": "sys_user", "caller_id": "sys_user", "opened_by": "sys_user"}
        for index, (table, column) in enumerate(columns):
            values = {"sys_id": sys_id("column", index), "name": table, "element": column}
            yield Entry(values["sys_id"], {**values, "reference": refers.get(column, "")})

    def _properties(self) -> Iterator[Entry]:
        values = {"sys_id": sys_id("property", 1), "name": "glide.sys.default.tz", "value": self.time_zone}
        yield Entry(values["sys_id"], values)


def _show(row: Row, fields: Mapping[str, Field], how: str) -> dict[str, Any]:
    if how == "all":
        shown = {name: read(row) for name, read in fields.items()}
        return {name: {"display_value": label, "value": value} for name, (value, label) in shown.items()}
    return {name: read(row)[how == "true"] for name, read in fields.items()}


def _links(request: web.Request, total: int, offset: int, limit: int) -> str:
    targets = {"first": 0, "last": max(total - 1, 0) // max(limit, 1) * limit}
    if offset + limit < total:
        targets["next"] = offset + limit
    if offset:
        targets["prev"] = max(offset - limit, 0)
    url = request.url
    return ",".join(f'<{url.update_query(sysparm_offset=str(at))}>;rel="{name}"' for name, at in targets.items())


def _refusal(status: int, message: str, detail: str | None, headers: Mapping[str, str] | None = None) -> web.Response:
    body = {"error": {"message": message, "detail": detail}, "status": "failure"}
    return json_response(body, status=status, headers=headers)


def _broken_off() -> web.Response:
    said = "Transaction cancelled: maximum execution time exceeded"
    text = '{"result":[{"sys_id":"%s"},\n}""],"error":{"detail":"%s. Check logs for error trace.","message":"%s"}}'
    return web.Response(text=text % (sys_id("row", 1), said, said), content_type="application/json")
