"""Register, change and remove connections; secrets go in sealed and never come out."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pydantic
from pydantic import BaseModel, ConfigDict, Field, HttpUrl, StrictBool, TypeAdapter

from shared.connectors._protocol import SCOPE_SETTINGS
from shared.domain.caller import Caller
from shared.domain.errors import ConflictError, InvalidRequestError, NotFoundError
from shared.security.sealing import Sealer, UnsealError
from shared.services.open_connector import check_credentials, check_settings, open_credentials, seal_credentials
from shared.services.schedule_times import next_run
from shared.store import audit_log, connections, issues, jobs, sync_lines
from shared.store.connections import Schedule, StoredConnection
from shared.store.database import Connection, Database

log = logging.getLogger(__name__)

_URL: TypeAdapter[HttpUrl] = TypeAdapter(HttpUrl)
_PACE_SETTINGS = frozenset({"concurrency", "payload_days", "index_lag_seconds"})
# Labels that files and people use.
RESERVED_SLUGS = frozenset(
    {"manual", "csv", "json", "unaccepted", "file", "sources", "health", "metrics", "credentials"}
)

# Credentials the tracker shows us, not we the tracker: a test proves nothing of them.
_NOT_FOR_CALLS = frozenset({"webhook_secret"})


class ConnectionView(BaseModel):
    """A connection as people may see it: which secrets it has, never what they are."""

    model_config = ConfigDict(frozen=True)

    slug: str = Field(examples=["petrel-jira"])
    source: str = Field(examples=["jira"])
    base_url: str = Field(examples=["https://jira.petrel.example"])
    settings: dict[str, Any] = Field(examples=[{"projects": ["PETREL"]}])
    credentials: dict[str, Any] = Field(
        description="Fields that are no secret, and `true` for secrets that are set",
        examples=[{"email": "sync@petrel.example", "token": True}],
    )
    active: bool
    origin: str = Field(description="`api`, or `environment` when app settings define it")
    version: int = Field(description="Grows with every change; send it with yours to overwrite nobody else's")
    tested_at: datetime | None
    test_passed: bool | None
    test: dict[str, Any] | None = Field(description="What the last test found out")
    blocked_until: datetime | None = Field(description="The source wants no calls before")
    quota: dict[str, Any] | None
    created_at: datetime
    updated_at: datetime


class NewConnection(BaseModel):
    """A connection to register."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    slug: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$", description="Label of all it brings", examples=["petrel"])
    source: str = Field(examples=["jira"])
    base_url: str = Field(max_length=2_000, examples=["https://jira.petrel.example"])
    settings: dict[str, Any] = Field(default_factory=dict, examples=[{"projects": ["PETREL"]}])
    credentials: dict[str, Any] = Field(
        default_factory=dict, repr=False, examples=[{"email": "sync@petrel.example", "token": "…"}]
    )


