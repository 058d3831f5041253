"""Rows of ServiceNow in our words. Pure.

With `sysparm_display_value=all` every field is {display_value, value}: the label a person reads, in the language and
time zone of the account, and what is stored, in UTC. Everything is a string, and what is empty is "".
https://www.servicenow.com/docs/r/api-reference/rest-apis/c_TableAPI.html
"""

import re
from collections.abc import Mapping
from math import isfinite
from typing import Any, Literal

from shared.connectors._protocol import Sent
from shared.connectors._servicenow_query import parse_time, readable_time
from shared.connectors._traces import find_stack_trace
from shared.domain.issue import Severity, StatusCategory, is_known_status, severity_of, status_category
from shared.domain.markdown import html_to_markdown
from shared.domain.stream import Comment, Issue, Person

# As a source writes it, whatever it should be.
_Value = str | bool | float | Mapping[str, Any] | list[Any] | None
_Field = dict[str, _Value] | _Value
Column = Literal[
    "title",
    "description",
    "status",
    "priority",
    "severity",
    "assignee",
    "reporter",
    "labels",
    "components",
    "project",
    "parent",
    "sprint",
    "resolution",
    "due_on",
    "story_points",
    "stack_trace",
]
# Where a column of ours is read from: the first of these fields that is not empty.
_FIELDS: dict[Column, tuple[str, ...]] = {
    "title": ("short_description", "number"),
    "description": ("description",),
    "status": ("state",),
    "priority": ("priority",),
    "severity": ("priority", "impact", "urgency"),
    "assignee": ("assigned_to",),
    "reporter": ("caller_id", "opened_by"),
    "labels": ("sys_tags",),
    "components": ("business_service",),
    "project": (),
    "parent": ("parent", "parent_incident"),
    "sprint": ("sprint",),
    "resolution": ("close_code", "resolution_code"),
    "due_on": ("due_date",),
    "story_points": ("story_points",),
    "stack_trace": (),
}
_ENVIRONMENT = ("cmdb_ci", "environment", "location", "company")
# The whole thread as one text, in the account's time zone: comments are records of their own.
_JOURNALS = frozenset({"comments", "work_notes", "comments_and_work_notes"})
# States as stored, for labels in a language we do not know. Instances may add to them.
# https://www.servicenow.com/docs/r/it-service-management/incident-management/c_IncidentManagementStateModel.html
_OPEN, _BUSY, _DONE = StatusCategory.OPEN, StatusCategory.IN_PROGRESS, StatusCategory.DONE
_STATES: dict[str, dict[str, StatusCategory]] = {
    "incident": {"1": _OPEN, "2": _BUSY, "3": _BUSY, "6": _DONE, "7": _DONE, "8": _DONE},
    "problem": {"101": _OPEN, "102": _BUSY, "103": _BUSY, "104": _BUSY, "106": _DONE, "107": _DONE},
    "change_request": {
        "-5": _OPEN,
        "-4": _OPEN,
        "-3": _OPEN,
        "-2": _OPEN,
        "-1": _BUSY,
        "0": _BUSY,
        "3": _DONE,
        "4": _DONE,
    },
}
_HTML = re.compile(r"</(?:p|div|ul|ol|table|pre|a|b|i|strong|em|span|code|blockquote|h[1-6])>|<br ?/?>", re.IGNORECASE)
# What an account may write into a journal as HTML stands between [code] and [/code].
_HTML_IN_TEXT = re.compile(r"\[code\](.*?)\[/code\]", re.DOTALL | re.IGNORECASE)


def without_journals(row: dict[str, Any]) -> dict[str, Any]:
    rest = row.copy()
    for name in _JOURNALS:
        rest.pop(name, None)
    return rest


def label(row: Mapping[str, Any], name: str) -> str:
    """What a person reads in the field; "" when it is empty or not there."""
    field: _Field = row.get(name)
    if isinstance(field, dict):
        return _text(field.get("display_value")) or _text(field.get("value"))
    return _text(field)


def stored(row: Mapping[str, Any], name: str) -> str:
    """What the database holds for the field; "" when it is empty or not there."""
    field: _Field = row.get(name)
    return _text(field.get("value") if isinstance(field, dict) else field)


def _text(value: _Value) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)


