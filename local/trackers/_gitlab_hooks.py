"""A project's webhooks at GitLab: a token sent as it is, or a signature; an address that keeps failing is left alone.

Nobody is told when a note or an issue is deleted. In the events of a note the issue is a stub beside it.
https://docs.gitlab.com/user/project/integrations/webhook_events/
"""

import hashlib
import hmac
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import orjson
from aiohttp import web

from local.trackers._gitlab_json import GROUP, issue_json, path_of, stamp, user
from local.trackers._hooks import Delivery, Hook, HookError, Message, is_success, parts
from local.trackers._project_hooks import ProjectHooks
from local.trackers.service import json_response
from local.trackers.world import Comment, Issue, Project

if TYPE_CHECKING:
    from local.trackers.gitlab import GitLabTracker

_INSIDE = "/api/v4/projects/{project}/hooks"
# Parameter of a webhook → what it is told of.
_EVENTS = {
    "issues_events": "Issue Hook",
    "confidential_issues_events": "Confidential Issue Hook",
    "note_events": "Note Hook",
    "confidential_note_events": "Confidential Note Hook",
}
_SIGNING = "whsec_"
# Failures in a row until an address is left alone for a while, and for good.
_FAILURES = 4
_MOST_FAILURES = 40
_LONGEST = timedelta(days=1)


