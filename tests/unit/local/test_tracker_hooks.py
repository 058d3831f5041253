"""Webhooks of the simulated trackers: shapes, signatures computed here once more, second attempts, and faults."""

import base64
import hashlib
import hmac
import time
from typing import Any
from urllib.parse import parse_qs

import httpx
import orjson
import pytest

from local.trackers._hooks import OWNER_TOKEN, HookError, HookFault, hex_hmac
from local.trackers.github import GitHubTracker
from local.trackers.gitlab import GitLabTracker
from local.trackers.jira import JiraTracker
from local.trackers.sentry import SentryTracker
from local.trackers.service import Tracker
from local.trackers.servicenow import ServiceNowTracker
from tests.support.hooks import SECRET, Receiver, first, small, told

WHSEC = "whsec_" + base64.b64encode(bytes(range(32))).decode()
TRACKERS = [JiraTracker, GitHubTracker, GitLabTracker, SentryTracker, ServiceNowTracker]


def digest(content: bytes, secret: bytes = SECRET.encode()) -> str:
    return hmac.digest(secret, content, hashlib.sha256).hex()


async def asked(tracker: Tracker, method: str, path: str, token: str = OWNER_TOKEN, **content: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token}", "User-Agent": "tests"}
    async with httpx.AsyncClient(base_url=tracker.url, headers=headers) as client:
        return await client.request(method, path, **content)


# All of them


@pytest.mark.parametrize("kind", TRACKERS)
async def test_edits_are_told_at_once_and_in_their_order(kind: type[Tracker], receiver: Receiver) -> None:
    tracker = kind(small())
    issue = first(tracker, status="open")

    async with told(tracker, receiver):
        for number in range(5):
            tracker.world.advance(1)
            tracker.world.edit(issue, title=f"Title {number}", body=f"Text {number}")
        await tracker.hooks.drain()

    assert len(receiver.calls) == 5
    if kind is not ServiceNowTracker:
        texts = [call.body.decode() for call in receiver.calls]
        assert [f"Title {number}" in text for number, text in enumerate(texts)] == [True] * 5


@pytest.mark.parametrize("kind", TRACKERS)
async def test_without_webhooks_nothing_is_sent(kind: type[Tracker], receiver: Receiver) -> None:
    async with kind(small()) as tracker:
        tracker.world.edit(first(tracker), title="Quietly")
        await tracker.hooks.drain()

    assert not receiver.calls


def test_signatures_are_those_of_githubs_own_example() -> None:
    """https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries"""
    expected = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"

    assert hex_hmac("It's a Secret to Everybody", b"Hello, World!") == expected


@pytest.mark.parametrize("url", ["https://hooks.example/in", "http://10.0.0.7/in", "ftp://127.0.0.1/in", "nowhere"])
async def test_only_loopback_is_called(url: str) -> None:
    with pytest.raises(HookError, match="loopback"):
        JiraTracker(small()).hooks.register(url, SECRET)


@pytest.mark.parametrize("kind", [JiraTracker, GitHubTracker, GitLabTracker])
async def test_only_owners_set_webhooks_up(kind: type[Tracker], receiver: Receiver) -> None:
    paths = {"jira": "/rest/webhooks/1.0/webhook", "github": "/repos/tidewater/harbor/hooks"}
    async with kind(small()) as tracker:
        path = paths.get(tracker.source, "/api/v4/projects/tidewater%2Fharbor/hooks")
        owner = {"Authorization": f"Basic {base64.b64encode(f'ada:{OWNER_TOKEN}'.encode()).decode()}"}
        answers = [
            await asked(tracker, "GET", path, headers=headers)
            for headers in (owner, {"PRIVATE-TOKEN": OWNER_TOKEN}, {"Authorization": "Basic ?!"}, {"Authorization": ""})
        ]

    assert [answer.status_code for answer in answers] == [200, 200, 401, 401]


async def test_redirects_are_not_followed(receiver: Receiver) -> None:
    tracker = GitHubTracker(small())
    async with told(tracker, receiver):
        receiver.answers = [302]
        tracker.world.comment(first(tracker))
        await tracker.hooks.drain()

    assert len(receiver.calls) == 1


# Faults


async def test_a_lost_delivery_never_comes(receiver: Receiver) -> None:
    tracker = GitHubTracker(small())
    async with told(tracker, receiver):
        tracker.hooks.faults.append(HookFault("lose"))
        tracker.world.comment(first(tracker), "lost")
        tracker.world.comment(first(tracker), "found")
        await tracker.hooks.drain()

    assert [call.json["comment"]["body"] for call in receiver.calls] == ["found"]


