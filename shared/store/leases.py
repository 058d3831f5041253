"""Access tokens that connections got, and the refresh tokens that get the next ones."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from shared.store.connections import StoredConnection
from shared.store.database import Connection


async def lock_to_renew(connection: Connection, connection_id: UUID) -> StoredConnection | None:
    """A connection, for one worker alone until its transaction ends; rows that refer to it can be written meanwhile.

    The transaction waits for a tracker. Should its worker vanish, the server ends it after longer than any call takes.
    """
    await connection.execute("set local idle_in_transaction_session_timeout = '10min'")
    cursor = await connection.execute("select * from connections where id = %s for no key update", (connection_id,))
    row = await cursor.fetchone()
    return StoredConnection.model_validate(row) if row else None


async def save_lease(
    connection: Connection, connection_id: UUID, *, lease: Mapping[str, Any], refresh_token: Mapping[str, Any]
) -> None:
    """Keep an access token and the refresh token that gets the next one, both sealed.

    Neither version nor test changes: to people the connection stays what it is.
    """
    await connection.execute(
        """
        update connections
           set lease = %s, credentials = credentials || jsonb_build_object('refresh_token', %s::jsonb)
         where id = %s
        """,
        (Jsonb(lease), Jsonb({"sealed": refresh_token}), connection_id),
    )
