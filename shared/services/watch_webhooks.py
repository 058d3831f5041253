"""What people see and do about webhooks: addresses to paste, how deliveries fare, and one more try for a failed one."""

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from shared.domain.caller import Caller
from shared.domain.errors import ConflictError, NotFoundError
from shared.domain.stream import Stream
from shared.services.manage_connections import existing
from shared.store import audit_log, connections, webhook_deliveries
from shared.store.connections import StoredConnection
from shared.store.database import Database

DeliveryStatus = Literal["pending", "processing", "done", "ignored", "failed"]
_MOST_CONNECTIONS = 10_000


class WebhookStatus(BaseModel):
    """The webhook of a connection."""

    model_config = ConfigDict(frozen=True)

    slug: str = Field(examples=["petrel"])
    source: str = Field(examples=["jira"])
    address: str = Field(
        description="Paste it into the tracker", examples=["https://tributary.example/api/webhooks/petrel"]
    )
    has_secret: bool = Field(description="Without `credentials.webhook_secret` every call is refused")
    advice: str | None = Field(description="What to do, if something has to be done")
    last_delivery_at: datetime | None
    waiting: int = Field(description="Deliveries that are not acted upon yet")
    last_24_hours: dict[DeliveryStatus, int] = Field(description="Deliveries by status", examples=[{"done": 41}])
    last_error: str | None = Field(description="Of the last 24 hours", examples=["The source answered 403 Forbidden"])
    refused: int = Field(description="Calls that proved nothing, since ever")
    refused_at: datetime | None
    refused_why: str | None = Field(examples=["x-hub-signature does not fit the body and the secret"])


class NamedView(BaseModel):
    """What a delivery names."""

    model_config = ConfigDict(frozen=True, extra="ignore", from_attributes=True)

    id: str | None = Field(examples=["10417"])
    key: str | None
    scope: str | None = Field(description="Project, repository or table, by id or name")
    stream: Stream


class DeliveryView(BaseModel):
    """A delivery and what became of it."""

    model_config = ConfigDict(frozen=True, extra="ignore", from_attributes=True)

    delivery_id: str = Field(examples=["7f6c1b0e-2f5f-4f52-9d0c-0b7b8f3c1a11"])
    event: str = Field(examples=["jira:issue_updated"])
    status: DeliveryStatus
    error: str | None = Field(
        description="Why it is ignored, has failed, or failed the last time", examples=["It is about no issue"]
    )
    signature: Literal["hmac", "jwt", "token", "address"] = Field(description="How it was proven")
    headers: dict[str, str] = Field(examples=[{"x-atlassian-webhook-flow": "Primary"}])
    issues: tuple[NamedView, ...] = Field(description="What the source is asked for again")
    attempts: int
    retry_at: datetime | None
    repeats: int = Field(description="How often it came again")
    job_id: UUID | None = Field(
        description="The job that took it up last", examples=["0b3e8c1e-58a5-4f0e-9d0b-0a4f6c1f2d11"]
    )
    received_at: datetime
    settled_at: datetime | None


async def list_webhooks(database: Database, *, base_url: str) -> list[WebhookStatus]:
    """Every connection's webhook, by slug."""
    async with database.connection() as connection:
        every = await connections.list_connections(connection, limit=_MOST_CONNECTIONS)
        told = await webhook_deliveries.summarize(connection)
    return [_status(each, told.get(each.id, {}), base_url) for each in every]


def _status(stored: StoredConnection, told: dict[str, Any], base_url: str) -> WebhookStatus:
    has_secret = "webhook_secret" in stored.credentials
    return WebhookStatus(
        slug=stored.slug,
        source=stored.source,
        address=f"{base_url}/api/webhooks/{stored.slug}",
        has_secret=has_secret,
        advice=_advice(stored, has_secret=has_secret, paused=told.get("paused", False)),
        last_delivery_at=told.get("last_at"),
        waiting=told.get("waiting") or 0,
        last_24_hours=told.get("counts") or {},
        last_error=told.get("last_error"),
        refused=told.get("refusals") or 0,
        refused_at=told.get("refused_at"),
        refused_why=told.get("why"),
    )


def _advice(stored: StoredConnection, *, has_secret: bool, paused: bool) -> str | None:
    if not has_secret:
        return f"PATCH /api/integrations/{stored.slug} with credentials.webhook_secret, and set it in the tracker too"
    if not stored.active:
        return "The connection is switched off: deliveries are stored, and acted upon when it is active again"
    if not stored.test_passed:
        return f"POST /api/integrations/{stored.slug}/test: deliveries are acted upon when it succeeds"
    if paused:
        return f"POST /api/integrations/{stored.slug}/resume: deliveries are acted upon when it is not paused"
    return None


async def list_deliveries(
    database: Database, slug: str, *, status: DeliveryStatus | None, before: tuple[datetime, str] | None, limit: int
) -> list[DeliveryView]:
    """Deliveries of a connection, newest first."""
    async with database.connection() as connection:
        stored = await existing(connection, slug)
        found = await webhook_deliveries.list_deliveries(
            connection, stored.id, status=status, before=before, limit=limit
        )
    return [DeliveryView.model_validate(each) for each in found]


async def replay_delivery(database: Database, caller: Caller, slug: str, delivery_id: str) -> DeliveryView:
    """Let a failed delivery be taken up again. ConflictError if it has not failed, or makes no sense."""
    async with database.transaction() as connection:
        stored = await existing(connection, slug)
        replayed = await webhook_deliveries.replay(connection, stored.id, delivery_id)
        if replayed is None:
            found = await webhook_deliveries.find_delivery(connection, stored.id, delivery_id)
            if found is None:
                raise NotFoundError(
                    f"{slug!r} has no delivery of this id", hint=f"GET /api/webhooks/{slug}/deliveries lists them"
                )
            if found.status == "failed":
                raise ConflictError("The delivery names no issue to ask for", hint="The next sync brings what changed")
            raise ConflictError(f"The delivery is {found.status}", hint="Only a failed one can be tried again")
        await audit_log.append(
            connection,
            actor=caller.id,
            action="webhook.replayed",
            subject=f"connection:{slug}",
            before=None,
            after={"delivery_id": delivery_id, "event": replayed.event},
        )
    return DeliveryView.model_validate(replayed)
