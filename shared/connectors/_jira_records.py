"""Jira's records in our words. Pure: descriptions become Markdown, custom fields are found by what they are for."""

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime
from itertools import count
from math import isfinite
from typing import Any, TypeIs, cast

from shared.connectors._traces import find_stack_trace
from shared.domain.errors import SourceError, Trouble
from shared.domain.issue import Severity, StatusCategory, is_known_status, severity_of, status_category
from shared.domain.markdown import adf_to_markdown, wiki_to_markdown
from shared.domain.stream import Comment, HistoryEntry, Issue, Person, Project, Sprint, Worklog, to_utc

# Names of custom fields differ by site and language; their types do not.
# https://support.atlassian.com/jira/kb/how-to-find-id-for-custom-fields/
_SPRINT_TYPE = "com.pyxis.greenhopper.jira:gh-sprint"
_EPIC_TYPE = "com.pyxis.greenhopper.jira:gh-epic-link"
_POINTS_TYPE = "com.pyxis.greenhopper.jira:jsw-story-points"
_POINTS_NAMES = {"story points", "story point estimate"}
# https://developer.atlassian.com/cloud/jira/platform/rest/v3/api-group-workflow-status-categories/
_CATEGORIES = {
    "new": StatusCategory.OPEN,
    "indeterminate": StatusCategory.IN_PROGRESS,
    "done": StatusCategory.DONE,
}
_CODE = re.compile(r"\{(?:code|noformat)[:}]")
# Older Data Center sends a sprint as the text of a Java object.
_SPRINT_TEXT = re.compile(r"(\w+)=(.*?)(?=,\w+=|\]$)", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Fields:
    """The custom fields of a site: their names, and which ids serve which purpose."""

    names: Mapping[str, str]
    sprint: Sequence[str]
    points: Sequence[str]
    epic: Sequence[str]
    mapped: Mapping[str, Sequence[str]]

    def context(self) -> dict[str, Any]:
        """What normalizing an issue needs, as JSON."""
        return {
            "sprint": list(self.sprint),
            "points": list(self.points),
            "epic": list(self.epic),
            "mapped": {ours: list(theirs) for ours, theirs in self.mapped.items()},
        }


def is_object(value: object) -> TypeIs[dict[str, Any]]:
    """Whether a value is a JSON object."""
    return isinstance(value, dict)


def as_object(value: Any) -> dict[str, Any]:
    """The value if it is a JSON object, else an empty one."""
    return value if is_object(value) else {}


def as_list(value: Any) -> list[Any]:
    """The value if it is a JSON array, else an empty one."""
    return cast("list[Any]", value) if isinstance(value, list) else []


def as_count(value: Any) -> int | None:
    """The value if it is a whole number, else None."""
    return value if isinstance(value, int) else None


def scope_of(issue: Mapping[str, Any]) -> str:
    """The id of the project an issue is in."""
    return str(as_object(as_object(issue.get("fields")).get("project")).get("id") or "")


def parse_fields(rows: Any, mapping: Mapping[Any, str]) -> Fields:
    """The catalogue from `/field`. SourceError if a mapped field is not in it."""
    listed = [row for row in as_list(rows) if is_object(row) and row.get("id")]
    custom = [row for row in listed if row.get("custom")]
    types = {str(row["id"]): str(as_object(row.get("schema")).get("custom") or "") for row in custom}
    names = {str(row["id"]): str(row.get("name") or row["id"]) for row in custom}
    taken = list(names.values())
    return Fields(
        names={key: f"{name} ({key})" if taken.count(name) > 1 else name for key, name in names.items()},
        sprint=[key for key, kind in types.items() if kind == _SPRINT_TYPE],
        epic=[key for key, kind in types.items() if kind == _EPIC_TYPE],
        points=[key for key, kind in types.items() if kind == _POINTS_TYPE or names[key].lower() in _POINTS_NAMES],
        mapped={str(ours): _field_ids(listed, theirs) for ours, theirs in mapping.items()},
    )


def _field_ids(rows: Iterable[dict[str, Any]], wanted: str) -> Sequence[str]:
    """The fields of this id or name. Team-managed projects each have fields of their own, often of the same name."""
    ids = [
        str(row["id"]) for row in rows if wanted == row["id"] or wanted.lower() == str(row.get("name") or "").lower()
    ]
    if ids:
        return ids
    raise SourceError(
        Trouble.BAD_REQUEST,
        f"The field mapping names {wanted!r}, which this Jira does not have or does not show",
        hint="Correct the name in the connection's field mapping; an id such as customfield_10071 is safest",
    )


def stripped(raw: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """An issue without the lists whose rows are records of their own, and its custom fields by name besides."""
    fields: dict[str, Any] = {
        key: value for key, value in as_object(raw.get("fields")).items() if key not in {"comment", "worklog"}
    }
    named = {names[key]: value for key, value in fields.items() if key in names and value is not None}
    bare = {key: value for key, value in raw.items() if key != "changelog"}
    return {**bare, "fields": fields, "named_fields": named}


def parse_issue(raw: dict[str, Any], context: Mapping[str, Any]) -> Issue:
    """An issue."""
    fields = as_object(raw.get("fields"))
    known = as_object(context.get("fields"))
    mapped = {ours: _first(fields, theirs) for ours, theirs in as_object(known.get("mapped")).items()}
    description = markdown(fields.get("description"))
    sprints = _sprints(_first(fields, known.get("sprint") or ()))
    priority = _text(fields.get("priority"))
    resolved = _moment(fields.get("resolutiondate"))
    return Issue(
        external_id=str(raw["id"]),
        payload=raw,
        key=raw.get("key"),
        # A team may hide the summary; the key is the only name such an issue has.
        title=str(fields.get("summary") or "").strip() or str(raw["key"]),
        description=description,
        type=_text(fields.get("issuetype")),
        status=_text(fields.get("status")),
        status_category=_category(as_object(fields.get("status")), resolved),
        priority=priority,
        severity=_severity(mapped.get("severity"), priority),
        assignee=_who(fields.get("assignee")),
        reporter=_who(fields.get("reporter")),
        labels=_texts(mapped.get("labels") or fields.get("labels")),
        components=_texts(mapped.get("components") or fields.get("components")),
        project=as_object(fields.get("project")).get("key"),
        parent=_parent(fields, known.get("epic") or ()),
        sprint=_current_sprint(sprints),
        sprint_ids=tuple(str(sprint["id"]) for sprint in sprints if sprint.get("id") is not None),
        environment=_environment(mapped.get("environment") or fields.get("environment")),
        stack_trace=_trace(mapped.get("stack_trace")) or find_stack_trace(description or ""),
        url=_url(context, raw.get("key")),
        due_on=_date(mapped.get("due_on")) or _date(fields.get("duedate")),
        resolution=_text(mapped.get("resolution") or fields.get("resolution")),
        story_points=_float(mapped.get("story_points") or _first(fields, known.get("points") or ())),
        estimate_seconds=fields.get("timeoriginalestimate"),
        source_created_at=_moment(fields.get("created")),
        source_updated_at=_moment(fields.get("updated")),
        resolved_at=resolved,
    )


def parse_comment(raw: dict[str, Any], context: Mapping[str, Any]) -> Comment:
    """A comment. One that only a role or a group may see is internal, as is one that customers may not."""
    key = context.get("issue_key")
    url = _url(context, key)
    return Comment(
        external_id=str(raw["id"]),
        payload=raw,
        issue_id=context.get("issue_id"),
        issue_key=key,
        author=_who(raw.get("author")),
        body=markdown(raw.get("body")) or "",
        internal=raw.get("jsdPublic") is False or bool(raw.get("visibility")),
        url=f"{url}?focusedCommentId={raw['id']}" if url else None,
        source_created_at=_moment(raw.get("created")),
        source_updated_at=_moment(raw.get("updated")),
    )


def parse_worklog(raw: dict[str, Any], context: Mapping[str, Any]) -> Worklog:
    """Logged work. `started` is when the work was done, `created` when somebody wrote it down."""
    return Worklog(
        external_id=str(raw["id"]),
        payload=raw,
        issue_id=context.get("issue_id"),
        issue_key=context.get("issue_key"),
        author=_who(raw.get("author")),
        started_at=_moment(raw.get("started")),
        seconds=int(raw.get("timeSpentSeconds") or 0),
        comment=markdown(raw.get("comment")),
        source_created_at=_moment(raw.get("created")),
        source_updated_at=_moment(raw.get("updated")),
    )


def parse_history(raw: dict[str, Any], context: Mapping[str, Any]) -> HistoryEntry:
    """A change of an issue."""
    changed = _moment(raw["created"])
    if changed is None:
        raise ValueError("A change without a time")
    changes: dict[str, dict[str, str | None]] = {}
    for item in as_list(raw.get("items")):
        name = str(item.get("field") or item.get("fieldId") or "unknown")
        # One change may touch a field several times, as when two links are added.
        free = next(each for each in _numbered(name) if each not in changes)
        changes[free] = {"from": _told(item, "fromString", "from"), "to": _told(item, "toString", "to")}
    return HistoryEntry(
        external_id=str(raw["id"]),
        payload=raw,
        issue_id=context.get("issue_id"),
        issue_key=context.get("issue_key"),
        author=_who(raw.get("author")),
        changed_at=changed,
        changes=changes,
        source_created_at=changed,
    )


def parse_sprint(raw: dict[str, Any], context: Mapping[str, Any]) -> Sprint:
    """A sprint; one in the future has no dates."""
    return Sprint(
        external_id=str(raw["id"]),
        payload=raw,
        name=str(raw.get("name") or raw["id"]),
        state=raw.get("state"),
        board=context.get("board"),
        goal=raw.get("goal") or None,
        starts_at=_moment(raw.get("startDate")),
        ends_at=_moment(raw.get("endDate")),
        completed_at=_moment(raw.get("completeDate")),
        source_created_at=_moment(raw.get("createdDate")),
    )


def parse_user(raw: dict[str, Any], _context: Mapping[str, Any]) -> Person:
    """An account. On Data Center the key stays when the name changes; Cloud has one id and rarely shows the address."""
    return Person(
        external_id=str(raw.get("accountId") or raw.get("key") or raw["name"]),
        payload=raw,
        name=raw.get("displayName"),
        login=raw.get("name"),
        email=raw.get("emailAddress") or None,
        active=raw.get("active"),
        time_zone=raw.get("timeZone"),
    )


def parse_project(raw: dict[str, Any], _context: Mapping[str, Any]) -> Project:
    """A project."""
    return Project(
        external_id=str(raw["id"]),
        payload=raw,
        name=str(raw.get("name") or raw["key"]),
        key=raw.get("key"),
        description=markdown(raw.get("description")),
        owner=_who(raw.get("lead")),
    )


def markdown(value: Any) -> str | None:
    """Rich text as Markdown: a document on Cloud, wiki markup on Data Center."""
    if is_object(value):
        return adf_to_markdown(value) or None
    return wiki_to_markdown(value) or None if isinstance(value, str) and value else None


def _moment(value: Any) -> datetime | None:
    """A time: ISO 8601 in most answers, epoch milliseconds in some. ValueError for anything else."""
    if value is None or isinstance(value, str):
        return to_utc(value)
    with suppress(TypeError, OverflowError, OSError):
        return datetime.fromtimestamp(value / 1_000, UTC)
    raise ValueError(f"{value!r} is not a time")


def _category(status: Mapping[str, Any], resolved: datetime | None) -> StatusCategory:
    told = _CATEGORIES.get(str(as_object(status.get("statusCategory")).get("key")))
    if told:
        return told
    name = str(status.get("name") or "")
    return StatusCategory.DONE if resolved and not is_known_status(name) else status_category(name)


def _severity(mapped: Any, priority: str | None) -> Severity | None:
    return severity_of(_text(mapped) or "") or severity_of(priority or "")


def _who(user: Any) -> str | None:
    person = as_object(user)
    names = ("displayName", "name", "emailAddress", "accountId", "key")
    return next((str(person[name]) for name in names if person.get(name)), None)


def _text(value: Any) -> str | None:
    """A value of any field as text: options and objects by their name, lists with commas."""
    if is_object(value):
        if value.get("type") == "doc":
            return markdown(value)
        return next((str(value[name]) for name in ("value", "name", "displayName", "key") if value.get(name)), None)
    if isinstance(value, list):
        return ", ".join(_texts(value)) or None
    return None if value in (None, "") else str(value)


def _texts(value: Any) -> tuple[str, ...]:
    rows = as_list(value) if isinstance(value, list) else [value]
    return tuple(text for row in rows if (text := _text(row)))


def _first(fields: Mapping[str, Any], ids: Iterable[str]) -> Any:
    return next((fields[each] for each in ids if fields.get(each) is not None), None)


def _parent(fields: Mapping[str, Any], epic: Iterable[str]) -> str | None:
    parent = fields.get("parent")
    return str(parent["key"]) if is_object(parent) and parent.get("key") else _text(_first(fields, epic))


def _sprints(value: Any) -> list[dict[str, Any]]:
    rows = as_list(value)
    sprints: list[dict[str, Any]] = [row if is_object(row) else dict(_SPRINT_TEXT.findall(str(row))) for row in rows]
    return [sprint for sprint in sprints if sprint]


def _current_sprint(sprints: Sequence[Mapping[str, Any]]) -> str | None:
    """The active sprint, else the next one, else the last."""
    for state in ("active", "future"):
        for sprint in sprints:
            if str(sprint.get("state")).lower() == state:
                return _text(sprint.get("name"))
    return _text(sprints[-1].get("name")) if sprints else None


def _environment(value: Any) -> dict[str, Any] | None:
    if is_object(value) and value.get("type") != "doc":
        return value
    text = markdown(value) if is_object(value) or isinstance(value, str) else _text(value)
    return {"description": text} if text else None


def _trace(value: Any) -> str | None:
    """A stack trace in a field of its own; where its text has blocks of code, the trace without their marks."""
    if is_object(value) or (isinstance(value, str) and _CODE.search(value)):
        text = markdown(value) or ""
        return find_stack_trace(text) or text or None
    return _text(value)


def _date(value: Any) -> date | None:
    with suppress(ValueError):
        return date.fromisoformat(value[:10]) if isinstance(value, str) else None
    return None


def _float(value: Any) -> float | None:
    with suppress(ValueError):
        number = float(_text(value) or "")
        return number if isfinite(number) else None
    return None


def _url(context: Mapping[str, Any], key: Any) -> str | None:
    return f"{context['site']}/browse/{key}" if context.get("site") and key else None


def _numbered(name: str) -> Iterable[str]:
    yield name
    yield from (f"{name} ({number})" for number in count(2))


def _told(item: Mapping[str, Any], *names: str) -> str | None:
    return next((str(item[name]) for name in names if item.get(name) is not None), None)
