"""Make the connector of a connection: settings checked, credentials opened, calls guarded."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, TypeIs, cast
from uuid import UUID

import httpx
from pydantic import BaseModel, SecretStr, ValidationError

from shared.connectors import connectors
from shared.connectors._protocol import Connector, ConnectorCredentials, ConnectorSettings, OAuthCredentials
from shared.domain.complaints import complaint
from shared.domain.errors import InvalidRequestError, MisconfiguredError, SourceError, Trouble
from shared.security.sealing import Sealer, UnsealError
from shared.services.renew_credentials import Renewals
from shared.store import connections
from shared.store.connections import StoredConnection
from shared.store.database import Connection, Database

_MOST_KEPT = 200


class Connectors:
    """The connectors of a worker. One is kept as long as its connection does not change, with its HTTP connections."""

    def __init__(self, client: httpx.AsyncClient, sealer: Sealer, database: Database) -> None:
        self.sealer = sealer
        self._client = client
        self._renewals = Renewals(database, sealer, self._read_credentials)
        self._kept: dict[tuple[UUID, int, tuple[str, ...]], Connector] = {}
        self._hook_secrets: dict[tuple[UUID, int], str] = {}

    async def of(self, connection: Connection, stored: StoredConnection) -> Connector:
        """The connector of a stored connection, with its watchlist where the source knows one."""
        tracked: tuple[str, ...] = ()
        if "tracked_accounts" in connector_class(stored.source).Settings.model_fields:
            tracked = tuple(row["account"] for row in await connections.list_tracked(connection, stored.id))
        key = (stored.id, stored.version, tracked)
        if key not in self._kept:
            if len(self._kept) >= _MOST_KEPT:
                del self._kept[next(iter(self._kept))]
            # Whoever was first stays: one connector counts all requests of its connection at once.
            self._kept.setdefault(key, await self._make(stored, tracked))
        return self._kept[key]

    async def untracked(self, stored: StoredConnection) -> Connector:
        """A connector of its own that sees everything: for tests, discovery and counts."""
        return await self._make(stored, ())

    async def webhook_secret(self, stored: StoredConnection) -> str | None:
        """The secret of a connection's webhooks; None if it has none. For verifying only: never log or return it."""
        entry = stored.credentials.get("webhook_secret")
        if entry is None:
            return None
        key = (stored.id, stored.version)
        if key not in self._hook_secrets:
            if len(self._hook_secrets) >= _MOST_KEPT:
                del self._hook_secrets[next(iter(self._hook_secrets))]
            self._hook_secrets[key] = await asyncio.to_thread(
                self.sealer.open, entry["sealed"], owner=str(stored.id), field="webhook_secret"
            )
        return self._hook_secrets[key]

    async def _make(self, stored: StoredConnection, tracked: tuple[str, ...]) -> Connector:
        settings = {**stored.settings, **({"tracked_accounts": tracked} if tracked else {})}
        # Key Vault is asked over the network, by a client that blocks.
        credentials = await asyncio.to_thread(self._read_credentials, stored)
        make: Callable[..., Connector] = connector_class(stored.source)
        renew = [self._renewals.of(stored)] if isinstance(credentials, OAuthCredentials) else []
        return make(self._client, stored.base_url, check_settings(stored.source, settings), credentials, *renew)

    def _read_credentials(self, stored: StoredConnection) -> ConnectorCredentials:
        return check_credentials(stored.source, open_credentials(self.sealer, stored))


@asynccontextmanager
async def heeding_limits(database: Database, stored: StoredConnection) -> AsyncGenerator[None]:
    """What a source says of its limit to one caller holds for all workers, also when no sync is running."""
    try:
        yield
    except SourceError as error:
        if error.trouble is Trouble.RATE_LIMIT and error.retry_at is not None:
            async with database.connection() as connection:
                await connections.block(connection, stored.id, error.retry_at)
        raise


def connector_class(source: str) -> type[Connector]:
    """The class of a source; InvalidRequestError if there is no such source."""
    found = connectors().get(source)
    if found is None:
        known = ", ".join(sorted(connectors()))
        raise InvalidRequestError(
            f"There is no source {source!r}",
            hint=f"Sources with connections: {known}",
            fields={"source": f"one of {known}"},
        )
    return found


