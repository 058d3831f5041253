"""Webhook calls as each tracker makes and signs them. Computed here in another way than the product checks them."""

import base64
import hashlib
import hmac
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import orjson

from shared.connectors._protocol import HookCall

SECRET = "a-webhook-secret-for-tests"
NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def call_of(
    source: str, payload: object, *, secret: str = SECRET, delivery: str | None = None, now: datetime | None = None
) -> HookCall:
    """A signed call with this payload."""
    body = payload if isinstance(payload, bytes) else orjson.dumps(payload)
    moment = str(int((now or datetime.now(UTC)).timestamp()))
    identity = delivery or str(uuid4())
    digest = hmac.new(secret.encode(), body, hashlib.sha256)
    headers = {"content-type": "application/json"}
    match source:
        case "jira":
            headers |= {
                "x-hub-signature": f"sha256={digest.hexdigest()}",
                "x-atlassian-webhook-identifier": identity,
            }
        case "github":
            headers |= {
                "x-hub-signature-256": f"sha256={digest.hexdigest()}",
                "x-github-delivery": identity,
                "x-github-event": "issues",
            }
        case "gitlab":
            headers |= {"x-gitlab-token": secret, "idempotency-key": identity, "x-gitlab-event": "Issue Hook"}
        case "sentry":
            headers |= {
                "sentry-hook-signature": digest.hexdigest(),
                "request-id": identity,
                "sentry-hook-resource": "issue",
            }
        case _:
            signed = hmac.new(secret.encode(), f"{moment}.".encode() + body, hashlib.sha256).digest()
            headers |= {
                "x-tributary-timestamp": moment,
                "x-tributary-signature": f"sha256={base64.b64encode(signed).decode()}",
                "x-tributary-delivery": identity,
            }
    return HookCall(headers=headers, query={}, body=body)


def with_headers(call: HookCall, **headers: str | None) -> HookCall:
    """The same call with other headers; `_` stands for `-`, None leaves one out."""
    changed = {**call.headers, **{name.replace("_", "-"): value for name, value in headers.items()}}
    return replace(call, headers={name: value for name, value in changed.items() if value is not None})


def payload_of(source: str, *, external_id: str, key: str | None, scope: str | None) -> dict[str, Any]:
    """What a tracker tells of an issue: it was changed. The news in it are old, and must never be stored."""
    place, _, number = (key or "").rpartition("#")
    match source:
        case "jira":
            fields = {"summary": "Old news", "updated": "2001-01-01T00:00:00.000+0000"}
            issue = {"id": external_id, "key": key, "fields": fields}
            return {"timestamp": 1_767_229_200_000, "webhookEvent": "jira:issue_updated", "issue": issue}
        case "github":
            issue = {"id": int(external_id), "number": int(number), "title": "Old news"}
            return {"action": "edited", "issue": issue, "repository": {"id": int(scope or 0), "full_name": place}}
        case "gitlab":
            attributes = {"id": int(external_id), "iid": int(number), "action": "update", "title": "Old news"}
            project = {"id": int(scope or 0), "path_with_namespace": place}
            return {"object_kind": "issue", "project": project, "object_attributes": attributes}
        case "sentry":
            issue = {"id": external_id, "title": "Old news", "project": {"id": scope, "slug": "old"}}
            return {"action": "resolved", "data": {"issue": issue}}
        case _:
            return {"table": scope, "sys_id": external_id, "number": key, "action": "update"}
