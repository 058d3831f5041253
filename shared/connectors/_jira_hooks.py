"""Webhooks of Jira.

An admin's webhook with a secret signs the raw body, https://www.w3.org/TR/websub/#signing-content; those an OAuth app
registers carry a token signed with the app's secret; Data Center without secrets is given one in the address.
https://developer.atlassian.com/cloud/jira/platform/webhooks/
"""

import re
from datetime import datetime, timedelta
from typing import Any

import jwt

from shared.connectors._hooks import id_from, part, read_json, refuse, require_hex, same, word
from shared.connectors._protocol import Delivery, HookCall, Hooks
from shared.domain.sync import NamedIssue

SECRET_PARAMETER = "secret"  # noqa: S105  # the name of a parameter, not its value
_SIGNATURE = "x-hub-signature"
_LEEWAY = timedelta(minutes=1)
_YOUNG = timedelta(minutes=5)
# A comment of Data Center names its issue in its own address only.
_ISSUE_OF = re.compile(r"/issue/([^/?#]+)/(?:comment|worklog)/")
_ABOUT_ISSUES = ("jira:issue_", "comment_", "worklog_", "attachment_", "issuelink_")


def verify(call: HookCall, secret: str, now: datetime) -> str:
    """A signature decides where there is one; it is never passed over for a weaker proof."""
    if _SIGNATURE in call.headers:
        if not call.headers[_SIGNATURE].startswith("sha256="):
            raise refuse(f"{_SIGNATURE} is not one of sha256")
        require_hex(call, _SIGNATURE, secret, prefix="sha256=")
        return "hmac"
    scheme, _, token = call.headers.get("authorization", "").partition(" ")
    if scheme.lower() in {"bearer", "jwt"} and token:
        _require_token(token.strip(), secret, now)
        return "jwt"
    if SECRET_PARAMETER in call.query:
        if not same(call.query[SECRET_PARAMETER], secret):
            raise refuse("The secret in the address is another one")
        return "address"
    raise refuse("There is neither a signature nor a token nor a secret in the address")


def _require_token(token: str, secret: str, now: datetime) -> None:
    """The token of a dynamic webhook. The clock is ours to give, so its times are checked here."""
    try:
        claims: dict[str, Any] = jwt.decode(
            token,
            secret,
            algorithms=["HS256"],
            options={"verify_exp": False, "verify_iat": False, "verify_nbf": False, "verify_aud": False},
        )
    except jwt.PyJWTError as error:
        raise refuse("The token is not signed with the secret") from error
    expires, issued = claims.get("exp"), claims.get("iat")
    if isinstance(expires, int | float):
        fresh = now.timestamp() <= expires + _LEEWAY.total_seconds()
    else:
        fresh = isinstance(issued, int | float) and abs(now.timestamp() - issued) <= _YOUNG.total_seconds()
    if not fresh:
        raise refuse("The token has expired; check the clocks")


def identify(call: HookCall) -> str:
    """The same over all tries of one event."""
    return id_from(call, "x-atlassian-webhook-identifier")


def parse(call: HookCall) -> Delivery:
    """Only the id is taken: a comment's issue is a stub on Cloud, and missing on Data Center."""
    raw = read_json(call)
    event = word(raw.get("webhookEvent")) or "unknown"
    if not event.startswith(_ABOUT_ISSUES):
        return Delivery(event=event, ignored="It is about no issue")
    if event.startswith("issuelink_"):
        link = part(raw, "issueLink")
        ends = [word(link.get("sourceIssueId")), word(link.get("destinationIssueId"))]
        issues = [NamedIssue(id=each) for each in ends if each and each.isdecimal()]
        return Delivery(event=event, issues=issues, ignored="" if issues else "It names no issue")
    issue = part(raw, "issue")
    named = NamedIssue(id=_identity(raw), key=word(issue.get("key")))
    if not named.name:
        return Delivery(event=event, ignored="It names no issue; the next sync brings what it is about")
    return Delivery(event=event, issues=[named])


def _identity(raw: dict[str, Any]) -> str | None:
    for found in (part(raw, "issue").get("id"), part(raw, "worklog").get("issueId")):
        if (identity := word(found)) and identity.isdecimal():
            return identity
    for child in ("comment", "worklog"):
        address = _ISSUE_OF.search(word(part(raw, child).get("self")) or "")
        if address and address[1].isdecimal():
            return address[1]
    return None


HOOKS = Hooks(
    verify=verify,
    identify=identify,
    parse=parse,
    headers=frozenset(
        {"x-atlassian-webhook-identifier", "x-atlassian-webhook-retry", "x-atlassian-webhook-flow", "user-agent"}
    ),
)
