"""A world's issues, people and projects in Sentry's JSON, and its issue search.

What a world calls an update is an event here: `lastSeen` is the issue's `updated`, and a change that leaves `updated`
alone is one that Sentry makes without an event: resolve, assign, archive.
"""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from local.trackers.world import Comment, Issue, Project, User, World

Matches = Callable[[Issue], bool]

_LEVEL_OF = {"Highest": "fatal", "High": "error", "Medium": "warning", "Low": "info"}
_PRIORITY_OF = {"Highest": "high", "High": "high", "Medium": "medium", "Low": "low"}
# World's type → Sentry's type, issueType and issueCategory.
_KIND_OF = {
    "Bug": ("error", "error", "error"),
    "Task": ("generic", "performance_n_plus_one_db_queries", "db_query"),
    "Story": ("default", "error", "error"),
}
_TERM = re.compile(r"(\w+):(>=|<=|>|<)?(\[[^\]]*\]|\S+)")
# A list in brackets may have spaces in it.
_TERMS = re.compile(r"\w+:\[[^\]]*\]|\S+")
_STATES = {"unresolved": False, "resolved": True}


class BadQueryError(Exception):
    """A request for a list that Sentry cannot make sense of."""


def micro(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def whole(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def millis(moment: datetime) -> int:
    """The sort key of lists: whole seconds, counted in milliseconds."""
    return int(moment.timestamp()) * 1000


def parse_query(text: str, now: datetime) -> Matches:
    """The terms is:, firstSeen:, lastSeen: and level: of Sentry's search."""
    tests: list[Matches] = []
    for term in _TERMS.findall(text):
        match = _TERM.fullmatch(term)
        if match is None:
            raise BadQueryError(f"Error parsing search query: {term}")
        name, operator, value = match.groups()
        if name == "is" and value in _STATES:
            tests.append(lambda issue, done=_STATES[value]: (issue.status == "done") is done)
        elif name in {"lastSeen", "firstSeen"}:
            tests.append(_time_test(name, operator, value, now))
        elif name == "level":
            levels = {each.strip() for each in value.strip("[]").split(",")}
            tests.append(lambda issue, levels=levels: level_of(issue) in levels)
        else:
            raise BadQueryError(f"Error parsing search query: invalid value for {name}")
    return lambda issue: all(test(issue) for test in tests)


def _time_test(name: str, operator: str | None, value: str, now: datetime) -> Matches:
    relative = re.fullmatch(r"([+-])(\d+)([mhdw])", value)
    if relative:
        sign, count, unit = relative.groups()
        span = timedelta(**{{"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}[unit]: int(count)})
        bound, operator = now - span, ">=" if sign == "-" else "<="
    else:
        try:
            bound = datetime.fromisoformat(value)
        except ValueError:
            raise BadQueryError(f"Error parsing search query: {value} is not a valid datetime query") from None
        bound = bound if bound.tzinfo else bound.replace(tzinfo=UTC)
    compare: dict[str | None, Callable[[int, int], bool]] = {
        ">=": int.__ge__,
        "<=": int.__le__,
        ">": int.__gt__,
        "<": int.__lt__,
    }
    test, key = compare.get(operator, int.__eq__), millis(bound)
    if name == "lastSeen":
        return lambda issue: test(millis(issue.updated), key)
    return lambda issue: test(millis(issue.created), key)


def level_of(issue: Issue) -> str:
    return _LEVEL_OF.get(issue.priority, "error")


def to_project(project: Project) -> dict[str, Any]:
    return {
        "id": str(project.id),
        "slug": slug_of(project),
        "name": project.name,
        "platform": "python",
        "dateCreated": micro(project.created),
        "isMember": True,
        "hasAccess": project.readable,
        "isBookmarked": False,
        "features": [],
        "firstEvent": None,
        "teams": [{"id": "71", "slug": "harbour-crew", "name": "harbour-crew"}],
        "latestRelease": None,
    }


def slug_of(project: Project) -> str:
    return project.key.lower()


def to_member(user: User) -> dict[str, Any]:
    return {
        "id": str(5_000 + user.id),
        "email": user.email,
        "name": user.name,
        "user": {
            "id": str(user.id),
            "name": user.name,
            "username": user.email,
            "email": user.email,
            "isActive": True,
            "options": {"timezone": "Europe/Vienna"},
        },
        "role": "member",
        "pending": False,
        "expired": False,
        "dateCreated": "2024-02-01T08:00:00.000000Z",
    }


def to_note(comment: Comment) -> dict[str, Any]:
    return {
        "id": str(comment.id),
        "user": {"id": str(comment.author.id), "name": comment.author.name, "email": comment.author.email},
        "sentry_app": None,
        "type": "note",
        "data": {"text": comment.body},
        "dateCreated": micro(comment.created),
    }


def to_listed(world: World, issue: Issue, organization: str) -> dict[str, Any]:
    """An issue as lists show it: times of events in whole seconds, counts of events as text."""
    project = world.projects[issue.project]
    kind, issue_type, category = _KIND_OF.get(issue.type, _KIND_OF["Bug"])
    done = issue.status == "done"
    assignee = issue.assignee
    count = str(issue.mod_count + 1)
    seen = {"firstSeen": micro(issue.created), "lastSeen": whole(issue.updated)}
    return {
        "id": str(issue.id),
        "shareId": None,
        "shortId": issue.key,
        "title": f"Failure: {issue.title}",
        "culprit": f"{slug_of(project)}.views in handle",
        "permalink": f"https://sentry.example/organizations/{organization}/issues/{issue.id}/",
        "logger": None,
        "level": level_of(issue),
        "status": "resolved" if done else "unresolved",
        "statusDetails": {},
        "substatus": None if done else substatus_of(issue),
        "isPublic": False,
        "platform": "python",
        "project": {
            "id": str(project.id),
            "name": project.name,
            "slug": slug_of(project),
            "platform": "python",
        },
        "type": kind,
        "metadata": {"title": issue.title, "type": "Failure", "value": message_of(issue)},
        "numComments": len(issue.comments),
        "assignedTo": assignee
        and {"type": "user", "id": str(assignee.id), "name": assignee.name, "email": assignee.email},
        "isBookmarked": False,
        "isSubscribed": False,
        "subscriptionDetails": None,
        "hasSeen": False,
        "annotations": [],
        "issueType": issue_type,
        "issueCategory": category,
        "priority": _PRIORITY_OF.get(issue.priority, "medium"),
        "priorityLockedAt": None,
        "isUnhandled": kind == "error",
        "count": count,
        "userCount": issue.id % 7,
        **seen,
        "lifetime": {"count": count, "userCount": issue.id % 7, **seen},
        "filtered": None,
    }


def to_single(world: World, issue: Issue, organization: str) -> dict[str, Any]:
    """An issue on its own: with its activity and charts, and without the lists' `lifetime`."""
    listed = to_listed(world, issue, organization)
    now = int(world.now.timestamp())
    return {
        **{name: value for name, value in listed.items() if name not in {"lifetime", "filtered"}},
        "lastSeen": micro(issue.updated),
        "firstRelease": None,
        "lastRelease": None,
        "activity": [{"id": "0", "type": "first_seen", "user": None, "data": {}, "dateCreated": micro(issue.created)}],
        "seenBy": [],
        "participants": [],
        "tags": [{"key": "level", "name": "Level", "totalValues": issue.mod_count + 1}],
        "userReportCount": 0,
        "stats": {"24h": [[now - 3_600, 0], [now, issue.mod_count]], "30d": []},
    }


def substatus_of(issue: Issue) -> str:
    statuses = [change.old for change in issue.changes if change.field == "status"]
    if statuses and statuses[-1] == "done":
        return "regressed"
    return "ongoing" if issue.mod_count else "new"


def message_of(issue: Issue) -> str:
    return issue.body.split("\n", maxsplit=1)[0]


def to_event(issue: Issue, more_entries: tuple[Mapping[str, Any], ...] = ()) -> dict[str, Any]:
    """The latest event. Its text is the first line of the issue's body, so an edit of that is a new event."""
    event_id = f"{issue.id:016x}{issue.mod_count:016x}"
    kind = _KIND_OF.get(issue.type, _KIND_OF["Bug"])[0]
    return {
        "id": event_id,
        "eventID": event_id,
        "groupID": str(issue.id),
        "title": f"Failure: {issue.title}",
        "message": "",
        "platform": "python",
        "type": kind,
        "entries": [*_entries(issue, kind), *more_entries],
        "tags": [
            {"key": "environment", "value": "production"},
            {"key": "release", "value": f"pier@{issue.mod_count}.0"},
            {"key": "server_name", "value": f"quay-{issue.id % 4}"},
            {"key": "level", "value": level_of(issue)},
        ],
        "contexts": {"runtime": {"name": "CPython", "version": "3.13.1", "type": "runtime"}},
        "user": None,
        "errors": [],
        "culprit": "views in handle",
        "dateCreated": whole(issue.updated),
        "dateReceived": micro(issue.updated),
    }


def _entries(issue: Issue, kind: str) -> list[dict[str, Any]]:
    if kind == "generic":
        return [{"type": "spans", "data": [{"op": "db", "description": "select 1"}]}]
    if kind == "default":
        return [{"type": "message", "data": {"formatted": message_of(issue)}}]
    names = (("runner/loop.py", "run", 88, False), ("app/views.py", "handle", 10 + issue.id % 90, True))
    frames = [
        {
            "filename": filename,
            "absPath": f"/srv/{filename}",
            "function": function,
            "lineNo": line,
            "inApp": in_app,
            "context": [[line - 1, "    try:"], [line, "        work(item)"]],
            "vars": None,
        }
        for filename, function, line, in_app in names
    ]
    value = {"type": "Failure", "value": message_of(issue), "stacktrace": {"frames": frames}, "mechanism": None}
    return [{"type": "exception", "data": {"values": [value]}}, {"type": "breadcrumbs", "data": {"values": []}}]
