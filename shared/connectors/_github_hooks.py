"""Webhooks of GitHub.

https://docs.github.com/en/webhooks/webhook-events-and-payloads
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from shared.connectors._hooks import id_from, part, read_json, refuse, require_hex, word
from shared.connectors._protocol import Delivery, HookCall, Hooks
from shared.domain.stream import Stream
from shared.domain.sync import NamedIssue

_SIGNATURE = "x-hub-signature-256"
_PULL_REQUESTS = ("pull_request", "pull_request_review", "pull_request_review_comment", "pull_request_review_thread")


def verify(call: HookCall, secret: str, _now: datetime) -> str:
    """Of the raw body. The older signature with SHA-1 is not accepted in its place."""
    if _SIGNATURE not in call.headers:
        raise refuse(f"There is no {_SIGNATURE}: the webhook has no secret")
    require_hex(call, _SIGNATURE, secret, prefix="sha256=")
    return "hmac"


def identify(call: HookCall) -> str:
    """A delivery that is sent again has the id of the first."""
    return id_from(call, "x-github-delivery")


def parse(call: HookCall) -> Delivery:
    """The issue or pull request an event is about; a transferred issue is asked for at both places."""
    raw = read_json(call)
    event = word(call.headers.get("x-github-event")) or "unknown"
    action = word(raw.get("action"))
    name = f"{event}.{action}" if action else event
    if event == "ping":
        return Delivery(event=name, ignored="A test of the webhook")
    if event in _PULL_REQUESTS:
        found = [_pull_request(part(raw, "repository"), part(raw, "pull_request"))]
    elif event in {"issues", "issue_comment"}:
        issue, repository, changes = part(raw, "issue"), part(raw, "repository"), part(raw, "changes")
        found = [_issue(repository, issue)]
        if action == "transferred":
            found.append(_issue(part(changes, "new_repository"), part(changes, "new_issue")))
    else:
        return Delivery(event=name, ignored="It is about no issue")
    issues = [each for each in found if each]
    return Delivery(event=name, issues=issues, ignored="" if issues else "It names no issue")


def _issue(repository: Mapping[str, Any], issue: Mapping[str, Any]) -> NamedIssue | None:
    if "pull_request" in issue:
        return _pull_request(repository, issue)
    key, identity = _key(repository, issue), word(issue.get("id"))
    if key is None or identity is None:
        return None
    return NamedIssue(id=identity, key=key, scope=word(repository.get("id")))


def _pull_request(repository: Mapping[str, Any], row: Mapping[str, Any]) -> NamedIssue | None:
    """By its key alone: what a comment shows of a pull request is an issue with an id of its own."""
    key = _key(repository, row)
    return NamedIssue(key=key, scope=word(repository.get("id")), stream=Stream.PULL_REQUESTS) if key else None


def _key(repository: Mapping[str, Any], row: Mapping[str, Any]) -> str | None:
    name, number = word(repository.get("full_name")), word(row.get("number"))
    return f"{name}#{number}" if name and name.count("/") == 1 and number and number.isdecimal() else None


HOOKS = Hooks(
    verify=verify,
    identify=identify,
    parse=parse,
    headers=frozenset({"x-github-event", "x-github-delivery", "x-github-hook-id", "user-agent", "content-type"}),
)