async def test_a_repeated_delivery_is_the_same_twice(receiver: Receiver) -> None:
    tracker = GitHubTracker(small())
    async with told(tracker, receiver):
        tracker.hooks.faults.append(HookFault("repeat"))
        tracker.world.comment(first(tracker))
        await tracker.hooks.drain()

    one, other = receiver.calls
    assert one.body == other.body
    assert one.headers["X-GitHub-Delivery"] == other.headers["X-GitHub-Delivery"]


async def test_swapped_deliveries_come_in_the_wrong_order(receiver: Receiver) -> None:
    tracker = GitHubTracker(small())
    async with told(tracker, receiver):
        tracker.hooks.faults.append(HookFault("swap"))
        for text in ("first", "second", "third"):
            tracker.world.comment(first(tracker), text)
        await tracker.hooks.drain()

    assert [call.json["comment"]["body"] for call in receiver.calls] == ["second", "first", "third"]


async def test_a_delayed_delivery_is_overtaken(receiver: Receiver) -> None:
    tracker = GitHubTracker(small())
    async with told(tracker, receiver):
        tracker.hooks.faults.append(HookFault("delay", seconds=0.2))
        for text in ("slow", "quick"):
            tracker.world.comment(first(tracker), text)
        await tracker.hooks.drain()

    assert [call.json["comment"]["body"] for call in receiver.calls] == ["quick", "slow"]


async def test_another_process_registers_changes_and_watches(receiver: Receiver) -> None:
    async with SentryTracker(small()) as tracker:
        issue = first(tracker)
        made = await asked(tracker, "POST", "/_control/hook", json={"url": receiver.url, "secret": SECRET})
        await asked(tracker, "POST", "/_control/hook-fault", json={"kind": "repeat"})
        change = await asked(
            tracker, "POST", "/_control/change", json={"what": "edit", "issue": issue, "title": "Worn"}
        )
        await tracker.hooks.drain()
        seen = (await asked(tracker, "GET", "/_control/deliveries")).json()["sent"]
        wrong = await asked(tracker, "POST", "/_control/hook", json={"url": "https://hooks.example"})
        unknown = await asked(tracker, "POST", "/_control/hook-fault", json={"kind": "burn"})

    assert (change.json()["issue"], change.json()["title"]) == (issue, "Worn")
    assert [(each["hook"], each["event"], each["status"]) for each in seen] == [(made.json()["hook"], "error", 200)] * 2
    assert (wrong.status_code, unknown.status_code) == (422, 422)


async def test_a_token_that_expired_is_made_valid_again() -> None:
    async with SentryTracker(small()) as tracker:
        await asked(tracker, "POST", "/_control/fault", json={"kind": "expired"})
        headers = {"Authorization": f"Bearer {tracker.token}"}
        expired = await asked(tracker, "GET", "/api/0/organizations/tidewater/", headers=headers)
        await asked(tracker, "POST", "/_control/renew")
        renewed = await asked(tracker, "GET", "/api/0/organizations/tidewater/", headers=headers)
        senseless = await asked(tracker, "POST", "/_control/change", json={"what": "comment", "text": "?"})

    assert (expired.status_code, renewed.status_code, senseless.status_code) == (401, 200, 422)


# Jira


async def test_cloud_signs_the_raw_body_and_names_the_delivery(receiver: Receiver) -> None:
    tracker = JiraTracker(small())
    issue = first(tracker, status="open")
    async with told(tracker, receiver):
        tracker.world.edit(issue, title="Überladen", status="done")
        await tracker.hooks.drain()

    (call,) = receiver.calls
    assert call.headers["X-Hub-Signature"] == f"sha256={digest(call.body)}"
    assert call.headers["X-Atlassian-Webhook-Flow"] == "Primary"
    assert call.headers["X-Atlassian-Webhook-Identifier"]
    assert "X-Atlassian-Webhook-Retry" not in call.headers
    assert (call.json["webhookEvent"], call.json["issue_event_type_name"]) == ("jira:issue_updated", "issue_resolved")
    assert call.json["timestamp"] == int(tracker.world.now.timestamp() * 1000)
    assert (call.json["issue"]["id"], call.json["issue"]["fields"]["summary"]) == (str(issue), "Überladen")
    assert [item["field"] for item in call.json["changelog"]["items"]] == ["summary", "status"]


