"""What GitLab's refusals mean, and what its headers say of the limit."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import httpx

from shared.connectors._http import Refusal, parse_http_date
from shared.connectors._protocol import Quota
from shared.domain.errors import SourceError, Trouble

_BLOCKED = "GitLab, or a firewall before it, refuses this address: ask its administrator for an exception"
# Refusals of an account as a whole: lib/gitlab/auth/user_access_denied_reason.rb
_ACCOUNT_REFUSED = (
    "has been blocked",
    "has been deactivated",
    "is pending approval",
    "was rejected",
    "is not confirmed",
    "Terms of Service",
)


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
        case 403:
            return _forbidden(refusal, body)
        case 429:
            return refusal.error(
                Trouble.RATE_LIMIT,
                "GitLab's rate limit is reached",
                retry_at=refusal.retry_after or _allowed_again(refusal),
            )
        case 502:
            return refusal.error(Trouble.SERVER_ERROR, "GitLab is not responding")
        case _:
            return None


def _forbidden(refusal: Refusal, body: dict[str, Any]) -> SourceError | None:
    """A token without the scope, an account that is refused as a whole, or an address."""
    said = str(body.get("message", ""))
    if str(body.get("error", "")).startswith("insufficient_"):
        lacking = body.get("scope") or body.get("error_description") or "it does not say which"
        hint = "Create a token with the scope read_api"
        return refusal.error(Trouble.PERMISSION_DENIED, f"The token lacks a scope: {lacking}", hint=hint)
    if any(reason in said for reason in _ACCOUNT_REFUSED):
        hint = "Have an administrator restore the account, or use the token of another"
        return refusal.error(Trouble.AUTH_INVALID, f"GitLab refuses the account: {said}", hint=hint)
    if not body:
        return refusal.error(Trouble.PERMISSION_DENIED, "GitLab answered 403 without saying why", hint=_BLOCKED)
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


def _allowed_again(refusal: Refusal) -> datetime | None:
    """When the limit is reset, by our clock: GitLab names it by its own, which the Date header tells."""
    reset = _reset(refusal.headers)
    told_at = parse_http_date(refusal.headers.get("date")) or refusal.now
    return refusal.now + max(reset - told_at, timedelta(seconds=1)) if reset else None


def _reset(headers: httpx.Headers) -> datetime | None:
    seconds = _number(headers.get("ratelimit-reset"))
    with suppress(ValueError, OverflowError, OSError):
        return datetime.fromtimestamp(seconds, UTC) if seconds is not None else None
    return None


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdecimal() else None
