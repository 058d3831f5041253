"""GitLab's records in our words. Pure."""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeIs, cast

from shared.connectors._traces import find_environment, find_stack_trace
from shared.domain.issue import StatusCategory, severity_of, status_category
from shared.domain.stream import (
    Comment,
    HistoryEntry,
    Issue,
    Person,
    Project,
    PullRequest,
    Sprint,
    Worklog,
    to_utc,
)

# Labels `scope::value` are how GitLab keeps priority and status, since its issues have neither.
# https://docs.gitlab.com/user/project/labels/#scoped-labels
_PRIORITY_SCOPES = ("priority", "severity")
_STATUS_SCOPES = ("status", "workflow", "state")
# https://docs.gitlab.com/api/iterations/
_ITERATION_STATES = {1: "future", 2: "active", 3: "closed"}
# Parts of a project that change with every visit and are no change of it, or are secrets: a runner token registers
# machines that get the project's variables.
_NOT_KEPT = {"last_activity_at", "open_issues_count", "runners_token"}
# Parts of what an issue belongs to that change without it, the words about an epic's end every day: else every census
# would find the issue changed, and missed until then. Milestones and iterations are records of their own.
_OF_OTHERS: Mapping[str, Collection[str]] = {
    "milestone": {"expired", "updated_at"},
    "iteration": {"state", "updated_at"},
    "epic": {"human_readable_end_date", "human_readable_timestamp"},
}
# Parts of a member that are of the membership: they differ from project to project for the same account.
_OF_MEMBERSHIP = {
    "access_level",
    "created_at",
    "created_by",
    "expires_at",
    "member_role",
    "membership_state",
    "override",
}


def is_object(value: object) -> TypeIs[dict[str, Any]]:
    """Whether a JSON value is an object."""
    return isinstance(value, dict)


def parse_issue(raw: Mapping[str, Any]) -> Issue:
    """See https://docs.gitlab.com/api/issues/ for its fields."""
    labels = tuple(_label(label) for label in raw.get("labels") or ())
    scoped = _scoped(labels)
    priority = next((scoped[name] for name in _PRIORITY_SCOPES if name in scoped), None)
    severity = str(raw.get("severity") or "").lower()
    milestone: dict[str, Any] = raw.get("milestone") or {}
    iteration: dict[str, Any] = raw.get("iteration") or {}
    times: dict[str, Any] = raw.get("time_stats") or {}
    description = raw.get("description") or None
    status = "closed" if raw["state"] == "closed" else _open_status(scoped)
    return Issue(
        external_id=str(raw["id"]),
        payload=_own(raw),
        source_created_at=to_utc(raw.get("created_at")),
        source_updated_at=to_utc(raw.get("updated_at")),
        key=key_of(raw),
        title=raw["title"],
        description=description,
        type=raw.get("issue_type") or raw.get("type"),
        status=status,
        status_category=StatusCategory.DONE if raw["state"] == "closed" else _open_category(status),
        priority=priority,
        severity=severity_of(priority or "") or (severity_of(severity) if severity != "unknown" else None),
        assignee=name_of((raw.get("assignees") or [raw.get("assignee")])[0]),
        reporter=name_of(raw.get("author")),
        labels=labels,
        project=project_of(raw),
        parent=_epic(raw.get("epic")),
        sprint=_iteration_name(iteration) if iteration else milestone.get("title"),
        sprint_ids=(
            *((_iteration_id(iteration),) if iteration else ()),
            *((str(milestone["id"]),) if milestone else ()),
        ),
        environment=find_environment(description) if description else None,
        stack_trace=find_stack_trace(description) if description else None,
        url=raw.get("web_url"),
        due_on=raw.get("due_date"),
        resolution=_resolution(raw),
        story_points=raw.get("weight"),
        estimate_seconds=times.get("time_estimate") or None,
        resolved_at=to_utc(raw.get("closed_at")),
    )


