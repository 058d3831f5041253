"""Jira's records, as they were sent, in our words."""

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from shared.connectors._jira_records import Fields, parse_fields, stripped
from shared.connectors._jira_settings import JiraCredentials, JiraSettings
from shared.connectors._protocol import EVERYTHING, Sent
from shared.connectors.jira import JiraConnector
from shared.domain.errors import SourceError, Trouble
from shared.domain.issue import Severity, StatusCategory
from shared.domain.stream import MODELS, Comment, HistoryEntry, Issue, Person, Record, Sprint, Stream, Worklog

FIXTURES = Path(__file__).parents[2] / "fixtures" / "jira"
SITE = "https://brightwater.atlassian.net"
OF_AN_ISSUE = {"site": SITE, "issue_id": "20417", "issue_key": "QUAY-88"}


def load(name: str) -> Any:
    return json.loads((FIXTURES / f"{name}.json").read_text())


def normalized(stream: Stream, raw: dict[str, Any], context: dict[str, Any]) -> Any:
    connector = JiraConnector(httpx.AsyncClient(), SITE, JiraSettings(), JiraCredentials(token="t"))
    record = connector.normalize(Sent(stream, raw, EVERYTHING, json.loads(json.dumps(context))))
    assert isinstance(record, MODELS[stream])
    return record


def issue(name: str, fields: str = "fields", mapping: dict[str, str] | None = None, **changed: Any) -> Issue:
    raw = load(name)
    raw["fields"] |= changed
    known = parse_fields(load(fields), mapping or {})
    return normalized(Stream.ISSUES, stripped(raw, known.names), {"site": SITE, "fields": known.context()})


def test_an_issue_of_cloud_in_our_words() -> None:
    found = issue("issue_cloud")

    assert (found.external_id, found.key, found.project, found.parent) == ("20417", "QUAY-88", "QUAY", "QUAY-70")
    assert found.title == "\u200bMooring fails at berth 7\x00"
    assert (found.type, found.status, found.status_category) == ("障害", "完了", StatusCategory.DONE)
    assert (found.priority, found.severity, found.resolution) == ("Highest", Severity.CRITICAL, "完了")
    assert (found.assignee, found.reporter) == (None, "Inês Moura")
    assert (found.labels, found.components) == (("berth", "tanker"), ("Mooring", "Radar"))
    assert (found.sprint, found.sprint_ids, found.story_points) == ("Tide 7", ("6", "7"), 5.0)
    assert (found.due_on, found.estimate_seconds) == (date(2026, 4, 2), 28_800)
    assert found.source_updated_at == datetime(2026, 3, 28, 7, 6, 9, 611_000, tzinfo=UTC)
    assert found.resolved_at == datetime(2026, 3, 28, 7, 6, 9, 535_000, tzinfo=UTC)
    assert found.url == f"{SITE}/browse/QUAY-88"


def test_a_document_becomes_markdown_and_its_trace_is_found() -> None:
    found = issue("issue_cloud")

    assert "**every time**" in (found.description or "")
    assert "kept words" in (found.description or "")
    assert (found.stack_trace or "").startswith("Traceback (most recent call last):\n")
    assert (found.stack_trace or "").endswith("MooringError: berth 7 is taken")
    assert found.environment == {"description": "harbour-prod, build 5512"}


def test_wiki_markup_becomes_markdown_and_its_trace_is_found() -> None:
    found = issue("issue_server", "fields_server")

    assert "## What happens" in (found.description or "")
    assert "[the log](https://logs.brightwater.example/crane)" in (found.description or "")
    assert (found.stack_trace or "").splitlines()[1].strip() == "at example.crane.Arm.swing(Arm.java:41)"
    assert found.environment == {"description": "Crane 4, firmware 2.2"}


def test_an_issue_of_data_center_in_our_words() -> None:
    found = issue("issue_server", "fields_server")

    assert (found.sprint, found.sprint_ids) == ("Iteration 11", ("740", "776"))
    assert (found.parent, found.story_points, found.severity) == ("DOCK-2", 3.0, Severity.HIGH)
    assert (found.assignee, found.reporter) == ("Li Wei", "old.hand")
    assert found.status_category is StatusCategory.IN_PROGRESS
    assert found.source_created_at == datetime(2019, 11, 3, 6, 30, tzinfo=UTC)


