"""GitHub's records in our words, and what its settings and credentials may be."""

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from pydantic import ValidationError

from shared.connectors import connectors
from shared.connectors._github_records import parse_expiry, summarize_tree
from shared.connectors._protocol import Sent
from shared.connectors.github import GitHubConnector, GitHubCredentials, GitHubSettings
from shared.domain.issue import Severity, StatusCategory
from shared.domain.stream import Branch, Comment, Commit, Issue, Person, Project, PullRequest, Release, Stream

FIXTURES = Path("tests/fixtures/github")
ENTERPRISE = "https://code.brightwater.example/api/v3/repos/brightwater/lantern"


def fixture(name: str, **changed: Any) -> dict[str, Any]:
    return {**orjson.loads((FIXTURES / f"{name}.json").read_bytes()), **changed}


def normalized(stream: Stream, raw: dict[str, Any], **settings: object) -> Any:
    connector = GitHubConnector(
        httpx.AsyncClient(),
        "https://api.github.com",
        GitHubSettings(**settings),  # type: ignore[arg-type]
        GitHubCredentials(token="t"),  # type: ignore[arg-type]
    )
    return connector.normalize(Sent(stream, raw, "660001"))


class TestRecords:
    def test_stack_trace_and_environment_of_a_bug_report(self) -> None:
        body = "Fails.\n\n### Environment\n\n- OS: Windows 11\n\n### Log\n\n```\nCaused by: quay.SlipError\n```\n"

        issue: Issue = normalized(Stream.ISSUES, fixture("issue", body=body.replace("\n", "\r\n")))

        assert (issue.environment, issue.stack_trace) == ({"OS": "Windows 11"}, "Caused by: quay.SlipError")

    def test_issue(self) -> None:
        raw = fixture("issue")

        issue: Issue = normalized(Stream.ISSUES, raw)

        assert issue.model_dump(exclude={"payload", "description"}, exclude_defaults=True) == {
            "external_id": "2884410042",
            "source_created_at": datetime(2026, 2, 11, 23, 59, 58, tzinfo=UTC),
            "source_updated_at": datetime(2026, 2, 12, 0, 0, 3, tzinfo=UTC),
            "key": "brightwater/lantern#41",
            "title": "Überweisung 🧾 fails at midnight",
            "type": "Bug",
            "status": "in review",
            "status_category": StatusCategory.IN_PROGRESS,
            "priority": "high",
            "severity": Severity.HIGH,
            "assignee": "dorian-k",
            "reporter": "mirelle-o",
            "labels": ("priority: high", "status: in review", "needs-repro"),
            "project": "brightwater/lantern",
            "parent": "brightwater/roadmap#7",
            "sprint": "Autumn round",
            "url": "https://github.com/brightwater/lantern/issues/41",
        }
        assert {**issue.payload, "milestone": raw["milestone"]} == raw

    def test_issue_of_a_deleted_account_with_nothing_in_it(self) -> None:
        issue: Issue = normalized(Stream.ISSUES, fixture("issue_sparse"))

        assert (issue.reporter, issue.assignee, issue.description, issue.labels) == (None, None, None, ())
        assert (issue.status, issue.status_category, issue.resolution) == ("closed", StatusCategory.DONE, "not_planned")
        assert issue.resolved_at == datetime(2017, 5, 2, 10, tzinfo=UTC)

    @pytest.mark.parametrize(
        ("state", "labels", "status", "category"),
        [
            ("open", [], "open", StatusCategory.OPEN),
            ("open", ["status: blocked"], "blocked", StatusCategory.IN_PROGRESS),
            ("open", ["Status/In Progress"], "In Progress", StatusCategory.IN_PROGRESS),
            ("open", ["status: done"], "done", StatusCategory.OPEN),
            ("open", ["status: pondering"], "pondering", StatusCategory.OPEN),
            ("open", ["status:"], "open", StatusCategory.OPEN),
            ("closed", ["status: in progress"], "closed", StatusCategory.DONE),
        ],
    )
    def test_status_comes_from_a_label_while_the_issue_is_open(
        self, state: str, labels: list[str], status: str, category: StatusCategory
    ) -> None:
        issue = normalized(Stream.ISSUES, fixture("issue", state=state, labels=labels))

        assert (issue.status, issue.status_category) == (status, category)

    def test_labels_mean_what_the_settings_say(self) -> None:
        raw = fixture("issue", type=None, labels=[{"name": "P/urgent"}, {"name": "is:chore"}, {"name": None}])

        issue = normalized(Stream.ISSUES, raw, priority_labels=["p/"], type_labels=["is:"])

        assert (issue.priority, issue.severity, issue.type) == ("urgent", Severity.CRITICAL, "chore")
        assert issue.labels == ("P/urgent", "is:chore")

    @pytest.mark.parametrize(
        "changed",
        [{"title": ""}, {"title": None}, {"id": "x" * 600}, {"created_at": "2026-02-11T23:59:58"}, {"labels": 7}],
        ids=str,
    )
    def test_issue_that_makes_no_sense_is_a_value_error(self, changed: dict[str, Any]) -> None:
        with pytest.raises(ValueError):
            normalized(Stream.ISSUES, fixture("issue", **changed))

    @pytest.mark.parametrize("stream", sorted(set(GitHubConnector.streams) - {Stream.ISSUES}))
    def test_record_without_its_fields_is_a_value_error(self, stream: Stream) -> None:
        with pytest.raises(ValueError):
            normalized(stream, {})

    def test_comment_knows_its_issue_by_the_address_alone(self) -> None:
        comment: Comment = normalized(Stream.COMMENTS, fixture("comment"))
        elsewhere: Comment = normalized(
            Stream.COMMENTS, fixture("comment", issue_url=f"{ENTERPRISE}/issues/5", user=None, body=None)
        )

        assert (comment.issue_key, comment.issue_id) == ("brightwater/lantern#41", None)
        assert (comment.author, comment.body) == ("patchwork[bot]", "Seen **twice** today.")
        assert (elsewhere.issue_key, elsewhere.author, elsewhere.body) == ("brightwater/lantern#5", None, "")

    def test_pull_request_is_not_changed_by_pushes_and_stars(self) -> None:
        raw = fixture("pull_request")
        busy = {**raw["base"]["repo"], "pushed_at": "2026-02-12T00:00:00Z", "stargazers_count": 7, "open_issues": 3}
        secret = {"temp_clone_token": "t0ken"}

        before = normalized(Stream.PULL_REQUESTS, raw)
        after = normalized(Stream.PULL_REQUESTS, fixture("pull_request", base={**raw["base"], "repo": busy | secret}))

        assert after == before
        assert before.payload["base"]["repo"]["full_name"] == "brightwater/lantern"

    def test_issue_is_not_changed_by_others_of_its_milestone(self) -> None:
        raw = fixture("issue")
        moved = {**raw["milestone"], "open_issues": 90, "closed_issues": 9, "updated_at": "2026-03-01T00:00:00Z"}

        after = normalized(Stream.ISSUES, fixture("issue", milestone=moved))

        assert after == normalized(Stream.ISSUES, raw)
        assert after.payload["milestone"]["title"] == "Autumn round"

    def test_pull_request_from_a_fork_that_is_gone(self) -> None:
        pull: PullRequest = normalized(Stream.PULL_REQUESTS, fixture("pull_request"))

        assert (pull.external_id, pull.key, pull.state) == ("1500600", "brightwater/lantern#40", "merged")
        assert (pull.source_branch, pull.target_branch, pull.labels) == ("midnight", "trunk", ("ledger",))
        assert (pull.description, pull.merged_at) == (None, datetime(2026, 2, 11, 9, tzinfo=UTC))

    @pytest.mark.parametrize(("state", "expected"), [("open", "open"), ("closed", "closed")])
    def test_pull_request_that_was_not_merged(self, state: str, expected: str) -> None:
        pull = normalized(Stream.PULL_REQUESTS, fixture("pull_request", state=state, merged_at=None, draft=True))

        assert (pull.state, pull.draft) == (expected, True)

    def test_commit_of_somebody_without_an_account(self) -> None:
        commit: Commit = normalized(Stream.COMMITS, fixture("commit"))

        assert (commit.external_id, commit.project) == (f"660001:{'d' * 40}", "brightwater/lantern")
        assert (commit.author, commit.author_email) == ("Mirelle Okafor", "mirelle@brightwater.example")
        assert commit.committed_at is not None
        assert commit.committed_at.date() == date(2026, 2, 9)

    def test_other_records(self) -> None:
        release: Release = normalized(Stream.RELEASES, fixture("release"))
        branch: Branch = normalized(Stream.BRANCHES, fixture("branch"))
        person: Person = normalized(Stream.USERS, fixture("user"))
        project: Project = normalized(Stream.PROJECTS, fixture("repository"))

        assert (release.tag, release.name, release.draft, release.published_at) == ("v3.1", None, True, None)
        assert (branch.external_id, branch.protected, branch.default) == ("660001:fix/ä-rounding", True, False)
        assert (person.external_id, person.login, person.active) == ("502", "dorian-k", None)
        assert (project.name, project.key, project.owner) == ("lantern", "brightwater/lantern", "brightwater")
        assert project.source_updated_at == datetime(2026, 2, 12, 7, tzinfo=UTC)

    def test_tree_is_summarized(self) -> None:
        assert summarize_tree(fixture("tree")) == {
            "top_level": ["LICENSE", "README.md", "src/"],
            "files": 4,
            "directories": 1,
            "extensions": {".py": 2, ".md": 1, "(none)": 1},
            "truncated": True,
        }

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("2027-01-31 12:00:00 UTC", datetime(2027, 1, 31, 12, tzinfo=UTC)),
            ("2027-01-31 14:00:00 +0200", datetime(2027, 1, 31, 12, tzinfo=UTC)),
            ("some day", None),
            (None, None),
        ],
    )
    def test_expiry_of_a_token(self, text: str | None, expected: datetime | None) -> None:
        assert parse_expiry(text) == expected