def parse_note(raw: Mapping[str, Any], issue_id: str) -> Comment | HistoryEntry:
    """A note people wrote, or one GitLab wrote of a change. See https://docs.gitlab.com/api/notes/ for both."""
    known: dict[str, Any] = {
        "external_id": str(raw["id"]),
        "payload": dict(raw),
        "source_created_at": to_utc(raw.get("created_at")),
        "source_updated_at": to_utc(raw.get("updated_at")),
        "issue_id": issue_id,
        "author": name_of(raw.get("author")),
    }
    body = str(raw.get("body") or "")
    if raw.get("system"):
        return HistoryEntry(**known, changed_at=raw["created_at"], changes={"note": {"from": None, "to": body}})
    return Comment(**known, body=body, internal=bool(raw.get("internal") or raw.get("confidential")))


def parse_worklog(raw: Mapping[str, Any], context: Mapping[str, Any]) -> Worklog:
    """An entry as GraphQL tells it, or else the time spent on an issue in all, of which the issue itself tells."""
    if "timeSpent" in raw:
        note: dict[str, Any] = raw.get("note") or {}
        return Worklog(
            external_id=entry_id(raw),
            payload=dict(raw),
            issue_id=context["issue_id"],
            issue_key=context["issue_key"],
            author=name_of(raw.get("user")),
            started_at=to_utc(raw.get("spentAt")),
            seconds=raw["timeSpent"],
            comment=raw.get("summary") or note.get("body") or None,
        )
    return Worklog(
        external_id=total_id(raw),
        payload={"id": raw["id"], "time_stats": raw["time_stats"]},
        source_updated_at=to_utc(raw.get("updated_at")),
        issue_id=str(raw["id"]),
        issue_key=key_of(raw),
        seconds=seconds_spent(raw),
    )


def parse_milestone(raw: Mapping[str, Any]) -> Sprint:
    """See https://docs.gitlab.com/api/milestones/ for its fields."""
    return Sprint(
        external_id=str(raw["id"]),
        payload=dict(raw),
        source_created_at=to_utc(raw.get("created_at")),
        source_updated_at=to_utc(raw.get("updated_at")),
        name=raw["title"],
        state=raw.get("state"),
        goal=raw.get("description") or None,
        starts_at=_midnight(raw.get("start_date")),
        ends_at=_midnight(raw.get("due_date")),
    )


def parse_iteration(raw: Mapping[str, Any]) -> Sprint:
    """See https://docs.gitlab.com/api/iterations/ for its fields. Its ids are not those of milestones."""
    state = raw.get("state")
    return Sprint(
        external_id=_iteration_id(raw),
        payload=dict(raw),
        source_created_at=to_utc(raw.get("created_at")),
        source_updated_at=to_utc(raw.get("updated_at")),
        name=_iteration_name(raw),
        state=_ITERATION_STATES.get(state, str(state)) if state is not None else None,
        goal=raw.get("description") or None,
        starts_at=_midnight(raw.get("start_date")),
        ends_at=_midnight(raw.get("due_date")),
    )


def parse_member(raw: Mapping[str, Any]) -> Person:
    """See https://docs.gitlab.com/api/project_members/ for its fields."""
    return Person(
        external_id=str(raw["id"]),
        payload={name: value for name, value in raw.items() if name not in _OF_MEMBERSHIP},
        name=raw.get("name"),
        login=raw.get("username"),
        email=raw.get("public_email") or raw.get("email") or None,
        active=raw.get("state") == "active",
    )


def parse_project(raw: Mapping[str, Any]) -> Project:
    """See https://docs.gitlab.com/api/projects/ for its fields."""
    still = {name: value for name, value in raw.items() if name not in _NOT_KEPT}
    namespace: dict[str, Any] = raw.get("namespace") or {}
    return Project(
        external_id=str(raw["id"]),
        payload=still,
        source_created_at=to_utc(raw.get("created_at")),
        name=raw["path_with_namespace"],
        key=raw["path_with_namespace"],
        repository_url=raw.get("web_url"),
        description=raw.get("description") or None,
        owner=namespace.get("full_path"),
    )


def parse_merge_request(raw: Mapping[str, Any]) -> PullRequest:
    """See https://docs.gitlab.com/api/merge_requests/ for its fields."""
    states = {"opened": "open", "locked": "open"}
    return PullRequest(
        external_id=str(raw["id"]),
        payload=_own(raw),
        source_created_at=to_utc(raw.get("created_at")),
        source_updated_at=to_utc(raw.get("updated_at")),
        key=key_of(raw, "!"),
        project=project_of(raw, "!"),
        title=raw["title"],
        description=raw.get("description") or None,
        state=states.get(raw["state"]) or raw["state"],
        draft=bool(raw.get("draft") or raw.get("work_in_progress")),
        author=name_of(raw.get("author")),
        labels=tuple(_label(label) for label in raw.get("labels") or ()),
        source_branch=raw.get("source_branch"),
        target_branch=raw.get("target_branch"),
        url=raw.get("web_url"),
        merged_at=to_utc(raw.get("merged_at")),
        closed_at=to_utc(raw.get("closed_at")),
    )


