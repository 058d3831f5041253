"""A change in a tracker, told by webhook, is in the database within seconds; what is lost or forged does no harm.

One stack and one process of trackers for all. The clock of these connections strikes once a year: nothing polls.
"""

import hashlib
import hmac
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import httpx
import pytest

from shared.domain.job import WEBHOOK_ACTOR
from tests.support.local_stack import eventually
from tests.support.outside import Outside
from tests.support.trackers import Told, control, running_trackers

SOURCES = ["github", "gitlab", "jira", "sentry", "servicenow"]
TELL_OF_NO_DELETION = {"gitlab", "sentry"}
SECRET = "quay-rope-and-seventeen-lanterns"
ISSUES = 12
SECONDS = 10
ONCE_A_YEAR = "0 0 1 1 *"


@pytest.fixture(scope="module")
def trackers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Told]]:
    with running_trackers(tmp_path_factory.mktemp("trackers"), issues=ISSUES) as told:
        yield told


@pytest.fixture(scope="module", params=SOURCES)
def told(request: pytest.FixtureRequest, outside: Outside, trackers: dict[str, Told]) -> Told:
    """A tracker whose issues are all here, and which calls us."""
    told = trackers[request.param]
    slug = slug_of(told)
    body = {
        "slug": slug,
        "source": told["source"],
        "base_url": told["base_url"],
        "settings": told["settings"],
        "credentials": {**told["credentials"], "webhook_secret": SECRET},
    }
    assert outside.api.post("/integrations", json=body).status_code == 201
    assert outside.api.put(f"/integrations/{slug}/schedule", json={"cron": ONCE_A_YEAR}).is_success
    assert outside.api.post(f"/integrations/{slug}/test").json()["passed"]
    assert outside.ended(sync(outside, slug, mode="full"), 120)["state"] == "completed"
    REGISTERED[told["source"]](told, address(outside, slug))
    return told


def slug_of(told: Told) -> str:
    return f"hooked-{told['source']}"


def sync(outside: Outside, slug: str, **body: Any) -> str:
    answer = outside.api.post(f"/integrations/{slug}/sync", json=body)
    assert answer.status_code == 202, answer.text
    return answer.json()["job_id"]


def address(outside: Outside, slug: str) -> str:
    """Where the tracker is to send, as an admin reads it."""
    webhooks = outside.api.get("/webhooks/status").json()["items"]
    return next(each["address"] for each in webhooks if each["slug"] == slug)


# How a person registers it in each tracker.


def at_github(told: Told, url: str) -> None:
    config = {"url": url, "content_type": "json", "secret": SECRET}
    for name in ("harbor", "petrel"):
        body = {"name": "web", "events": ["issues", "issue_comment"], "config": config}
        as_owner(told, f"/repos/tidewater/{name}/hooks", body)


def at_gitlab(told: Told, url: str) -> None:
    for name in ("harbor", "petrel"):
        body = {"url": url, "token": SECRET, "issues_events": True, "note_events": True}
        as_owner(told, f"/api/v4/projects/tidewater%2F{name}/hooks", body)


def at_jira(told: Told, url: str) -> None:
    events = ["jira:issue_created", "jira:issue_updated", "jira:issue_deleted", "comment_created"]
    as_owner(told, "/rest/webhooks/1.0/webhook", {"name": "Tributary", "url": url, "secret": SECRET, "events": events})


def by_hand(told: Told, url: str) -> None:
    control(told, "hook", url=url, secret=SECRET)


REGISTERED: Mapping[str, Callable[[Told, str], None]] = {
    "github": at_github,
    "gitlab": at_gitlab,
    "jira": at_jira,
    "sentry": by_hand,
    "servicenow": by_hand,
}


def as_owner(told: Told, path: str, body: Mapping[str, Any]) -> None:
    headers = {"Authorization": f"Bearer {told['owner_token']}"}
    answer = httpx.post(told["base_url"] + path, json=body, headers=headers, timeout=30)
    assert answer.status_code == 201, answer.text


