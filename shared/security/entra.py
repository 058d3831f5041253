"""Entra ID access tokens: who signed them, for whom, until when, and which of our roles they carry.

Both token versions are accepted, because an app registration issues v1 until it is told otherwise: they differ in
issuer and audience, not in signing keys.
https://learn.microsoft.com/entra/identity-platform/access-token-claims-reference
"""

import asyncio
import threading
import time
from typing import Any

import jwt
from jwt import PyJWK, PyJWKClient, PyJWKClientConnectionError

from shared.domain.caller import Caller, Role
from shared.domain.errors import NotAllowedError, NotAuthenticatedError, UnavailableError
from shared.settings import Settings

_ROLES = {"Tributary.Admin": Role.ADMIN, "Tributary.Write": Role.OPERATOR, "Tributary.Read": Role.READER}
_REQUIRED = ["exp", "iat", "nbf", "iss", "aud", "tid", "oid"]
_LEEWAY_SECONDS = 60
# Keys rotate rarely and a new one is fetched as soon as a token names it, so the set may be kept for hours.
_KEYS_SECONDS = 12 * 60 * 60
_FETCH_SECONDS = 5
# How long unknown key ids are refused, and an authority that failed is left alone, before the next fetch.
_COOL_DOWN_SECONDS = 30.0
_LONGEST_TOKEN = 16 * 1024
_REFUSED_HINT = "Get an access token for this API from Entra ID"


class EntraVerifier:
    """Checks tokens of one tenant; keeps its signing keys. One per process, safe to use from several threads."""

    def __init__(self, settings: Settings, *, cool_down_seconds: float = _COOL_DOWN_SECONDS) -> None:
        authority = f"{settings.entra_authority.rstrip('/')}/{settings.entra_tenant_id}"
        self._tenant = settings.entra_tenant_id
        self._audiences = settings.entra_audiences
        self._issuers = [f"{authority}/v2.0", f"{settings.entra_v1_issuer.rstrip('/')}/{settings.entra_tenant_id}/"]
        self._keys = PyJWKClient(
            f"{authority}/discovery/v2.0/keys",
            lifespan=_KEYS_SECONDS,
            timeout=_FETCH_SECONDS,
            cooldown_duration=cool_down_seconds,
        )
        self._cool_down_seconds = cool_down_seconds
        self._fetching = threading.Lock()
        self._no_fetch_until = 0.0

    async def verify(self, token: str) -> Caller:
        """The caller a token stands for.

        NotAuthenticatedError if it proves nothing, NotAllowedError if it is genuine but carries no role of ours,
        UnavailableError if the keys to check it with cannot be had.
        """
        key_id = _key_id(token)
        key = self._known_key(key_id) or await asyncio.to_thread(self._fetch_key, key_id)
        return _to_caller(self._claims(token, key))

    def _claims(self, token: str, key: PyJWK) -> dict[str, Any]:
        try:
            claims = jwt.decode(
                token,
                key.key,
                algorithms=["RS256"],
                audience=self._audiences,
                issuer=self._issuers,
                leeway=_LEEWAY_SECONDS,
                options={"require": _REQUIRED},
            )
        except jwt.ExpiredSignatureError as error:
            raise NotAuthenticatedError("The access token has expired", hint=_REFUSED_HINT) from error
        except jwt.InvalidTokenError as error:
            raise NotAuthenticatedError("The access token is not valid here", hint=_REFUSED_HINT) from error
        if claims["tid"] != self._tenant:
            raise NotAuthenticatedError("The access token belongs to another tenant", hint=_REFUSED_HINT)
        return claims

    def _known_key(self, key_id: str) -> PyJWK | None:
        cache = self._keys.jwk_set_cache
        if cache is None or cache.get() is None:
            return None
        try:
            return self._keys.match_kid(self._keys.get_signing_keys(), key_id)
        except jwt.PyJWKClientError:  # a set in which no key is meant for signatures
            return None

    def _fetch_key(self, key_id: str) -> PyJWK:
        """Ask the authority for a key we do not have; one fetch at a time, and none while cooling down."""
        with self._fetching:
            if key := self._known_key(key_id):
                return key
            if time.monotonic() < self._no_fetch_until:
                raise UnavailableError("The identity provider does not answer")
            try:
                return self._keys.get_signing_key(key_id)
            except (PyJWKClientConnectionError, jwt.PyJWKSetError, OSError, ValueError) as error:
                self._no_fetch_until = time.monotonic() + self._cool_down_seconds
                raise UnavailableError("The identity provider does not answer") from error
            except jwt.PyJWKClientError as error:
                raise NotAuthenticatedError(
                    "The access token is signed by an unknown key", hint=_REFUSED_HINT
                ) from error


def _key_id(token: str) -> str:
    try:
        header = jwt.get_unverified_header(token) if len(token) <= _LONGEST_TOKEN else {}
    except jwt.InvalidTokenError as error:
        raise NotAuthenticatedError("The access token cannot be read", hint=_REFUSED_HINT) from error
    key_id = header.get("kid")
    # Checked here as well, so that a token of another kind causes no fetch.
    if header.get("alg") != "RS256" or not isinstance(key_id, str):
        raise NotAuthenticatedError("The access token is not signed as Entra ID signs", hint=_REFUSED_HINT)
    return key_id


def _to_caller(claims: dict[str, Any]) -> Caller:
    if not _is_access_token(claims):
        raise NotAuthenticatedError("This is an ID token; an access token is needed", hint=_REFUSED_HINT)
    granted: object = claims.get("roles")
    role = next((role for word, role in _ROLES.items() if isinstance(granted, list) and word in granted), None)
    if role is None:
        raise NotAllowedError(
            "The access token carries no role of Tributary",
            hint=f"Have one of the app roles {', '.join(_ROLES)} assigned",
        )
    return Caller(id=f"entra:{claims['tid']}:{claims['oid']}", name=_name(claims), role=role)


def _is_access_token(claims: dict[str, Any]) -> bool:
    """Users' access tokens have scopes; those of apps are about the app itself. ID tokens have neither."""
    return bool(claims.get("scp")) or claims.get("idtyp") == "app" or claims.get("sub") == claims["oid"]


def _name(claims: dict[str, Any]) -> str:
    """A name for people to read; nothing is decided by it."""
    for claim in ("preferred_username", "upn", "name", "app_displayname", "azp", "appid"):
        if value := claims.get(claim):
            return str(value)
    return str(claims["oid"])
