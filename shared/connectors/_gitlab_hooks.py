"""Webhooks of GitLab.

https://docs.gitlab.com/user/project/integrations/webhook_events/
"""

import base64
import binascii
from datetime import datetime

from shared.connectors._hooks import id_from, mac, part, read_json, refuse, require_recent, same, word
from shared.connectors._protocol import Delivery, HookCall, Hooks
from shared.domain.sync import NamedIssue

_SIGNING = "whsec_"
_ISSUES = {"issue", "work_item"}


def verify(call: HookCall, secret: str, now: datetime) -> str:
    """A secret that begins with `whsec_` is a signing token; any other is sent as it is."""
    if secret.startswith(_SIGNING):
        _require_signature(call, secret, now)
        return "hmac"
    if not same(call.headers.get("x-gitlab-token", ""), secret):
        raise refuse("x-gitlab-token is missing or another one")
    return "token"


def _require_signature(call: HookCall, secret: str, now: datetime) -> None:
    """The signature of Standard Webhooks, over id, time and body.

    https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
    """
    identity, moment = call.headers.get("webhook-id", ""), call.headers.get("webhook-timestamp", "")
    try:
        key = base64.b64decode(secret.removeprefix(_SIGNING), validate=True)
    except binascii.Error as error:
        raise refuse("The secret is no signing token: what follows whsec_ is not base64") from error
    require_recent(moment, now)
    signed = f"{identity}.{moment}.".encode("utf-8", "replace") + call.body
    expected = f"v1,{base64.b64encode(mac(key, signed)).decode()}"
    # There are several while the token is being replaced.
    if not any(same(each, expected) for each in call.headers.get("webhook-signature", "").split()):
        raise refuse("webhook-signature does not fit the body and the signing token")


def identify(call: HookCall) -> str:
    """The ids of the hook and of the event are shared by several deliveries."""
    return id_from(call, "idempotency-key", "webhook-id")


def parse(call: HookCall) -> Delivery:
    """The issue an event is about. Of a note it is beside the note, which has an id too."""
    raw = read_json(call)
    kind = word(raw.get("object_kind")) or "unknown"
    attributes = part(raw, "object_attributes")
    action = word(attributes.get("action"))
    event = f"{kind}.{action}" if action else kind
    if kind in _ISSUES:
        issue = attributes
    elif kind == "note" and "issue" in raw:
        issue = part(raw, "issue")
    else:
        return Delivery(event=event, ignored="It is about no issue; the next sync brings what it is about")
    project = part(raw, "project")
    path, iid, identity = word(project.get("path_with_namespace")), word(issue.get("iid")), word(issue.get("id"))
    if path is None or iid is None or not iid.isdecimal() or identity is None:
        return Delivery(event=event, ignored="It names no issue of a project")
    # Before 9.0 a project had no id of its own here.
    scope = word(project.get("id")) or word(raw.get("project_id")) or word(issue.get("project_id")) or path
    return Delivery(event=event, issues=[NamedIssue(id=identity, key=f"{path}#{iid}", scope=scope)])


HOOKS = Hooks(
    verify=verify,
    identify=identify,
    parse=parse,
    headers=frozenset(
        {
            "x-gitlab-event",
            "x-gitlab-event-uuid",
            "x-gitlab-webhook-uuid",
            "x-gitlab-instance",
            "idempotency-key",
            "webhook-id",
            "webhook-timestamp",
        }
    ),
)
