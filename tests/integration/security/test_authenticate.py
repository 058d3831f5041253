"""Who calls, decided with a real database and a real issuer."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from shared.domain.api_key import APIKey
from shared.domain.caller import Caller, Role
from shared.domain.errors import NotAuthenticatedError
from shared.security.entra import EntraVerifier
from shared.services.authenticate import authenticate
from shared.services.manage_api_keys import create_api_key, list_api_keys, revoke_api_key
from shared.store.database import Database
from tests.support.issuer import Issuer
from tests.support.settings import make_settings

NOW = datetime(2026, 3, 4, 12, 0, 30, tzinfo=UTC)
ADMIN = Caller(id="key:bootstrap", name="bootstrap key", role=Role.ADMIN)
BOOTSTRAP = "trib_the-first-key-of-this-installation"


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    with Issuer() as issuer:
        yield issuer


async def given_key(
    database: Database, *, role: Role = Role.OPERATOR, expires_at: datetime | None = None
) -> tuple[APIKey, str]:
    return await create_api_key(database, ADMIN, name="nightly export", role=role, expires_at=expires_at, now=NOW)


async def call(
    database: Database,
    *,
    authorization: str | None = None,
    api_key: str | None = None,
    issuer: Issuer | None = None,
    now: datetime = NOW,
) -> Caller:
    verifier = EntraVerifier(make_settings(**issuer.settings())) if issuer else None
    return await authenticate(
        database, verifier, authorization=authorization, api_key=api_key, now=now, bootstrap_key=BOOTSTRAP
    )


async def test_a_key_opens_in_either_header(database: Database) -> None:
    key, secret = await given_key(database)
    expected = Caller(id=f"key:{key.id}", name="nightly export", role=Role.OPERATOR)

    assert await call(database, api_key=secret) == expected
    assert await call(database, authorization=f"Bearer {secret}") == expected
    assert await call(database, authorization=f"bearer   {secret} ") == expected


async def test_a_token_opens(database: Database, issuer: Issuer) -> None:
    token = issuer.token("Tributary.Write", oid="77", sub="77")

    caller = await call(database, authorization=f"Bearer {token}", issuer=issuer)

    assert (caller.id, caller.role) == (f"entra:{issuer.tenant}:77", Role.OPERATOR)


async def test_the_bootstrap_key_is_an_admin(database: Database) -> None:
    assert await call(database, api_key=BOOTSTRAP) == ADMIN
    assert await call(database, authorization=f"Bearer {BOOTSTRAP}") == ADMIN


async def test_an_unset_bootstrap_key_opens_nothing(database: Database) -> None:
    for sent in ("", " ", "trib_"):
        with pytest.raises(NotAuthenticatedError):
            await authenticate(database, None, authorization=f"Bearer {sent}", api_key=sent, now=NOW)


@pytest.mark.parametrize("authorization", [None, "", "Bearer", "Bearer ", "Basic Y2xhcmE6eA==", "trib_x", "Bearer a.b"])
async def test_no_credentials_are_no_caller(database: Database, authorization: str | None) -> None:
    with pytest.raises(NotAuthenticatedError):
        await call(database, authorization=authorization)


@pytest.mark.parametrize("key", ["trib_unknown", "trib_\x00", "trib_' or '1'='1", "é" * 5000])
async def test_unknown_keys_are_refused(database: Database, key: str) -> None:
    await given_key(database)

    with pytest.raises(NotAuthenticatedError):
        await call(database, api_key=key)


async def test_the_hash_in_the_database_is_no_key(database: Database) -> None:
    await given_key(database)
    async with database.connection() as connection:
        row = await (await connection.execute("select secret_hash, prefix from api_keys")).fetchone()

    assert row is not None
    for stolen in (bytes(row["secret_hash"]).hex(), bytes(row["secret_hash"]).decode("latin-1"), row["prefix"]):
        with pytest.raises(NotAuthenticatedError):
            await call(database, api_key=stolen)


async def test_a_revoked_key_is_refused_at_once(database: Database) -> None:
    key, secret = await given_key(database)
    await call(database, api_key=secret)

    await revoke_api_key(database, ADMIN, key.id, now=NOW)

    with pytest.raises(NotAuthenticatedError, match="revoked"):
        await call(database, api_key=secret)


async def test_a_key_ends_with_its_day(database: Database) -> None:
    end = NOW + timedelta(days=1)
    _, secret = await given_key(database, expires_at=end)

    assert await call(database, api_key=secret, now=end - timedelta(seconds=1))
    with pytest.raises(NotAuthenticatedError, match="expired"):
        await call(database, api_key=secret, now=end)


async def test_use_is_noted_once_a_minute(database: Database) -> None:
    _, secret = await given_key(database)
    assert (await list_api_keys(database))[0].last_used_at is None

    for seconds in (0, 20, 59, 61):
        await call(database, api_key=secret, now=NOW + timedelta(seconds=seconds))

    assert (await list_api_keys(database))[0].last_used_at == NOW + timedelta(seconds=61)
