"""Jira's riddles: whom an answer is for, what a refusal means, and how much may still be asked.

https://developer.atlassian.com/cloud/jira/platform/rate-limiting/
"""

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, TypeIs

import httpx

from shared.connectors._http import Answer, Refusal, parse_http_date
from shared.connectors._jira_records import as_list
from shared.connectors._protocol import Quota
from shared.domain.errors import SourceError, Trouble

_SHOWN_CHARACTERS = 200
# Seraph lets a request with a wrong token through as nobody, and nobody may see public projects only.
# https://docs.atlassian.com/atlassian-seraph/latest/apidocs/com/atlassian/seraph/auth/LoginReason.html
_NOBODY = frozenset({"AUTHENTICATED_FAILED", "AUTHENTICATION_DENIED", "AUTHORISATION_FAILED", "OUT"})
_LIMIT_ENTRY = re.compile(r'"([^"]+)"((?:\s*;\s*\w+\s*=\s*\d+)*)')
_LIMIT_VALUE = re.compile(r"(\w+)\s*=\s*(\d{1,9})")
_ACCOUNT_HINT = (
    "Create a new token and save it: Atlassian's API tokens last a year at most, and a new password ends them"
)
_CAPTCHA_HINT = "Log in to Jira with this account in a browser once and answer the CAPTCHA; then test the connection"
_SITE_HINT = "Check the site's address; an unknown or switched-off site answers with this page"


def refuse_nobody(answer: Answer) -> None:
    """Raise if Jira answered somebody it does not know; such an answer is a success, and empty."""
    reasons = {reason.strip() for reason in answer.headers.get("x-seraph-loginreason", "").split(",")}
    if reasons & _NOBODY or answer.headers.get("x-ausername") == "anonymous":
        raise SourceError(
            Trouble.AUTH_INVALID,
            "Jira does not know this account and answered as to an anonymous visitor",
            status=answer.status,
            hint=_CAPTCHA_HINT if "AUTHENTICATION_DENIED" in reasons else _ACCOUNT_HINT,
        )


def classify(refusal: Refusal) -> SourceError | None:
    """What a refusal means, where Jira has its own way to say it; None where the status says it all."""
    if "CAPTCHA" in refusal.headers.get("x-authentication-denied-reason", "").upper():
        return refusal.error(Trouble.AUTH_INVALID, "Jira demands a CAPTCHA from this account", hint=_CAPTCHA_HINT)
    if refusal.headers.get("x-seraph-loginreason", "") in _NOBODY:
        # To a visitor without a name an issue that exists is "not found".
        return refusal.error(Trouble.AUTH_INVALID, "Jira does not know this account", hint=_ACCOUNT_HINT)
    reader = _READERS.get(refusal.status)
    return reader(refusal, f"Jira answered {refusal.status}{_message(refusal)}") if reader else None


def _bad_request(refusal: Refusal, says: str) -> SourceError:
    """A project that is not there or not visible is a wrong value in a query.

    https://support.atlassian.com/jira/kb/the-value-does-not-exist-for-the-field-error-in-jql/
    """
    hidden = "'project'" in says and "does not exist" in says
    return refusal.error(Trouble.NOT_FOUND if hidden else Trouble.BAD_REQUEST, says)


def _forbidden(refusal: Refusal, _says: str) -> SourceError | None:
    if "suspended" in refusal.text.lower():
        return refusal.error(Trouble.SUSPENDED_PAYMENT, "Jira says that the site is suspended")
    return None


def _not_found(refusal: Refusal, _says: str) -> SourceError | None:
    """A page instead of data is about the site; it must never pass for an issue that is gone."""
    if "html" in refusal.headers.get("content-type", ""):
        return refusal.error(Trouble.AUTH_INVALID, "There is no Jira under this address", hint=_SITE_HINT)
    return None


def _limited(refusal: Refusal, _says: str) -> SourceError:
    """The gateway's own limit comes without a time; how long to wait is then the caller's choice."""
    reason = refusal.headers.get("ratelimit-reason") or refusal.headers.get("x-failure-category") or "no reason given"
    detail = f"Jira limits the rate of requests: {reason[:_SHOWN_CHARACTERS]}"
    return refusal.error(Trouble.RATE_LIMIT, detail, retry_at=refusal.retry_after or _reset(refusal.headers))


def _unauthorized(refusal: Refusal, says: str) -> SourceError:
    # Of a page nothing is believed: `scope` is an attribute of tables as well.
    if "scope" in says.lower():
        return refusal.error(
            Trouble.PERMISSION_DENIED, says, hint="Give the token the scope this call needs; the guide lists them"
        )
    if "expired" in f"{says} {refusal.headers.get('www-authenticate', '')}".lower():
        return refusal.error(Trouble.AUTH_EXPIRED, says, hint=_ACCOUNT_HINT)
    return refusal.error(Trouble.AUTH_INVALID, says, hint=_ACCOUNT_HINT)


_READERS: Mapping[int, Callable[[Refusal, str], SourceError | None]] = {
    400: _bad_request,
    401: _unauthorized,
    402: _forbidden,
    403: _forbidden,
    404: _not_found,
    429: _limited,
}


def read_quota(headers: httpx.Headers) -> Quota | None:
    """What an answer says of the rate limit; of several limits the one with the least left.

    Headers of the hourly quota may carry the prefix Beta-.
    """
    limits = headers.get("ratelimit") or headers.get("beta-ratelimit")
    if limits:
        policies = _entries(headers.get("ratelimit-policy") or headers.get("beta-ratelimit-policy") or "")
        told = [(name, values) for name, values in _entries(limits).items() if "r" in values]
        if told:
            name, values = min(told, key=lambda each: each[1]["r"])
            now = parse_http_date(headers.get("date"))
            return Quota(
                bucket=name,
                limit=policies.get(name, {}).get("q"),
                remaining=values["r"],
                resets_at=now + timedelta(seconds=values["t"]) if now and "t" in values else None,
            )
    limit, remaining = _number(headers.get("x-ratelimit-limit")), _number(headers.get("x-ratelimit-remaining"))
    if limit is None and remaining is None:
        return None
    return Quota(limit=limit, remaining=remaining, resets_at=_reset(headers))


def _entries(text: str) -> dict[str, dict[str, int]]:
    return {
        name: {key: int(value) for key, value in _LIMIT_VALUE.findall(values)}
        for name, values in _LIMIT_ENTRY.findall(text)
    }


def _reset(headers: httpx.Headers) -> datetime | None:
    """ISO 8601, at times without seconds; never epoch."""
    text = headers.get("x-ratelimit-reset") or headers.get("x-beta-ratelimit-reset") or ""
    with suppress(ValueError):
        moment = datetime.fromisoformat(text)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return None


def _number(text: str | None) -> int | None:
    with suppress(ValueError, TypeError):
        return int(text or "")
    return None


def _message(refusal: Refusal) -> str:
    body = refusal.json
    if not _is_object(body):
        return ""
    said: list[object] = as_list(body.get("errorMessages"))
    errors = body.get("errors")
    if _is_object(errors):
        said += [f"{name}: {text}" for name, text in errors.items()]
    if not said and isinstance(body.get("message"), str):
        said = [body["message"]]
    text = " ".join("; ".join(map(str, said)).split())
    return f": {text[:_SHOWN_CHARACTERS]}" if text else ""


def _is_object(value: object) -> TypeIs[dict[str, Any]]:
    return isinstance(value, dict)
