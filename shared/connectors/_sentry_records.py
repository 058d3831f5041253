"""Sentry's records in our words: issues with the stack trace of their latest event, notes, members and projects.

Shapes: https://docs.sentry.io/api/events/ and https://docs.sentry.io/api/organizations/. An event is a list of
`entries`, of kinds that Sentry adds to at any time; those that hold frames are read, the rest stays in the payload.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any, TypeIs

from shared.domain.issue import Severity, StatusCategory, severity_of, status_category
from shared.domain.stream import Comment, Issue, Person, Project, to_utc

PARTIAL_PAYLOAD_KEY = "latest_event"
_MOST_TITLE = 4_000
# Event levels: https://docs.sentry.io/platforms/python/usage/set-level/; others fall back to the issue's priority.
_SEVERITY_OF_LEVEL = {
    "fatal": Severity.CRITICAL,
    "error": Severity.HIGH,
    "warning": Severity.MEDIUM,
    "info": Severity.LOW,
    "debug": Severity.LOW,
}
# What an event says of where it happened. A tag of this name counts before a context of this name.
_ENVIRONMENT_TAGS = ("environment", "release", "dist", "server_name", "os", "browser", "runtime", "device")
_CONTEXT_OF = {"os": ("os", "client_os"), "browser": ("browser",), "runtime": ("runtime",), "device": ("device",)}


def is_object(value: object) -> TypeIs[dict[str, Any]]:
    """Whether a JSON value is an object."""
    return isinstance(value, dict)


def is_array(value: object) -> TypeIs[list[Any]]:
    """Whether a JSON value is an array."""
    return isinstance(value, list)


def array(value: object) -> list[Any]:
    """The values of a JSON array; none for null and for anything else."""
    return value if is_array(value) else []


def member(raw: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The object under a name; an empty one for null, for nothing and for anything else."""
    value = raw.get(name)
    return value if is_object(value) else {}


def last_seen(raw: Mapping[str, Any]) -> datetime | None:
    """When the last event of an issue happened, in whole seconds.

    Lists take it from the event store, which knows seconds, single issues from the database, which knows microseconds
    (src/sentry/search/snuba/executors.py, `last_seen`); cut, the same issue always has the same time.
    """
    moment = to_utc(_text(member(raw, "lifetime").get("lastSeen")) or _text(raw.get("lastSeen")))
    return moment.replace(microsecond=0) if moment else None


def seen_at(raw: Mapping[str, Any]) -> datetime | None:
    """`last_seen` for a census, where a time that makes no sense is no time."""
    with suppress(ValueError):
        return last_seen(raw)
    return None


def parse_issue(raw: dict[str, Any]) -> Issue:
    """An issue of a list, or a single one, with its latest event under PARTIAL_PAYLOAD_KEY where it was read."""
    event = raw.get(PARTIAL_PAYLOAD_KEY)
    status = _text(raw.get("status"))
    return Issue(
        external_id=str(raw["id"]),
        payload=raw,
        # With a time range, as every list has one, the outer firstSeen is of the range: only `lifetime` is the issue's.
        source_created_at=to_utc(_text(member(raw, "lifetime").get("firstSeen")) or _text(raw.get("firstSeen"))),
        source_updated_at=last_seen(raw),
        key=_text(raw.get("shortId")),
        title=_title(raw),
        description=_text(member(raw, "metadata").get("message")) or _text(member(raw, "metadata").get("value")),
        type=_text(raw.get("issueType")) or _text(raw.get("issueCategory")) or _text(raw.get("type")),
        status=status,
        status_category=_category(status),
        priority=_text(raw.get("priority")),
        severity=_severity(raw),
        assignee=_assignee(raw.get("assignedTo")),
        labels=_labels(raw),
        components=tuple(filter(None, [_text(raw.get("platform"))])),
        project=_text(member(raw, "project").get("slug")),
        sprint_ids=(),
        environment=environment(event) if is_object(event) else None,
        stack_trace=stack_trace(event) if is_object(event) else None,
        url=_text(raw.get("permalink")),
        resolution=_resolution(raw),
    )


