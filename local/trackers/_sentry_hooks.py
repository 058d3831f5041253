"""The webhooks of a Sentry integration: answered within a second, or not at all; never a second attempt.

Ids are numbers in comments and texts elsewhere; nobody is told of deletions.
https://docs.sentry.io/organization/integrations/integration-platform/webhooks/
"""

from collections import deque
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import orjson

from local.trackers._hooks import Delivery, Hook, Hooks, Message, hex_hmac, parts
from local.trackers._sentry_json import micro, slug_of, to_event, to_listed
from local.trackers.world import Comment, Issue, User

if TYPE_CHECKING:
    from local.trackers.sentry import SentryTracker

_ONLY_IN_LISTS = {"lifetime", "filtered"}
_SENTRY = {"type": "application", "id": "sentry", "name": "Sentry"}
_DAY = timedelta(days=1)
# So many missing answers in a day, and nobody is told any more.
_MOST_UNANSWERED = 1_000


class SentryHooks(Hooks):
    tracker: "SentryTracker"
    timeout_seconds = 1.0

    def __init__(self, tracker: "SentryTracker") -> None:
        super().__init__(tracker)
        self._installation = str(uuid4())
        self._unanswered: dict[int, deque[datetime]] = {}

    # Sending

    def headers(self, delivery: Delivery, attempt: int) -> Mapping[str, str]:
        """The time is not part of what is signed."""
        return {
            "Sentry-Hook-Resource": delivery.message.event,
            "Request-ID": delivery.id.replace("-", ""),
            "Sentry-Hook-Timestamp": str(int(datetime.now(UTC).timestamp())),
            "Sentry-Hook-Signature": hex_hmac(delivery.hook.secret, delivery.message.body),
        }

    def answered(self, hook: Hook, status: int | None) -> None:
        if status is not None:
            return
        now = datetime.now(UTC)
        missing = self._unanswered.setdefault(hook.id, deque(maxlen=_MOST_UNANSWERED))
        missing.append(now)
        if len(missing) == _MOST_UNANSWERED and now - missing[0] < _DAY:
            hook.blocked_until = datetime.max.replace(tzinfo=UTC)

    # What is told

    def messages(self, before: Issue | None, after: Issue | None) -> Iterator[Message]:
        if after is None:
            return
        if before is None:
            yield self._of_issue("created", after, _SENTRY)
            return
        comments = parts(before.comments, after.comments)
        for comment in comments.added:
            yield self._of_comment("created", after, comment)
        for _, comment in comments.edited:
            yield self._of_comment("updated", after, comment)
        for comment in comments.removed:
            yield self._of_comment("deleted", after, comment)
        yield from self._edited(before, after)

    def _edited(self, before: Issue, after: Issue) -> Iterator[Message]:
        if before.updated != after.updated and (before.comments, before.worklogs) == (after.comments, after.worklogs):
            yield self._of_error(after)
        actor = _person(after.changes[-1].author if after.changes else after.reporter)
        if (before.status == "done") != (after.status == "done"):
            yield self._of_issue("resolved" if after.status == "done" else "unresolved", after, actor)
        if after.assignee and before.assignee != after.assignee:
            yield self._of_issue("assigned", after, actor)

    def _of_issue(self, action: str, issue: Issue, actor: Mapping[str, Any]) -> Message:
        listed = to_listed(self.tracker.world, issue, self.tracker.organization)
        shown = {name: value for name, value in listed.items() if name not in _ONLY_IN_LISTS}
        base = f"{self.tracker.url}/organizations/{self.tracker.organization}/issues/"
        place = {
            "url": f"{self.tracker.url}/api/0/organizations/{self.tracker.organization}/issues/{issue.id}/",
            "web_url": f"{base}{issue.id}/",
            "project_url": f"{base}?project={self.tracker.world.projects[issue.project].id}",
        }
        seen = {"firstSeen": _offset(issue.created), "lastSeen": _offset(issue.updated)}
        return self._message("issue", action, issue, {"issue": {**place, **shown, **seen}}, actor)

    def _of_comment(self, action: str, issue: Issue, comment: Comment) -> Message:
        data = {
            "comment": comment.body,
            "project_slug": slug_of(self.tracker.world.projects[issue.project]),
            "comment_id": comment.id,
            "issue_id": issue.id,
            "timestamp": micro(comment.created),
        }
        return self._message("comment", action, issue, data, _person(comment.author))

    def _of_error(self, issue: Issue) -> Message:
        """An event, in the shape of the store and not of the API: pairs of tags, times as numbers."""
        event = to_event(issue)
        project = self.tracker.world.projects[issue.project]
        api = f"{self.tracker.url}/api/0"
        at = issue.updated.timestamp()
        error = {
            "event_id": event["eventID"],
            "issue_id": str(issue.id),
            "issue_url": f"{api}/organizations/{self.tracker.organization}/issues/{issue.id}/",
            "url": f"{api}/projects/{self.tracker.organization}/{slug_of(project)}/events/{event['eventID']}/",
            "title": event["title"],
            "culprit": event["culprit"],
            "datetime": micro(issue.updated),
            "received": at,
            "timestamp": at,
            "level": next(tag["value"] for tag in event["tags"] if tag["key"] == "level"),
            "platform": event["platform"],
            "project": project.id,
            "tags": [[tag["key"], tag["value"]] for tag in event["tags"]],
            "type": event["type"],
            "version": "7",
        }
        traces = [entry["data"] for entry in event["entries"] if entry["type"] == "exception"]
        return self._message(
            "error", "created", issue, {"error": {**error, "exception": traces[0] if traces else None}}, _SENTRY
        )

    def _message(
        self, resource: str, action: str, issue: Issue, data: Mapping[str, Any], actor: Mapping[str, Any]
    ) -> Message:
        body = {"action": action, "installation": {"uuid": self._installation}, "data": data, "actor": actor}
        return Message(event=resource, body=orjson.dumps(body), project=issue.project, issue=issue)


def _person(user: User) -> dict[str, Any]:
    return {"type": "user", "id": user.id, "name": user.name}


def _offset(moment: datetime) -> str:
    """Times of issues have an offset here and a Z in the API."""
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}+00:00"