async def test_clouds_comments_come_with_a_stub_of_their_issue(receiver: Receiver) -> None:
    tracker = JiraTracker(small())
    issue = first(tracker)
    async with told(tracker, receiver):
        made = tracker.world.comment(issue, "Held by the tide.")
        tracker.world.edit_comment(issue, made.id, "Held by the lock.")
        tracker.world.delete_comment(issue, made.id)
        await tracker.hooks.drain()

    assert [call.json["webhookEvent"] for call in receiver.calls] == [
        "comment_created",
        "comment_updated",
        "comment_deleted",
    ]
    edited = receiver.calls[1].json
    assert edited["comment"]["body"] == "Held by the lock."
    assert set(edited["issue"]["fields"]) == {"summary", "issuetype", "project", "assignee", "priority", "status"}
    assert "changelog" not in edited


async def test_clouds_deletions_have_secondary_deliveries(receiver: Receiver) -> None:
    tracker = JiraTracker(small())
    issue = first(tracker)
    tracker.world.comment(issue)
    comments = len(tracker.world.current(issue).comments)  # type: ignore[union-attr]
    async with told(tracker, receiver):
        tracker.world.delete(issue)
        await tracker.hooks.drain()

    flows = [(call.json["webhookEvent"], call.headers["X-Atlassian-Webhook-Flow"]) for call in receiver.calls]
    assert flows == [("jira:issue_deleted", "Primary"), *[("comment_deleted", "Secondary")] * comments]


async def test_logged_work_is_told_as_such_and_as_a_change(receiver: Receiver) -> None:
    tracker = JiraTracker(small())
    issue = first(tracker)
    async with told(tracker, receiver):
        tracker.world.log_work(issue, 1_800)
        await tracker.hooks.drain()

    logged, updated = (call.json for call in receiver.calls)
    assert (logged["webhookEvent"], logged["worklog"]["issueId"]) == ("worklog_created", str(issue))
    assert (updated["webhookEvent"], updated["issue_event_type_name"]) == ("jira:issue_updated", "issue_work_logged")


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 503])
async def test_cloud_tries_up_to_five_times_more(status: int, receiver: Receiver) -> None:
    tracker = JiraTracker(small())
    async with told(tracker, receiver):
        receiver.answers = [status] * 9
        tracker.world.edit(first(tracker), title="Again and again")
        await tracker.hooks.drain()

    assert [call.headers.get("X-Atlassian-Webhook-Retry") for call in receiver.calls] == [None, "1", "2", "3", "4", "5"]
    assert len({call.headers["X-Atlassian-Webhook-Identifier"] for call in receiver.calls}) == 1


async def test_cloud_stops_at_the_first_success_and_drops_what_is_refused(receiver: Receiver) -> None:
    tracker = JiraTracker(small())
    async with told(tracker, receiver):
        receiver.answers = [503, 200, 404]
        tracker.world.edit(first(tracker), title="Second time lucky")
        await tracker.hooks.drain()
        tracker.world.edit(first(tracker), title="Refused")
        await tracker.hooks.drain()

    assert [each.status for each in tracker.hooks.sent] == [503, 200, 404]


async def test_data_center_has_its_secret_in_the_address_and_tells_of_comments_twice(receiver: Receiver) -> None:
    tracker = JiraTracker(small(), cloud=False)
    issue = first(tracker)
    receiver.url += f"?secret={SECRET}"
    async with told(tracker, receiver):
        receiver.answers = [503]
        made = tracker.world.comment(issue)
        tracker.world.edit_comment(issue, made.id, "Read again.")
        await tracker.hooks.drain()

    assert {call.query for call in receiver.calls} == {f"secret={SECRET}"}
    assert not any(name.startswith(("X-Hub", "X-Atlassian")) for call in receiver.calls for name in call.headers)
    events = [(call.json["webhookEvent"], call.json.get("issue_event_type_name")) for call in receiver.calls]
    assert events == [
        ("jira:issue_updated", "issue_commented"),
        ("comment_created", None),
        ("jira:issue_updated", "issue_comment_edited"),
        ("comment_updated", None),
    ]
    assert "issue" not in receiver.calls[3].json
    assert f"/issue/{issue}/comment/{made.id}" in receiver.calls[3].json["comment"]["self"]


