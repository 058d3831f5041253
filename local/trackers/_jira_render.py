"""The world in Jira's own JSON, of Cloud (documents, account ids) or Data Center (wiki markup, user names)."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from local.trackers._jira_jql import STATUS, account_id
from local.trackers.world import Change, Comment, Issue, Project, Sprint, User, Worklog, World

CUSTOM_FIELDS: Sequence[Mapping[str, Any]] = (
    {"id": "customfield_10020", "name": "Sprint", "kind": "com.pyxis.greenhopper.jira:gh-sprint"},
    {"id": "customfield_10014", "name": "Epic Link", "kind": "com.pyxis.greenhopper.jira:gh-epic-link"},
    {"id": "customfield_10016", "name": "Story point estimate", "kind": "com.pyxis.greenhopper.jira:jsw-story-points"},
    {
        "id": "customfield_10031",
        "name": "Story Points",
        "kind": "com.atlassian.jira.plugin.system.customfieldtypes:float",
    },
    {
        "id": "customfield_10050",
        "name": "Bug severity",
        "kind": "com.atlassian.jira.plugin.system.customfieldtypes:select",
    },
    {
        "id": "customfield_10021",
        "name": "Flagged",
        "kind": "com.atlassian.jira.plugin.system.customfieldtypes:multicheckboxes",
    },
)
_SYSTEM_FIELDS = (
    "summary",
    "description",
    "status",
    "priority",
    "assignee",
    "reporter",
    "labels",
    "updated",
    "created",
)
_FENCE = re.compile(r"```(\w*)\n(.*?)\n?```", re.DOTALL)
_NAMED_OTHERWISE = {"title": "summary", "body": "description", "type": "issuetype", "points": "Story point estimate"}
_NOT_NAVIGABLE = {"comment", "worklog", "environment", "timetracking"}


@dataclass
class Renderer:
    """Shapes for one account."""

    world: World
    base: str
    cloud: bool
    time_zone: str = "UTC"
    embedded_comments: int = 20
    embedded_worklogs: int = 20
    embedded_changes: int = 40
    time_tracking: bool = True
    # The third version's documents; webhooks are of the second, with wiki markup on Cloud as well.
    documents: bool = True

    @property
    def api(self) -> str:
        return f"{self.base}/rest/api/{3 if self.cloud and self.documents else 2}"

    def time(self, moment: datetime) -> str:
        """Milliseconds, and the offset of the account's time zone without a colon."""
        local = moment.astimezone(ZoneInfo(self.time_zone))
        return f"{local:%Y-%m-%dT%H:%M:%S}.{local.microsecond // 1000:03d}{local:%z}"

    def issue(self, issue: Issue, fields: Sequence[str], *, changelog: bool, whole: bool = False) -> dict[str, Any]:
        """An issue with the fields asked for; Cloud gives nothing but the id when none are."""
        if not fields and self.cloud:
            return {"id": str(issue.id)}
        rendered = self._chosen(issue, fields or ["*navigable"], whole=whole)
        found: dict[str, Any] = {
            "expand": "operations,versionedRepresentations,editmeta,changelog,renderedFields",
            "id": str(issue.id),
            "self": f"{self.api}/issue/{issue.id}",
            "key": issue.key,
        }
        if rendered:
            found["fields"] = rendered
        if changelog:
            # The newest come first here, and last in the list of their own.
            rows = [self.change(each) for each in reversed(issue.changes)]
            shown = rows[: self.embedded_changes] if self.cloud else rows
            found["changelog"] = {"startAt": 0, "maxResults": len(shown), "total": len(rows), "histories": shown}
        return found

    def _chosen(self, issue: Issue, fields: Sequence[str], *, whole: bool) -> dict[str, Any]:
        left_out = {name[1:] for name in fields if name.startswith("-")}
        wanted = {name for name in fields if not name.startswith("-")}
        if not wanted or "*all" in wanted:
            everything = self._fields(issue, whole=whole)
            return {name: value for name, value in everything.items() if name not in left_out}
        if "*navigable" in wanted:
            everything = self._fields(issue, whole=whole)
            return {k: v for k, v in everything.items() if k not in left_out and k not in _NOT_NAVIGABLE}
        if wanted <= {"id", "key"}:
            return {}
        if wanted == {"updated"}:
            return {"updated": self.time(issue.updated)}
        everything = self._fields(issue, whole=whole)
        return {name: everything[name] for name in wanted if name in everything}

    def _fields(self, issue: Issue, *, whole: bool) -> dict[str, Any]:
        name, category = STATUS[issue.status]
        return {
            "summary": issue.title,
            "description": self.text(issue.body),
            "environment": None,
            "issuetype": {"id": "10001", "name": issue.type, "subtask": False},
            "project": self.project_stub(self.world.projects[issue.project]),
            "status": {"id": "3", "name": name, "statusCategory": {"id": 4, "key": category, "name": name}},
            "priority": {"id": "2", "name": issue.priority},
            "resolution": {"id": "10000", "name": "Done"} if issue.resolved else None,
            "resolutiondate": self.time(issue.resolved) if issue.resolved else None,
            "assignee": self.user(issue.assignee) if issue.assignee else None,
            "reporter": self.user(issue.reporter),
            "labels": list(issue.labels),
            "components": [],
            "created": self.time(issue.created),
            "updated": self.time(issue.updated),
            "duedate": None,
            "timeoriginalestimate": None,
            "timetracking": {},
            "subtasks": [],
            "customfield_10014": None,
            "customfield_10016": issue.points,
            "customfield_10020": self._sprint_field(issue),
            "customfield_10021": None,
            "customfield_10031": None,
            "customfield_10050": None,
            **self._embedded(issue, whole=whole),
        }

    def _embedded(self, issue: Issue, *, whole: bool) -> dict[str, Any]:
        comments = issue.comments if whole else issue.comments[: self.embedded_comments]
        worklogs = issue.worklogs[: self.embedded_worklogs]
        embedded = {
            "comment": {
                "comments": [self.comment(each) for each in comments],
                "maxResults": len(comments),
                "total": len(issue.comments),
                "startAt": 0,
            },
            "worklog": {
                "worklogs": [self.worklog(issue, each) for each in worklogs],
                "maxResults": self.embedded_worklogs,
                "total": len(issue.worklogs),
                "startAt": 0,
            },
        }
        return embedded if self.time_tracking else {"comment": embedded["comment"]}

    def _sprint_field(self, issue: Issue) -> Any:
        sprint = self.world.sprints.get(issue.sprint or 0)
        if sprint is None:
            return None
        if self.cloud:
            return [{"id": sprint.id, "name": sprint.name, "state": sprint.state, "boardId": self.board_of(sprint)}]
        shown = f"id={sprint.id},rapidViewId={self.board_of(sprint)},state={sprint.state.upper()},name={sprint.name}"
        return [f"com.atlassian.greenhopper.service.sprint.Sprint@4f1c[{shown},goal=,sequence={sprint.id}]"]

    def board_of(self, sprint: Sprint) -> int:
        return self.world.projects[sprint.project].id * 10

    def user(self, user: User) -> dict[str, Any]:
        shown = {"displayName": user.name, "active": True, "timeZone": self.time_zone}
        if self.cloud:
            return {"accountId": account_id(user), "accountType": "atlassian", **shown}
        return {"name": user.login, "key": f"JIRAUSER{user.id + 10_100}", "emailAddress": user.email, **shown}

    def comment(self, comment: Comment) -> dict[str, Any]:
        return {
            "id": str(comment.id),
            "author": self.user(comment.author),
            "updateAuthor": self.user(comment.author),
            "body": self.text(comment.body),
            "created": self.time(comment.created),
            "updated": self.time(comment.updated),
            "jsdPublic": not comment.internal,
        }

    def worklog(self, issue: Issue, worklog: Worklog) -> dict[str, Any]:
        return {
            "id": str(worklog.id),
            "issueId": str(issue.id),
            "author": self.user(worklog.author),
            "created": self.time(worklog.updated),
            "updated": self.time(worklog.updated),
            "started": self.time(worklog.started),
            "timeSpent": f"{worklog.seconds // 60}m",
            "timeSpentSeconds": worklog.seconds,
            **({"comment": self.text(worklog.comment)} if worklog.comment else {}),
        }

    def change(self, change: Change) -> dict[str, Any]:
        return {
            "id": str(change.id),
            "author": self.user(change.author),
            "created": self.time(change.at),
            "items": [self.item(change.field, change.old, change.new)],
        }

    def item(self, field: str, old: str | None, new: str | None) -> dict[str, Any]:
        """A changed field in a changelog."""
        name = _NAMED_OTHERWISE.get(field, field)
        item = {"field": name, "fieldtype": "jira", "from": None, "fromString": old, "to": None, "toString": new}
        return {**item, **({"fieldId": name} if self.cloud else {})}

    def sprint(self, sprint: Sprint) -> dict[str, Any]:
        dates = {
            "startDate": f"{sprint.starts:%Y-%m-%dT%H:%M:%S}.000Z",
            "endDate": f"{sprint.ends:%Y-%m-%dT%H:%M:%S}.000Z",
        }
        return {
            "id": sprint.id,
            "self": f"{self.base}/rest/agile/1.0/sprint/{sprint.id}",
            "state": sprint.state,
            "name": sprint.name,
            **({} if sprint.state == "future" else dates),
            "originBoardId": self.board_of(sprint),
            "goal": "",
        }

    def project_stub(self, project: Project) -> dict[str, Any]:
        return {
            "id": str(project.id),
            "key": project.key,
            "name": project.name,
            "self": f"{self.api}/project/{project.id}",
        }

    def project(self, project: Project) -> dict[str, Any]:
        lead = self.user(self.world.users[project.id % len(self.world.users)])
        return {
            **self.project_stub(project),
            "description": f"All about {project.name}.",
            "lead": lead,
            "projectTypeKey": "software",
            "simplified": False,
        }

    def field_list(self) -> list[dict[str, Any]]:
        system = [
            {"id": name, "name": name.title(), "custom": False, "schema": {"type": "any"}} for name in _SYSTEM_FIELDS
        ]
        custom = [
            {"id": each["id"], "name": each["name"], "custom": True, "schema": {"type": "any", "custom": each["kind"]}}
            for each in CUSTOM_FIELDS
        ]
        return [*system, *custom]

    def text(self, text: str) -> Any:
        """Rich text: a document on Cloud, wiki markup on Data Center, null when there is none."""
        if not text:
            return None
        if not (self.cloud and self.documents):
            return _FENCE.sub(lambda found: f"{{code:{found[1] or 'none'}}}\n{found[2]}\n{{code}}", text)
        return {"type": "doc", "version": 1, "content": list(_blocks(text))}


def _blocks(text: str) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    end = 0
    for fence in _FENCE.finditer(text):
        blocks += _paragraphs(text[end : fence.start()])
        code = {"type": "codeBlock", "attrs": {"language": fence[1]}, "content": [{"type": "text", "text": fence[2]}]}
        blocks.append(code)
        end = fence.end()
    return blocks + _paragraphs(text[end:])


def _paragraphs(text: str) -> list[dict[str, Any]]:
    parts = [part.strip() for part in text.split("\n\n") if part.strip()]
    return [{"type": "paragraph", "content": [{"type": "text", "text": part}]} for part in parts]