# What is seen from outside


def row_titled(outside: Outside, told: Told, part: str) -> dict[str, Any] | None:
    statement = "select title, deleted_at from issues where import_source = %s and title like %s"
    rows = outside.rows(statement, slug_of(told), f"%{part}%")
    return rows[0] if rows else None


def require_row(outside: Outside, told: Told, part: str) -> dict[str, Any]:
    found = row_titled(outside, told, part)
    assert found, part
    return found


def jobs_of(outside: Outside, told: Told) -> int:
    return outside.rows("select count(*) as n from jobs where import_source = %s", slug_of(told))[0]["n"]


def rest(outside: Outside, told: Told) -> None:
    """Wait until nothing is on its way here, and what came has been acted upon."""

    def quiet() -> None:
        sent = httpx.get(f"{told['base_url']}/_control/deliveries", timeout=10).json()
        assert sent["under_way"] == 0
        [webhook] = [
            each for each in outside.api.get("/webhooks/status").json()["items"] if each["slug"] == slug_of(told)
        ]
        assert webhook["waiting"] == 0, webhook

    eventually(quiet)


def some_issue(outside: Outside, told: Told, at: int) -> int:
    """The tracker's number of one of its issues; each test takes another one."""
    made = control(told, "change", what="create", title=f"Made for {at}", status="open", type="Bug")
    return made["issue"]


# Promises


def test_an_edit_is_in_the_database_within_seconds(outside: Outside, told: Told) -> None:
    issue = some_issue(outside, told, 1)
    eventually(lambda: require_row(outside, told, "Made for 1"), SECONDS)

    control(told, "change", what="edit", issue=issue, title="Edited just now", body="The rope is new.")

    eventually(lambda: require_row(outside, told, "Edited just now"), SECONDS)
    newest = "select requested_by from jobs where import_source = %s order by created_at desc limit 1"
    assert outside.rows(newest, slug_of(told))[0]["requested_by"] == WEBHOOK_ACTOR


def test_a_comment_is_in_the_database_within_seconds(outside: Outside, told: Told) -> None:
    issue = some_issue(outside, told, 2)
    eventually(lambda: require_row(outside, told, "Made for 2"), SECONDS)

    control(told, "change", what="comment", issue=issue, body="Seen from the pier.")

    def look() -> None:
        statement = "select 1 as one from comments where import_source = %s and body = %s"
        assert outside.rows(statement, slug_of(told), "Seen from the pier.")

    eventually(look, SECONDS)


def test_a_deletion_is_marked_at_once_or_by_the_next_census(outside: Outside, told: Told) -> None:
    issue = some_issue(outside, told, 6)
    eventually(lambda: require_row(outside, told, "Made for 6"), SECONDS)

    control(told, "change", what="delete", issue=issue)
    if told["source"] in TELL_OF_NO_DELETION:
        rest(outside, told)
        control(told, "advance", seconds=3_600)
        assert outside.ended(sync(outside, slug_of(told), census=True), 60)["state"] == "completed"

    def look() -> None:
        assert require_row(outside, told, "Made for 6")["deleted_at"]

    eventually(look, SECONDS)


def test_what_is_told_twice_and_out_of_order_ends_right(outside: Outside, told: Told) -> None:
    issue = some_issue(outside, told, 3)
    eventually(lambda: require_row(outside, told, "Made for 3"), SECONDS)

    control(told, "hook-fault", kind="swap")
    control(told, "change", what="edit", issue=issue, title="Third, at first")
    control(told, "hook-fault", kind="repeat")
    control(told, "change", what="edit", issue=issue, title="Third, at last")

    eventually(lambda: require_row(outside, told, "Third, at last"), SECONDS)
    rest(outside, told)
    assert require_row(outside, told, "Third")["title"].endswith("Third, at last")


