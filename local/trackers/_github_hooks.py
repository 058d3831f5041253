"""A repository's webhooks at GitHub: a ping when one is new, a signature if it has a secret, one attempt.

Deliveries are kept, and sent again when somebody asks for it.
https://docs.github.com/en/webhooks/webhook-events-and-payloads
"""

import hashlib
import hmac
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import orjson
from aiohttp import web

from local.trackers._github_json import Renderer, Repository, instant, problem
from local.trackers._github_paging import refused
from local.trackers._hooks import Delivery, Hook, HookError, Message, Sent, hex_hmac, is_success, parts
from local.trackers._project_hooks import ProjectHooks
from local.trackers.service import json_response
from local.trackers.world import Comment, Issue

if TYPE_CHECKING:
    from local.trackers.github import GitHubTracker

_INSIDE = "/repos/{owner}/{name}/hooks"
_ZEN = "Keep it logically awesome."


class GitHubHooks(ProjectHooks):
    tracker: "GitHubTracker"

    # Registration

    def add_routes(self, router: web.UrlDispatcher) -> None:
        for prefix in ("", "/api/v3"):
            inside = prefix + _INSIDE
            router.add_post(inside, self._create)
            router.add_get(inside, self.list_hooks)
            for method, path, handler in (
                ("GET", "", self.show),
                ("DELETE", "", self.delete),
                ("POST", "/pings", self._ping),
                ("GET", "/deliveries", self._deliveries),
                ("POST", "/deliveries/{delivery}/attempts", self._redeliver),
            ):
                router.add_route(method, f"{inside}/{{hook}}{path}", self.of_hook(handler))

    def is_about(self, request: web.Request) -> bool:
        return request.path.removeprefix("/api/v3").split("/")[4:5] == ["hooks"]

    def refused(self, request: web.Request) -> web.Response:
        return refused("permission")

    def hidden(self, what: str) -> web.Response:
        return refused("hidden")

    def project_of(self, request: web.Request) -> str | None:
        name = f"{request.match_info['owner']}/{request.match_info['name']}".lower()
        known = (self.tracker.repository(key) for key in self.tracker.world.projects)
        return next((each.key for each in known if each.full_name.lower() == name), None)

    async def _create(self, request: web.Request) -> web.Response:
        project = self.project_of(request)
        if project is None:
            return self.hidden("Project")
        asked: dict[str, Any] = orjson.loads(await request.read())
        config: dict[str, Any] = asked.get("config") or {}
        url = str(config.get("url", ""))
        if any(each.url == url and each.project == project for each in self.hooks.values()):
            return _invalid("Hook already exists on this repository")
        # What is not said: pushes, in a form.
        events = asked.get("events") or ["push"]
        kind = config.get("content_type", "form")
        secret = str(config.get("secret") or "")
        try:
            hook = self.register(url, secret, events=events, project=project, content_type=kind)
        except HookError as error:
            return _invalid(str(error))
        return json_response(self.shown(hook), status=201)

    def _ping(self, request: web.Request, hook: Hook) -> web.Response:
        self.registered(hook)
        return web.Response(status=204)

    def _deliveries(self, request: web.Request, hook: Hook) -> web.Response:
        """The newest first, attempts on request among them."""
        seen: dict[str, int] = {}
        shown = [self._attempt_shown(sent, seen) for sent in self.sent if sent.delivery.hook is hook]
        return json_response(shown[::-1])

    def _attempt_shown(self, sent: Sent, seen: dict[str, int]) -> dict[str, Any]:
        delivery = sent.delivery
        again = delivery.id in seen
        seen[delivery.id] = delivery.number
        good = is_success(sent.status)
        return {
            "id": delivery.number,
            "guid": delivery.id,
            "delivered_at": instant(sent.at),
            "redelivery": again,
            "duration": round(sent.seconds, 2),
            "status": "OK" if good else "Invalid HTTP Response" if sent.status else "failed to connect to host",
            "status_code": sent.status or 502,
            "event": delivery.message.event,
            "action": orjson.loads(delivery.message.body).get("action"),
            "repository_id": self.tracker.repository(delivery.hook.project).id if delivery.hook.project else None,
        }

    def _redeliver(self, request: web.Request, hook: Hook) -> web.Response:
        for sent in self.sent:
            if sent.delivery.hook is hook and str(sent.delivery.number) == request.match_info["delivery"]:
                self.send_on_request(sent.delivery)
                return json_response({}, status=202)
        return refused("hidden")

    def shown(self, hook: Hook) -> dict[str, Any]:
        kind = hook.values.get("content_type", "json")
        config = {"content_type": kind, "insecure_ssl": "0", "url": hook.url}
        last = next((each for each in reversed(self.sent) if each.delivery.hook is hook), None)
        path = f"repos/{self.tracker.repository(hook.project).full_name}/hooks/{hook.id}" if hook.project else "hooks"
        return {
            "type": "Repository",
            "id": hook.id,
            "name": "web",
            "active": True,
            "events": sorted(hook.events or {"*"}),
            "config": {**config, "secret": "********"} if hook.secret else config,
            "updated_at": instant(self.tracker.world.now),
            "created_at": instant(self.tracker.world.now),
            "url": f"{self.tracker.url}/{path}",
            "last_response": {
                "code": last.status if last else None,
                "status": "unused" if last is None else "active",
                "message": None,
            },
        }

    # Sending

    def registered(self, hook: Hook) -> None:
        body: dict[str, Any] = {"zen": _ZEN, "hook_id": hook.id, "hook": self.shown(hook)}
        if hook.project:
            body["repository"] = self._repository_shown(self.tracker.repository(hook.project))
        self.send(hook, Message(event="ping", body=orjson.dumps(body), project=hook.project))

    def accepts(self, hook: Hook, message: Message) -> bool:
        return hook.project in {"", message.project} and bool({"*", message.event} & (hook.events or {"*"}))

    def headers(self, delivery: Delivery, attempt: int) -> Mapping[str, str]:
        hook, project = delivery.hook, delivery.message.project
        headers = {
            "User-Agent": "GitHub-Hookshot/6f1c2ab",
            "X-GitHub-Event": delivery.message.event,
            "X-GitHub-Delivery": delivery.id,
            "X-GitHub-Hook-ID": str(hook.id),
            "X-GitHub-Hook-Installation-Target-Type": "repository",
        }
        if project:
            headers["X-GitHub-Hook-Installation-Target-ID"] = str(self.tracker.repository(project).id)
        if _is_form(hook):
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        if hook.secret:
            body = self.body(delivery)
            headers["X-Hub-Signature"] = f"sha1={hmac.new(hook.secret.encode(), body, hashlib.sha1).hexdigest()}"
            headers["X-Hub-Signature-256"] = f"sha256={hex_hmac(hook.secret, body)}"
        return headers

    def body(self, delivery: Delivery) -> bytes:
        body = delivery.message.body
        return urlencode({"payload": body.decode()}).encode() if _is_form(delivery.hook) else body

    # What is told

    @property
    def _shapes(self) -> Renderer:
        return Renderer(self.tracker.url, self.tracker.ghosts)

    def messages(self, before: Issue | None, after: Issue | None) -> Iterator[Message]:
        if after is None:
            yield from [self._of_issue("deleted", before)] if before else ()
        elif before is None:
            yield self._of_issue("opened", after)
        elif before.project != after.project:
            yield from self._transferred(before, after)
        else:
            yield from self._edited(before, after)

    def _transferred(self, before: Issue, after: Issue) -> Iterator[Message]:
        """The old repository hears of the new issue, the new one of the old."""
        old, new = self._issue(before, transfers=-1), self._issue(after)
        there = self._repository_shown(self.tracker.repository(after.project))
        here = self._repository_shown(self.tracker.repository(before.project))
        moved = {"changes": {"new_issue": new, "new_repository": there}}
        yield self._message("issues", before, {"action": "transferred", "issue": old, **moved})
        came = {"changes": {"old_issue": old, "old_repository": here}}
        yield self._message("issues", after, {"action": "opened", "issue": new, **came})

    def _edited(self, before: Issue, after: Issue) -> Iterator[Message]:
        comments = parts(before.comments, after.comments)
        for comment in comments.added:
            yield self._of_comment("created", after, comment)
        for old, comment in comments.edited:
            yield self._of_comment("edited", after, comment, changes={"body": {"from": old.body}})
        for comment in comments.removed:
            yield self._of_comment("deleted", after, comment)
        was = {
            name: getattr(before, name) for name in ("title", "body") if getattr(before, name) != getattr(after, name)
        }
        if was:
            yield self._of_issue("edited", after, changes={name: {"from": old} for name, old in was.items()})
        if (before.status == "done") != (after.status == "done"):
            yield self._of_issue("closed" if after.status == "done" else "reopened", after)
        for action, person in (("unassigned", before.assignee), ("assigned", after.assignee)):
            if person and before.assignee != after.assignee:
                yield self._of_issue(action, after, assignee=self._shapes.user(person))
        yield from self._labelled(before, after)

    def _labelled(self, before: Issue, after: Issue) -> Iterator[Message]:
        old, new = ({each["name"]: each for each in self._issue(of)["labels"]} for of in (before, after))
        for action, there, elsewhere in (("unlabeled", old, new), ("labeled", new, old)):
            for name in there.keys() - elsewhere.keys():
                yield self._of_issue(action, after, label=there[name])

    def _of_issue(self, action: str, issue: Issue, **more: Any) -> Message:
        return self._message("issues", issue, {"action": action, "issue": self._issue(issue), **more})

    def _of_comment(self, action: str, issue: Issue, comment: Comment, **more: Any) -> Message:
        shown = self._shapes.comment(self.tracker.repository(issue.project), issue, comment)
        return self._message(
            "issue_comment", issue, {"action": action, **more, "issue": self._issue(issue), "comment": shown}
        )

    def _message(self, event: str, issue: Issue, content: Mapping[str, Any]) -> Message:
        body = {
            **content,
            "repository": self._repository_shown(self.tracker.repository(issue.project)),
            "organization": {"login": "tidewater", "id": 77},
            "sender": self._shapes.user(issue.changes[-1].author if issue.changes else issue.reporter) or _GHOST,
        }
        return Message(event=event, body=orjson.dumps(body), project=issue.project, issue=issue)

    def _issue(self, issue: Issue, transfers: int = 0) -> dict[str, Any]:
        number = self.tracker.id_of(issue, transfers)
        return self._shapes.issue(self.tracker.repository(issue.project), issue, number)

    def _repository_shown(self, repository: Repository) -> dict[str, Any]:
        pushed = repository.commits[0].date if repository.commits else repository.created
        return self._shapes.repository(repository, pushed)


# Senders are never null: who is gone is this account.
_GHOST = {"login": "ghost", "id": 10137, "node_id": "U_10137", "type": "User", "site_admin": False}


def _is_form(hook: Hook) -> bool:
    return hook.values.get("content_type", "json") == "form"


def _invalid(said: str) -> web.Response:
    error = {"resource": "Hook", "code": "custom", "message": said}
    return json_response({**problem("Validation Failed", 422), "errors": [error]}, status=422)
