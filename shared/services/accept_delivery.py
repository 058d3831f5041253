"""Take a webhook call in: prove it over its raw bytes, store it, and only then let it be acted upon.

The caller learns nothing but whether it was accepted: an unknown connection, one without a secret and a wrong
signature are answered alike. Why a call was refused is told to those who may see the connection.
"""

import logging
from dataclasses import dataclass
from datetime import datetime

from shared.connectors._protocol import Delivery, HookCall, Hooks
from shared.domain.errors import NotAuthenticatedError, TributaryError, UnavailableError
from shared.services.open_connector import Connectors, connector_class
from shared.store import connections, webhook_deliveries
from shared.store.connections import StoredConnection
from shared.store.database import Database
from shared.store.webhook_deliveries import NewDelivery, StoredDelivery

log = logging.getLogger(__name__)

_NO_SECRET = "The connection has no webhook_secret"  # noqa: S105  # says that there is none
_MOST_CHARACTERS = 300


@dataclass(frozen=True)
class Taken:
    """A stored delivery, and whether it had come before."""

    delivery: StoredDelivery
    repeated: bool


async def accept_delivery(database: Database, made: Connectors, slug: str, call: HookCall, *, now: datetime) -> Taken:
    """Store a delivery once. NotAuthenticatedError for whatever proves nothing, without a word about why."""
    async with database.connection() as connection:
        stored = None if "\x00" in slug else await connections.find_connection(connection, slug)
    if stored is None:
        raise _refusal()
    hooks = connector_class(stored.source).hooks
    secret = await _secret(made, stored)
    try:
        if secret is None:
            raise NotAuthenticatedError(_NO_SECRET)  # noqa: TRY301  # counted as every other refusal
        proof = hooks.verify(call, secret, now)
    except NotAuthenticatedError as error:
        async with database.connection() as connection:
            await webhook_deliveries.count_refusal(connection, stored.id, error.detail)
        log.warning("Webhook refused", extra={"action": "webhook_refused", "slug": slug, "why": error.detail})
        raise _refusal() from None
    async with database.connection() as connection:
        delivery, is_new = await webhook_deliveries.insert_delivery(connection, _new(stored, hooks, call, proof))
    log.info(
        "Webhook stored",
        extra={"action": "webhook_stored", "slug": slug, "event": delivery.event, "status": delivery.status},
    )
    return Taken(delivery, repeated=not is_new)


async def _secret(made: Connectors, stored: StoredConnection) -> str | None:
    """A master key that is missing is our fault: trackers give up on a 4xx, and come again after a 503."""
    try:
        return await made.webhook_secret(stored)
    except TributaryError as error:
        log.exception("Webhook secret not readable", extra={"action": "webhook_secret_unreadable", "slug": stored.slug})
        raise UnavailableError("Deliveries cannot be checked at the moment") from error


def _new(stored: StoredConnection, hooks: Hooks, call: HookCall, proof: str) -> NewDelivery:
    """The row of a proven call. One that makes no sense is kept too, so that it can be looked into."""
    try:
        told, error = hooks.parse(call), None
    except Exception as unreadable:  # noqa: BLE001  # a proven delivery is kept, whatever its body does to a parser
        # Without the error's text, which may repeat the payload.
        log.warning(
            "Webhook not understood",
            extra={"action": "webhook_unreadable", "slug": stored.slug, "error": type(unreadable).__name__},
        )
        why = str(unreadable)[:_MOST_CHARACTERS].replace("\x00", "")
        told, error = Delivery(event="unreadable"), f"The body makes no sense: {why}"
    status = "failed" if error else "pending" if told.issues else "ignored"
    return NewDelivery(
        connection_id=stored.id,
        delivery_id=hooks.identify(call),
        event=told.event,
        headers={
            name: value[:_MOST_CHARACTERS].replace("\x00", "")
            for name, value in call.headers.items()
            if name in hooks.headers
        },
        payload=call.body,
        signature=proof,
        issues=told.issues,
        status=status,
        error=error or told.ignored or None,
    )


def _refusal() -> NotAuthenticatedError:
    return NotAuthenticatedError(
        "This delivery is not accepted",
        hint="Set credentials.webhook_secret of the connection, and the same secret in the tracker; "
        "GET /api/webhooks/status tells what is wrong",
    )