async def test_an_administrator_registers_a_webhook_at_jira(receiver: Receiver) -> None:
    async with JiraTracker(small()) as tracker:
        body = {
            "name": "Tributary",
            "url": receiver.url,
            "secret": SECRET,
            "events": ["jira:issue_updated"],
            "filters": {"issue-related-events-section": "project = PETREL"},
        }
        refused = await asked(tracker, "POST", "/rest/webhooks/1.0/webhook", tracker.token, json=body)
        made = await asked(tracker, "POST", "/rest/webhooks/1.0/webhook", json=body)
        for project in ("HARBOR", "PETREL"):
            issue = first(tracker, project=project)
            tracker.world.edit(issue, title=f"In {project}")
            tracker.world.comment(issue)
        await tracker.hooks.drain()
        gone = await asked(tracker, "DELETE", made.json()["self"])
        tracker.world.edit(first(tracker, project="PETREL"), title="Unheard")
        await tracker.hooks.drain()

    assert (refused.status_code, made.status_code, gone.status_code) == (403, 201, 204)
    assert SECRET not in made.text
    assert [call.json["issue"]["fields"]["summary"] for call in receiver.calls] == ["In PETREL"]


# GitHub


async def test_github_pings_and_signs_what_is_registered_over_its_api(receiver: Receiver) -> None:
    async with GitHubTracker(small()) as tracker:
        path = "/repos/tidewater/harbor/hooks"
        config = {"url": receiver.url, "content_type": "json", "secret": SECRET}
        body = {"name": "web", "active": True, "events": ["issues", "issue_comment"], "config": config}
        refused = await asked(tracker, "POST", path, tracker.token, json=body)
        made = await asked(tracker, "POST", path, json=body)
        twice = await asked(tracker, "POST", path, json=body)
        tracker.world.comment(first(tracker, project="HARBOR"))
        tracker.world.comment(first(tracker, project="PETREL"))
        await tracker.hooks.drain()

    assert (refused.status_code, made.status_code, twice.status_code) == (403, 201, 422)
    assert SECRET not in made.text
    assert [call.headers["X-GitHub-Event"] for call in receiver.calls] == ["ping", "issue_comment"]
    assert receiver.calls[0].json["hook_id"] == made.json()["id"]
    for call in receiver.calls:
        assert call.headers["X-Hub-Signature-256"] == f"sha256={digest(call.body)}"
        assert call.headers["Content-Type"] == "application/json"
    assert len({call.headers["X-GitHub-Delivery"] for call in receiver.calls}) == 2


async def test_github_tells_what_became_of_an_issue(receiver: Receiver) -> None:
    tracker = GitHubTracker(small())
    async with told(tracker, receiver):
        made = tracker.world.create("HARBOR", labels=(), status="open", assignee=None)
        tracker.world.edit(made.id, title="Anew", labels=("moored",), assignee=tracker.world.users[0])
        tracker.world.edit(made.id, status="done")
        tracker.world.edit(made.id, status="open")
        tracker.world.delete(made.id)
        await tracker.hooks.drain()

    actions = [call.json["action"] for call in receiver.calls]
    assert actions == ["opened", "edited", "assigned", "labeled", "closed", "reopened", "deleted"]
    assert receiver.calls[1].json["changes"] == {"title": {"from": made.title}}
    assert {call.json["issue"]["id"] for call in receiver.calls} == {made.id}
    assert {call.json["repository"]["full_name"] for call in receiver.calls} == {"tidewater/harbor"}


async def test_github_tells_both_repositories_of_a_transfer(receiver: Receiver) -> None:
    tracker = GitHubTracker(small())
    issue = first(tracker, project="HARBOR")
    async with told(tracker, receiver):
        tracker.world.move(issue, "PETREL")
        await tracker.hooks.drain()

    left, came = (call.json for call in receiver.calls)
    assert (left["action"], left["issue"]["id"], came["action"]) == ("transferred", issue, "opened")
    assert left["changes"]["new_issue"]["id"] == came["issue"]["id"] != issue
    assert came["changes"]["old_repository"]["full_name"] == "tidewater/harbor"


