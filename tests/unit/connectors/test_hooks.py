"""Webhooks: what proves a call and what does not, and what it names."""

import base64
import hashlib
import hmac
from dataclasses import replace
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import jwt
import orjson
import pytest

from shared.connectors import connectors
from shared.connectors._protocol import Delivery, HookCall, Hooks
from shared.domain.errors import NotAuthenticatedError
from shared.domain.stream import Stream
from tests.support.webhooks import NOW, SECRET, call_of, payload_of, with_headers

SOURCES = sorted(connectors())
PROOF = {"jira": "hmac", "github": "hmac", "gitlab": "token", "sentry": "hmac", "servicenow": "hmac"}
SIGNATURES = {
    "jira": "x-hub-signature",
    "github": "x-hub-signature-256",
    "gitlab": "x-gitlab-token",
    "sentry": "sentry-hook-signature",
    "servicenow": "x-tributary-signature",
}
every_source = pytest.mark.parametrize("source", SOURCES)
PLACES = {
    "jira": ("10417", "PETREL-17", None),
    "github": ("5512", "tidewater/petrel#17", "901"),
    "gitlab": ("5512", "tidewater/petrel#17", "901"),
    "sentry": ("5512", None, "901"),
    "servicenow": ("46d44a5c0a0a0b5700c77f9bf387afe3", "INC0010017", "incident"),
}


def hooks_of(source: str) -> Hooks:
    return connectors()[source].hooks


def event(source: str) -> dict[str, Any]:
    external_id, key, scope = PLACES[source]
    return payload_of(source, external_id=external_id, key=key, scope=scope)


def refused(source: str, call: HookCall, secret: str = SECRET) -> str:
    with pytest.raises(NotAuthenticatedError) as error:
        hooks_of(source).verify(call, secret, NOW)
    assert secret not in error.value.detail
    return error.value.detail


def parse(source: str, payload: object, **headers: str) -> Delivery:
    return hooks_of(source).parse(HookCall(headers=headers, query={}, body=orjson.dumps(payload)))


# Every source


@every_source
def test_a_signed_call_is_proven_and_names_its_issue(source: str) -> None:
    call = call_of(source, event(source), now=NOW)

    assert hooks_of(source).verify(call, SECRET, NOW) == PROOF[source]
    named = hooks_of(source).parse(call).issues
    assert [(each.id, each.key, each.scope) for each in named] == [PLACES[source]]


@every_source
def test_nothing_is_believed_without_a_signature_or_with_another_secret(source: str) -> None:
    call = call_of(source, event(source), now=NOW)

    refused(source, with_headers(call, **{SIGNATURES[source].replace("-", "_"): None}))
    refused(source, with_headers(call, **{SIGNATURES[source].replace("-", "_"): ""}))
    refused(source, with_headers(call, **{SIGNATURES[source].replace("-", "_"): "sha256=é\udcff"}))
    refused(source, call_of(source, event(source), secret="another-secret", now=NOW))


@pytest.mark.parametrize("source", [source for source in SOURCES if PROOF[source] == "hmac"])
def test_a_body_of_which_one_byte_was_changed_is_not_believed(source: str) -> None:
    call = call_of(source, event(source), now=NOW)

    for position in (0, len(call.body) // 2, len(call.body) - 1):
        changed = bytearray(call.body)
        changed[position] ^= 1
        refused(source, replace(call, body=bytes(changed)))
    refused(source, replace(call, body=orjson.dumps(orjson.loads(call.body), option=orjson.OPT_INDENT_2)))


@every_source
@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'"text"', b"[" * 5_000])
def test_a_body_that_makes_no_sense_is_told_as_such(source: str, body: bytes) -> None:
    with pytest.raises(ValueError):  # any of them; which one is the parser's affair
        hooks_of(source).parse(HookCall(headers={}, query={}, body=body))


@every_source
@pytest.mark.parametrize("strange", [None, 1, "x", [], {}, {"id": {}}, {"id": True}, {"id": "\x00"}, {"id": "x" * 999}])
def test_an_event_of_another_shape_is_ignored_with_a_reason(source: str, strange: object) -> None:
    for payload in ({}, dict.fromkeys(event(source), strange), {**event(source), "data": {"issue": strange}}):
        told = parse(source, payload)
        assert told.issues or told.ignored


@every_source
def test_what_proves_a_call_is_never_kept(source: str) -> None:
    kept = hooks_of(source).headers

    assert not {*SIGNATURES.values(), "authorization", "webhook-signature", "cookie", "x-hub-signature"} & kept


@every_source
def test_a_repeated_delivery_has_the_id_of_the_first_and_a_strange_id_is_replaced(source: str) -> None:
    identify = hooks_of(source).identify
    first = call_of(source, event(source), delivery="d-1", now=NOW)
    strange = call_of(source, event(source), delivery="../\x00é", now=NOW)

    assert identify(first) == "d-1"
    assert identify(strange) == identify(replace(strange, headers={})) == f"sha256:{_sha256(strange.body)}"
    assert identify(replace(strange, body=b"{}")) != identify(strange)