def to_issue(sent: Sent, base_url: str, fields: Mapping[Column, str]) -> Issue:
    """A row of a task table; `fields` names the fields of an instance that differ from the usual ones."""
    row = sent.raw
    table = stored(row, "sys_class_name") or sent.scope

    def read(column: Column) -> str | None:
        for name in (fields[column],) if column in fields else _FIELDS[column]:
            if text := label(row, name).strip():
                return text
        return None

    category = _category(row, table, read("status"))
    description = to_markdown(read("description") or "") or None
    closed = stored(row, "resolved_at") or stored(row, "closed_at")
    due = readable_time(stored(row, fields.get("due_on", "due_date")))
    return Issue(
        external_id=stored(row, "sys_id"),
        key=stored(row, "number") or None,
        title=read("title") or stored(row, "number") or stored(row, "sys_id"),
        description=description,
        type=label(row, "sys_class_name") or sent.scope,
        status=read("status"),
        status_category=category,
        priority=read("priority"),
        severity=_severity(row, (fields["severity"],) if "severity" in fields else _FIELDS["severity"]),
        assignee=read("assignee"),
        reporter=read("reporter"),
        labels=_listed(read("labels")),
        components=(component,) if (component := read("components")) else (),
        project=read("project"),
        parent=read("parent"),
        sprint=read("sprint"),
        sprint_ids=(),
        resolution=read("resolution"),
        environment={name: text for name in _ENVIRONMENT if (text := label(row, name))} or None,
        stack_trace=read("stack_trace") or find_stack_trace(description or ""),
        # Labels of numbers are written in the way of the account's language.
        story_points=_number(stored(row, fields.get("story_points", "story_points"))),
        due_on=due.date() if due else None,
        url=f"{base_url.rstrip('/')}/{table}.do?sys_id={stored(row, 'sys_id')}",
        source_created_at=parse_time(stored(row, "sys_created_on")),
        source_updated_at=parse_time(stored(row, "sys_updated_on")),
        resolved_at=parse_time(closed) if category is _DONE else None,
        payload=row,
    )


def to_comment(sent: Sent) -> Comment:
    """A journal entry: never edited, written by whoever `sys_created_by` names by login."""
    row = sent.raw
    written = parse_time(stored(row, "sys_created_on"))
    return Comment(
        external_id=stored(row, "sys_id"),
        issue_id=stored(row, "element_id") or None,
        author=stored(row, "sys_created_by") or None,
        body=to_markdown(stored(row, "value")),
        internal=stored(row, "element") == "work_notes",
        source_created_at=written,
        source_updated_at=written,
        payload=row,
    )


def to_person(sent: Sent) -> Person:
    row = sent.raw
    active = stored(row, "active")
    return Person(
        external_id=stored(row, "sys_id"),
        name=stored(row, "name") or None,
        login=stored(row, "user_name") or None,
        email=stored(row, "email") or None,
        active=active == "true" if active else None,
        time_zone=stored(row, "time_zone") or None,
        source_created_at=parse_time(stored(row, "sys_created_on")),
        source_updated_at=parse_time(stored(row, "sys_updated_on")),
        payload=row,
    )


def to_markdown(text: str) -> str:
    """Text that may be HTML as a whole or hold pieces of it, as Markdown."""
    text = text.replace("\r\n", "\n")
    if _HTML_IN_TEXT.search(text):
        return _HTML_IN_TEXT.sub(lambda piece: html_to_markdown(piece[1]), text).strip()
    return (html_to_markdown(text) if _HTML.search(text) else text).strip()


def _category(row: Mapping[str, Any], table: str, status: str | None) -> StatusCategory:
    """How far the issue is: by the label where we know the word, else by the stored state, else by `active`."""
    if status and is_known_status(status):
        return status_category(status)
    if found := _STATES.get(table, {}).get(stored(row, "state")):
        return found
    return _DONE if stored(row, "active") == "false" else _OPEN


def _severity(row: Mapping[str, Any], names: tuple[str, ...]) -> Severity | None:
    """The first severity the fields say: `1 - Critical` or `Critical`; of a priority in another language its number."""
    for name in names:
        text = label(row, name)
        number = stored(row, name) if name == "priority" else ""
        if found := severity_of(text) or severity_of(text.partition(" - ")[2]) or severity_of(number):
            return found
    return None


def _number(text: str) -> float | None:
    """A number; a field that was mapped to ours may hold anything, and what is no number is left out."""
    try:
        number = float(text) if text else None
    except ValueError:
        return None
    return number if number is not None and isfinite(number) else None


def _listed(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())
