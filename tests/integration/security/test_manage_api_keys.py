"""Creating, listing and revoking keys."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from shared.domain.caller import Caller, Role
from shared.domain.errors import InvalidRequestError, NotFoundError
from shared.services.manage_api_keys import create_api_key, list_api_keys, revoke_api_key
from shared.store import audit_log
from shared.store.database import Database

NOW = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)
ADMIN = Caller(id="entra:t:7", name="ida@kelpworks.example", role=Role.ADMIN)


async def test_the_secret_is_shown_once_and_stored_nowhere(database: Database) -> None:
    key, secret = await create_api_key(database, ADMIN, name="CI", role=Role.READER, expires_at=None, now=NOW)

    assert await list_api_keys(database) == [key]
    async with database.connection() as connection:
        keys = await (await connection.execute("select api_keys::text as line from api_keys")).fetchall()
        audit = await (await connection.execute("select audit_log::text as line from audit_log")).fetchall()
    assert secret not in str([*keys, *audit])
    assert secret.startswith(key.prefix)


async def test_keys_are_listed_newest_first(database: Database) -> None:
    for day, name in enumerate(["first", "second", "third"]):
        await create_api_key(
            database, ADMIN, name=name, role=Role.READER, expires_at=None, now=NOW + timedelta(days=day)
        )

    assert [key.name for key in await list_api_keys(database)] == ["third", "second", "first"]


async def test_creation_and_revocation_are_in_the_audit_log(database: Database) -> None:
    key, _ = await create_api_key(database, ADMIN, name="CI", role=Role.READER, expires_at=None, now=NOW)
    await revoke_api_key(database, ADMIN, key.id, now=NOW + timedelta(hours=1))

    async with database.connection() as connection:
        revoked, created = await audit_log.list_entries(connection, subject=f"api_key:{key.id}")

    assert (created.actor, created.action, created.before) == (ADMIN.id, "api_key.created", None)
    assert created.after is not None
    assert created.after["role"] == "reader"
    assert (revoked.action, revoked.before) == ("api_key.revoked", created.after)
    assert revoked.after == created.after | {"revoked_at": "2026-03-04T13:00:00Z"}


async def test_revoking_again_changes_nothing(database: Database) -> None:
    key, _ = await create_api_key(database, ADMIN, name="CI", role=Role.READER, expires_at=None, now=NOW)
    first = await revoke_api_key(database, ADMIN, key.id, now=NOW + timedelta(hours=1))

    assert await revoke_api_key(database, ADMIN, key.id, now=NOW + timedelta(hours=2)) == first
    assert await list_api_keys(database) == [first]


async def test_a_key_nobody_has_cannot_be_revoked(database: Database) -> None:
    with pytest.raises(NotFoundError):
        await revoke_api_key(database, ADMIN, uuid4(), now=NOW)


async def test_a_key_without_name_or_future_is_refused(database: Database) -> None:
    with pytest.raises(InvalidRequestError):
        await create_api_key(database, ADMIN, name="  ", role=Role.READER, expires_at=None, now=NOW)
    with pytest.raises(InvalidRequestError):
        await create_api_key(database, ADMIN, name="CI", role=Role.READER, expires_at=NOW, now=NOW)

    assert await list_api_keys(database) == []
