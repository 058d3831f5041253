"""Sentry: its records in our words."""

from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from shared.connectors._protocol import Sent
from shared.connectors.sentry import PARTIAL_PAYLOAD_KEY
from shared.domain.issue import Severity, StatusCategory
from shared.domain.stream import Stream
from tests.support.sentry import connector_for, load, normalized


def test_a_listed_issue_with_its_latest_event_in_our_words() -> None:
    issue = normalized({**load("issue_listed"), PARTIAL_PAYLOAD_KEY: load("event_chained")})

    assert (issue.external_id, issue.key, issue.title) == (
        "88120045",
        "LEDGER-4F",
        "BookingError: total does not match",
    )
    assert (issue.description, issue.type, issue.project) == ("total does not match", "error", "ledger")
    assert (issue.status, issue.status_category, issue.resolution) == ("unresolved", StatusCategory.OPEN, None)
    assert (issue.severity, issue.priority, issue.assignee) == (Severity.CRITICAL, "medium", "Uma Gatti")
    assert (issue.labels, issue.components) == (("escalating", "unhandled"), ("python",))
    assert issue.source_created_at == datetime(2024, 6, 11, 5, 41, 9, 120000, UTC)
    assert issue.source_updated_at == datetime(2025, 3, 1, 7, 30, 12, tzinfo=UTC)
    assert issue.url == "https://tidewater.sentry.example/issues/88120045/"
    assert issue.payload["futureField"] == {"anything": [1, 2]}
    assert issue.payload["culprit"] == "ledger.post in book"
    assert issue.environment == {
        "environment": "production",
        "server_name": "quay-2",
        "os": "Linux 6.1",
        "runtime": "CPython 3.13.1",
        "device": "m7i",
        "release": "ledger@2025.3.1",
        "dist": "b7",
    }


def test_a_stack_trace_reads_like_python_with_the_root_cause_first() -> None:
    issue = normalized({**load("issue_listed"), PARTIAL_PAYLOAD_KEY: load("event_chained")})

    assert issue.stack_trace == (
        "Traceback (most recent call last):\n"
        '  File "ledger/rates.py", line 21, in rate  # in app\n'
        "    return TABLE[code]\n"
        "KeyError: 'EUR'\n\n"
        "The above exception was the direct cause of the following exception:\n\n"
        "Traceback (most recent call last):\n"
        "  [frames [2, 5] omitted]\n"
        '  File "wsgi/serve.py", line 300, in call\n'
        '  File "ledger.post", in ?  # in app\n'
        "BookingError: total does not match\n\n"
        "During handling of the above exception, another exception occurred:\n\n"
        "RetryError"
    )


def test_of_threads_the_crashed_one_is_told() -> None:
    issue = normalized({**load("issue_listed"), PARTIAL_PAYLOAD_KEY: load("event_threads")})

    assert issue.stack_trace == 'Traceback (most recent call last):\n  File "/usr/lib/libquay.so", in 0x1f3c'
    assert issue.environment == {"os": "Android 14"}


def test_unknown_entries_of_an_event_are_kept_and_break_nothing() -> None:
    event = load("event_unknown")

    issue = normalized({**load("issue_listed"), PARTIAL_PAYLOAD_KEY: event})

    assert issue.stack_trace is None
    assert issue.environment == {"server_name": "quay-9"}
    assert issue.payload[PARTIAL_PAYLOAD_KEY] == event


@pytest.mark.parametrize("event", [None, [], "odd", {}, {"entries": {}}, {"entries": None, "tags": {}, "contexts": []}])
def test_an_event_of_any_shape_leaves_the_issue_whole(event: object) -> None:
    issue = normalized({**load("issue_listed"), PARTIAL_PAYLOAD_KEY: event})

    assert (issue.stack_trace, issue.environment) == (None, None)


def test_a_single_issue_archived_and_given_to_a_team() -> None:
    issue = normalized(load("issue_single"))

    assert (issue.status, issue.status_category) == ("ignored", StatusCategory.DONE)
    assert issue.resolution == "archived_until_escalating"
    assert (issue.assignee, issue.type) == ("#bookkeeping", "performance_slow_db_query")
    # Lists know seconds only: the same issue must have the same time from both.
    assert issue.source_updated_at == datetime(2025, 2, 18, 6, 1, 20, tzinfo=UTC)


def test_a_regressed_issue_is_open_again_and_says_so() -> None:
    issue = normalized(load("issue_regressed"))

    assert (issue.status, issue.status_category) == ("unresolved", StatusCategory.OPEN)
    assert issue.labels == ("regressed",)
    assert issue.description == "From 310 ms to 905 ms (P95)"


