"""Create, list and revoke API keys; every change is in the audit log."""

import logging
from datetime import datetime
from uuid import UUID, uuid4

from shared.domain.api_key import APIKey
from shared.domain.caller import Caller, Role
from shared.domain.errors import InvalidRequestError, NotFoundError
from shared.security.api_keys import generate_key, hash_key, shown_part
from shared.store import api_keys, audit_log
from shared.store.database import Database

log = logging.getLogger(__name__)
_AUDITED = {"name", "role", "prefix", "expires_at", "revoked_at"}


async def create_api_key(
    database: Database, caller: Caller, *, name: str, role: Role, expires_at: datetime | None, now: datetime
) -> tuple[APIKey, str]:
    """Make a key and return it with its secret, which nobody can read again."""
    if not name.strip():
        raise InvalidRequestError("A key needs a name", fields={"name": "must not be empty"})
    if expires_at is not None and expires_at <= now:
        raise InvalidRequestError("A key cannot expire in the past", fields={"expires_at": "must lie in the future"})
    secret = generate_key()
    key = APIKey(
        id=uuid4(),
        name=name.strip(),
        role=role,
        prefix=shown_part(secret),
        created_by=caller.id,
        created_at=now,
        expires_at=expires_at,
    )
    async with database.transaction() as connection:
        await api_keys.insert(connection, key, secret_hash=hash_key(secret))
        await audit_log.append(
            connection,
            actor=caller.id,
            action="api_key.created",
            subject=f"api_key:{key.id}",
            before=None,
            after=key.model_dump(mode="json", include=_AUDITED),
        )
    log.info("API key created", extra={"action": "api_key_created", "key_id": str(key.id), "role": role})
    return key, secret


async def list_api_keys(database: Database) -> list[APIKey]:
    """Every key, without secrets, newest first."""
    async with database.connection() as connection:
        return await api_keys.list_all(connection)


async def revoke_api_key(database: Database, caller: Caller, key_id: UUID, *, now: datetime) -> APIKey:
    """Close a key for good, from the next request on; revoking it again changes nothing."""
    async with database.transaction() as connection:
        key = await api_keys.lock(connection, key_id)
        if key is None:
            raise NotFoundError("There is no API key with this id")
        if key.revoked_at is not None:
            return key
        revoked = key.model_copy(update={"revoked_at": now})
        await api_keys.revoke(connection, key_id, now=now)
        await audit_log.append(
            connection,
            actor=caller.id,
            action="api_key.revoked",
            subject=f"api_key:{key_id}",
            before=key.model_dump(mode="json", include=_AUDITED),
            after=revoked.model_dump(mode="json", include=_AUDITED),
        )
    log.info("API key revoked", extra={"action": "api_key_revoked", "key_id": str(key_id)})
    return revoked
