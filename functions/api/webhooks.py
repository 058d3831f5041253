"""Webhooks: what trackers send, how it fares, and one more try for what failed."""

import logging
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import BaseModel, Field
from starlette.requests import ClientDisconnect

from functions.api import paging
from functions.api.auth import GuardedRoute, count_address, needs
from functions.api.context import Context, InContext
from functions.api.openapi import problems
from shared.connectors._protocol import HookCall
from shared.domain.caller import Caller, Role
from shared.domain.errors import NotAuthenticatedError, TooLargeError
from shared.services.accept_delivery import Taken, accept_delivery
from shared.services.take_up_deliveries import take_up_deliveries
from shared.services.watch_webhooks import (
    DeliveryStatus,
    DeliveryView,
    WebhookStatus,
    list_deliveries,
    list_webhooks,
    replay_delivery,
)

log = logging.getLogger(__name__)

router = APIRouter(prefix="/api/webhooks", route_class=GuardedRoute, tags=["webhooks"])

Reader = Annotated[Caller, Depends(needs(Role.READER))]
Operator = Annotated[Caller, Depends(needs(Role.OPERATOR))]
Slug = Annotated[str, Path(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$", description="Slug of the connection")]
DeliveryId = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:~=-]{0,127}$", description="Id of the delivery")]

_EXAMPLE_ID = "7f6c1b0e-2f5f-4f52-9d0c-0b7b8f3c1a11"
_BODIES: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "The event, as the tracker sends and signs it",
        "content": {
            "application/json": {
                "schema": {"type": "object"},
                "example": {"webhookEvent": "jira:issue_updated", "issue": {"id": "10417", "key": "PETREL-17"}},
            },
        },
    }
}


class WebhookList(BaseModel):
    """Every connection's webhook."""

    items: list[WebhookStatus]


class DeliveryPage(BaseModel):
    """Deliveries, newest first."""

    items: list[DeliveryView]
    next_cursor: str | None = Field(description="Give it as `cursor` for the next page; absent on the last")


class Received(BaseModel):
    """The delivery is stored; what it names is asked for again."""

    delivery_id: str = Field(examples=[_EXAMPLE_ID])
    status: Literal["stored", "repeated"] = Field(description="`repeated`: it had come before, and is not acted on")


@router.get("/status", summary="How webhooks fare", responses=problems())
async def status(context: InContext, request: Request, _caller: Reader) -> WebhookList:
    """The address to paste into each tracker, whether a secret is set, what came, and why calls were refused."""
    base_url = str(request.base_url).rstrip("/")
    return WebhookList(items=await list_webhooks(context.runtime.database, base_url=base_url))


@router.post(
    "/{slug}",
    status_code=202,
    summary="Receive a delivery",
    responses={
        200: {"model": Received, "description": "It had come before; nothing is done twice"},
        **problems(413, 422),
    },
    openapi_extra=_BODIES,
)
async def receive(context: InContext, request: Request, response: Response, slug: str) -> Received:
    """Called by trackers: their signature is the credential, by the connection's `webhook_secret`.

    The delivery is stored, and what it names is read again from the source. An unknown connection, one without a
    secret and a wrong signature are answered alike.
    """
    settings = context.runtime.settings
    await count_address(request, "webhooks", limit=settings.webhooks_per_minute)
    call = HookCall(
        headers={name.lower(): value for name, value in request.headers.items()},
        query=dict(request.query_params),
        body=await _body(request, settings.max_webhook_bytes),
    )
    try:
        taken = await accept_delivery(
            context.runtime.database, context.runtime.connectors, slug, call, now=datetime.now(UTC)
        )
    except NotAuthenticatedError:
        # Guessing secrets is limited as guessing keys is.
        await count_address(request, "address", limit=settings.requests_per_minute)
        raise
    if taken.repeated:
        response.status_code = 200
    else:
        await _act(context, taken)
    return Received(delivery_id=taken.delivery.delivery_id, status="repeated" if taken.repeated else "stored")


async def _body(request: Request, most: int) -> bytes:
    """The raw body, refused by its announced length before anything of it is read, or as soon as it is too long."""
    announced = request.headers.get("content-length", "")
    received, chunks = int(announced) if announced.isdecimal() else 0, list[bytes]()
    try:
        if received <= most:
            received = 0
            async for chunk in request.stream():
                received += len(chunk)
                chunks.append(chunk)
                if received > most:
                    break
    except ClientDisconnect as error:
        raise TooLargeError("The body was cut off") from error
    if received > most:
        raise TooLargeError(f"The body is larger than {most} bytes")
    return b"".join(chunks)


async def _act(context: Context, taken: Taken) -> None:
    """At once, if that works: the delivery is stored, and the timer takes up what is left here."""
    if taken.delivery.status != "pending":
        return
    try:
        connection_id = taken.delivery.connection_id
        if await take_up_deliveries(context.runtime.database, now=datetime.now(UTC), connection_id=connection_id):
            await context.dispatch()
    except Exception:
        log.exception("Delivery waits for the timer", extra={"action": "delivery_waits"})


@router.get("/{slug}/deliveries", summary="Deliveries of a connection", responses=problems(404, 422))
async def deliveries(
    context: InContext,
    _caller: Reader,
    slug: Slug,
    status: Annotated[DeliveryStatus | None, Query(description="Only these")] = None,
    cursor: paging.Cursor = None,
    limit: paging.Limit = 50,
) -> DeliveryPage:
    """What came in the last 30 days and what became of it, newest first; without the payloads."""
    found = await list_deliveries(
        context.runtime.database, slug, status=status, before=paging.decode_time_and_text(cursor), limit=limit + 1
    )
    page = found[:limit]
    return DeliveryPage(
        items=page,
        next_cursor=paging.encode(page[-1].received_at, page[-1].delivery_id) if len(found) > limit else None,
    )


@router.post(
    "/{slug}/deliveries/{delivery_id}/replay",
    status_code=202,
    summary="Try a failed delivery again",
    responses=problems(404, 409, 422),
)
async def replay(context: InContext, caller: Operator, slug: Slug, delivery_id: DeliveryId) -> DeliveryView:
    """What it names is asked for again, with as many tries as a new delivery has."""
    replayed = await replay_delivery(context.runtime.database, caller, slug, delivery_id)
    await take_up_deliveries(context.runtime.database, now=datetime.now(UTC))
    await context.dispatch()
    return replayed
