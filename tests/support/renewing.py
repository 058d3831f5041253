"""Somewhere to keep refresh tokens where there is no database."""

from pydantic import SecretStr

from shared.connectors._protocol import Ask, Lease, OAuthCredentials


class KeptInMemory:
    """What a worker that is alone may do with the credentials of a connection."""

    def __init__(self, credentials: OAuthCredentials) -> None:
        self.credentials = credentials

    async def renew(self, _spent: str, ask: Ask) -> Lease:
        lease = await ask(self.credentials)
        self.credentials = self.credentials.model_copy(update={"refresh_token": SecretStr(lease.refresh_token)})
        return lease
