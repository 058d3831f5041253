"""Who talks to GitHub, and what its refusals mean.

403 alone stands for a spent rate limit, a missing permission, single sign-on, an address that is not allowed, a blocked
repository and a missing User-Agent. What GitHub says of them:
https://docs.github.com/en/rest/using-the-rest-api/troubleshooting-the-rest-api
https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import jwt

from shared.connectors._http import Answer, Headers, Refusal, TrackerHTTP, parse_http_date
from shared.connectors._http import classify as classify_status
from shared.connectors._oauth import Tokens
from shared.connectors._protocol import Lease, Quota
from shared.domain.errors import SourceError, Trouble
from shared.domain.stream import to_utc

API_HEADERS: Headers = {"Accept": "application/vnd.github+json", "X-GitHub-Api-Version": "2022-11-28"}
# Without a hint of how long, wait at least a minute after a secondary limit.
_SECONDARY_WAIT = timedelta(minutes=1)
# GitHub locks out a credential "temporarily" after several wrong ones, and does not say for how long.
_LOCKOUT_WAIT = timedelta(minutes=5)
_RENEWED_BEFORE = timedelta(minutes=5)
# A JWT may live ten minutes; a minute at its start allows for clocks that differ.
# https://docs.github.com/en/apps/creating-github-apps/authenticating-with-a-github-app/generating-a-json-web-token-jwt-for-a-github-app
_JWT_BACKDATED = timedelta(minutes=1)
_JWT_LIFE = timedelta(minutes=9)


class Installation:
    """The installation of a GitHub App: its access token is made from the App's key and lives an hour, in memory only.

    https://docs.github.com/en/rest/apps/apps#create-an-installation-access-token-for-an-app
    """

    def __init__(
        self, client: httpx.AsyncClient, base_url: str, *, app_id: str, installation_id: int, private_key: str
    ) -> None:
        self._app_id = app_id
        self._path = f"app/installations/{installation_id}"
        # Forms and environment variables often carry the line breaks of a key as two characters.
        self._key = private_key.replace("\\n", "\n").strip()
        self._http = TrackerHTTP(client, base_url=base_url, authorize=self._authorize, classify=self._classify)
        self._tokens = Tokens(self._make_token)
        # GitHub's clock minus ours, where that is why it refused a JWT.
        self._ahead = timedelta(0)
        self.permissions: Mapping[str, str] = {}

    @property
    def requests(self) -> int:
        return self._http.requests

    async def headers(self) -> Headers:
        """Authorization with an access token that is good for five minutes at least."""
        return await self._tokens.headers()

    def renounce(self, refused: Headers) -> bool:
        """Make a new token for the next call: this one was refused, as it may be revoked before its time."""
        return self._tokens.renounce(refused)

    async def about(self) -> Answer:
        """Whose installation it is, and what it may do."""
        return await self._as_app("GET", self._path)

    async def _as_app(self, method: str, path: str) -> Answer:
        """A call with a JWT; once more by GitHub's clock where ours is so wrong that the first JWT seemed not valid."""
        ahead = self._ahead
        try:
            return await self._http.request(method, path)
        except SourceError as error:
            if error.status != 401 or self._ahead == ahead:
                raise
            return await self._http.request(method, path)

    async def _make_token(self, _spent: str) -> Lease:
        answer = await self._as_app("POST", f"{self._path}/access_tokens")
        token, expires_at = answer.data.get("token"), to_utc(answer.data.get("expires_at"))
        if not token:
            raise SourceError(Trouble.SCHEMA_CHANGED, "GitHub sent no access token for the App")
        self.permissions = answer.data.get("permissions") or {}
        # By GitHub's own clock, so that a wrong clock here does not matter.
        life = expires_at - (answer.server_time or answer.read_at) if expires_at else timedelta(0)
        return Lease(access_token=token, renew_at=answer.read_at + life - _RENEWED_BEFORE)

    async def _authorize(self) -> Headers:
        now = datetime.now(UTC) + self._ahead
        claims = {"iss": self._app_id, "iat": now - _JWT_BACKDATED, "exp": now + _JWT_LIFE}
        try:
            signed = jwt.encode(claims, self._key, algorithm="RS256")
        except (ValueError, TypeError, jwt.PyJWTError) as error:
            raise SourceError(
                Trouble.AUTH_INVALID,
                "The private key of the GitHub App cannot be read",
                hint="Paste the whole PEM file, from BEGIN to END",
            ) from error
        return {**API_HEADERS, "Authorization": f"Bearer {signed}"}

    def _classify(self, refusal: Refusal) -> SourceError | None:
        """A refusal of the App as a whole is one of its credentials, but for limits and failures."""
        told_at = parse_http_date(refusal.headers.get("date"))
        if refusal.status == 401 and told_at and abs(told_at - refusal.now - self._ahead) > _JWT_BACKDATED / 2:
            self._ahead = told_at - refusal.now
        error = classify(refusal) or classify_status(refusal)
        if error.trouble in {Trouble.NOT_FOUND, Trouble.PERMISSION_DENIED, Trouble.BAD_REQUEST}:
            hint = "Check App id and installation id; the App may also be uninstalled or suspended"
            return refusal.error(Trouble.AUTH_INVALID, error.detail, hint=hint)
        return error