def _sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


# Jira


def test_jira_takes_the_secret_in_the_address_only_where_nothing_is_signed() -> None:
    unsigned = HookCall(headers={}, query={"secret": SECRET}, body=b"{}")
    forged = with_headers(unsigned, x_hub_signature="sha256=00")

    assert hooks_of("jira").verify(unsigned, SECRET, NOW) == "address"
    assert "address" in refused("jira", replace(unsigned, query={"secret": f"{SECRET}!"}))
    assert "x-hub-signature" in refused("jira", forged)
    assert "sha256" in refused("jira", with_headers(unsigned, x_hub_signature="sha1=00"))


def test_jira_checks_the_token_of_a_dynamic_webhook() -> None:
    secret = "the-client-secret-of-an-oauth-app-of-tidewater"

    def bearing(claims: dict[str, Any], *, key: str = secret, algorithm: str = "HS256") -> HookCall:
        token = jwt.encode(claims, key, algorithm=algorithm)
        return HookCall(headers={"authorization": f"Bearer {token}"}, query={}, body=b"{}")

    now = int(NOW.timestamp())
    assert hooks_of("jira").verify(bearing({"iat": now, "exp": now + 180}), secret, NOW) == "jwt"
    assert hooks_of("jira").verify(bearing({"iat": now}), secret, NOW) == "jwt"
    for call in (
        bearing({"iat": now - 900, "exp": now - 600}),
        bearing({"iat": now - 900}),
        bearing({}),
        bearing({"exp": "tomorrow"}),
        bearing({"exp": now + 180}, key="another-secret-of-at-least-32-bytes!"),
        bearing({"exp": now + 180}, key="", algorithm="none"),
        HookCall(headers={"authorization": "Bearer x.y.z"}, query={"secret": secret}, body=b"{}"),
    ):
        refused("jira", call, secret)


@pytest.mark.parametrize(
    ("payload", "named"),
    [
        ({"webhookEvent": "jira:issue_deleted", "issue": {"id": "10417", "key": "PETREL-17"}}, "10417"),
        ({"webhookEvent": "comment_created", "issue": {"id": "10417", "fields": {}}, "comment": {"id": "1"}}, "10417"),
        (
            {
                "webhookEvent": "comment_deleted",
                "comment": {"self": "https://jira.tidewater.example/rest/api/2/issue/10417/comment/10082"},
            },
            "10417",
        ),
        ({"webhookEvent": "worklog_updated", "worklog": {"issueId": "10417", "id": "1"}}, "10417"),
        ({"webhookEvent": "issuelink_created", "issueLink": {"sourceIssueId": 10417}}, "10417"),
        ({"webhookEvent": "comment_created", "comment": {"self": "https://jira.example/comment/1"}}, None),
        ({"webhookEvent": "board_created", "board": {"id": 5}}, None),
        ({"webhookEvent": "sprint_started", "sprint": {"id": 5}}, None),
    ],
)
def test_jira_names_the_issue_wherever_the_event_has_it(payload: dict[str, Any], named: str | None) -> None:
    told = parse("jira", payload)

    assert told.event == payload["webhookEvent"]
    assert [each.id for each in told.issues] == ([named] if named else [])
    assert bool(told.ignored) == (named is None)


# GitHub


def test_github_signs_as_its_documentation_shows() -> None:
    """https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries"""
    documented = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    call = HookCall(headers={"x-hub-signature-256": documented}, query={}, body=b"Hello, World!")

    assert hooks_of("github").verify(call, "It's a Secret to Everybody", NOW) == "hmac"


def test_github_sha1_is_no_signature() -> None:
    body = b"{}"
    older = f"sha1={hmac.new(SECRET.encode(), body, hashlib.sha1).hexdigest()}"

    refused("github", HookCall(headers={"x-hub-signature": older}, query={"secret": SECRET}, body=body))


def test_github_may_send_a_form() -> None:
    body = urlencode({"payload": orjson.dumps(event("github")).decode()}).encode()
    call = with_headers(call_of("github", body), content_type="application/x-www-form-urlencoded; charset=utf-8")

    assert hooks_of("github").verify(call, SECRET, NOW) == "hmac"
    assert [each.key for each in hooks_of("github").parse(call).issues] == ["tidewater/petrel#17"]


def test_github_tells_issues_from_pull_requests_and_the_rest() -> None:
    repository = {"id": 901, "full_name": "tidewater/petrel"}
    issue = {"id": 5512, "number": 17}
    comment = {"action": "created", "issue": {**issue, "pull_request": {}}, "repository": repository}
    opened = {"action": "opened", "pull_request": {"id": 8, "number": 17}, "repository": repository}
    moved = {
        "action": "transferred",
        "issue": issue,
        "repository": repository,
        "changes": {
            "new_issue": {"id": 5513, "number": 3},
            "new_repository": {"id": 902, "full_name": "tidewater/gull"},
        },
    }

    for payload, name in ((comment, "issue_comment"), (opened, "pull_request")):
        (named,) = parse("github", payload, **{"x-github-event": name}).issues
        assert (named.key, named.id, named.stream) == ("tidewater/petrel#17", None, Stream.PULL_REQUESTS)
    both = parse("github", moved, **{"x-github-event": "issues"}).issues
    assert [(each.id, each.scope) for each in both] == [("5512", "901"), ("5513", "902")]
    for name in ("ping", "label", "repository", "installation"):
        assert parse("github", {"repository": repository}, **{"x-github-event": name}).ignored


