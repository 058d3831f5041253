"""Who Jira takes us for: an API token, a bearer token, or tokens that a service account or an authorized app gets.

https://developer.atlassian.com/cloud/jira/platform/basic-auth-for-rest-apis/
https://developer.atlassian.com/cloud/jira/platform/oauth-2-3lo-apps/
https://confluence.atlassian.com/enterprise/using-personal-access-tokens-1026032365.html
"""

from base64 import b64encode
from functools import partial

import httpx

from shared.connectors._http import Headers, TrackerHTTP
from shared.connectors._jira_settings import JiraCredentials
from shared.connectors._oauth import CHECK_CLIENT, Tokens, classify_login, grant, to_lease, tokens_kept_by
from shared.connectors._protocol import Lease, OAuthCredentials, Renew

ATLASSIAN = "https://auth.atlassian.com/"
ATLASSIAN_API = "https://api.atlassian.com/"
GATEWAY = "/ex/jira/"
_CHECK_ADDRESS = (
    f"{CHECK_CLIENT}, and the address: for a service account on Cloud it is "
    "https://api.atlassian.com/ex/jira/{cloudId}"
)


class Login:
    """Credentials as a header, and where requests go with them."""

    def __init__(
        self, client: httpx.AsyncClient, base_url: str, credentials: JiraCredentials, renew: Renew | None
    ) -> None:
        self._credentials = credentials
        authorized = bool(credentials.refresh_token.get_secret_value())
        self._cloud = authorized or GATEWAY in base_url
        self._door = TrackerHTTP(
            client,
            base_url=ATLASSIAN if self._cloud else base_url,
            classify=partial(classify_login, check=_CHECK_ADDRESS),
            concurrency=1,
        )
        # Apps are authorized for a site under the address people know; requests go to Atlassian's gateway.
        self.by_site = authorized and GATEWAY not in base_url
        self.address = ATLASSIAN_API if self.by_site else base_url
        self._tokens = None
        if authorized:
            self._tokens = tokens_kept_by(renew, self._ask)
        elif credentials.client_id:
            # A service account may ask for a token as often as it likes: nothing has to be kept.
            self._tokens = Tokens(lambda _spent: self._ask(credentials))

    @property
    def requests(self) -> int:
        """How many tokens were asked for."""
        return self._door.requests

    async def headers(self) -> Headers:
        """Basic for an API token, bearer for all others."""
        if self._tokens:
            return await self._tokens.headers()
        token, email = self._credentials.token.get_secret_value().strip(), self._credentials.email.strip()
        pair = b64encode(f"{email}:{token}".encode()).decode()
        return {"Authorization": f"Basic {pair}" if email else f"Bearer {token}"}

    def renounce(self, refused: Headers) -> bool:
        """Give a token up; only those that were got have a successor."""
        return self._tokens is not None and self._tokens.renounce(refused)

    async def _ask(self, credentials: OAuthCredentials) -> Lease:
        """Ask for a token.

        https://support.atlassian.com/user-management/docs/create-oauth-2-0-credential-for-service-accounts/
        https://confluence.atlassian.com/enterprise/service-accounts-overview-1627095923.html
        """
        # Cloud takes the scopes that were chosen when the client was made.
        form = {**grant(credentials), **({} if self._cloud else {"scope": "READ"})}
        path = "oauth/token" if self._cloud else "rest/oauth2/latest/token"
        return to_lease(await self._door.request("POST", path, form=form), form)