def test_an_issue_without_anything_but_its_id() -> None:
    issue = normalized(load("issue_bare"))

    assert (issue.title, issue.status_category, issue.severity) == ("Untitled", StatusCategory.OPEN, None)
    assert (issue.key, issue.description, issue.source_updated_at, issue.labels) == (None, None, None, ())


@pytest.mark.parametrize(
    ("title", "kept"),
    [
        ("خطأ في الدفع 💥", "خطأ في الدفع 💥"),
        ("x" * 9_000, "x" * 4_000),
        ("<script>alert(1)</script>", "<script>alert(1)</script>"),
    ],
    ids=["right to left", "long", "markup"],
)
def test_odd_titles_survive(title: str, kept: str) -> None:
    assert normalized({**load("issue_listed"), "title": title}).title == kept


@pytest.mark.parametrize(
    ("status", "details", "category", "resolution"),
    [
        ("unresolved", {}, StatusCategory.OPEN, None),
        ("resolved", {}, StatusCategory.DONE, None),
        ("resolved", {"inRelease": "ledger@2"}, StatusCategory.DONE, "in release ledger@2"),
        ("resolved", {"inNextRelease": True}, StatusCategory.DONE, "in the next release"),
        ("resolved", {"inCommit": {"id": "c0ffee"}}, StatusCategory.DONE, "in commit c0ffee"),
        ("resolvedInNextRelease", {}, StatusCategory.DONE, None),
        ("ignored", {}, StatusCategory.DONE, "escalating"),
        ("archived", {}, StatusCategory.DONE, "escalating"),
        ("adrift", {}, StatusCategory.OPEN, None),
    ],
)
def test_status(status: str, details: dict[str, Any], category: StatusCategory, resolution: str | None) -> None:
    issue = normalized({**load("issue_listed"), "status": status, "statusDetails": details})

    assert (issue.status, issue.status_category, issue.resolution) == (status, category, resolution)


@pytest.mark.parametrize(
    ("level", "priority", "severity"),
    [
        ("fatal", "low", Severity.CRITICAL),
        ("error", None, Severity.HIGH),
        ("warning", "high", Severity.MEDIUM),
        ("info", "high", Severity.LOW),
        ("debug", None, Severity.LOW),
        ("sample", "high", Severity.HIGH),
        (None, "medium", Severity.MEDIUM),
        (None, None, None),
    ],
)
def test_severity(level: str | None, priority: str | None, severity: Severity | None) -> None:
    assert normalized({**load("issue_listed"), "level": level, "priority": priority}).severity is severity


@pytest.mark.parametrize(
    ("assigned", "assignee"),
    [
        (None, None),
        ("", None),
        ("wim", "wim"),
        ({"type": "user", "name": "", "email": "wim@tidewater.example"}, "wim@tidewater.example"),
        ({"type": "team", "name": "crew"}, "#crew"),
        ({"type": "team"}, None),
    ],
)
def test_assignee(assigned: object, assignee: str | None) -> None:
    assert normalized({**load("issue_listed"), "assignedTo": assigned}).assignee == assignee


@pytest.mark.parametrize(
    "change",
    [{"id": ""}, {"firstSeen": "2025-01-01T00:00:00", "lifetime": None}, {"lastSeen": "soon", "lifetime": None}],
)
def test_a_record_that_makes_no_sense_is_rejected(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        normalized({**load("issue_listed"), **change})


async def test_notes_members_and_projects_in_our_words() -> None:
    async with httpx.AsyncClient() as client:
        normalize = connector_for(client, "https://sentry.io").normalize
        context = {"issue_id": "88120045", "issue_key": "LEDGER-4F"}
        note: Any = normalize(Sent(Stream.COMMENTS, load("note"), "4507", context))
        people: list[Any] = [normalize(Sent(Stream.USERS, raw, "*")) for raw in load("members")]
        project: Any = normalize(Sent(Stream.PROJECTS, load("project"), "*"))
        app: Any = normalize(Sent(Stream.COMMENTS, {"id": 1, "user": None, "sentry_app": {"name": "Pilot"}}, "4507"))

    assert (note.issue_id, note.issue_key, note.author) == ("88120045", "LEDGER-4F", "Uma Gatti")
    assert note.body.endswith("@wim please look")
    assert (app.author, app.body, app.source_created_at) == ("Pilot", "", None)
    assert [(each.external_id, each.login, each.active, each.time_zone) for each in people] == [
        ("31", "uma", True, "Europe/Rome"),
        ("member-5002", None, None, None),
    ]
    assert (project.external_id, project.key, project.owner) == ("4507", "ledger", "bookkeeping")