def _own(raw: Mapping[str, Any]) -> dict[str, Any]:
    own = dict(raw)
    for field, moving in _OF_OTHERS.items():
        if is_object(part := raw.get(field)):
            own[field] = {name: value for name, value in part.items() if name not in moving}
    return own


def entry_id(entry: Mapping[str, Any]) -> str:
    """The number at the end of `gid://gitlab/Timelog/12`."""
    return str(entry["id"]).rpartition("/")[2]


def total_id(issue: Mapping[str, Any]) -> str:
    """The id of the one worklog of an issue whose entries are not known."""
    return f"{issue['id']}-total"


def seconds_spent(raw: Mapping[str, Any]) -> int:
    """The time spent on an issue in all."""
    times: dict[str, Any] = raw.get("time_stats") or {}
    return int(times.get("total_time_spent") or 0)


def key_of(raw: Mapping[str, Any], sign: str = "#") -> str:
    """`group/project#iid`, as people write it; merge requests have `!`."""
    full = _reference(raw)
    return full or f"{project_of(raw, sign) or raw.get('project_id')}{sign}{raw['iid']}"


def project_of(raw: Mapping[str, Any], sign: str = "#") -> str | None:
    """The path of the project a record is in. Before 16.0 its address need not have the `/-/`."""
    if full := _reference(raw):
        return full.rpartition(sign)[0]
    found = re.match(r"https?://[^/]+/(.+?)/(?:-/)?(?:issues|work_items|merge_requests)/\d+", raw.get("web_url") or "")
    return found[1] if found else None


def _reference(raw: Mapping[str, Any]) -> str | None:
    references: dict[str, Any] = raw.get("references") or {}
    return references.get("full")


def name_of(user: Mapping[str, Any] | None) -> str | None:
    """What a person is called; a removed one is nobody."""
    return (user.get("name") or user.get("username")) if user else None


def _iteration_id(iteration: Mapping[str, Any]) -> str:
    return f"iteration-{iteration['id']}"


def _iteration_name(iteration: Mapping[str, Any]) -> str:
    """Its title, or its dates: those a cadence makes by itself have no title."""
    return iteration.get("title") or f"{iteration.get('start_date')} - {iteration.get('due_date')}"


def _epic(epic: Mapping[str, Any] | None) -> str | None:
    """`group&iid`, as people write it."""
    if not epic:
        return None
    group = re.search(r"/groups/(.+)/-/epics/\d+", epic.get("url") or "")
    return f"{group[1]}&{epic['iid']}" if group else str(epic["id"])


def _resolution(raw: Mapping[str, Any]) -> str | None:
    """Why an issue is closed, where GitLab tells: one that was moved is closed, and goes on elsewhere as a new one."""
    links: dict[str, Any] = raw.get("_links") or {}
    if raw["state"] == "closed" and raw.get("moved_to_id"):
        return "moved"
    return "duplicate" if raw["state"] == "closed" and links.get("closed_as_duplicate_of") else None


def _label(label: Any) -> str:
    """A label's name; with details asked for it is an object."""
    return str(cast("dict[str, Any]", label)["name"] if isinstance(label, dict) else label)


def _scoped(labels: Sequence[str]) -> dict[str, str]:
    pairs = (label.rpartition("::") for label in labels if "::" in label)
    return {scope.lower(): value for scope, _, value in pairs}


def _open_status(scoped: Mapping[str, str]) -> str:
    return next((scoped[name] for name in _STATUS_SCOPES if name in scoped), "opened")


def _open_category(status: str) -> StatusCategory:
    category = status_category(status)
    # An open issue is not done, whatever its label says.
    return StatusCategory.IN_PROGRESS if category is StatusCategory.DONE else category


def _midnight(day: str | None) -> Any:
    return f"{day}T00:00:00Z" if day else None
