"""Webhooks of ServiceNow, which has none of its own: a business rule calls us, as docs/sources/servicenow.md shows.

The call is JSON with `table`, `sys_id`, `number` and `action`, and these headers: `X-Tributary-Timestamp`, seconds
since 1970; `X-Tributary-Signature`, `sha256=` and the HMAC-SHA256 of `timestamp.body` in hexadecimal or, as
ServiceNow's own function gives it, in base64; and `X-Tributary-Delivery`, an id.
"""

import base64
import re
from datetime import datetime

from shared.connectors._hooks import id_from, mac, read_json, refuse, require_recent, same, word
from shared.connectors._protocol import Delivery, HookCall, Hooks
from shared.domain.sync import NamedIssue

_SIGNATURE = "x-tributary-signature"
_TIMESTAMP = "x-tributary-timestamp"
_SYS_ID = re.compile(r"[0-9a-zA-Z]{1,32}")
_TABLE = re.compile(r"[a-z][a-z0-9_]{0,79}")


def verify(call: HookCall, secret: str, now: datetime) -> str:
    """The time is signed too, so that a call that was overheard is of no use a little later."""
    moment, given = call.headers.get(_TIMESTAMP, ""), call.headers.get(_SIGNATURE, "").strip()
    expected = mac(secret, moment.encode("utf-8", "replace") + b"." + call.body)
    texts = (expected.hex(), base64.b64encode(expected).decode())
    if not any(same(given, f"sha256={text}") for text in texts):
        raise refuse(f"{_SIGNATURE} is missing, or does not fit {_TIMESTAMP}, the body and the secret")
    require_recent(moment, now)
    return "hmac"


def identify(call: HookCall) -> str:
    """The rule gives every call an id."""
    return id_from(call, "x-tributary-delivery")


def parse(call: HookCall) -> Delivery:
    """The record a rule ran for."""
    raw = read_json(call)
    table, sys_id = word(raw.get("table")), word(raw.get("sys_id"))
    event = f"{table or 'unknown'}.{word(raw.get('action')) or 'changed'}"
    if table is None or sys_id is None or not _SYS_ID.fullmatch(sys_id) or not _TABLE.fullmatch(table):
        return Delivery(event=event, ignored="It names no record: send table and sys_id")
    return Delivery(event=event, issues=[NamedIssue(id=sys_id, key=word(raw.get("number")), scope=table)])


HOOKS = Hooks(
    verify=verify,
    identify=identify,
    parse=parse,
    headers=frozenset({_TIMESTAMP, "x-tributary-delivery"}),
)
