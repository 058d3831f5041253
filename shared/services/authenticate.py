"""Find out who calls, from the credentials of a request."""

from datetime import datetime

from shared.domain.caller import Caller, Role
from shared.domain.errors import NotAuthenticatedError
from shared.security.api_keys import KEY_PREFIX, hash_key, is_same_key
from shared.security.entra import EntraVerifier
from shared.store import api_keys
from shared.store.database import Database

_HINT = "Send an Entra ID access token as `Authorization: Bearer …`, or an API key as `X-API-Key`"


async def authenticate(
    database: Database,
    verifier: EntraVerifier | None,
    *,
    authorization: str | None,
    api_key: str | None,
    now: datetime,
    bootstrap_key: str = "",
) -> Caller:
    """The caller behind an API key (X-API-Key, or a Bearer that is one) or an access token.

    Keys are looked up at every request, so a revoked one is refused by the next. `bootstrap_key` is the installation's
    own: an admin that exists before there is a key to create keys with.
    """
    token = _bearer(authorization)
    key = api_key or (token if token.startswith(KEY_PREFIX) else "") or _bootstrap(token, bootstrap_key)
    if key:
        return await _caller_of_key(database, key, bootstrap_key, now)
    if not token:
        raise NotAuthenticatedError("No credentials were sent", hint=_HINT)
    if verifier is None:
        raise NotAuthenticatedError("Access tokens are not accepted here: no tenant is configured", hint=_HINT)
    return await verifier.verify(token)


async def _caller_of_key(database: Database, key: str, bootstrap_key: str, now: datetime) -> Caller:
    if is_same_key(key, bootstrap_key):
        return Caller(id="key:bootstrap", name="bootstrap key", role=Role.ADMIN)
    async with database.connection() as connection:
        found = await api_keys.find_by_hash(connection, hash_key(key))
        if found is None:
            raise NotAuthenticatedError("The API key is not known", hint=_HINT)
        if not found.is_valid(now):
            ended = "was revoked" if found.revoked_at else "has expired"
            raise NotAuthenticatedError(f"The API key {ended}", hint="Ask an administrator for a new one")
        await api_keys.touch(connection, found, now=now)
    return Caller(id=f"key:{found.id}", name=found.name, role=found.role)


def _bearer(authorization: str | None) -> str:
    scheme, _, token = (authorization or "").strip().partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _bootstrap(token: str, bootstrap_key: str) -> str:
    return token if token and is_same_key(token, bootstrap_key) else ""
