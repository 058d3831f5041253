"""Webhooks of a Sentry integration.

https://docs.sentry.io/organization/integrations/integration-platform/webhooks/
"""

from datetime import datetime

from shared.connectors._hooks import id_from, part, read_json, refuse, require_hex, word
from shared.connectors._protocol import Delivery, HookCall, Hooks
from shared.domain.sync import NamedIssue

_SIGNATURE = "sentry-hook-signature"


def verify(call: HookCall, secret: str, _now: datetime) -> str:
    """Of the raw body; the documentation's sample writes the JSON anew, which need not give the same bytes."""
    if _SIGNATURE not in call.headers:
        raise refuse(f"There is no {_SIGNATURE}")
    require_hex(call, _SIGNATURE, secret)
    return "hmac"


def identify(call: HookCall) -> str:
    """Sentry does not send again; the id tells apart what it sends twice."""
    return id_from(call, "request-id")


def parse(call: HookCall) -> Delivery:
    """The issue an event is about, wherever its kind of event puts it."""
    raw = read_json(call)
    resource = word(call.headers.get("sentry-hook-resource")) or "unknown"
    action = word(raw.get("action"))
    event = f"{resource}.{action}" if action else resource
    data = part(raw, "data")
    issue, project = part(data, "issue"), part(data, "issue", "project")
    error = part(data, "error") or part(data, "event")
    identity = word(issue.get("id")) or word(data.get("issue_id")) or word(error.get("issue_id"))
    if identity is None or not identity.isdecimal():
        return Delivery(event=event, ignored="It is about no issue")
    scope = word(project.get("id")) or word(data.get("project_slug")) or word(error.get("project"))
    return Delivery(event=event, issues=[NamedIssue(id=identity, scope=scope)])


HOOKS = Hooks(
    verify=verify,
    identify=identify,
    parse=parse,
    headers=frozenset({"sentry-hook-resource", "sentry-hook-timestamp", "request-id"}),
)
