"""API keys, found by the hash of their secret."""

from datetime import datetime, timedelta
from uuid import UUID

from shared.domain.api_key import APIKey
from shared.store.database import Connection

_MOST_KEYS = 500
# Writing at every request would make each of them a write; a minute is exact enough to find keys nobody uses.
_TOUCH_EVERY = timedelta(minutes=1)


async def insert(connection: Connection, key: APIKey, *, secret_hash: bytes) -> None:
    """Store a new key."""
    await connection.execute(
        """
        insert into api_keys (id, name, role, secret_hash, prefix, created_by, created_at, expires_at)
        values (%(id)s, %(name)s, %(role)s, %(secret_hash)s, %(prefix)s, %(created_by)s, %(created_at)s, %(expires_at)s)
        """,
        {**key.model_dump(), "secret_hash": secret_hash},
    )


async def find_by_hash(connection: Connection, secret_hash: bytes) -> APIKey | None:
    """The key with this secret, valid or not."""
    cursor = await connection.execute(
        """
        select id, name, role, prefix, created_by, created_at, expires_at, revoked_at, last_used_at
          from api_keys
         where secret_hash = %(secret_hash)s
        """,
        {"secret_hash": secret_hash},
    )
    row = await cursor.fetchone()
    return APIKey.model_validate(row) if row else None


async def list_all(connection: Connection) -> list[APIKey]:
    """Every key, revoked ones too, newest first."""
    cursor = await connection.execute(
        """
        select id, name, role, prefix, created_by, created_at, expires_at, revoked_at, last_used_at
          from api_keys
         order by created_at desc, id
         limit %(limit)s
        """,
        {"limit": _MOST_KEYS},
    )
    return [APIKey.model_validate(row) for row in await cursor.fetchall()]


async def lock(connection: Connection, key_id: UUID) -> APIKey | None:
    """The key under this id, held against other changes until the transaction ends."""
    cursor = await connection.execute(
        """
        select id, name, role, prefix, created_by, created_at, expires_at, revoked_at, last_used_at
          from api_keys
         where id = %(id)s
           for update
        """,
        {"id": key_id},
    )
    row = await cursor.fetchone()
    return APIKey.model_validate(row) if row else None


async def revoke(connection: Connection, key_id: UUID, *, now: datetime) -> None:
    """Close a key; the first revocation's time stays."""
    await connection.execute(
        "update api_keys set revoked_at = %(now)s where id = %(id)s and revoked_at is null",
        {"id": key_id, "now": now},
    )


async def touch(connection: Connection, key: APIKey, *, now: datetime) -> None:
    """Note that a key was used, at most once a minute."""
    if key.last_used_at is not None and now - key.last_used_at < _TOUCH_EVERY:
        return
    await connection.execute(
        """
        update api_keys
           set last_used_at = %(now)s
         where id = %(id)s and (last_used_at is null or last_used_at <= %(before)s)
        """,
        {"id": key.id, "now": now, "before": now - _TOUCH_EVERY},
    )
