"""Connections that app settings define: JIRA_API_TOKEN and its like, so that a deployment can do without the wizard."""

import logging
from collections.abc import Iterator
from typing import Any

from pydantic import SecretStr

from shared.domain.caller import Caller, Role
from shared.domain.errors import TributaryError
from shared.security.sealing import Sealer, UnsealError
from shared.services.manage_connections import (
    ConnectionChange,
    NewConnection,
    change_connection,
    check_url,
    create_connection,
)
from shared.services.open_connector import open_credentials
from shared.settings import Settings
from shared.store import connections
from shared.store.connections import StoredConnection
from shared.store.database import Database

log = logging.getLogger(__name__)

ENVIRONMENT = Caller(id="environment", name="environment", role=Role.ADMIN)


async def define_defaults(database: Database, sealer: Sealer, settings: Settings) -> None:
    """Create the connections the settings define, and bring them up to date. What is wrong is logged, not raised.

    A connection with the same slug that somebody made by hand is left alone.
    """
    for source, missing in incomplete_connections(settings):
        log.warning(
            "A connection of the settings is incomplete",
            extra={"action": "default_connection_incomplete", "slug": source, "missing": ", ".join(missing)},
        )
    for new in default_connections(settings):
        try:
            await _define(database, sealer, settings, new)
        except TributaryError as error:
            log.warning(
                "A connection of the settings was not made",
                extra={"action": "default_connection_failed", "slug": new.slug, "detail": error.detail},
            )


def default_connections(settings: Settings) -> Iterator[NewConnection]:
    """The connections whose settings are complete; their slug is the source."""
    if settings.jira_base_url and settings.jira_api_token.get_secret_value():
        yield NewConnection(
            slug="jira",
            source="jira",
            base_url=settings.jira_base_url,
            settings={"projects": [settings.jira_default_project]} if settings.jira_default_project else {},
            credentials={"email": settings.jira_user_email, "token": settings.jira_api_token.get_secret_value()},
        )
    if (
        settings.servicenow_instance
        and settings.servicenow_username
        and settings.servicenow_password.get_secret_value()
    ):
        instance = settings.servicenow_instance
        yield NewConnection(
            slug="servicenow",
            source="servicenow",
            base_url=instance if "://" in instance else f"https://{instance.partition('.')[0]}.service-now.com",
            credentials={
                "username": settings.servicenow_username,
                "password": settings.servicenow_password.get_secret_value(),
            },
        )
    if token := settings.github_token.get_secret_value():
        yield NewConnection(
            slug="github", source="github", base_url="https://api.github.com", credentials={"token": token}
        )
    if token := settings.gitlab_token.get_secret_value():
        yield NewConnection(slug="gitlab", source="gitlab", base_url=settings.gitlab_url, credentials={"token": token})
    if (token := settings.sentry_auth_token.get_secret_value()) and settings.sentry_org:
        yield NewConnection(
            slug="sentry",
            source="sentry",
            base_url="https://sentry.io",
            settings={"organization": settings.sentry_org},
            credentials={"token": token},
        )


def incomplete_connections(settings: Settings) -> list[tuple[str, list[str]]]:
    """Sources of which some settings are there, and the names of those that are missing."""
    needed = {
        "jira": ("jira_base_url", "jira_api_token"),
        "servicenow": ("servicenow_instance", "servicenow_username", "servicenow_password"),
        "sentry": ("sentry_auth_token", "sentry_org"),
    }
    missing = {
        source: [name.upper() for name in names if not _text(getattr(settings, name))]
        for source, names in needed.items()
    }
    return [(source, names) for source, names in missing.items() if 0 < len(names) < len(needed[source])]


def _text(value: str | SecretStr) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else value


async def _define(database: Database, sealer: Sealer, settings: Settings, new: NewConnection) -> None:
    async with database.connection() as connection:
        stored = await connections.find_connection(connection, new.slug)
    if stored is None:
        await create_connection(
            database, sealer, ENVIRONMENT, new, cron=settings.schedule_default_cron, origin="environment"
        )
    elif stored.origin == "environment":
        wanted = _settings(stored, new)
        moved = stored.base_url != check_url(new.base_url)
        replaced = moved or not _has_credentials(sealer, stored, new)
        if replaced or wanted != stored.settings:
            change = ConnectionChange(
                base_url=new.base_url, settings=wanted, credentials=new.credentials if replaced else None
            )
            await change_connection(database, sealer, ENVIRONMENT, new.slug, change)


def _settings(stored: StoredConnection, new: NewConnection) -> dict[str, Any]:
    """What app settings say of the connection's settings goes in; what people added stays."""
    wanted = {**stored.settings, **new.settings}
    if stored.settings.get("projects") is None:
        # Somebody widened it to all projects, the default one among them.
        wanted.pop("projects", None)
    else:
        wanted["projects"] = list(dict.fromkeys([*stored.settings["projects"], *new.settings.get("projects", [])]))
    return wanted


def _has_credentials(sealer: Sealer, stored: StoredConnection, new: NewConnection) -> bool:
    try:
        held = open_credentials(sealer, stored)
    except UnsealError:
        # Its master key is gone; the app settings have what is needed.
        return False
    return all(held.get(name, "") == value for name, value in new.credentials.items())