def test_an_issue_of_nulls_keeps_its_key_as_its_name() -> None:
    found = issue("issue_bare")

    assert (found.title, found.status_category, found.severity) == ("QUAY-89", StatusCategory.OPEN, None)
    assert found.source_updated_at is None


@pytest.mark.parametrize(
    ("status", "resolved", "expected"),
    [
        ({"name": "Parked", "statusCategory": {"key": "indeterminate"}}, None, StatusCategory.IN_PROGRESS),
        ({"name": "Done", "statusCategory": {"key": "new"}}, None, StatusCategory.OPEN),
        ({"name": "Erledigt", "statusCategory": {"key": "undefined"}}, None, StatusCategory.DONE),
        ({"name": "Zu den Akten"}, "2026-01-01T00:00:00.000+0000", StatusCategory.DONE),
        ({"name": "Zu den Akten"}, None, StatusCategory.OPEN),
        ({"name": "In Progress"}, "2026-01-01T00:00:00.000+0000", StatusCategory.IN_PROGRESS),
    ],
)
def test_the_category_decides_before_the_name(status: Any, resolved: Any, expected: StatusCategory) -> None:
    assert issue("issue_bare", status=status, resolutiondate=resolved).status_category is expected


def test_custom_fields_come_under_their_names_too() -> None:
    payload = issue("issue_cloud").payload

    assert payload["named_fields"]["Flagged"] == [{"id": "10019", "value": "Impediment"}]
    assert payload["named_fields"]["Ship (customfield_10078)"] == "a"
    assert payload["named_fields"]["Ship (customfield_10079)"] == "b"
    assert "Pilot" not in payload["named_fields"]
    assert payload["fields"]["customfield_10019"] == "0|i000dz:"
    assert not {"comment", "worklog"} & payload["fields"].keys()
    assert "changelog" not in payload


def test_mapped_fields_fill_ours_by_name_or_id() -> None:
    mapping = {"severity": "harm", "environment": "customfield_10078", "labels": "Flagged", "stack_trace": "Rank"}

    found = issue("issue_cloud", mapping=mapping)

    assert (found.severity, found.environment) == (Severity.LOW, {"description": "a"})
    assert (found.labels, found.stack_trace) == (("Impediment",), "0|i000dz:")


@pytest.mark.parametrize("filled", ["customfield_10078", "customfield_10079"])
def test_of_fields_with_the_mapped_name_the_filled_one_counts(filled: str) -> None:
    ships = {"customfield_10078": None, "customfield_10079": None, filled: {"value": "Blocker"}}

    assert issue("issue_cloud", mapping={"severity": "Ship"}, **ships).severity is Severity.CRITICAL


TRACE = "TypeError: no berth\n    at moor (quay.js:10:5)\n    at main (quay.js:2:1)"


@pytest.mark.parametrize(
    "value",
    [
        TRACE,
        f"{{noformat}}\n{TRACE}\n{{noformat}}",
        f"Seen today:\n{{code:js}}\n{TRACE}\n{{code}}",
        {"type": "doc", "version": 1, "content": [{"type": "codeBlock", "content": [{"type": "text", "text": TRACE}]}]},
    ],
    ids=["plain", "noformat", "code", "document"],
)
def test_a_mapped_trace_comes_without_the_marks_of_code(value: Any) -> None:
    found = issue("issue_cloud", mapping={"stack_trace": "customfield_10077"}, customfield_10077=value)

    assert found.stack_trace == TRACE


def test_a_mapped_value_that_fits_nothing_is_left_out() -> None:
    found = issue("issue_cloud", mapping={"due_on": "Ship", "story_points": "customfield_10079"})

    assert (found.due_on, found.story_points) == (date(2026, 4, 2), None)


def test_a_mapping_to_an_unknown_field_is_refused() -> None:
    with pytest.raises(SourceError, match="'Keel'") as refused:
        parse_fields(load("fields"), {"severity": "Keel"})

    assert refused.value.trouble is Trouble.BAD_REQUEST


