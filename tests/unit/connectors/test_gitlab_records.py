"""GitLab's records in our words. Fixtures are shaped like what servers of several ages send."""

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from shared.connectors._protocol import Sent
from shared.connectors.gitlab import GitLabConnector, GitLabCredentials, GitLabSettings
from shared.domain.issue import Severity, StatusCategory
from shared.domain.stream import Comment, HistoryEntry, Issue, Person, Project, PullRequest, Sprint, Stream, Worklog

FIXTURES = Path(__file__).parents[2] / "fixtures" / "gitlab"


def load(name: str, **changed: Any) -> dict[str, Any]:
    return {**json.loads((FIXTURES / f"{name}.json").read_text()), **changed}


def normalized(stream: Stream, raw: dict[str, Any], **context: Any) -> Any:
    made = GitLabConnector(
        httpx.AsyncClient(), "https://gitlab.example", GitLabSettings(), GitLabCredentials(token="glpat-valid")
    )
    return made.normalize(Sent(stream, raw, "5120", context))


def test_an_issue_in_our_words() -> None:
    issue = normalized(Stream.ISSUES, load("issue"))

    assert isinstance(issue, Issue)
    assert (issue.external_id, issue.key, issue.project) == (
        "84213077",
        "tidewater/quay/harbor#412",
        "tidewater/quay/harbor",
    )
    assert (issue.status, issue.status_category) == ("in review", StatusCategory.IN_PROGRESS)
    assert (issue.priority, issue.severity) == ("high", Severity.HIGH)
    assert (issue.assignee, issue.reporter) == ("Rae Ellison", None)
    assert (issue.sprint, issue.sprint_ids, issue.parent) == ("Spring tide", ("991",), "55")
    assert (issue.due_on, issue.story_points, issue.estimate_seconds) == (date(2025, 3, 20), 3, 7_200)
    assert issue.stack_trace is not None
    assert "SlipError" in issue.stack_trace
    assert issue.source_updated_at == datetime(2025, 3, 2, 17, 45, 0, 120_000, tzinfo=UTC)
    assert issue.payload == load("issue")


def test_an_issue_of_an_iteration_that_was_closed_as_a_duplicate() -> None:
    issue = normalized(Stream.ISSUES, load("issue_with_iteration"))

    assert (issue.sprint, issue.sprint_ids) == ("2025-05-05 - 2025-05-18", ("iteration-6021", "6021"))
    assert (issue.parent, issue.resolution) == ("tidewater/quay&5", "duplicate")
    assert (issue.priority, issue.severity, issue.estimate_seconds) == ("3-Other", "medium", None)
    assert issue.environment == {"Terminal": "4", "Firmware": "2.11"}
    assert issue.labels == ("Priority::3-Other", "team::R&D")


def test_an_issue_is_not_changed_by_what_it_belongs_to() -> None:
    before = load("issue_with_iteration")
    after = {
        **before,
        "milestone": {**before["milestone"], "expired": True, "updated_at": "2025-07-01T00:00:00.000Z"},
        "iteration": {**before["iteration"], "state": 3, "updated_at": "2025-05-19T00:05:00.000Z"},
        "epic": {**before["epic"], "human_readable_timestamp": "<strong>Past due</strong>"},
    }

    assert normalized(Stream.ISSUES, after) == normalized(Stream.ISSUES, before)
    assert normalized(Stream.ISSUES, {**before, "milestone": None}) != normalized(Stream.ISSUES, before)


def test_an_issue_of_an_old_server_that_was_moved() -> None:
    issue = normalized(Stream.ISSUES, load("issue_old"))

    assert (issue.key, issue.project) == ("tidewater/buoys#18", "tidewater/buoys")
    assert (issue.status_category, issue.resolution) == (StatusCategory.DONE, "moved")
    assert (issue.assignee, issue.reporter, issue.description) == ("Iva Brandt", "Ghost User", None)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({"labels": [], "state": "closed"}, ("closed", StatusCategory.DONE), id="closed"),
        pytest.param({"labels": []}, ("opened", StatusCategory.OPEN), id="open"),
        pytest.param(
            {"labels": ["status::done"]}, ("done", StatusCategory.IN_PROGRESS), id="open with a label that says done"
        ),
        pytest.param(
            {"labels": [{"name": "workflow::blocked"}]},
            ("blocked", StatusCategory.IN_PROGRESS),
            id="label with details",
        ),
    ],
)
def test_the_status_of_an_issue(changes: dict[str, Any], expected: tuple[str, StatusCategory]) -> None:
    issue = normalized(Stream.ISSUES, load("issue", **changes))

    assert (issue.status, issue.status_category) == expected


@pytest.mark.parametrize(
    "field",
    [
        *("milestone", "time_stats", "epic", "description", "weight", "labels", "assignees", "iteration", "references"),
        *("severity", "issue_type", "_links", "author", "due_date", "closed_at"),
    ],
)
def test_what_is_null_breaks_nothing(field: str) -> None:
    changes = {field: None, **({"assignee": None} if field == "assignees" else {})}

    assert normalized(Stream.ISSUES, load("issue", **changes)).key == "tidewater/quay/harbor#412"