# GitLab


def signed_by_gitlab(body: bytes, key: bytes, moment: int) -> HookCall:
    signature = hmac.new(key, f"wh-1.{moment}.".encode() + body, hashlib.sha256).digest()
    other = base64.b64encode(bytes(32)).decode()
    return HookCall(
        headers={
            "webhook-id": "wh-1",
            "webhook-timestamp": str(moment),
            "webhook-signature": f"v1,{other} v1,{base64.b64encode(signature).decode()}",
        },
        query={},
        body=body,
    )


def test_gitlab_checks_a_signing_token() -> None:
    key = bytes(range(32))
    token = f"whsec_{base64.b64encode(key).decode()}"
    now = int(NOW.timestamp())
    call = signed_by_gitlab(b"{}", key, now)

    assert hooks_of("gitlab").verify(call, token, NOW) == "hmac"
    assert hooks_of("gitlab").identify(call) == "wh-1"
    assert hooks_of("gitlab").verify(signed_by_gitlab(b"{}", key, now - 299), token, NOW) == "hmac"
    refused("gitlab", replace(call, body=b"{ }"), token)
    refused("gitlab", with_headers(call, webhook_id="wh-2"), token)
    refused("gitlab", with_headers(call, webhook_timestamp=str(now + 1)), token)
    assert "clocks" in refused("gitlab", signed_by_gitlab(b"{}", key, now - 301), token)
    assert "clocks" in refused("gitlab", signed_by_gitlab(b"{}", key, now + 301), token)
    refused("gitlab", signed_by_gitlab(b"{}", key[::-1], now), token)
    refused("gitlab", with_headers(call, webhook_signature=None, x_gitlab_token=token), token)
    assert "base64" in refused("gitlab", call, "whsec_not base64")


def test_gitlab_takes_the_issue_of_a_note_not_the_note() -> None:
    project = {"id": 901, "path_with_namespace": "tidewater/petrel"}
    note = {
        "object_kind": "note",
        "project": project,
        "object_attributes": {"id": 1_243, "noteable_type": "Issue"},
        "issue": {"id": 5512, "iid": 17},
    }
    (named,) = parse("gitlab", note).issues

    assert (named.id, named.key, named.scope) == ("5512", "tidewater/petrel#17", "901")
    for payload in ({**note, "issue": None}, {"object_kind": "push"}, {"object_kind": "merge_request"}):
        assert parse("gitlab", payload).ignored


# Sentry


@pytest.mark.parametrize(
    ("resource", "data", "named"),
    [
        ("issue", {"issue": {"id": "5512", "project": {"id": "901", "slug": "petrel"}}}, ("5512", "901")),
        ("comment", {"issue_id": 5512, "comment_id": 3, "project_slug": "petrel"}, ("5512", "petrel")),
        ("error", {"error": {"issue_id": "5512", "project": 901}}, ("5512", "901")),
        ("event_alert", {"event": {"issue_id": "5512", "project": 901}}, ("5512", "901")),
        ("installation", {"installation": {"uuid": "x"}}, None),
        ("metric_alert", {"metric_alert": {"id": "7"}}, None),
    ],
)
def test_sentry_names_the_issue_of_every_resource(
    resource: str, data: dict[str, Any], named: tuple[str, str] | None
) -> None:
    told = parse("sentry", {"action": "created", "data": data}, **{"sentry-hook-resource": resource})

    assert told.event == f"{resource}.created"
    assert [(each.id, each.scope) for each in told.issues] == ([named] if named else [])
    assert bool(told.ignored) == (named is None)


# ServiceNow


def test_servicenow_signs_the_time_too() -> None:
    call = call_of("servicenow", event("servicenow"), now=NOW)
    old = call_of("servicenow", event("servicenow"), now=NOW - timedelta(minutes=6))
    as_hex = hmac.new(SECRET.encode(), f"{int(NOW.timestamp())}.".encode() + call.body, hashlib.sha256).hexdigest()

    assert hooks_of("servicenow").verify(with_headers(call, x_tributary_signature=f"sha256={as_hex}"), SECRET, NOW)
    assert "clocks" in refused("servicenow", old)
    refused("servicenow", with_headers(old, x_tributary_timestamp=call.headers["x-tributary-timestamp"]))


@pytest.mark.parametrize("sys_id", ["", "1^ORactive=true", "x" * 33, None, {"value": "1"}])
def test_servicenow_never_takes_what_could_be_a_condition(sys_id: object) -> None:
    assert parse("servicenow", {"table": "incident", "sys_id": sys_id}).ignored
    assert parse("servicenow", {"table": "incident?x=", "sys_id": "46d44a5c"}).ignored
