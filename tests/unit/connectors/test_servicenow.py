"""ServiceNow without an instance: rows in our words, settings, and the arithmetic of walks and times."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from local.trackers._servicenow_tables import sys_id
from shared.connectors._protocol import Sent
from shared.connectors._servicenow_query import Place, next_place, ranges, to_literal
from shared.connectors.servicenow import ServiceNowConnector
from shared.domain.issue import Severity, StatusCategory
from shared.domain.markdown import html_to_markdown
from shared.domain.stream import Comment, Issue, Person, Stream

_FIXTURES = Path(__file__).parents[2] / "fixtures" / "servicenow"
Settings, Credentials = ServiceNowConnector.Settings, ServiceNowConnector.Credentials


def rows(name: str) -> list[dict[str, Any]]:
    return json.loads((_FIXTURES / name).read_text())["result"]


def normalized(stream: Stream, raw: dict[str, Any], scope: str = "incident", **values: Any) -> Any:
    credentials = Credentials(username="reader", password="secret")
    connector = ServiceNowConnector(httpx.AsyncClient(), "https://tidewater.example", Settings(**values), credentials)
    return connector.normalize(Sent(stream, raw, scope))


# Rows in our words


def test_incident_comes_with_its_labels() -> None:
    issue = normalized(Stream.ISSUES, rows("tasks_all.json")[0])

    assert issue == Issue(
        external_id="3c1f0a9e77d24b5e8a6f10b2c4d5e6f7",
        key="INC0041877",
        title="Label printer in dock 4 prints blank pages",
        description="Since the restart this morning.\n\nQueue shows no error.",
        type="Incident",
        status="Closed",
        status_category=StatusCategory.DONE,
        priority="1 - Critical",
        severity=Severity.CRITICAL,
        assignee="Iva Brandt",
        reporter="Noor Aldana",
        labels=("dock", "printer"),
        components=("Shipping, outbound",),
        parent="INC0041502",
        environment={"cmdb_ci": "prn-dock-04", "company": "Tidewater Freight"},
        url="https://tidewater.example/incident.do?sys_id=3c1f0a9e77d24b5e8a6f10b2c4d5e6f7",
        due_on=datetime(2025, 2, 11, tzinfo=UTC).date(),
        resolution="Solved (Permanently)",
        source_created_at=datetime(2025, 2, 10, 7, 12, 45, tzinfo=UTC),
        source_updated_at=datetime(2025, 2, 17, 17, tzinfo=UTC),
        resolved_at=datetime(2025, 2, 10, 16, 40, 2, tzinfo=UTC),
        payload=issue.payload,
    )


def test_labels_in_another_language_are_read_by_number() -> None:
    issue = normalized(Stream.ISSUES, rows("tasks_all.json")[1], "problem")

    assert (issue.status, issue.status_category) == ("Korrektur läuft", StatusCategory.IN_PROGRESS)
    assert (issue.priority, issue.severity) == ("2 - Hoch", Severity.HIGH)
    assert (issue.assignee, issue.reporter, issue.description) == (None, "Noor Aldana", None)


def test_sparse_row_is_still_an_issue() -> None:
    issue = normalized(Stream.ISSUES, rows("tasks_all.json")[2])

    assert (issue.title, issue.status_category, issue.severity) == ("INC0000001", StatusCategory.OPEN, None)
    assert (issue.source_created_at, issue.environment, issue.assignee) == (None, None, None)
    assert issue.payload["u_kind"]["value"] == "?"


@pytest.mark.parametrize(
    ("state", "active", "category"),
    [
        (("7", "Closed"), "false", StatusCategory.DONE),
        (("3", "On Hold"), "true", StatusCategory.IN_PROGRESS),
        (("8", "Abgebrochen"), "false", StatusCategory.DONE),
        (("2", "読込中"), "true", StatusCategory.IN_PROGRESS),
        (("99", "Parked"), "true", StatusCategory.OPEN),
        (("99", "Parked"), "false", StatusCategory.DONE),
        (("", ""), "", StatusCategory.OPEN),
    ],
)
def test_state_is_folded(state: tuple[str, str], active: str, category: StatusCategory) -> None:
    row = rows("tasks_all.json")[0]
    row |= {
        "state": {"value": state[0], "display_value": state[1]},
        "active": {"value": active, "display_value": active},
    }

    issue = normalized(Stream.ISSUES, row)

    assert issue.status_category is category
    assert (issue.resolved_at is not None) == (category is StatusCategory.DONE)


def test_mapped_fields_stand_before_the_usual_ones() -> None:
    row = rows("tasks_all.json")[0] | {"u_sev": {"value": "m", "display_value": "Medium"}}

    issue = normalized(Stream.ISSUES, row, fields={"severity": "u_sev", "project": "assignment_group"})

    assert (issue.severity, issue.project) == (Severity.MEDIUM, "Warehouse Support")


@pytest.mark.parametrize(
    ("value", "label", "points"),
    [("3", "3", 3.0), ("1234.5", "1.234,5", 1_234.5), ("large", "Large", None), ("NaN", "NaN", None), ("", "", None)],
)
def test_story_points_are_read_as_stored_and_left_out_where_they_are_none(
    value: str, label: str, points: float | None
) -> None:
    row = rows("tasks_all.json")[0] | {"u_size": {"value": value, "display_value": label}}

    assert normalized(Stream.ISSUES, row, fields={"story_points": "u_size"}).story_points == points


def test_a_mapped_due_date_may_be_a_day_or_no_date_at_all() -> None:
    row = rows("tasks_all.json")[0] | {"u_day": {"value": "2025-03-01", "display_value": "01.03.2025"}}

    day = normalized(Stream.ISSUES, row, fields={"due_on": "u_day"})
    none = normalized(Stream.ISSUES, row, fields={"due_on": "state"})

    assert (day.due_on, none.due_on) == (datetime(2025, 3, 1, tzinfo=UTC).date(), None)


@pytest.mark.parametrize(
    ("field", "value"), [("sys_updated_on", "yesterday"), ("sys_id", ""), ("sys_created_on", "2025-13-01 00:00:00")]
)
def test_senseless_row_is_rejected(field: str, value: str) -> None:
    row = rows("tasks_all.json")[0] | {field: {"value": value, "display_value": value}}

    with pytest.raises(ValueError):
        normalized(Stream.ISSUES, row)


def test_odd_characters_survive() -> None:
    row = rows("tasks_all.json")[0]
    row["short_description"] = {"value": "=1+1 \u202e😀", "display_value": "=1+1 \u202e😀"}

    assert normalized(Stream.ISSUES, row).title == "=1+1 \u202e😀"


def test_journal_entries_become_comments() -> None:
    comments: list[Comment] = [normalized(Stream.COMMENTS, row) for row in rows("journal.json")]

    assert [each.internal for each in comments] == [False, True, False, False]
    assert [each.body for each in comments] == [
        "Prints again.\nThank you.",
        f"See {html_to_markdown('<p>the <b>ribbon</b> log</p>')} first",
        html_to_markdown("<p>Is it <b>really</b> blank?</p>"),
        "Map<String> a < b && c > d",
    ]
    assert {each.issue_id for each in comments} == {"3c1f0a9e77d24b5e8a6f10b2c4d5e6f7"}
    assert (comments[0].author, comments[3].author) == ("iva.brandt", None)
    assert comments[0].source_updated_at == datetime(2025, 2, 10, 16, 41, 11, tzinfo=UTC)


def test_users_become_people() -> None:
    people: list[Person] = [normalized(Stream.USERS, row, "*") for row in rows("users.json")]

    assert (people[0].name, people[0].login, people[0].active) == ("Iva Brandt", "iva.brandt", True)
    assert (people[1].name, people[1].email, people[1].active) == (None, None, False)


# Settings


@pytest.mark.parametrize(
    "values",
    [
        {"tables": ("incident", "task")},
        {"tables": ("incident", "incident")},
        {"tables": ()},
        {"tables": ("incident?x=1",)},
        {"query": "active=true^NQpriority=1"},
        {"query": "active=true^ORDERBYnumber"},
        {"query": "ORactive=true"},
        {"query": "active is true"},
        {"query": "GOTO123TEXTQUERY321=printer"},
        {"fields": {"colour": "u_colour"}},
        {"fields": {"severity": "Severity of ours"}},
        {"fields": {"project": "assignment_group.name"}},
        {"time_zone": "Mars/Olympus"},
    ],
)
def test_settings_that_would_read_wrongly_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Settings(**values)


def test_filter_may_be_copied_from_a_list() -> None:
    query = "^active=true^priorityIN1,2^ORurgency=1^short_descriptionLIKEa^^b^assigned_toISEMPTY^EQ"

    assert Settings(query=query).query == query.strip("^").removesuffix("^EQ")


@pytest.mark.parametrize(
    "values", [{}, {"username": "a"}, {"client_id": "a"}, {"username": "a", "password": "b", "client_id": "c"}]
)
def test_half_of_a_pair_of_credentials_is_refused(values: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        Credentials(**values)


@pytest.mark.parametrize(("streams", "about"), [((), 12), ((Stream.ISSUES,), 8)])
def test_estimate_follows_the_streams(streams: tuple[Stream, ...], about: Callable[[int], int] | int) -> None:
    credentials = Credentials(username="reader", password="secret")
    connector = ServiceNowConnector(
        httpx.AsyncClient(), "https://tidewater.example", Settings(streams=streams), credentials
    )

    assert connector.estimate_calls(1_000) == about


# Queries


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_any_pattern_of_hidden_rows_is_walked_to_its_end(data: st.DataObject) -> None:
    count, limit = data.draw(st.integers(0, 120)), data.draw(st.integers(1, 25))
    clustered = data.draw(st.booleans())
    ids = sorted(f"{'3' * 20}{n:012x}" if clustered else sys_id("row", n) for n in range(count))
    hidden = set(data.draw(st.lists(st.sampled_from(ids), max_size=count))) if ids else set()
    part = data.draw(st.sampled_from(ranges(4)))
    wanted = {i for i in ids if part.get("from", "") <= i < part.get("below", "g")}

    seen: set[str] = set()
    place: Place | None = Place(limit=limit)
    steps = 0
    while place:
        low = place.after or part.get("from", "")
        left = [i for i in wanted if (i > place.after if place.after else i >= low) and i <= (place.to or "g")]
        shown = [i for i in sorted(left)[:limit] if i not in hidden]
        seen.update(shown)
        place = next_place(place, part, shown, len(left))
        steps += 1
        # Ids have 128 bits: to narrow a range down to one row, or to widen it again, takes some hundred steps at worst.
        assert steps < 5 * count + 600

    assert seen == wanted - hidden


_ZONES = ("America/Los_Angeles", "Asia/Tokyo", "Australia/Lord_Howe", "America/St_Johns", "Antarctica/Troll", "UTC")


@given(
    moment=st.datetimes(datetime(2015, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    zone=st.sampled_from([*_ZONES, "Europe/London", "Pacific/Kiritimati", "Africa/Casablanca"]),
    fold=st.sampled_from([0, 1]),
    known=st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_literal_is_never_read_as_later(moment: datetime, zone: str, fold: int, known: bool) -> None:
    literal = to_literal(moment, ZoneInfo(zone) if known else None)

    read = datetime.fromisoformat(literal).replace(tzinfo=ZoneInfo(zone), fold=fold).astimezone(UTC)
    assert read <= moment
    assert moment - read < (timedelta(hours=5) if known else timedelta(hours=28))
