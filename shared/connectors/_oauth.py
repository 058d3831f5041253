"""Access tokens that end: kept while they last, and got anew shortly before, or when one is refused.

https://www.rfc-editor.org/rfc/rfc6749#section-6
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeIs

from shared.connectors._http import Answer, Headers, Refusal, classify
from shared.connectors._protocol import Ask, Lease, OAuthCredentials, Renew
from shared.domain.errors import SourceError, Trouble

_SECONDS_BEFORE_END = 60
_REFUSED = frozenset({400, 401, 403, 404})
_CONNECT_AGAIN = "Authorize the app again, save the new refresh token in the credentials, test and resume"
CHECK_CLIENT = "Check the OAuth client's ID and secret"


class Tokens:
    """The access tokens of one connection, as bearers."""

    def __init__(self, renew: Callable[[str], Awaitable[Lease]]) -> None:
        """`renew` gets a lease other than the one whose access token it is told; empty: none yet."""
        self._renew = renew
        self._renewing = asyncio.Lock()
        self._lease: Lease | None = None
        self._refused = ""

    async def headers(self) -> Headers:
        """Authorization with a token that should be good."""
        async with self._renewing:
            lease = self._lease
            if lease is None or lease.access_token == self._refused or not lease.lasts(datetime.now(UTC)):
                lease = self._lease = await self._renew(lease.access_token if lease else "")
            return {"Authorization": f"Bearer {lease.access_token}"}

    def renounce(self, headers: Headers) -> bool:
        """Give a token up that was refused. There is another one to be had, or held already."""
        token = headers["Authorization"].removeprefix("Bearer ")
        if self._lease and self._lease.access_token == token:
            self._refused = token
        return True


def tokens_kept_by(renew: Renew | None, ask: Ask) -> Tokens:
    """Tokens got with a refresh token that is taken once. TypeError if there is nowhere to keep its successor."""
    if renew is None:
        raise TypeError("A refresh token that is taken once needs somewhere to keep its successor")
    return Tokens(lambda spent: renew(spent, ask))


def grant(credentials: OAuthCredentials) -> dict[str, str]:
    """The form that gets a token: with the refresh token if there is one, else as the client itself."""
    refresh_token = credentials.refresh_token.get_secret_value().strip()
    return {
        "grant_type": "refresh_token" if refresh_token else "client_credentials",
        "client_id": (credentials.client_id or "").strip(),
        "client_secret": credentials.client_secret.get_secret_value().strip(),
        **({"refresh_token": refresh_token} if refresh_token else {}),
    }


def to_lease(answer: Answer, form: dict[str, str]) -> Lease:
    """What a token endpoint gave for a form. A refresh token that is not replaced stays good."""
    data = answer.data
    if not _is_object(data) or not data.get("access_token"):
        raise SourceError(Trouble.PAYLOAD_INVALID, "The log-in was answered without a token", hint=CHECK_CLIENT)
    lives = data.get("expires_in")
    renew_at = None
    if isinstance(lives, int | float) and lives > 0:
        renew_at = renewal_of(answer, lives)
    return Lease(
        access_token=str(data["access_token"]),
        refresh_token=str(data.get("refresh_token") or form.get("refresh_token", "")),
        renew_at=renew_at,
    )


def renewal_of(answer: Answer, lives: float) -> datetime:
    """A little before the end of a token that lives so many seconds from the answer that brought it."""
    return answer.read_at + timedelta(seconds=lives - min(_SECONDS_BEFORE_END, lives / 2))


def classify_login(refusal: Refusal, *, check: str = CHECK_CLIENT) -> SourceError | None:
    """What a token endpoint's refusal means: the authorization is over, or the client is wrong: `check` it."""
    if refusal.status not in _REFUSED:
        return None
    said, body = classify(refusal).detail, refusal.json
    told = [str(body.get(name)) for name in ("error", "error_description")] if _is_object(body) else []
    # Atlassian also says "unauthorized_client: refresh_token is invalid".
    if "invalid_grant" in told or any("refresh_token" in each for each in told):
        detail = f"The refresh token is not taken any more; the app has to be authorized again. {said}"
        return refusal.error(Trouble.AUTH_EXPIRED, detail, hint=_CONNECT_AGAIN)
    return refusal.error(Trouble.AUTH_INVALID, f"The OAuth client gets no token. {said}", hint=check)


def _is_object(value: object) -> TypeIs[dict[str, Any]]:
    return isinstance(value, dict)