class GitLabHooks(ProjectHooks):
    tracker: "GitLabTracker"
    # How long the first time; each further failure doubles it.
    blocked_seconds: float = 60

    # Registration

    def add_routes(self, router: web.UrlDispatcher) -> None:
        router.add_post(_INSIDE, self._create)
        router.add_get(_INSIDE, self.list_hooks)
        router.add_get(_INSIDE + "/{hook}", self.of_hook(self.show))
        router.add_delete(_INSIDE + "/{hook}", self.of_hook(self.delete))
        router.add_post(_INSIDE + "/{hook}/test/{trigger}", self.of_hook(self._test))

    def is_about(self, request: web.Request) -> bool:
        return request.path.startswith("/api/v4/projects/") and "/hooks" in request.path

    def refused(self, request: web.Request) -> web.Response:
        said = "The request requires higher privileges than provided by the access token."
        body = {"error": "insufficient_scope", "error_description": said, "scope": "api"}
        return json_response(body, status=403)

    def hidden(self, what: str) -> web.Response:
        return json_response({"message": f"404 {what} Not Found"}, status=404)

    def project_of(self, request: web.Request) -> str | None:
        project = self.tracker.named(request.match_info["project"])
        return project.key if project else None

    async def _create(self, request: web.Request) -> web.Response:
        project = self.project_of(request)
        if project is None:
            return self.hidden("Project")
        kind = request.content_type
        asked = orjson.loads(await request.read()) if kind == "application/json" else dict(await request.post())
        signing = str(asked.get("signing_token") or "")
        events = [event for name, event in _EVENTS.items() if str(asked.get(name, "")).lower() == "true"]
        secret = str(asked.get("token") or "")
        try:
            # Without any event of ours it is told of pushes, which do not happen here.
            hook = self.register(
                str(asked.get("url", "")),
                secret,
                events=events or ["Push Hook"],
                project=project,
                signing_token=signing,
            )
        except HookError as error:
            return _refused(str(error))
        return json_response(self.shown(hook), status=201)

    def register(self, url: str, secret: str = "", **values: Any) -> Hook:
        if (signing := values.get("signing_token")) and not _is_signing_token(signing):
            raise HookError("signing_token must be in whsec_<base64> format encoding a 32-byte key")
        return super().register(url, secret, **values)

    def _test(self, request: web.Request, hook: Hook) -> web.Response:
        """Send the newest issue, whether or not the address was left alone; if it answers, it is in use again."""
        issues = self.tracker.world.all_current(hook.project)
        if request.match_info["trigger"] != "issues_events" or not issues:
            return _refused("Ensure the project has issues.", 422)
        message = self._of_issue("open", max(issues, key=lambda each: each.id))
        self.send_on_request(self.addressed(hook, message))
        return json_response({"message": "201 Created"}, status=201)

    def shown(self, hook: Hook) -> dict[str, Any]:
        """Never the tokens themselves."""
        tired = hook.failures >= _MOST_FAILURES
        now = hook.blocked_until is not None and hook.blocked_until > datetime.now(UTC)
        return {
            "id": hook.id,
            "url": hook.url,
            "project_id": self.tracker.world.projects[hook.project].id,
            "created_at": stamp(self.tracker.world.now),
            **{name: event in hook.events for name, event in _EVENTS.items()},
            "push_events": "Push Hook" in hook.events,
            "enable_ssl_verification": True,
            "alert_status": "disabled" if tired else "temporarily_disabled" if now else "executable",
            "disabled_until": stamp(hook.blocked_until) if now and not tired else None,
            "token_present": bool(hook.secret),
            "signing_token_present": bool(hook.values.get("signing_token")),
        }

    # Sending

    def answered(self, hook: Hook, status: int | None) -> None:
        if is_success(status) or hook.failures < _FAILURES:
            return
        wait = timedelta(seconds=self.blocked_seconds * 2 ** min(hook.failures - _FAILURES, 20))
        never = hook.failures >= _MOST_FAILURES
        hook.blocked_until = datetime.max.replace(tzinfo=UTC) if never else datetime.now(UTC) + min(wait, _LONGEST)

    def headers(self, delivery: Delivery, attempt: int) -> Mapping[str, str]:
        hook = delivery.hook
        headers = {
            "User-Agent": "GitLab/18.5.1-ee",
            "X-Gitlab-Event": delivery.message.event,
            "X-Gitlab-Webhook-UUID": hook.uuid,
            "X-Gitlab-Instance": self.tracker.url,
            "Idempotency-Key": delivery.id,
        }
        if hook.secret:
            headers["X-Gitlab-Token"] = hook.secret
        if signing := hook.values.get("signing_token"):
            at = str(int(datetime.now(UTC).timestamp()))
            key = b64decode(signing.removeprefix(_SIGNING))
            signed = hmac.new(key, f"{delivery.id}.{at}.".encode() + delivery.message.body, hashlib.sha256)
            headers |= {
                "webhook-id": delivery.id,
                "webhook-timestamp": at,
                "webhook-signature": f"v1,{b64encode(signed.digest()).decode()}",
            }
        return headers

    # What is told

    def messages(self, before: Issue | None, after: Issue | None) -> Iterator[Message]:
        if after is None:
            return
        if before is None:
            yield self._of_issue("open", after)
        elif before.project != after.project:
            yield self._of_issue("close", before)
            yield self._of_issue("open", after)
        else:
            comments = parts(before.comments, after.comments)
            for comment in comments.added:
                yield self._of_note("create", after, comment)
            for _, comment in comments.edited:
                yield self._of_note("update", after, comment)
            if changes := self._changes(before, after):
                yield self._of_issue(_action(before, after), after, changes)

    def _changes(self, before: Issue, after: Issue) -> dict[str, Any]:
        """What differs, in the names and the two kinds of times of webhooks."""
        old, new = self._attributes(before), self._attributes(after)
        names = {
            "title",
            "description",
            "state_id",
            "closed_at",
            "labels",
            "total_time_spent",
            "weight",
            "assignee_ids",
        }
        names |= {"milestone_id", "confidential"}
        differ = {name: {"previous": old[name], "current": new[name]} for name in names if old[name] != new[name]}
        if differ and before.updated != after.updated:
            differ["updated_at"] = {"previous": old["updated_at"], "current": new["updated_at"]}
        if "assignee_ids" in differ:
            people = [[user(each, self.tracker.url)] if each else [] for each in (before.assignee, after.assignee)]
            differ["assignees"] = {"previous": people[0], "current": people[1]}
            del differ["assignee_ids"]
        return differ

    def _of_issue(self, action: str, issue: Issue, changes: Mapping[str, Any] | None = None) -> Message:
        project = self.tracker.world.projects[issue.project]
        attributes = self._attributes(issue)
        assignees = [user(issue.assignee, self.tracker.url)] if issue.assignee else []
        actor = issue.changes[-1].author if issue.changes else issue.reporter
        content = {
            "object_kind": "issue",
            "event_type": "confidential_issue" if issue.hidden else "issue",
            "user": user(actor, self.tracker.url),
            **self._places(project),
            "object_attributes": {**attributes, "action": action},
            "labels": attributes["labels"],
            "changes": changes or {},
            "assignees": assignees,
        }
        return self._message("Confidential Issue Hook" if issue.hidden else "Issue Hook", issue, content)

    def _of_note(self, action: str, issue: Issue, comment: Comment) -> Message:
        project = self.tracker.world.projects[issue.project]
        confidential = issue.hidden or comment.internal
        content = {
            "object_kind": "note",
            "event_type": "confidential_note" if confidential else "note",
            "user": user(comment.author, self.tracker.url),
            "project_id": project.id,
            **self._places(project),
            "object_attributes": {
                "id": comment.id,
                "note": comment.body,
                "description": comment.body,
                "noteable_type": "Issue",
                "noteable_id": issue.id,
                "author_id": comment.author.id,
                "created_at": _spaced(comment.created),
                "updated_at": _spaced(comment.updated),
                "project_id": project.id,
                "internal": comment.internal,
                "system": False,
                "action": action,
                "url": f"{self.tracker.url}/{path_of(project)}/-/issues/{issue.number}#note_{comment.id}",
            },
            "issue": self._attributes(issue),
        }
        return self._message("Confidential Note Hook" if confidential else "Note Hook", issue, content)

    def _message(self, event: str, issue: Issue, content: Mapping[str, Any]) -> Message:
        headers = {"X-Gitlab-Event-UUID": str(uuid4())}
        return Message(event=event, body=orjson.dumps(content), project=issue.project, issue=issue, headers=headers)

    def _attributes(self, issue: Issue) -> dict[str, Any]:
        project = self.tracker.world.projects[issue.project]
        shown = issue_json(issue, project, self.tracker.world.sprints, self.tracker.url)
        kept = ("id", "iid", "project_id", "title", "description", "state", "confidential", "weight", "severity")
        return {
            **{name: shown[name] for name in kept},
            "type": shown["issue_type"].title(),
            "url": shown["web_url"],
            "author_id": issue.reporter.id,
            "assignee_id": issue.assignee.id if issue.assignee else None,
            "assignee_ids": [issue.assignee.id] if issue.assignee else [],
            "created_at": _spaced(issue.created),
            "updated_at": _spaced(issue.updated),
            "closed_at": _spaced(issue.resolved) if issue.resolved else None,
            "state_id": 2 if shown["state"] == "closed" else 1,
            "confidential": issue.hidden,
            "milestone_id": shown["milestone"]["id"] if shown["milestone"] else None,
            "due_date": None,
            "time_estimate": 0,
            "total_time_spent": shown["time_stats"]["total_time_spent"],
            "labels": self._labels(project, shown["labels"]),
        }

    def _labels(self, project: Project, names: Sequence[str]) -> list[dict[str, Any]]:
        return [
            {
                "id": int(hashlib.sha1(name.encode()).hexdigest()[:6], 16),
                "title": name,
                "color": "#3e8068",
                "project_id": project.id,
                "created_at": stamp(project.created),
                "updated_at": stamp(project.created),
                "template": False,
                "description": None,
                "type": "ProjectLabel",
                "group_id": None,
            }
            for name in names
        ]

    def _places(self, project: Project) -> dict[str, Any]:
        web_url = f"{self.tracker.url}/{path_of(project)}"
        about = {"name": project.name, "description": f"Everything about {project.name}", "homepage": web_url}
        more = {"id": project.id, "web_url": web_url, "namespace": GROUP.title(), "visibility_level": 0}
        more |= {"path_with_namespace": path_of(project), "default_branch": "main", "http_url": f"{web_url}.git"}
        return {"project": {**about, **more}, "repository": {**about, "url": f"{web_url}.git"}}


def _action(before: Issue, after: Issue) -> str:
    if (before.status == "done") == (after.status == "done"):
        return "update"
    return "close" if after.status == "done" else "reopen"


def _spaced(moment: datetime) -> str:
    """How webhooks write most times."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _is_signing_token(text: str) -> bool:
    try:
        return text.startswith(_SIGNING) and len(b64decode(text.removeprefix(_SIGNING), validate=True)) == 32
    except ValueError:
        return False


def _refused(said: object, status: int = 422) -> web.Response:
    return json_response({"message": said}, status=status)