class TestSettings:
    def test_source_is_found(self) -> None:
        assert connectors()["github"] is GitHubConnector

    @pytest.mark.parametrize(
        "given",
        ["tidewater/harbor", " https://github.com/tidewater/harbor/ ", "https://github.com/tidewater/harbor.git"],
    )
    def test_repository_may_be_pasted_as_an_address(self, given: str) -> None:
        assert GitHubSettings(repositories=(given,)).repositories == ("tidewater/harbor",)

    @pytest.mark.parametrize("given", ["harbor", "tidewater/harbor/issues", "tidewater/*", ""])
    def test_repository_needs_owner_and_name(self, given: str) -> None:
        with pytest.raises(ValidationError):
            GitHubSettings(repositories=(given,))

    @pytest.mark.parametrize(
        "given",
        [
            {},
            {"app_id": "1", "installation_id": 2},
            {"token": "t", "app_id": "1", "installation_id": 2, "private_key": "k"},
            {"token": "t", "app_id": "1"},
        ],
        ids=["nothing", "half an App", "both", "token and half an App"],
    )
    def test_credentials_are_a_token_or_a_whole_app(self, given: dict[str, Any]) -> None:
        with pytest.raises(ValidationError):
            GitHubCredentials(**given)

    def test_secrets_are_not_shown(self) -> None:
        shown = repr(GitHubCredentials(app_id=12, installation_id=3, private_key="SECRET"))  # type: ignore[arg-type]

        assert "SECRET" not in shown

    @pytest.mark.parametrize("given", ["https://github.com", "http://www.github.com/", "https://api.github.com"])
    def test_address_of_the_site_means_its_api(self, given: str) -> None:
        connector = GitHubConnector(
            httpx.AsyncClient(),
            given,
            GitHubSettings(),
            GitHubCredentials(token="t"),  # type: ignore[arg-type]
        )

        assert str(connector._api.http._base) == "https://api.github.com/"


@pytest.mark.parametrize("field", ["priority_labels", "status_labels", "type_labels", "branches"])
def test_an_empty_word_is_no_setting(field: str) -> None:
    with pytest.raises(ValidationError):
        GitHubSettings(**{field: ("",)})  # type: ignore[arg-type]