async def test_github_never_tries_again_by_itself_but_on_request(receiver: Receiver) -> None:
    tracker = GitHubTracker(small())
    async with told(tracker, receiver, project="HARBOR") as hook:
        receiver.answers = [500]
        tracker.world.comment(first(tracker, project="HARBOR"))
        await tracker.hooks.drain()
        assert len(receiver.calls) == 1
        path = f"/repos/tidewater/harbor/hooks/{hook.id}/deliveries"
        newest = (await asked(tracker, "GET", path)).json()[0]
        again = await asked(tracker, "POST", f"{path}/{newest['id']}/attempts")
        await tracker.hooks.drain()

    assert (newest["status_code"], again.status_code) == (500, 202)
    assert receiver.calls[0].headers["X-GitHub-Delivery"] == receiver.calls[1].headers["X-GitHub-Delivery"]


async def test_github_sends_forms_unless_told_otherwise(receiver: Receiver) -> None:
    tracker = GitHubTracker(small())
    async with told(tracker, receiver, content_type="form"):
        tracker.world.comment(first(tracker), "a=b&c")
        await tracker.hooks.drain()

    (call,) = receiver.calls
    assert call.headers["X-Hub-Signature-256"] == f"sha256={digest(call.body)}"
    assert orjson.loads(parse_qs(call.body.decode())["payload"][0])["comment"]["body"] == "a=b&c"


# GitLab


async def test_gitlab_sends_its_token_as_it_is(receiver: Receiver) -> None:
    async with GitLabTracker(small()) as tracker:
        path = "/api/v4/projects/tidewater%2Fharbor/hooks"
        body = {"url": receiver.url, "token": SECRET, "issues_events": True, "note_events": True}
        refused = await asked(tracker, "POST", path, tracker.token, json=body)
        made = await asked(tracker, "POST", path, json=body)
        issue = first(tracker, project="HARBOR")
        tracker.world.edit(issue, title="Moored")
        tracker.world.comment(issue)
        tracker.world.comment(issue, internal=True)
        await tracker.hooks.drain()

    assert (refused.status_code, made.status_code) == (403, 201)
    assert SECRET not in made.text
    assert [call.headers["X-Gitlab-Event"] for call in receiver.calls] == ["Issue Hook", "Note Hook"]
    assert {call.headers["X-Gitlab-Token"] for call in receiver.calls} == {SECRET}
    for name, count in (("Idempotency-Key", 2), ("X-Gitlab-Event-UUID", 2), ("X-Gitlab-Webhook-UUID", 1)):
        assert len({call.headers[name] for call in receiver.calls}) == count
    assert not any(name.lower().startswith("webhook-") for call in receiver.calls for name in call.headers)
    changed, noted = (call.json for call in receiver.calls)
    assert changed["object_attributes"]["action"] == "update"
    assert changed["changes"]["title"]["current"] == "Moored"
    assert changed["object_attributes"]["updated_at"].endswith(" UTC")
    assert (noted["object_attributes"]["action"], noted["issue"]["id"]) == ("create", issue)


async def test_gitlabs_signing_token_signs_id_time_and_body(receiver: Receiver) -> None:
    tracker = GitLabTracker(small())
    async with told(tracker, receiver, secret="", signing_token=WHSEC):
        tracker.world.edit(first(tracker), title="Signed")
        await tracker.hooks.drain()

    (call,) = receiver.calls
    signed = b".".join([call.headers["webhook-id"].encode(), call.headers["webhook-timestamp"].encode(), call.body])
    expected = base64.b64encode(bytes.fromhex(digest(signed, bytes(range(32))))).decode()
    assert call.headers["webhook-signature"] == f"v1,{expected}"
    assert call.headers["webhook-id"] == call.headers["Idempotency-Key"]
    assert abs(time.time() - int(call.headers["webhook-timestamp"])) < 60
    assert "X-Gitlab-Token" not in call.headers


async def test_gitlab_tells_of_spent_time_and_of_no_deletion(receiver: Receiver) -> None:
    tracker = GitLabTracker(small())
    issue = first(tracker)
    made = tracker.world.comment(issue)
    async with told(tracker, receiver):
        tracker.world.log_work(issue, 900)
        tracker.world.delete_comment(issue, made.id)
        tracker.world.delete(issue)
        await tracker.hooks.drain()

    (call,) = receiver.calls
    spent = call.json["changes"]["total_time_spent"]
    assert spent["current"] - spent["previous"] == 900