def index_lag(source: str, seconds: int | None) -> timedelta:
    """By how much windows are held back: what the setting says, else what is known of the source."""
    return connector_class(source).index_lag if seconds is None else timedelta(seconds=seconds)


def check_settings(source: str, values: Mapping[str, Any]) -> ConnectorSettings:
    """Settings as the source knows them; InvalidRequestError names the field."""
    _refuse_unstorable("settings", values)
    try:
        settings = connector_class(source).Settings.model_validate(values)
    except ValidationError as error:
        raise _complaint("settings", connector_class(source).Settings, error) from None
    known = connector_class(source).streams
    if unknown := [stream for stream in settings.streams if stream not in known]:
        raise InvalidRequestError(
            f"{source} has no {', '.join(unknown)}",
            hint=f"It has {', '.join(known)}",
            fields={"settings.streams": f"{', '.join(unknown)}: unknown here"},
        )
    return settings


def check_credentials(source: str, values: Mapping[str, Any]) -> ConnectorCredentials:
    """Credentials as the source knows them; InvalidRequestError names the field and never a value.

    Empty ones count as absent, and line breaks around them as slips of copying.
    """
    _refuse_unstorable("credentials", values)
    given = {name: value.strip("\r\n") if isinstance(value, str) else value for name, value in values.items()}
    try:
        return connector_class(source).Credentials.model_validate(
            {name: value for name, value in given.items() if value is not None and value != ""}
        )
    except ValidationError as error:
        raise _complaint("credentials", connector_class(source).Credentials, error) from None


def seal_credentials(sealer: Sealer, connection_id: UUID, credentials: ConnectorCredentials) -> dict[str, Any]:
    """Credentials as they are stored: secrets sealed, the rest, such as a user name, as it is."""
    stored: dict[str, Any] = {}
    for field in type(credentials).model_fields:
        value = getattr(credentials, field)
        if isinstance(value, SecretStr):
            if value.get_secret_value():
                secret = value.get_secret_value()
                stored[field] = {"sealed": sealer.seal(secret, owner=str(connection_id), field=field)}
        elif value is not None:
            stored[field] = {"plain": value}
    return stored


def open_credentials(sealer: Sealer, stored: StoredConnection) -> dict[str, Any]:
    """Credentials by field, secrets opened. For connectors only: never log, store or return it."""
    return {
        field: sealer.open(entry["sealed"], owner=str(stored.id), field=field) if "sealed" in entry else entry["plain"]
        for field, entry in stored.credentials.items()
    }


def why_unreadable(sealer: Sealer, stored: StoredConnection) -> str | None:
    """Why credentials cannot be opened, as far as that is known without asking Key Vault."""
    try:
        for entry in stored.credentials.values():
            if "sealed" in entry:
                sealer.keys.require(entry["sealed"]["key"])
    except (UnsealError, MisconfiguredError) as error:
        return f"{error.detail}. {error.hint}"
    return None


def _refuse_unstorable(what: str, values: Mapping[str, Any]) -> None:
    found = {f"{what}.{name}": "holds a NUL character" for name, value in values.items() if _has_nul(value)}
    if found:
        raise InvalidRequestError(f"The {what} hold what cannot be stored", fields=found)


def _has_nul(value: object) -> bool:
    if isinstance(value, str):
        return "\x00" in value
    if _is_mapping(value):
        return any(_has_nul(part) for pair in value.items() for part in pair)
    return isinstance(value, list) and any(map(_has_nul, cast("list[object]", value)))


def _is_mapping(value: object) -> TypeIs[Mapping[object, object]]:
    return isinstance(value, Mapping)


def _complaint(what: str, model: type[BaseModel], error: ValidationError) -> InvalidRequestError:
    fields = {
        f"{what}.{'.'.join(map(str, each['loc']))}".rstrip("."): complaint(each, example=_example(model, each["loc"]))
        for each in error.errors(include_input=False, include_url=False)
    }
    return InvalidRequestError(f"The {what} do not fit this source", fields=fields)


def _example(model: type[BaseModel], place: tuple[int | str, ...]) -> str:
    """How the form shows a value of the field, or of an entry of its list."""
    field = model.model_fields.get(str(place[0])) if place else None
    match next(iter(field.examples or ()), "") if field else "":
        case [first, *_]:
            return str(first)
        case example:
            return str(example)
