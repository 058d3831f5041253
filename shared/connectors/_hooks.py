"""What the webhooks of all sources share: comparing signatures, reading bodies, and names that are safe to keep."""

import hashlib
import hmac
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, TypeIs
from urllib.parse import parse_qs

import orjson

from shared.connectors._protocol import HookCall
from shared.domain.errors import NotAuthenticatedError

TOLERANCE = timedelta(minutes=5)
"""How far a signed time may be from ours, before and after."""

_MOST_CHARACTERS = 300
_SAFE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:~=-]{0,127}")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]")


def refuse(why: str) -> NotAuthenticatedError:
    """The error of a call that proves nothing; `why` is for the connection's owner, not for the caller."""
    return NotAuthenticatedError(why)


def mac(secret: str | bytes, message: bytes) -> bytes:
    """HMAC-SHA256."""
    return hmac.digest(secret.encode() if isinstance(secret, str) else secret, message, "sha256")


def same(given: str, expected: str) -> bool:
    """Compare in constant time."""
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), expected.encode())


def require_hex(call: HookCall, header: str, secret: str, *, prefix: str = "") -> None:
    """The header holds the HMAC of the raw body in hexadecimal."""
    if not same(call.headers[header].strip(), prefix + mac(secret, call.body).hex()):
        raise refuse(f"{header} does not fit the body and the secret")


def require_recent(seconds: str, now: datetime) -> None:
    """A signed time, in seconds since 1970, is about now: a call that was overheard cannot be repeated for ever."""
    if not re.fullmatch(r"[0-9]{1,11}", seconds, re.ASCII):
        raise refuse("The signed time is no number of seconds")
    if abs(now.timestamp() - int(seconds)) > TOLERANCE.total_seconds():
        raise refuse("The signed time is more than five minutes from ours; check the clocks")


def fingerprint(call: HookCall) -> str:
    """What tells calls apart that carry no id: a retry has the same body."""
    return f"sha256:{hashlib.sha256(call.body).hexdigest()}"


def id_from(call: HookCall, *headers: str) -> str:
    """The id the first of these headers gives; one that is missing, or unfit to be one, is replaced by the body's."""
    for header in headers:
        given = call.headers.get(header, "")
        if _SAFE_ID.fullmatch(given):
            return given
    return fingerprint(call)


def read_json(call: HookCall) -> dict[str, Any]:
    """The body's object; a form carries it in its field `payload`. Raises ValueError."""
    body = call.body
    if call.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        fields = parse_qs(body.decode(), strict_parsing=True, max_num_fields=10)
        body = fields.get("payload", [""])[0].encode()
    found: object = orjson.loads(body)
    if not _is_object(found):
        raise ValueError("The body is no JSON object")
    return found


def part(raw: Mapping[str, Any], *path: str) -> dict[str, Any]:
    """An object inside an object; empty where it is not, or is something else."""
    found: object = raw
    for name in path:
        found = found.get(name) if _is_object(found) else None
    return found if _is_object(found) else {}


def word(value: object) -> str | None:
    """An id, a key or a name, if it could be one."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    text = str(value).strip()
    return text if 0 < len(text) <= _MOST_CHARACTERS and not _UNPRINTABLE.search(text) else None


def _is_object(value: object) -> TypeIs[dict[str, Any]]:
    return isinstance(value, dict)
