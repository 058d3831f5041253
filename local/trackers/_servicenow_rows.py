"""Task and journal rows of a simulated ServiceNow instance: each field as (value, label)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any
from zoneinfo import ZoneInfo

from local.trackers._servicenow_tables import Field, stamp, sys_id
from local.trackers.world import Comment, Issue, User

# Table → prefix of numbers, label, (stored, label) of open, in_progress and done.
TASKS: dict[str, tuple[str, str, dict[str, tuple[str, str]]]] = {
    "incident": (
        "INC",
        "Incident",
        {"open": ("1", "New"), "in_progress": ("2", "In Progress"), "done": ("7", "Closed")},
    ),
    "problem": (
        "PRB",
        "Problem",
        {"open": ("101", "New"), "in_progress": ("104", "Fix in Progress"), "done": ("107", "Closed")},
    ),
    "change_request": (
        "CHG",
        "Change Request",
        {"open": ("-5", "New"), "in_progress": ("-1", "Implement"), "done": ("3", "Closed")},
    ),
    "sc_task": (
        "SCTASK",
        "Catalog Task",
        {"open": ("1", "Open"), "in_progress": ("2", "Work in Progress"), "done": ("3", "Closed Complete")},
    ),
}
_PRIORITIES = {
    "Highest": ("1", "1 - Critical"),
    "High": ("2", "2 - High"),
    "Medium": ("3", "3 - Moderate"),
    "Low": ("4", "4 - Low"),
}
COLUMNS: dict[str, tuple[str, ...]] = {
    "sys_audit_delete": ("sys_id", "tablename", "documentkey", "display_value", "sys_created_on"),
    "sys_db_object": ("sys_id", "name", "label", "super_class.name", "super_class.super_class.name"),
    "sys_dictionary": ("sys_id", "name", "element", "reference"),
    "sys_properties": ("sys_id", "name", "value"),
    "sys_user": ("sys_id", "user_name", "name", "email", "active", "time_zone", "sys_created_on", "sys_updated_on"),
}
OF_INCIDENTS = ("caller_id", "severity", "close_code", "resolved_at", "business_stc")
_EMPTY = (
    *("business_service", "company", "location", "parent", "watch_list", "close_notes", "comments_and_work_notes"),
    *("sys_domain_path", "correlation_id", "due_date", "time_worked", "business_stc"),
)


@dataclass(frozen=True)
class Task:
    """An issue as a row; a child table's rows are rows of its parent as well."""

    issue: Issue
    class_name: str
    sys_id: str
    hidden: bool


@dataclass(frozen=True)
class Entered:
    """A journal entry. One that the world edits is a new entry, since the instance never changes one."""

    comment: Comment
    task: Task
    table: str

    @property
    def hidden(self) -> bool:
        return self.task.hidden

    @cached_property
    def sys_id(self) -> str:
        edited = int((self.comment.updated - self.comment.created).total_seconds())
        return sys_id(f"journal+{edited}" if edited else "journal", self.comment.id)


def task_fields(zone: Callable[[], str]) -> Mapping[str, Field]:
    """Fields of task tables; labels of times are in the account's zone and format."""

    def at(read: Callable[[Issue], datetime | None]) -> Field:
        def field(task: Task) -> tuple[str, str]:
            moment = read(task.issue)
            return (stamp(moment), _label_of(moment.astimezone(ZoneInfo(zone())))) if moment else ("", "")

        return field

    def thread(*, internal: bool) -> Field:
        def field(task: Task) -> tuple[str, str]:
            texts = [
                f"{_label_of(each.created.astimezone(ZoneInfo(zone())))} - {each.author.name}\n{each.body}\n"
                for each in reversed(task.issue.comments)
                if each.internal == internal
            ]
            return "", "\n".join(texts)

        return field

    times = {
        "opened_at": at(lambda issue: issue.created),
        "closed_at": at(lambda issue: issue.resolved),
        "resolved_at": at(lambda issue: issue.resolved),
        "sys_created_on": at(lambda issue: issue.created),
        "sys_updated_on": at(lambda issue: issue.updated),
        "comments": thread(internal=False),
        "work_notes": thread(internal=True),
    }
    return _TASK_FIELDS | times


def _label_of(local: datetime) -> str:
    # Four times as fast as a format, of which every row has six.
    text = str(local)
    return f"{text[5:7]}/{text[8:10]}/{text[:4]} {text[11:19]}"


def _plain(read: Callable[[Any], str]) -> Field:
    return lambda row: (read(row), read(row))


def _always(value: str, label: str) -> Field:
    return lambda _: (value, label)


def _person(read: Callable[[Task], User | None]) -> Field:
    def field(task: Task) -> tuple[str, str]:
        user = read(task)
        return (sys_id("user", user.id), user.name) if user else ("", "")

    return field


def _state(task: Task) -> tuple[str, str]:
    table = task.class_name if task.class_name in TASKS else "incident"
    return TASKS[table][2][task.issue.status]


def number_of(class_name: str, issue: Issue) -> str:
    """What people call the row."""
    table = class_name if class_name in TASKS else "incident"
    return f"{TASKS[table][0]}{issue.number:07d}"


_TASK_FIELDS: dict[str, Field] = {
    "sys_id": _plain(lambda task: task.sys_id),
    "number": _plain(lambda task: number_of(task.class_name, task.issue)),
    "short_description": _plain(lambda task: task.issue.title),
    "description": _plain(lambda task: task.issue.body.replace("\n", "\r\n")),
    "state": _state,
    "active": _plain(lambda task: str(task.issue.status != "done").lower()),
    "priority": lambda task: _PRIORITIES[task.issue.priority],
    "impact": _always("2", "2 - Medium"),
    "urgency": _always("2", "2 - Medium"),
    "severity": _always("3", "3 - Low"),
    "assigned_to": _person(lambda task: task.issue.assignee),
    "assigned_to.name": _plain(lambda task: task.issue.assignee.name if task.issue.assignee else ""),
    "caller_id": _person(lambda task: task.issue.reporter),
    "opened_by": _person(lambda task: task.issue.reporter),
    "assignment_group": _always("Field Operations", "Field Operations"),
    "cmdb_ci": lambda task: (sys_id("ci", task.issue.number % 7), f"edge-{task.issue.number % 7}"),
    "close_code": lambda task: ("solved", "Solution provided") if task.issue.status == "done" else ("", ""),
    "sys_class_name": lambda task: (
        task.class_name,
        TASKS[task.class_name][1] if task.class_name in TASKS else "Store",
    ),
    "sys_created_by": _plain(lambda task: task.issue.reporter.login),
    "sys_updated_by": _plain(lambda task: task.issue.reporter.login),
    "sys_mod_count": _plain(lambda task: str(task.issue.mod_count)),
    "sys_domain": _always("global", "global"),
    "sys_tags": _plain(lambda task: ", ".join(task.issue.labels)),
    **dict.fromkeys(_EMPTY, _always("", "")),
}
TASK_COLUMNS = (*_TASK_FIELDS, "opened_at", "closed_at", "resolved_at", "sys_created_on", "sys_updated_on")
JOURNAL: dict[str, Field] = {
    "sys_id": _plain(lambda entry: entry.sys_id),
    "name": _plain(lambda entry: entry.table),
    "element": _plain(lambda entry: "work_notes" if entry.comment.internal else "comments"),
    "element_id": _plain(lambda entry: entry.task.sys_id),
    "value": _plain(lambda entry: entry.comment.body),
    "sys_created_on": _plain(lambda entry: stamp(entry.comment.updated)),
    "sys_created_by": _plain(lambda entry: entry.comment.author.login),
}
