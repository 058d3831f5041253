"""Wrap the keys of all credentials with the current master key."""

import asyncio
import logging

from pydantic import BaseModel, ConfigDict, Field

from shared.domain.caller import Caller
from shared.security.sealing import Sealer, UnsealError
from shared.store import audit_log, connections
from shared.store.database import Database

log = logging.getLogger(__name__)

_PAGE = 200


class Unreadable(BaseModel):
    """A connection whose credentials cannot be opened any more."""

    slug: str
    detail: str = Field(examples=["The key '2024' that sealed these credentials is not in the key ring"])
    hint: str


class Rotation(BaseModel):
    """What became of the secrets. Old master keys may go when `unreadable` is empty."""

    model_config = ConfigDict(frozen=True)

    key: str = Field(description="Id of the master key that wraps now", examples=["2025"])
    secrets: int = Field(description="How many are wrapped by it now that were not")
    unreadable: list[Unreadable]


async def rotate_credentials(database: Database, sealer: Sealer, caller: Caller) -> Rotation:
    """Wrap every data key anew. A connection that cannot be opened is told and keeps the others from nothing."""
    rotated = 0
    unreadable: list[Unreadable] = []
    slug = ""
    while True:
        async with database.connection() as connection:
            page = await connections.list_connections(connection, after=slug, limit=_PAGE)
        if not page:
            break
        for stored in page:
            slug = stored.slug
            try:
                rotated += await _rotate(database, sealer, slug)
            except UnsealError as error:
                unreadable.append(Unreadable(slug=slug, detail=error.detail, hint=error.hint))
    result = Rotation(key=sealer.keys.current, secrets=rotated, unreadable=unreadable)
    async with database.connection() as connection:
        await audit_log.append(
            connection,
            actor=caller.id,
            action="credentials.rotated",
            subject="connections",
            before=None,
            after=result.model_dump(mode="json"),
        )
    log.info("Credentials rotated", extra={"action": "credentials_rotated", "rotated": rotated})
    return result


async def _rotate(database: Database, sealer: Sealer, slug: str) -> int:
    async with database.transaction() as connection:
        stored = await connections.find_connection(connection, slug, lock=True)
        if stored is None:
            return 0
        sealed = {field: entry["sealed"] for field, entry in stored.credentials.items() if "sealed" in entry}
        renewed = {
            field: {"sealed": wrapped}
            for field, entry in sealed.items()
            if (wrapped := await asyncio.to_thread(sealer.rewrap, entry))
        }
        lease = await asyncio.to_thread(sealer.rewrap, stored.lease) if stored.lease else None
        if renewed or lease:
            credentials = {**stored.credentials, **renewed}
            await connections.save_credentials(connection, stored.id, credentials, lease or stored.lease)
    return len(renewed) + bool(lease)
