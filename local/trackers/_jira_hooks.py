"""Jira's webhooks, as administrators register them: signed on Cloud, known by their address alone on Data Center.

Cloud tells of comments with a stub of their issue. Data Center tells of a comment twice, once without any issue.
https://developer.atlassian.com/cloud/jira/platform/webhooks/
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar

import orjson
from aiohttp import web

from local.trackers._hooks import Delivery, Hook, HookError, Hooks, Message, changed, hex_hmac, parts
from local.trackers._jira_jql import Jql, JqlError, arrange, select
from local.trackers._jira_render import Renderer
from local.trackers.service import json_response
from local.trackers.world import Comment, Issue, User, Worklog

if TYPE_CHECKING:
    from local.trackers._jira_access import JiraAccess

_PATH = "/rest/webhooks/1.0/webhook"
_SECTION = "issue-related-events-section"
_STUB = ("summary", "issuetype", "project", "assignee", "priority", "status")
_FIELDS = ("title", "body", "status", "type", "priority", "assignee", "labels", "points", "sprint", "project")
_RETRIED = {408, 409, 425, 429}
# After failing for so long there is one attempt at each delivery.
_PATIENCE = timedelta(minutes=30)
# Comment events that Data Center reports as changes of the issue too.
_ALSO = {
    "comment_created": "issue_commented",
    "comment_updated": "issue_comment_edited",
    "comment_deleted": "issue_comment_deleted",
}


class JiraHooks(Hooks):
    attempts: ClassVar[int] = 6
    tracker: "JiraAccess"

    # Registration

    def add_routes(self, router: web.UrlDispatcher) -> None:
        router.add_post(_PATH, self._create)
        router.add_get(_PATH, self._list)
        router.add_get(_PATH + "/{id}", self._show)
        router.add_delete(_PATH + "/{id}", self._delete)

    def is_about(self, request: web.Request) -> bool:
        return request.path.startswith(_PATH)

    def refused(self, request: web.Request) -> web.Response:
        said = "You are not authorized to perform this operation. Administrator privileges are required."
        return _problem(403, said)

    async def _create(self, request: web.Request) -> web.Response:
        asked: dict[str, Any] = orjson.loads(await request.read())
        if not asked.get("name"):
            return _problem(400, "The webhook must have a name.")
        try:
            self._matches(asked, None)
            hook = self.register(str(asked.get("url", "")), str(asked.get("secret") or ""), **_rest(asked))
        except (HookError, JqlError) as error:
            return _problem(400, str(error))
        return json_response(self._shown(hook), status=201)

    async def _list(self, request: web.Request) -> web.Response:
        return json_response([self._shown(hook) for hook in self.hooks.values()])

    async def _show(self, request: web.Request) -> web.Response:
        hook = self.hooks.get(int(request.match_info["id"]))
        return json_response(self._shown(hook)) if hook else _problem(404, "Webhook not found.")

    async def _delete(self, request: web.Request) -> web.Response:
        found = self.hooks.pop(int(request.match_info["id"]), None)
        return web.Response(status=204) if found else _problem(404, "Webhook not found.")

    def _shown(self, hook: Hook) -> dict[str, Any]:
        """Everything but the secret, which nobody sees again."""
        user = self.tracker.world.users[0]
        return {
            "name": hook.values.get("name", f"Webhook {hook.id}"),
            "url": hook.url,
            "excludeBody": False,
            "filters": hook.values.get("filters", {}),
            "events": sorted(hook.events),
            "enabled": True,
            **({"isSigned": bool(hook.secret)} if self.tracker.cloud else {}),
            "self": f"{self.tracker.url}{_PATH}/{hook.id}",
            "lastUpdatedUser": user.login,
            "lastUpdatedDisplayName": user.name,
            "lastUpdated": int(self.tracker.world.now.timestamp() * 1000),
        }

    def accepts(self, hook: Hook, message: Message) -> bool:
        return super().accepts(hook, message) and self._matches(hook.values, message.issue)

    def _matches(self, values: Mapping[str, Any], issue: Issue | None) -> bool:
        jql = str((values.get("filters") or {}).get(_SECTION) or "")
        query = Jql(self.tracker.world).parse(jql) if jql else None
        if query is None or issue is None:
            return True
        return query.project in {None, issue.project} and bool(select(query, arrange(query, [issue])))

    # Sending

    def headers(self, delivery: Delivery, attempt: int) -> Mapping[str, str]:
        if not self.tracker.cloud:
            return {"User-Agent": "Atlassian HttpClient 4.0.0 / JIRA-9.17.1 (9170001) / Default"}
        headers = {
            "User-Agent": "Atlassian Webhook HTTP Client",
            "X-Atlassian-Webhook-Identifier": delivery.id,
            "X-Atlassian-Webhook-Flow": "Secondary" if delivery.message.late else "Primary",
        }
        if attempt:
            headers["X-Atlassian-Webhook-Retry"] = str(attempt)
        if delivery.hook.secret:
            headers["X-Hub-Signature"] = f"sha256={hex_hmac(delivery.hook.secret, delivery.message.body)}"
        return headers

    def goes_again(self, hook: Hook, status: int | None) -> bool:
        """Data Center never does; Cloud does after answers that may pass, unless all have been like this for long."""
        since = hook.failing_since
        tired = since is not None and datetime.now(UTC) - since > _PATIENCE
        return self.tracker.cloud and not tired and (status is None or status in _RETRIED or status >= 500)

    # What is told

    @property
    def _shapes(self) -> Renderer:
        return Renderer(self.tracker.world, self.tracker.url, self.tracker.cloud, documents=False)

    def messages(self, before: Issue | None, after: Issue | None) -> Iterator[Message]:
        if after is None:
            yield from self._deleted(before) if before else ()
        elif before is None:
            items = [self._shapes.item("title", None, after.title)]
            yield self._of_issue("jira:issue_created", "issue_created", after, after.reporter, items)
        else:
            yield from self._edited(before, after)

    def _deleted(self, issue: Issue) -> Iterator[Message]:
        yield self._of_issue("jira:issue_deleted", "", issue, issue.reporter)
        for comment in issue.comments if self.tracker.cloud else ():
            yield self._of_comment("comment_deleted", issue, comment, late=True)

    def _edited(self, before: Issue, after: Issue) -> Iterator[Message]:
        comments = parts(before.comments, after.comments)
        for comment in comments.added:
            yield from self._commented("comment_created", after, comment)
        for _, comment in comments.edited:
            yield from self._commented("comment_updated", after, comment)
        for comment in comments.removed:
            yield from self._commented("comment_deleted", after, comment)
        worklogs = parts(before.worklogs, after.worklogs)
        for worklog in worklogs.added:
            yield from self._worked("worklog_created", "issue_work_logged", before, after, worklog)
        for worklog in worklogs.removed:
            yield from self._worked("worklog_deleted", "issue_worklog_deleted", before, after, worklog)
        names = changed(before, after, _FIELDS)
        if names or (before.comments == after.comments and before.worklogs == after.worklogs):
            new = after.changes[len(before.changes) :]
            actor = new[-1].author if new else after.reporter
            items = [self._shapes.item(name, *(_said(getattr(of, name)) for of in (before, after))) for name in names]
            yield self._of_issue("jira:issue_updated", _kind(names, before, after), after, actor, items)

    def _commented(self, event: str, issue: Issue, comment: Comment) -> Iterator[Message]:
        if not self.tracker.cloud:
            shown = {} if event == "comment_deleted" else {"comment": self._comment(issue, comment)}
            yield self._of_issue("jira:issue_updated", _ALSO[event], issue, comment.author, **shown)
        yield self._of_comment(event, issue, comment)

    def _of_comment(self, event: str, issue: Issue, comment: Comment, *, late: bool = False) -> Message:
        content: dict[str, Any] = {"comment": self._comment(issue, comment)}
        if self.tracker.cloud:
            content["issue"] = self._shapes.issue(issue, _STUB, changelog=False)
        elif event == "comment_deleted":
            content["user"] = self._person(comment.author)
        return self._message(event, issue, content, late=late)

    def _worked(self, event: str, kind: str, before: Issue, after: Issue, worklog: Worklog) -> Iterator[Message]:
        own = f"{self._shapes.api}/issue/{after.id}/worklog/{worklog.id}"
        author = self._person(worklog.author)
        shown = {"self": own, **self._shapes.worklog(after, worklog), "author": author, "updateAuthor": author}
        yield self._message(event, after, {"worklog": shown})
        spent = [str(sum(each.seconds for each in of.worklogs)) for of in (before, after)]
        items = [self._shapes.item("timespent", *spent), self._shapes.item("WorklogId", None, str(worklog.id))]
        yield self._of_issue("jira:issue_updated", kind, after, worklog.author, items)

    def _of_issue(
        self, event: str, kind: str, issue: Issue, actor: User, items: Sequence[Mapping[str, Any]] = (), **more: Any
    ) -> Message:
        content: dict[str, Any] = {"issue_event_type_name": kind} if kind else {}
        content["user"] = self._person(actor)
        content["issue"] = self._issue(issue)
        if items:
            # Before the numbers of changes, which the lists have, come those of their own.
            content["changelog"] = {"id": str(issue.id * 1_000 + issue.mod_count), "items": list(items)}
        return self._message(event, issue, {**content, **more})

    def _issue(self, issue: Issue) -> dict[str, Any]:
        """All fields; only Data Center's are with comments."""
        fields = ["*all"] if self.tracker.cloud is False else ["*all", "-comment"]
        return self._shapes.issue(issue, fields, changelog=False, whole=True)

    def _comment(self, issue: Issue, comment: Comment) -> dict[str, Any]:
        shown = {"self": f"{self._shapes.api}/issue/{issue.id}/comment/{comment.id}", **self._shapes.comment(comment)}
        if not self.tracker.cloud:
            del shown["jsdPublic"]
        person = self._person(comment.author)
        return {**shown, "author": person, "updateAuthor": person}

    def _person(self, user: User) -> dict[str, Any]:
        shown = self._shapes.user(user)
        query = f"accountId={shown['accountId']}" if self.tracker.cloud else f"username={user.login}"
        return {"self": f"{self._shapes.api}/user?{query}", **shown}

    def _message(self, event: str, issue: Issue, content: Mapping[str, Any], *, late: bool = False) -> Message:
        body = {"timestamp": int(self.tracker.world.now.timestamp() * 1000), "webhookEvent": event, **content}
        return Message(event=event, body=orjson.dumps(body), project=issue.project, issue=issue, late=late)


def _kind(names: Sequence[str], before: Issue, after: Issue) -> str:
    if "project" in names:
        return "issue_moved"
    if "status" in names:
        return {"done": "issue_resolved"}.get(after.status, "issue_reopened" if before.resolved else "issue_generic")
    return "issue_assigned" if names == ["assignee"] else "issue_updated"


def _said(value: object) -> str | None:
    """A value in a changelog: a name, or values with blanks in between."""
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return value.name if isinstance(value, User) else None if value is None else str(value)


def _rest(asked: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in asked.items() if name in {"name", "events", "filters"}}


def _problem(status: int, said: str) -> web.Response:
    return json_response({"messages": [{"key": said}]}, status=status)