def classify(refusal: Refusal) -> SourceError | None:
    """What a refusal of GitHub means; None where its status says all."""
    said = classify_status(refusal).detail
    status = refusal.status
    if status in {403, 429}:
        return _forbidden(refusal, said)
    if status == 401:
        trouble = Trouble.AUTH_EXPIRED if "expired" in said.lower() else Trouble.AUTH_INVALID
        return refusal.error(trouble, said, hint="Check the token: it is wrong, was revoked, or has expired")
    if status in _TROUBLE_OF:
        trouble, hint = _TROUBLE_OF[status]
        return refusal.error(trouble, said, hint=hint)
    return None


_TROUBLE_OF = {
    404: (Trouble.NOT_FOUND, "It does not exist, or the token may not see it: GitHub answers the same to both"),
    409: (Trouble.NOT_FOUND, "The repository is empty"),
    410: (Trouble.NOT_FOUND, "It was deleted, or issues are turned off in the repository"),
    451: (Trouble.PERMISSION_DENIED, "GitHub blocked it for legal reasons: leave it out"),
    # A page that takes GitHub longer than ten seconds ends so, as HTML or JSON; the next try often succeeds.
    500: (Trouble.SERVER_ERROR, ""),
    502: (Trouble.SERVER_ERROR, ""),
    504: (Trouble.SERVER_ERROR, ""),
}


def _forbidden(refusal: Refusal, said: str) -> SourceError:
    text = said.lower()
    if hint := _denial(refusal, text):
        return refusal.error(Trouble.PERMISSION_DENIED, said, hint=hint)
    if "user-agent" in text:
        return refusal.error(Trouble.BAD_REQUEST, said, hint="A proxy in between takes the User-Agent header away")
    if retry_at := _allowed_again(refusal, text):
        return refusal.error(Trouble.RATE_LIMIT, said, retry_at=retry_at)
    return refusal.error(Trouble.PERMISSION_DENIED, said)


def _allowed_again(refusal: Refusal, text: str) -> datetime | None:
    """When a limit allows the next call, or None if the refusal is about none."""
    if refusal.retry_after:
        return refusal.retry_after
    if refusal.headers.get("x-ratelimit-remaining") == "0" and (reset := _reset(refusal)):
        return reset
    if "login attempts" in text:
        return refusal.now + _LOCKOUT_WAIT
    if "rate limit" in text or "abuse" in text or refusal.status == 429:
        return refusal.now + _SECONDARY_WAIT
    return None


def _denial(refusal: Refusal, text: str) -> str | None:
    """What to do about a refusal that waiting does not cure, or None if it does not name itself one."""
    sso = refusal.headers.get("x-github-sso", "")
    if sso.startswith("required") or "saml enforcement" in text:
        organization = re.search(r"/orgs/([^/?]+)", sso)
        named = f" of {organization[1]}" if organization else ""
        return f"Authorize the token for the single sign-on{named}, under Settings, Personal access tokens"
    if "ip allow list" in text:
        return "Add the outgoing addresses of this installation to the organization's IP allow list"
    if "not accessible by" in text:
        needed = refusal.headers.get("x-accepted-github-permissions", "")
        return f"Give the token these permissions: {needed}" if needed else Trouble.PERMISSION_DENIED.advice
    if "suspended" in text:
        return "The App's installation or the account is suspended: have an owner of the organization lift that"
    if "access blocked" in text:
        return "GitHub blocked the repository: its owner finds the reason there"
    return None


def _reset(refusal: Refusal) -> datetime | None:
    """When the limit is reset, by our clock: GitHub names it by its own, which the Date header tells."""
    try:
        reset = datetime.fromtimestamp(int(refusal.headers.get("x-ratelimit-reset", "")), UTC)
    except (ValueError, OverflowError, OSError):
        return None
    told_at = parse_http_date(refusal.headers.get("date")) or refusal.now
    return refusal.now + max(reset - told_at, timedelta(seconds=1))


def read_quota(headers: httpx.Headers) -> Quota | None:
    """The limit as every answer names it; Enterprise Server may have none."""
    if "x-ratelimit-limit" not in headers:
        return None
    numbers: dict[str, Any] = {}
    for field in ("limit", "remaining", "reset"):
        value = headers.get(f"x-ratelimit-{field}", "")
        numbers[field] = int(value) if value.isdecimal() else None
    reset = numbers["reset"]
    return Quota(
        bucket=headers.get("x-ratelimit-resource", ""),
        limit=numbers["limit"],
        remaining=numbers["remaining"],
        resets_at=datetime.fromtimestamp(reset, UTC) if reset is not None else None,
    )
