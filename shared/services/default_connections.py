"""Connections that app settings define: JIRA_API_TOKEN and its like, so that a deployment can do without the wizard."""

import logging
from collections.abc import Iterator

from shared.domain.caller import Caller, Role
from shared.domain.errors import TributaryError
from shared.security.sealing import Sealer
from shared.services.manage_connections import (
    ConnectionChange,
    NewConnection,
    change_connection,
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
            credentials={
                "email": settings.jira_user_email or None,
                "token": settings.jira_api_token.get_secret_value(),
            },
        )
    if settings.servicenow_instance and settings.servicenow_password.get_secret_value():
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


async def _define(database: Database, sealer: Sealer, settings: Settings, new: NewConnection) -> None:
    async with database.connection() as connection:
        stored = await connections.find_connection(connection, new.slug)
    if stored is None:
        await create_connection(
            database, sealer, ENVIRONMENT, new, cron=settings.schedule_default_cron, origin="environment"
        )
    elif stored.origin == "environment" and not _is_current(sealer, stored, new):
        change = ConnectionChange(base_url=new.base_url, credentials=new.credentials)
        await change_connection(database, sealer, ENVIRONMENT, new.slug, change)


def _is_current(sealer: Sealer, stored: StoredConnection, new: NewConnection) -> bool:
    held = open_credentials(sealer, stored)
    wanted = {name: value for name, value in new.credentials.items() if value is not None}
    return stored.base_url == new.base_url.rstrip("/") and wanted.items() <= held.items()