def test_after_a_burst_a_census_finds_nothing_that_was_missed(outside: Outside, told: Told) -> None:
    for kind in ("repeat", "swap", "repeat"):
        control(told, "hook-fault", kind=kind, times=2)
    control(told, "churn", changes=25)
    rest(outside, told)
    control(told, "advance", seconds=3_600)
    ended = outside.ended(sync(outside, slug_of(told), census=True), 60)

    assert ended["state"] == "completed", ended
    issues = ended["sync"]["streams"]["issues"]
    assert (issues["created"], issues["missed"], issues["stale"]) == (0, 0, 0)
    assert ended["sync"]["streams"]["comments"]["created"] == 0
    # Records may differ in what trackers tell nobody of, such as a time that moved alone; no field of an issue does.
    assert not outside.rows("select changes from issue_changes where job_id = %s", ended["job_id"])


def test_a_lost_delivery_is_brought_by_the_next_incremental_sync(outside: Outside, told: Told) -> None:
    issue = some_issue(outside, told, 4)
    eventually(lambda: require_row(outside, told, "Made for 4"), SECONDS)
    rest(outside, told)
    before = jobs_of(outside, told)

    control(told, "hook-fault", kind="lose", times=1)
    control(told, "change", what="edit", issue=issue, title="Nobody was told")
    control(told, "advance", seconds=3_600)
    assert row_titled(outside, told, "Nobody was told") is None
    ended = outside.ended(sync(outside, slug_of(told)), 60)

    assert ended["state"] == "completed", ended
    assert require_row(outside, told, "Nobody was told")
    assert jobs_of(outside, told) == before + 1


def test_a_forged_delivery_changes_nothing(outside: Outside, told: Told) -> None:
    issue = some_issue(outside, told, 5)
    eventually(lambda: require_row(outside, told, "Made for 5"), SECONDS)
    rest(outside, told)
    control(told, "hook-fault", kind="lose")
    control(told, "change", what="edit", issue=issue, title="Forged into being")
    before = jobs_of(outside, told)

    answers = [
        httpx.post(address(outside, slug_of(told)), content=body, headers=headers, timeout=10)
        for body, headers in forgeries(told["source"], issue)
    ]

    assert {answer.status_code for answer in answers} == {401}
    assert len({answer.json()["detail"] for answer in answers}) == 1, "why a call is refused is told to nobody"
    assert row_titled(outside, told, "Forged into being") is None
    # A real one is the only one that starts a job.
    control(told, "change", what="comment", issue=issue)
    eventually(lambda: require_row(outside, told, "Forged into being"), SECONDS)
    rest(outside, told)
    assert jobs_of(outside, told) == before + 1


def forgeries(source: str, issue: int) -> list[tuple[bytes, dict[str, str]]]:
    """Nothing signed, and signed with another secret."""
    body = json.dumps(
        {
            "webhookEvent": "jira:issue_updated",
            "action": "edited",
            "object_kind": "issue",
            "object_attributes": {"id": issue, "iid": 1, "action": "update"},
            "project": {"id": 1, "path_with_namespace": "tidewater/harbor"},
            "issue": {"id": issue, "number": 1},
            "repository": {"id": 1, "full_name": "tidewater/harbor"},
            "data": {"issue": {"id": str(issue)}},
            "table": "incident",
            "sys_id": hashlib.md5(f"issue:{issue}".encode()).hexdigest(),
        }
    ).encode()
    wrong = hmac.digest(b"another secret", body, "sha256").hex()
    headers = {
        "github": {"X-GitHub-Event": "issues", "X-GitHub-Delivery": "1", "X-Hub-Signature-256": f"sha256={wrong}"},
        "gitlab": {"X-Gitlab-Event": "Issue Hook", "X-Gitlab-Token": "another secret"},
        "jira": {"X-Hub-Signature": f"sha256={wrong}", "X-Atlassian-Webhook-Identifier": "1"},
        "sentry": {"Sentry-Hook-Resource": "issue", "Sentry-Hook-Signature": wrong},
        "servicenow": {"X-Tributary-Timestamp": "1767229200", "X-Tributary-Signature": f"sha256={wrong}"},
    }[source]
    return [(body, {}), (body, headers)]