@pytest.mark.parametrize("broken", [{"title": None}, {"title": ""}, {"updated_at": "yesterday"}, {"labels": 7}])
def test_what_makes_no_sense_is_refused(broken: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        normalized(Stream.ISSUES, load("issue", **broken))


def test_people_write_comments_and_gitlab_writes_history() -> None:
    comment = normalized(Stream.COMMENTS, load("note_diff"), issue_id="9")
    change = normalized(Stream.HISTORY, load("note_system"), issue_id="9")

    assert isinstance(comment, Comment)
    assert (comment.issue_id, comment.internal, comment.author) == ("9", True, None)
    assert comment.body == "Same on pier 9.\n\n> as before"
    assert comment.source_updated_at == datetime(2025, 3, 2, 17, 50, tzinfo=UTC)
    assert isinstance(change, HistoryEntry)
    assert change.changes == {"note": {"from": None, "to": "changed the description"}}
    assert (change.author, change.changed_at) == ("Iva Brandt", datetime(2025, 3, 2, 17, 44, 0, 415_000, tzinfo=UTC))


def test_a_merge_request_in_our_words() -> None:
    merged = normalized(Stream.PULL_REQUESTS, load("merge_request"))

    assert isinstance(merged, PullRequest)
    assert (merged.key, merged.project) == ("tidewater/quay/harbor!44", "tidewater/quay/harbor")
    assert (merged.state, merged.draft, merged.author) == ("merged", True, "Iva Brandt")
    assert (merged.source_branch, merged.target_branch) == ("count-lines", "main")
    assert merged.merged_at == datetime(2025, 3, 3, 11, 0, 0, 920_000, tzinfo=UTC)


def test_a_merge_request_of_an_old_server() -> None:
    old = normalized(Stream.PULL_REQUESTS, load("merge_request_old"))

    assert (old.key, old.project) == ("tidewater/buoys!102", "tidewater/buoys")
    assert (old.state, old.draft, old.author) == ("open", True, None)


def test_an_entry_of_time_spent_tells_who_when_and_why() -> None:
    entry = normalized(Stream.WORKLOGS, load("timelog"), issue_id="84213077", issue_key="tidewater/quay/harbor#412")

    assert isinstance(entry, Worklog)
    assert (entry.external_id, entry.issue_id, entry.seconds) == ("9021", "84213077", -900)
    assert (entry.author, entry.comment) == ("Rae Ellison", "/spend -15m 2025-03-01")
    assert entry.started_at == datetime(2025, 3, 1, 12, tzinfo=UTC)
    assert (
        normalized(Stream.WORKLOGS, load("timelog", user=None, note=None), issue_id="1", issue_key="k").author is None
    )


def test_time_spent_without_entries_is_one_worklog() -> None:
    worklog = normalized(Stream.WORKLOGS, load("issue"))

    assert isinstance(worklog, Worklog)
    assert (worklog.external_id, worklog.issue_id, worklog.seconds) == ("84213077-total", "84213077", 5_400)
    assert set(worklog.payload) == {"id", "time_stats"}


def test_a_milestone_and_an_iteration_of_one_number_are_two_sprints() -> None:
    milestone = normalized(Stream.SPRINTS, load("milestone"))
    iteration = normalized(Stream.SPRINTS, load("iteration"), iteration=True)

    assert isinstance(milestone, Sprint)
    assert isinstance(iteration, Sprint)
    assert (milestone.external_id, iteration.external_id) == ("6021", "iteration-6021")
    assert (milestone.starts_at, milestone.ends_at) == (None, datetime(2025, 6, 30, tzinfo=UTC))
    assert (iteration.starts_at, iteration.ends_at) == (
        datetime(2025, 5, 5, tzinfo=UTC),
        datetime(2025, 5, 18, tzinfo=UTC),
    )
    assert normalized(Stream.SPRINTS, load("iteration", title="Ebb"), iteration=True).name == "Ebb"


@pytest.mark.parametrize(("state", "named"), [(1, "future"), (2, "active"), (3, "closed"), (9, "9"), (None, None)])
def test_states_of_iterations_are_numbers(state: int | None, named: str | None) -> None:
    assert normalized(Stream.SPRINTS, load("iteration", state=state), iteration=True).state == named


def test_a_member_is_the_same_person_in_every_project() -> None:
    here = normalized(Stream.USERS, load("member"))
    there = normalized(
        Stream.USERS, load("member", access_level=20, expires_at=None, created_at="2025-01-01T00:00:00.000Z")
    )

    assert isinstance(here, Person)
    assert (here.login, here.name, here.active) == ("rae", "Rae Ellison", False)
    assert here == there, "else every sync of a second project would be a change"


def test_a_project_keeps_no_secret_and_is_not_changed_by_visits() -> None:
    project = normalized(Stream.PROJECTS, load("project"))

    assert isinstance(project, Project)
    assert (project.key, project.owner, project.description) == ("tidewater/quay/harbor", "tidewater/quay", None)
    assert "GR1348941xyz" not in json.dumps(project.payload)
    assert project == normalized(Stream.PROJECTS, load("project", last_activity_at="2026-01-01T00:00:00.000Z"))
