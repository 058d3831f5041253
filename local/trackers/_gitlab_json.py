"""GitLab's JSON of a world's projects, issues, notes, merge requests and people."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from local.trackers.world import Change, Comment, Issue, Project, Sprint, User

GROUP = "tidewater"


@dataclass
class MergeRequest:
    """Worlds know none, so the tracker keeps its own."""

    id: int
    iid: int
    project: str
    title: str
    author: User
    created: datetime
    updated: datetime
    merged: datetime | None = None


def stamp(moment: datetime | None) -> str | None:
    """Milliseconds and Z, as GitLab writes times."""
    if moment is None:
        return None
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def path_of(project: Project) -> str:
    return f"{GROUP}/{project.key.lower()}"


def user(person: User | None, url: str) -> dict[str, Any] | None:
    if person is None:
        return None
    return {
        "id": person.id,
        "username": person.login,
        "name": person.name,
        "state": "active",
        "locked": False,
        "avatar_url": None,
        "web_url": f"{url}/{person.login}",
    }


def project_json(project: Project, url: str, updated: datetime, role: int) -> dict[str, Any]:
    return {
        "id": project.id,
        "description": f"Everything about {project.name}",
        "name": project.name,
        "path": project.key.lower(),
        "path_with_namespace": path_of(project),
        "created_at": stamp(project.created),
        "default_branch": "main",
        "web_url": f"{url}/{path_of(project)}",
        "last_activity_at": stamp(updated),
        "namespace": {"id": 7, "name": GROUP.title(), "path": GROUP, "kind": "group", "full_path": GROUP},
        "visibility": "private",
        # Only maintainers are told; it must not go any further.
        "runners_token": "GR1348941-of-a-simulated-project",
        "permissions": {"project_access": {"access_level": role, "notification_level": 3}, "group_access": None},
    }


def issue_json(issue: Issue, project: Project, sprints: Mapping[int, Sprint], url: str) -> dict[str, Any]:
    labels = sorted([*issue.labels, f"priority::{issue.priority.lower()}"])
    if issue.status == "in_progress":
        labels = sorted([*labels, "workflow::in progress"])
    spent = sum(worklog.seconds for worklog in issue.worklogs)
    path = path_of(project)
    return {
        "id": issue.id,
        "iid": issue.number,
        "project_id": project.id,
        "title": issue.title,
        "description": issue.body,
        "state": "closed" if issue.status == "done" else "opened",
        "created_at": stamp(issue.created),
        "updated_at": stamp(issue.updated),
        "closed_at": stamp(issue.resolved),
        "closed_by": None,
        "moved_to_id": None,
        "labels": labels,
        "milestone": milestone_json(sprints[issue.sprint], project.id) if issue.sprint else None,
        "assignees": [user(issue.assignee, url)] if issue.assignee else [],
        "assignee": user(issue.assignee, url),
        "author": user(issue.reporter, url),
        "type": "INCIDENT" if issue.type == "Bug" else "ISSUE",
        "issue_type": "incident" if issue.type == "Bug" else "issue",
        "user_notes_count": len(issue.comments),
        "upvotes": 0,
        "due_date": None,
        "confidential": False,
        "discussion_locked": None,
        "weight": int(issue.points) if issue.points else None,
        "severity": "UNKNOWN",
        "web_url": f"{url}/{path}/-/issues/{issue.number}",
        "time_stats": {"time_estimate": 0, "total_time_spent": spent, "human_time_estimate": None},
        "references": {"short": f"#{issue.number}", "relative": f"#{issue.number}", "full": f"{path}#{issue.number}"},
        "epic": None,
        "iteration": None,
    }


def milestone_json(sprint: Sprint, project: int) -> dict[str, Any]:
    return {
        "id": sprint.id,
        "iid": sprint.id % 1_000,
        "project_id": project,
        "title": sprint.name,
        "description": "",
        "state": "active" if sprint.state == "active" else "closed",
        "created_at": stamp(sprint.starts),
        "updated_at": stamp(sprint.starts),
        "start_date": f"{sprint.starts:%Y-%m-%d}",
        "due_date": f"{sprint.ends:%Y-%m-%d}",
    }


def note_json(comment: Comment, issue: Issue, url: str) -> dict[str, Any]:
    return {
        "id": comment.id,
        "type": None,
        "body": comment.body,
        "author": user(comment.author, url),
        "created_at": stamp(comment.created),
        "updated_at": stamp(comment.updated),
        "system": False,
        "noteable_id": issue.id,
        "noteable_type": "Issue",
        "noteable_iid": issue.number,
        "resolvable": False,
        "confidential": comment.internal,
        "internal": comment.internal,
    }


def change_json(change: Change, issue: Issue, url: str) -> dict[str, Any]:
    return {
        "id": change.id,
        "type": None,
        "body": f"changed {change.field} from **{change.old}** to **{change.new}**",
        "author": user(change.author, url),
        "created_at": stamp(change.at),
        "updated_at": stamp(change.at),
        "system": True,
        "noteable_id": issue.id,
        "noteable_type": "Issue",
        "noteable_iid": issue.number,
        "internal": False,
    }


def time_json(issue: Issue, after: str | None) -> dict[str, Any]:
    """An issue in GraphQL with a page of the time spent on it, newest first."""
    begin = int(after or 0)
    entries = sorted(issue.worklogs, key=lambda worklog: -worklog.id)
    end = begin + 100
    nodes = [
        {
            "id": f"gid://gitlab/Timelog/{each.id}",
            "spentAt": each.started.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "timeSpent": each.seconds,
            "summary": each.comment or None,
            "note": None,
            "user": {"username": each.author.login, "name": each.author.name},
        }
        for each in entries[begin:end]
    ]
    more = end < len(entries)
    page = {"hasNextPage": more, "endCursor": str(end) if more else None}
    return {"iid": str(issue.number), "timelogs": {"nodes": nodes, "pageInfo": page}}


def merge_request_json(found: MergeRequest, project: Project, url: str) -> dict[str, Any]:
    path = path_of(project)
    return {
        "id": found.id,
        "iid": found.iid,
        "project_id": project.id,
        "title": found.title,
        "description": "Makes it better.",
        "state": "merged" if found.merged else "opened",
        "created_at": stamp(found.created),
        "updated_at": stamp(found.updated),
        "merged_at": stamp(found.merged),
        "closed_at": None,
        "target_branch": "main",
        "source_branch": f"change-{found.iid}",
        "author": user(found.author, url),
        "labels": [],
        "draft": False,
        "web_url": f"{url}/{path}/-/merge_requests/{found.iid}",
        "references": {"short": f"!{found.iid}", "full": f"{path}!{found.iid}"},
    }
