"""What GitLab's refusals mean, and what its headers say of the limit."""

from datetime import UTC, datetime
from typing import Any, cast

import httpx

from shared.connectors._http import Refusal
from shared.connectors._protocol import Quota
from shared.domain.errors import SourceError, Trouble

_BLOCKED = "GitLab, or a firewall before it, refuses this address: ask its administrator for an exception"


def classify(refusal: Refusal) -> SourceError | None:
    """The riddles of GitLab's statuses; None where a status means what it always does.

    https://docs.gitlab.com/api/rest/troubleshooting/
    """
    said = refusal.json
    body = cast("dict[str, Any]", said) if isinstance(said, dict) else {}
    error, description = str(body.get("error", "")), str(body.get("error_description", ""))
    match refusal.status:
        case 401 if error == "invalid_token" and ("expired" in description or "revoked" in description):
            return refusal.error(Trouble.AUTH_EXPIRED, f"GitLab says: {description}")
        case 403 if error == "insufficient_scope":
            return refusal.error(
                Trouble.PERMISSION_DENIED,
                f"The token lacks a scope: {body.get('scope') or description}",
                hint="Create a token with the scope read_api",
            )
        case 403 if not body:
            return refusal.error(Trouble.PERMISSION_DENIED, "GitLab answered 403 without saying why", hint=_BLOCKED)
        case 429:
            return refusal.error(
                Trouble.RATE_LIMIT,
                "GitLab's rate limit is reached",
                retry_at=refusal.retry_after or _reset(refusal.headers),
            )
        case 502:
            return refusal.error(Trouble.SERVER_ERROR, "GitLab is not responding")
        case _:
            return None


def read_quota(headers: httpx.Headers) -> Quota | None:
    """The headers of the limit; self-managed servers may send none.

    https://docs.gitlab.com/administration/settings/user_and_ip_rate_limits/#response-headers
    """
    if "ratelimit-limit" not in headers:
        return None
    return Quota(
        bucket=headers.get("ratelimit-name", ""),
        limit=_number(headers.get("ratelimit-limit")),
        remaining=_number(headers.get("ratelimit-remaining")),
        resets_at=_reset(headers),
    )


def _reset(headers: httpx.Headers) -> datetime | None:
    seconds = _number(headers.get("ratelimit-reset"))
    return datetime.fromtimestamp(seconds, UTC) if seconds is not None else None


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdecimal() else None