class ConnectionChange(BaseModel):
    """What to change; what is left out stays."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base_url: str | None = Field(
        default=None, max_length=2_000, description="Another one needs all credentials again, and another test"
    )
    settings: dict[str, Any] | None = Field(default=None, description="All of them: they replace what is there")
    credentials: dict[str, Any] | None = Field(
        default=None,
        repr=False,
        description="Those that are new; null removes one. But for `webhook_secret` it has to be tested again",
        examples=[{"token": "…"}],
    )
    active: StrictBool | None = Field(default=None, description="false: nothing is read until it is true again")
    version: int | None = Field(
        default=None, description="The `version` you read; if it is another one by now, nothing is changed"
    )


def to_view(stored: StoredConnection) -> ConnectionView:
    """What may be shown of a connection."""
    shown = {field: entry.get("plain", True) for field, entry in stored.credentials.items()}
    return ConnectionView(**stored.model_dump(exclude={"id", "credentials", "lease"}), credentials=shown)


async def create_connection(
    database: Database, sealer: Sealer, caller: Caller, new: NewConnection, *, cron: str, origin: str = "api"
) -> StoredConnection:
    """Store a connection and its schedule. It is of no use until its test succeeds."""
    slug, source = new.slug, new.source
    if slug in RESERVED_SLUGS:
        raise InvalidRequestError(f"The slug {slug!r} is reserved", fields={"slug": "choose another one"})
    checked = check_settings(source, new.settings)
    secrets = check_credentials(source, new.credentials)
    connection_id = uuid4()
    sealed = await asyncio.to_thread(seal_credentials, sealer, connection_id, secrets)
    async with database.transaction() as connection:
        await _require_own_label(connection, slug, source)
        stored = await connections.insert_connection(
            connection,
            connection_id=connection_id,
            slug=slug,
            source=source,
            base_url=check_url(new.base_url),
            settings=checked.model_dump(mode="json", exclude_defaults=True),
            credentials=sealed,
            origin=origin,
        )
        if stored is None:
            raise ConflictError(
                f"There is a connection {slug!r} already", hint="Choose another slug, or change that one"
            )
        await connections.insert_schedule(
            connection,
            connection_id,
            cron=cron,
            time_zone="UTC",
            next_run_at=next_run(cron, "UTC", datetime.now(UTC)),
        )
        await _audit(connection, caller, "connection.created", None, stored)
    log.info("Connection created", extra={"action": "connection_created", "slug": slug, "source": source})
    return stored


async def change_connection(
    database: Database, sealer: Sealer, caller: Caller, slug: str, change: ConnectionChange
) -> StoredConnection:
    """Change a connection. Credentials are merged: a field that is left out stays, an empty one is removed.

    With another address, or other credentials, the connection has to pass its test again.
    """
    async with database.transaction() as connection:
        before = await existing(connection, slug, lock=True)
        if change.version not in {None, before.version}:
            raise ConflictError(
                f"The connection {slug!r} was changed meanwhile", hint="Read it again, and send what you still want"
            )
        base_url = before.base_url if change.base_url is None else check_url(change.base_url)
        moved = base_url != before.base_url
        if moved:
            await _require_movable(connection, before, change)
        settings = before.settings
        if change.settings is not None:
            checked = check_settings(before.source, change.settings)
            settings = checked.model_dump(mode="json", exclude_defaults=True)
        credentials = before.credentials
        if change.credentials is not None:
            kept = {} if moved else {f: e for f, e in before.credentials.items() if f not in change.credentials}
            credentials = await asyncio.to_thread(_reseal, sealer, before, kept, change.credentials)
        after = await connections.update_connection(
            connection,
            before.id,
            base_url=base_url,
            settings=settings,
            credentials=credentials,
            active=before.active if change.active is None else change.active,
            must_test=moved or bool(set(change.credentials or ()) - _NOT_FOR_CALLS),
        )
        if after is None:
            raise NotFoundError(f"There is no connection {slug!r}")
        if moved or _question(before) != _question(after):
            # What an older filter or address left out lies before every cursor: it has to be read from the beginning.
            await sync_lines.restart_lines(connection, before.id)
        await _audit(connection, caller, "connection.changed", before, after, replaced=sorted(change.credentials or ()))
    return after


async def _require_movable(connection: Connection, before: StoredConnection, change: ConnectionChange) -> None:
    if before.credentials and change.credentials is None:
        # Else whoever may change an address could have the old secrets sent there.
        raise InvalidRequestError(
            "A new address needs the credentials again", fields={"credentials": "send them with the new base_url"}
        )
    # A job would go on at the other address, and close its windows over what it never read there.
    await _require_idle(connection, before)


def _reseal(
    sealer: Sealer, stored: StoredConnection, kept: Mapping[str, Any], given: Mapping[str, Any]
) -> dict[str, Any]:
    """Sealed credentials: those that stay, and those that are given. Only what stays has to be readable."""
    try:
        opened = open_credentials(sealer, stored.model_copy(update={"credentials": kept}))
    except UnsealError as error:
        raise InvalidRequestError(
            error.detail, hint="Send all credentials", fields={f"credentials.{name}": "send it too" for name in kept}
        ) from error
    return seal_credentials(sealer, stored.id, check_credentials(stored.source, {**opened, **given}))


def _question(stored: StoredConnection) -> dict[str, Any]:
    """The settings that decide what a scope brings; which scopes there are, and how fast, does not."""
    return {name: value for name, value in stored.settings.items() if name not in {*SCOPE_SETTINGS, *_PACE_SETTINGS}}


async def remove_connection(database: Database, caller: Caller, slug: str) -> None:
    """Remove a connection, its credentials, schedule and ledger. What it brought stays."""
    async with database.transaction() as connection:
        before = await existing(connection, slug, lock=True)
        await _require_idle(connection, before)
        await connections.delete_connection(connection, before.id)
        await _audit(connection, caller, "connection.removed", before, None)
    log.info("Connection removed", extra={"action": "connection_removed", "slug": slug})


async def list_views(database: Database, *, after: str, limit: int) -> list[ConnectionView]:
    """Connections by slug, from behind one."""
    async with database.connection() as connection:
        return [to_view(each) for each in await connections.list_connections(connection, after=after, limit=limit)]


async def find_view(database: Database, slug: str) -> tuple[ConnectionView, Schedule | None]:
    """A connection and its schedule."""
    async with database.connection() as connection:
        stored = await existing(connection, slug)
        return to_view(stored), await connections.find_schedule(connection, stored.id)


async def existing(connection: Connection, slug: str, *, lock: bool = False) -> StoredConnection:
    """The connection of a slug; NotFoundError if there is none."""
    stored = await connections.find_connection(connection, slug, lock=lock)
    if stored is None:
        raise NotFoundError(f"There is no connection {slug!r}", hint="GET /api/integrations lists them")
    return stored


def check_url(text: str) -> str:
    """An address as it is stored: http or https, without user, query or fragment. InvalidRequestError otherwise."""
    try:
        url = _URL.validate_python(text)
    except pydantic.ValidationError as error:
        raise InvalidRequestError(
            "base_url is not an address", fields={"base_url": "write it as https://tracker.example"}
        ) from error
    # An empty query or fragment would take in the paths of all calls.
    if url.username or url.password or url.query is not None or url.fragment is not None:
        raise InvalidRequestError(
            "base_url holds more than an address",
            fields={"base_url": "no user, query or fragment; secrets go elsewhere"},
        )
    return str(url).rstrip("/")


async def _require_idle(connection: Connection, stored: StoredConnection) -> None:
    if await jobs.is_busy(connection, stored.id):
        raise ConflictError("A job of this connection waits or runs", hint="Cancel it first, or wait for its end")


async def _require_own_label(connection: Connection, slug: str, source: str) -> None:
    """A label holds what one source brought: ids of another would be taken for them, and theirs for gone."""
    if not await issues.has_label(connection, slug):
        return
    told = await audit_log.list_entries(connection, subject=f"connection:{slug}")
    former = next((entry.before for entry in told if entry.action == "connection.removed"), None)
    if former is None or former["source"] != source:
        raise ConflictError(
            f"There are records labelled {slug!r} that did not come from such a connection", hint="Choose another slug"
        )


async def _audit(
    connection: Connection,
    caller: Caller,
    action: str,
    before: StoredConnection | None,
    after: StoredConnection | None,
    *,
    replaced: Sequence[str] = (),
) -> None:
    subject = after or before
    told = _told(after)
    await audit_log.append(
        connection,
        actor=caller.id,
        action=action,
        subject=f"connection:{subject.slug if subject else ''}",
        before=_told(before),
        after={**told, "replaced_credentials": list(replaced)} if told and replaced else told,
    )


def _told(stored: StoredConnection | None) -> dict[str, Any] | None:
    if stored is None:
        return None
    view = to_view(stored).model_dump(mode="json", include={"slug", "source", "base_url", "settings", "active"})
    return {**view, "credentials": sorted(stored.credentials)}