def test_fields_are_known_by_type_in_any_language() -> None:
    found = parse_fields(load("fields"), {})

    assert isinstance(found, Fields)
    assert (found.sprint, found.epic) == (["customfield_10020"], ["customfield_10014"])
    assert found.points == ["customfield_10016", "customfield_10031"]


def test_comments_with_mentions_restrictions_and_nothing_in_them() -> None:
    first, empty, restricted = (normalized(Stream.COMMENTS, each, OF_AN_ISSUE) for each in load("comments"))

    assert isinstance(first, Comment)
    assert (first.issue_id, first.issue_key, first.author, first.internal) == ("20417", "QUAY-88", "Inês Moura", False)
    assert "Rui 田中" in first.body
    assert first.url == f"{SITE}/browse/QUAY-88?focusedCommentId=30011"
    assert (empty.body, empty.internal) == ("", True)
    assert (restricted.author, restricted.internal, restricted.body) == (None, True, "Only for **pilots**")


def test_a_worklog_tells_when_the_work_was_done() -> None:
    found = normalized(Stream.WORKLOGS, load("worklog"), OF_AN_ISSUE)

    assert isinstance(found, Worklog)
    assert (found.seconds, found.author, found.comment) == (5_400, "Rui 田中", None)
    assert found.started_at == datetime(2026, 3, 19, 0, 0, tzinfo=UTC)


def test_changes_of_one_field_do_not_hide_each_other() -> None:
    several, in_milliseconds, empty = (normalized(Stream.HISTORY, each, OF_AN_ISSUE) for each in load("histories"))

    assert isinstance(several, HistoryEntry)
    assert several.changes["status"] == {"from": "作業中", "to": "完了"}
    assert several.changes["Link (2)"] == {"from": None, "to": "This issue blocks QUAY-4"}
    assert in_milliseconds.changed_at == datetime(2026, 3, 21, 2, 10, tzinfo=UTC)
    assert in_milliseconds.changes == {"assignee": {"from": "5d10aa", "to": None}}
    assert (empty.changes, empty.author) == ({}, None)


def test_sprints_with_and_without_dates() -> None:
    closed, future = (normalized(Stream.SPRINTS, each, {"board": "Tides"}) for each in load("sprints"))

    assert isinstance(closed, Sprint)
    assert (closed.state, closed.board, closed.goal) == ("closed", "Tides", "Dry feet")
    assert closed.completed_at == datetime(2016, 4, 28, 12, 8, 48, 543_000, tzinfo=UTC)
    assert (future.starts_at, future.goal) == (None, None)


def test_accounts_of_both_kinds_of_jira() -> None:
    person, app, of_server = (normalized(Stream.USERS, each, {}) for each in load("users"))

    assert isinstance(person, Person)
    assert (person.external_id, person.login, person.email) == ("712020:1c9e", None, None)
    assert (app.active, app.time_zone) == (False, "Asia/Tokyo")
    assert (of_server.external_id, of_server.login) == ("JIRAUSER10105", "lwei")


def test_a_project_in_our_words() -> None:
    found = normalized(Stream.PROJECTS, load("project"), {})

    assert (found.external_id, found.key, found.name) == ("10007", "QUAY", "Quay side")
    assert (found.owner, found.description) == ("Inês Moura", None)


@pytest.mark.parametrize(
    ("stream", "raw"),
    [
        (Stream.ISSUES, {"id": "", "key": "QUAY-1", "fields": {"summary": "x"}}),
        (Stream.ISSUES, {"id": "1", "key": "QUAY-1", "fields": {"summary": "x", "updated": "yesterday"}}),
        (Stream.ISSUES, {"id": "1", "key": "QUAY-1", "fields": {"summary": "x", "created": "2026-01-01T00:00:00"}}),
        (Stream.HISTORY, {"id": "1", "created": None, "items": []}),
    ],
    ids=["no id", "no time", "no zone", "a change without a time"],
)
def test_what_makes_no_sense_is_refused(stream: Stream, raw: dict[str, Any]) -> None:
    with pytest.raises((ValueError, ValidationError)):
        normalized(stream, raw, {})


def test_every_stream_has_a_record() -> None:
    assert all(issubclass(MODELS[stream], Record) for stream in JiraConnector.streams)