async def test_gitlab_leaves_an_address_alone_after_four_failures_until_a_test_succeeds(receiver: Receiver) -> None:
    tracker = GitLabTracker(small())
    async with told(tracker, receiver, project="HARBOR") as hook:
        receiver.answers = [500, 404, 503, 500]
        for number in range(6):
            tracker.world.edit(first(tracker, project="HARBOR"), title=f"Title {number}")
            await tracker.hooks.drain()
        path = f"/api/v4/projects/tidewater%2Fharbor/hooks/{hook.id}"
        disabled = (await asked(tracker, "GET", path)).json()["alert_status"]
        await asked(tracker, "POST", f"{path}/test/issues_events")
        await tracker.hooks.drain()
        enabled = (await asked(tracker, "GET", path)).json()["alert_status"]
        tracker.world.edit(first(tracker, project="HARBOR"), title="Back")
        await tracker.hooks.drain()

    assert (disabled, enabled) == ("temporarily_disabled", "executable")
    assert len(receiver.calls) == 4 + 1 + 1


async def test_a_signing_token_must_be_one(receiver: Receiver) -> None:
    async with GitLabTracker(small()) as tracker:
        path = "/api/v4/projects/tidewater%2Fharbor/hooks"
        answer = await asked(tracker, "POST", path, json={"url": receiver.url, "signing_token": "whsec_c2hvcnQ="})

    assert answer.status_code == 422
    assert "32-byte" in answer.text


# Sentry


async def test_sentry_signs_the_body_alone(receiver: Receiver) -> None:
    tracker = SentryTracker(small())
    issue = first(tracker, status="open")
    async with told(tracker, receiver):
        tracker.world.edit(issue, status="done", bump=False)
        tracker.world.comment(issue, "Known.")
        tracker.world.delete(issue)
        await tracker.hooks.drain()

    resolved, commented = receiver.calls
    for call in receiver.calls:
        assert call.headers["Sentry-Hook-Signature"] == digest(call.body)
        assert abs(time.time() - int(call.headers["Sentry-Hook-Timestamp"])) < 60
    assert len({call.headers["Request-ID"] for call in receiver.calls}) == 2
    assert (resolved.headers["Sentry-Hook-Resource"], resolved.json["action"]) == ("issue", "resolved")
    shown = resolved.json["data"]["issue"]
    assert (shown["id"], shown["status"], shown["lastSeen"][-6:]) == (str(issue), "resolved", "+00:00")
    assert commented.headers["Sentry-Hook-Resource"] == "comment"
    assert (commented.json["data"]["issue_id"], commented.json["data"]["comment"]) == (issue, "Known.")


async def test_sentrys_new_events_are_in_the_stores_shape(receiver: Receiver) -> None:
    tracker = SentryTracker(small())
    issue = first(tracker, type="Bug")
    async with told(tracker, receiver):
        tracker.world.advance(1)
        tracker.world.edit(issue, body="Seen on the quay.")
        await tracker.hooks.drain()

    (call,) = receiver.calls
    error = call.json["data"]["error"]
    assert (call.headers["Sentry-Hook-Resource"], error["issue_id"]) == ("error", str(issue))
    assert error["exception"]["values"][0]["value"] == "Seen on the quay."
    assert ["environment", "production"] in error["tags"]


async def test_sentry_waits_a_second_and_tries_once(receiver: Receiver) -> None:
    tracker = SentryTracker(small())
    tracker.hooks.timeout_seconds = 0.05
    async with told(tracker, receiver):
        receiver.seconds = 1
        tracker.world.comment(first(tracker))
        await tracker.hooks.drain()

    assert SentryTracker(small()).hooks.timeout_seconds == 1
    assert [each.status for each in tracker.hooks.sent] == [None]


# ServiceNow


async def test_a_business_rule_signs_time_and_body(receiver: Receiver) -> None:
    tracker = ServiceNowTracker(small())
    async with told(tracker, receiver):
        made = tracker.world.create("HARBOR")
        tracker.world.comment(made.id)
        tracker.world.delete(made.id)
        await tracker.hooks.drain()

    for call in receiver.calls:
        at = call.headers["X-Tributary-Timestamp"]
        assert call.headers["X-Tributary-Signature"] == f"sha256={digest(at.encode() + b'.' + call.body)}"
        assert abs(time.time() - int(at)) < 60
    assert [call.json["action"] for call in receiver.calls] == ["insert", "update", "delete"]
    assert {call.json["table"] for call in receiver.calls} == {"incident"}
    assert len({call.json["sys_id"] for call in receiver.calls}) == 1
    assert receiver.calls[0].json["sys_updated_on"] == f"{tracker.world.now:%Y-%m-%d %H:%M:%S}"
    assert len({call.headers["X-Tributary-Delivery"] for call in receiver.calls}) == 3