def parse_note(raw: dict[str, Any], context: Mapping[str, Any]) -> Comment:
    """A note of an issue. Sentry keeps no time of its last edit."""
    author = member(raw, "user") or member(raw, "sentry_app")
    return Comment(
        external_id=str(raw["id"]),
        payload=raw,
        source_created_at=to_utc(_text(raw.get("dateCreated"))),
        source_updated_at=to_utc(_text(raw.get("dateCreated"))),
        issue_id=context.get("issue_id"),
        issue_key=context.get("issue_key"),
        author=_text(author.get("name")) or _text(author.get("email")),
        body=_text(member(raw, "data").get("text")) or "",
    )


def parse_member(raw: dict[str, Any]) -> Person:
    """A member of the organization; one who has not accepted the invitation has no account yet."""
    account = member(raw, "user")
    active = account.get("isActive")
    return Person(
        external_id=member_id(raw),
        payload=raw,
        source_created_at=to_utc(_text(raw.get("dateCreated"))),
        name=_text(account.get("name")) or _text(raw.get("name")),
        login=_text(account.get("username")),
        email=_text(account.get("email")) or _text(raw.get("email")),
        active=active if isinstance(active, bool) else None,
        time_zone=_text(member(account, "options").get("timezone")),
    )


def member_id(raw: Mapping[str, Any]) -> str:
    """The account's id, which is what issues name; the membership's own until there is an account."""
    account = member(raw, "user").get("id")
    return str(account) if account else f"member-{raw['id']}"


def parse_project(raw: dict[str, Any]) -> Project:
    """A project; its first team owns it."""
    names = [_text(team.get("slug")) for team in array(raw.get("teams")) if is_object(team)]
    return Project(
        external_id=str(raw["id"]),
        payload=raw,
        source_created_at=to_utc(_text(raw.get("dateCreated"))),
        name=_text(raw.get("name")) or str(raw["slug"]),
        key=_text(raw.get("slug")),
        owner=next(filter(None, names), None),
    )


def stack_trace(event: Mapping[str, Any]) -> str | None:
    """The exceptions of an event as Python would print them, root cause first; None where no entry holds any.

    `values` run from the root cause to the exception that was raised last, frames from the outermost call to the crash:
    https://develop.sentry.dev/sdk/data-model/event-payloads/exception/
    """
    for kind in ("exception", "threads", "stacktrace"):
        told = [text for data in _entries(event, kind) if (text := _told(kind, data))]
        if told:
            return "\n\n".join(told)
    return None


def environment(event: Mapping[str, Any]) -> dict[str, Any] | None:
    """Where an event happened: its tags, and for what they leave open its contexts."""
    tags = dict(_tags(event))
    contexts = member(event, "contexts")
    found: dict[str, Any] = {}
    for name in _ENVIRONMENT_TAGS:
        value = tags.get(name) or _context(contexts, name)
        if value:
            found[name] = value
    release = event.get("release")
    if "release" not in found and (version := _text(member(event, "release").get("version")) or _text(release)):
        found["release"] = version
    if "dist" not in found and (dist := _text(event.get("dist"))):
        found["dist"] = dist
    return found or None


def _told(kind: str, data: dict[str, Any]) -> str:
    if kind == "stacktrace":
        return "\n".join(_frames({"stacktrace": data}))
    values = [value for value in array(data.get("values")) if is_object(value)]
    if kind == "threads":
        crashed = [value for value in values if value.get("crashed")] or values[:1]
        return "\n\n".join("\n".join(frames) for value in crashed if (frames := _frames(value)))
    text = ""
    for value in values:
        if text:
            mechanism = member(value, "mechanism").get("source")
            text += f"\n\n{_CAUSED if mechanism == '__cause__' else _DURING}\n\n"
        text += "\n".join([*_frames(value), _raised(value)])
    return text


_CAUSED = "The above exception was the direct cause of the following exception:"
_DURING = "During handling of the above exception, another exception occurred:"


def _frames(value: Mapping[str, Any]) -> list[str]:
    trace = member(value, "stacktrace")
    frames = [frame for frame in array(trace.get("frames")) if is_object(frame)]
    if not frames:
        return []
    lines = ["Traceback (most recent call last):"]
    for frame in frames:
        lines += _frame(frame)
    if omitted := trace.get("framesOmitted"):
        lines.insert(1, f"  [frames {omitted} omitted]")
    return lines


