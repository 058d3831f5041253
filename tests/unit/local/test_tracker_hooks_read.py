"""What the simulated trackers send is what the connectors prove and understand: two readings of one documentation."""

import base64
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

import pytest

from local.trackers._servicenow_tables import sys_id
from local.trackers.github import GitHubTracker
from local.trackers.gitlab import GitLabTracker
from local.trackers.jira import JiraTracker
from local.trackers.sentry import SentryTracker
from local.trackers.service import Tracker
from local.trackers.servicenow import ServiceNowTracker
from shared.connectors import connectors
from shared.connectors._protocol import HookCall
from shared.domain.errors import NotAuthenticatedError
from tests.support.hooks import SECRET, Call, Receiver, small, told

WHSEC = "whsec_" + base64.b64encode(bytes(range(32))).decode()


def data_center() -> Tracker:
    return JiraTracker(small(), cloud=False)


# Tracker, what is registered, the connection's secret, how a delivery is proven.
KINDS = [
    pytest.param(lambda: JiraTracker(small()), {}, SECRET, "hmac", id="jira-cloud"),
    pytest.param(data_center, {"query": f"?secret={SECRET}"}, SECRET, "address", id="jira-data-center"),
    pytest.param(lambda: GitHubTracker(small()), {}, SECRET, "hmac", id="github"),
    pytest.param(lambda: GitHubTracker(small()), {"content_type": "form"}, SECRET, "hmac", id="github-form"),
    pytest.param(lambda: GitLabTracker(small()), {}, SECRET, "token", id="gitlab-token"),
    pytest.param(lambda: GitLabTracker(small()), {"secret": "", "signing_token": WHSEC}, WHSEC, "hmac", id="gitlab"),
    pytest.param(lambda: SentryTracker(small()), {}, SECRET, "hmac", id="sentry"),
    pytest.param(lambda: ServiceNowTracker(small()), {}, SECRET, "hmac", id="servicenow"),
]
# Nobody is told of these.
SILENT = {
    "gitlab": {"delete_comment", "delete"},
    "sentry": {"log_work", "delete_worklog", "delete"},
    "github": {"log_work", "delete_worklog"},
}


def read(call: Call) -> HookCall:
    headers = {name.lower(): value for name, value in call.headers.items()}
    return HookCall(headers=headers, query=dict(parse_qsl(call.query)), body=call.body)


async def everything(tracker: Tracker, receiver: Receiver) -> dict[str, list[Call]]:
    """One issue's whole life, and what was told of each step."""
    world = tracker.world
    issue = world.create("HARBOR", status="open", type="Bug", assignee=None).id
    made: dict[str, Any] = {}
    steps: dict[str, Callable[[], Any]] = {
        "edit": lambda: world.edit(issue, title="Worn rope", body="Worn through.\n"),
        "assign": lambda: world.edit(issue, assignee=world.users[1]),
        "resolve": lambda: world.edit(issue, status="done"),
        "reopen": lambda: world.edit(issue, status="open"),
        "comment": lambda: made.update(comment=world.comment(issue).id),
        "edit_comment": lambda: world.edit_comment(issue, made["comment"], "Looked twice."),
        "delete_comment": lambda: world.delete_comment(issue, made["comment"]),
        "log_work": lambda: made.update(worklog=world.log_work(issue).id),
        "delete_worklog": lambda: world.delete_worklog(issue, made["worklog"]),
        "move": lambda: world.move(issue, "PETREL"),
        "delete": lambda: world.delete(issue),
    }
    await tracker.hooks.drain()
    calls = {"create": receiver.calls[:]}
    for name, step in steps.items():
        receiver.calls.clear()
        world.advance(1)
        step()
        await tracker.hooks.drain()
        calls[name] = receiver.calls[:]
    return calls


def ids_of(tracker: Tracker) -> set[str]:
    """How a source may call the issue that was made last: by its id there, before and after its transfer."""
    number = next(reversed(tracker.world._versions))
    return {str(number), str(number + 50_000_000), sys_id("issue", number)}


@pytest.mark.parametrize(("make", "registered", "secret", "proof"), KINDS)
async def test_every_delivery_is_proven_and_names_its_issue(
    make: Callable[[], Tracker], registered: dict[str, Any], secret: str, proof: str, receiver: Receiver
) -> None:
    tracker = make()
    values = dict(registered)
    receiver.url += values.pop("query", "")
    async with told(tracker, receiver, **values):
        steps = await everything(tracker, receiver)

    hooks = connectors()[tracker.source].hooks
    assert {name for name, calls in steps.items() if not calls} == SILENT.get(tracker.source, set())
    seen: list[str] = []
    for calls in steps.values():
        for call in map(read, calls):
            assert hooks.verify(call, secret, datetime.now(UTC)) == proof
            named = hooks.parse(call)
            assert {issue.id for issue in named.issues} <= ids_of(tracker)
            assert named.issues, named
            seen.append(hooks.identify(call))
    assert len(set(seen)) == len(seen), "a delivery would be taken for another one sent again"


@pytest.mark.parametrize(("make", "registered", "secret", "proof"), KINDS)
async def test_no_delivery_is_believed_with_another_secret_or_body(
    make: Callable[[], Tracker], registered: dict[str, Any], secret: str, proof: str, receiver: Receiver
) -> None:
    tracker = make()
    values = dict(registered)
    receiver.url += values.pop("query", "")
    async with told(tracker, receiver, **values):
        tracker.world.create("HARBOR")
        await tracker.hooks.drain()

    hooks = connectors()[tracker.source].hooks
    call = read(receiver.calls[0])
    wrong = "whsec_" + base64.b64encode(bytes(32)).decode() if secret == WHSEC else "another secret"
    with pytest.raises(NotAuthenticatedError):
        hooks.verify(call, wrong, datetime.now(UTC))
    if proof == "hmac":
        with pytest.raises(NotAuthenticatedError):
            hooks.verify(replace(call, body=call.body + b" "), secret, datetime.now(UTC))
