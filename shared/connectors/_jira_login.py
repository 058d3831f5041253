"""Who Jira takes us for: an API token, a bearer token, or the tokens a service account's client gets for itself.

https://developer.atlassian.com/cloud/jira/platform/basic-auth-for-rest-apis/
https://confluence.atlassian.com/enterprise/using-personal-access-tokens-1026032365.html
"""

import asyncio
from base64 import b64encode

import httpx

from shared.connectors._http import Headers, Refusal, TrackerHTTP
from shared.connectors._http import classify as classify_by_status
from shared.connectors._jira_records import is_object
from shared.connectors._jira_settings import JiraCredentials
from shared.domain.errors import SourceError, Trouble

ATLASSIAN = "https://auth.atlassian.com/"
GATEWAY = "/ex/jira/"
_SECONDS_A_TOKEN_LIVES = 3_600
_SECONDS_BEFORE_EXPIRY = 60
_CLIENT_HINT = (
    "Check the client's ID and secret, and the address: on Cloud it is https://api.atlassian.com/ex/jira/{cloudId}"
)


class Login:
    """Credentials as a header. Tokens of a client are kept until a minute before they end, in memory only."""

    def __init__(self, client: httpx.AsyncClient, base_url: str, credentials: JiraCredentials) -> None:
        self._credentials = credentials
        self._gateway = GATEWAY in base_url
        address = ATLASSIAN if self._gateway else base_url
        self._door = TrackerHTTP(client, base_url=address, classify=_classify, concurrency=1)
        self._asking = asyncio.Lock()
        self._ends = 0.0
        # Of a client; empty where the credentials themselves are the token.
        self.token = ""

    @property
    def requests(self) -> int:
        """How many tokens were asked for."""
        return self._door.requests

    async def headers(self) -> Headers:
        """Basic for an API token, bearer for all others."""
        known = self._credentials
        if known.client_id:
            async with self._asking:
                if not self.token or asyncio.get_running_loop().time() >= self._ends:
                    await self._renew()
                return {"Authorization": f"Bearer {self.token}"}
        token, email = known.token.get_secret_value().strip(), known.email.strip()
        pair = b64encode(f"{email}:{token}".encode()).decode()
        return {"Authorization": f"Basic {pair}" if email else f"Bearer {token}"}

    def forget(self, token: str) -> bool:
        """Drop a token that was refused; whether there is another to be had."""
        if token and self.token == token:
            self.token = ""
        return bool(token)

    async def _renew(self) -> None:
        """Ask for a token.

        https://support.atlassian.com/user-management/docs/create-oauth-2-0-credential-for-service-accounts/
        https://confluence.atlassian.com/enterprise/service-accounts-overview-1627095923.html
        """
        asked_at = asyncio.get_running_loop().time()
        form = {
            "grant_type": "client_credentials",
            "client_id": self._credentials.client_id or "",
            "client_secret": self._credentials.client_secret.get_secret_value(),
            # Cloud takes the scopes that were chosen when the client was made.
            **({} if self._gateway else {"scope": "READ"}),
        }
        path = "oauth/token" if self._gateway else "rest/oauth2/latest/token"
        answer = await self._door.request("POST", path, form=form)
        if not is_object(answer.data) or not answer.data.get("access_token"):
            raise SourceError(Trouble.PAYLOAD_INVALID, "Jira answered the log-in without a token", hint=_CLIENT_HINT)
        said = answer.data.get("expires_in")
        lives = said if isinstance(said, int | float) and said > 0 else _SECONDS_A_TOKEN_LIVES
        self.token = str(answer.data["access_token"])
        self._ends = asked_at + lives - min(_SECONDS_BEFORE_EXPIRY, lives / 2)


def _classify(refusal: Refusal) -> SourceError | None:
    if refusal.status in {400, 401, 403, 404}:
        says = classify_by_status(refusal).detail
        return refusal.error(Trouble.AUTH_INVALID, f"Jira gives this client no token. {says}", hint=_CLIENT_HINT)
    return None
