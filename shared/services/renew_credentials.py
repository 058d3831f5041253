"""Get access tokens with refresh tokens that a tracker takes once, for all workers of a connection.

The row of the connection is locked while the tracker is asked, and nothing else: one worker asks, and the others find
what it stored. See docs/decisions/0011-refresh-tokens.md.
"""

import asyncio
import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import UUID

from shared.connectors._protocol import Ask, ConnectorCredentials, Lease, OAuthCredentials, Renew
from shared.domain.errors import SourceError, Trouble
from shared.security.sealing import Sealer
from shared.store import leases
from shared.store.connections import StoredConnection
from shared.store.database import Database

log = logging.getLogger(__name__)


class Renewals:
    """Renews what the connectors of a worker log in with; `read` opens the credentials of a connection."""

    def __init__(
        self, database: Database, sealer: Sealer, read: Callable[[StoredConnection], ConnectorCredentials]
    ) -> None:
        self._database = database
        self._sealer = sealer
        self._read = read
        # The event loop itself holds no task.
        self._under_way: set[asyncio.Task[Lease]] = set()
        # Refresh token → the lease it was taken for, while that is not stored.
        self._unstored: dict[str, Lease] = {}

    def of(self, stored: StoredConnection) -> Renew:
        """How a connector that is made for this connection renews."""
        return partial(self._to_the_end, stored)

    async def _to_the_end(self, made_for: StoredConnection, spent: str, ask: Ask) -> Lease:
        """Renew, also when the caller is called off: what the tracker answers it answers once."""
        task = asyncio.create_task(self._renew(made_for, spent, ask))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return await asyncio.shield(task)

    async def _renew(self, made_for: StoredConnection, spent: str, ask: Ask) -> Lease:
        async with self._database.transaction() as connection:
            stored = await leases.lock_to_renew(connection, made_for.id)
            lease = await asyncio.to_thread(self._open_lease, stored) if stored else None
            if lease and lease.access_token != spent and lease.lasts(datetime.now(UTC)):
                return lease
            # New secrets never go to an address they were not given for.
            credentials = None
            if stored and stored.base_url == made_for.base_url:
                credentials = await asyncio.to_thread(self._read, stored)
            if not isinstance(credentials, OAuthCredentials) or not credentials.refresh_token.get_secret_value():
                raise SourceError(Trouble.AUTH_EXPIRED, "The credentials were replaced meanwhile", hint="Try again")
            taken = credentials.refresh_token.get_secret_value()
            # A worker that could not store an answer still has it.
            lease = self._unstored.get(taken) or await ask(credentials)
            self._unstored[taken] = lease
            sealed = await asyncio.to_thread(self._seal, made_for.id, lease)
            await leases.save_lease(connection, made_for.id, **sealed)
        self._unstored.pop(taken, None)
        log.info("Credentials renewed", extra={"action": "credentials_renewed", "slug": made_for.slug})
        return lease

    def _seal(self, connection_id: UUID, lease: Lease) -> dict[str, dict[str, str]]:
        told = {"access_token": lease.access_token, "renew_at": lease.renew_at and lease.renew_at.isoformat()}
        seal = partial(self._sealer.seal, owner=str(connection_id))
        return {
            "lease": seal(json.dumps(told), field="lease"),
            "refresh_token": seal(lease.refresh_token, field="refresh_token"),
        }

    def _open_lease(self, stored: StoredConnection) -> Lease | None:
        if stored.lease is None:
            return None
        told: dict[str, Any] = json.loads(self._sealer.open(stored.lease, owner=str(stored.id), field="lease"))
        renew_at = told["renew_at"]
        return Lease(access_token=told["access_token"], renew_at=datetime.fromisoformat(renew_at) if renew_at else None)