def _frame(frame: Mapping[str, Any]) -> list[str]:
    # Java names modules, native code packages, and a frame without symbols only its address.
    place = next(filter(None, (_text(frame.get(name)) for name in ("filename", "absPath", "module", "package"))), "?")
    function = _text(frame.get("function")) or _text(frame.get("instructionAddr")) or "?"
    number = frame.get("lineNo")
    at = f", line {number}" if isinstance(number, int) else ""
    lines = [f'  File "{place}"{at}, in {function}{"  # in app" if frame.get("inApp") else ""}']
    context = [array(line) for line in array(frame.get("context"))]
    lines.extend(f"    {str(line[1]).strip()}" for line in context if len(line) == 2 and line[0] == number)
    return lines


def _raised(value: Mapping[str, Any]) -> str:
    kind = _text(value.get("type")) or _text(value.get("module")) or "Error"
    says = value.get("value")
    says = says if isinstance(says, str) else "" if says is None else str(says)
    return f"{kind}: {says}" if says else kind


def _entries(event: Mapping[str, Any], kind: str) -> Iterator[dict[str, Any]]:
    for entry in array(event.get("entries")):
        if is_object(entry) and entry.get("type") == kind:
            yield member(entry, "data")


def _tags(event: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    # Pairs in webhooks, objects in the API.
    for tag in array(event.get("tags")):
        if is_object(tag):
            key, value = tag.get("key"), tag.get("value")
        elif len(pair := array(tag)) == 2:
            key, value = pair
        else:
            continue
        if isinstance(key, str) and (text := _text(value)):
            yield key, text


def _context(contexts: Mapping[str, Any], name: str) -> str | None:
    for key in _CONTEXT_OF.get(name, ()):
        context = member(contexts, key)
        named = _text(context.get("name")) or _text(context.get("model")) or _text(context.get("family"))
        if named:
            version = _text(context.get("version"))
            return f"{named} {version}" if version else named
    return None


def _title(raw: Mapping[str, Any]) -> str:
    metadata = member(raw, "metadata")
    found = (raw.get("title"), metadata.get("title"), metadata.get("type"), raw.get("culprit"), raw.get("shortId"))
    return next(filter(None, map(_text, found)), "Untitled")[:_MOST_TITLE]


def _category(status: str | None) -> StatusCategory:
    # `resolvedInNextRelease` is a status of its own in older servers: src/sentry/api/helpers/group_index/update.py
    if status and status.startswith("resolved"):
        return StatusCategory.DONE
    return status_category(status or "")


def _severity(raw: Mapping[str, Any]) -> Severity | None:
    level = _text(raw.get("level")) or ""
    return _SEVERITY_OF_LEVEL.get(level.lower()) or severity_of(_text(raw.get("priority")) or "")


def _assignee(assigned: object) -> str | None:
    if is_object(assigned):
        name = _text(assigned.get("name")) or _text(assigned.get("email"))
        return f"#{name}" if name and assigned.get("type") == "team" else name
    return _text(assigned)


def _labels(raw: Mapping[str, Any]) -> tuple[str, ...]:
    # `regressed`, `escalating`, `new`, `ongoing`: https://docs.sentry.io/product/issues/states-triage/
    labels = [_text(raw.get("substatus")), "unhandled" if raw.get("isUnhandled") is True else None]
    return tuple(filter(None, labels))


def _resolution(raw: Mapping[str, Any]) -> str | None:
    details = member(raw, "statusDetails")
    if release := _text(details.get("inRelease")):
        return f"in release {release}"
    if details.get("inNextRelease"):
        return "in the next release"
    if commit := _text(member(details, "inCommit").get("id")) or _text(details.get("inCommit")):
        return f"in commit {commit}"
    status = _text(raw.get("status")) or ""
    return _text(raw.get("substatus")) if status in {"ignored", "archived"} else None


def _text(value: object) -> str | None:
    """A text that says something; numbers become one."""
    if isinstance(value, str):
        return value if value.strip() else None
    return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
