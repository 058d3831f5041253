"""The API with a caller of each role."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from local.trackers.known import tracker_of
from local.trackers.service import Tracker
from local.trackers.world import seeded
from shared.blobs import Blobs
from shared.domain.caller import Role
from shared.settings import Settings
from shared.store.database import Database
from tests.support.api import AsgiApp, RecordingStarter, api_app, client_of, make_key
from tests.support.connections import registration
from tests.support.settings import make_settings


@pytest.fixture
def starter() -> RecordingStarter:
    return RecordingStarter()


@pytest.fixture
def api_settings(azurite: str) -> Settings:
    return make_settings(storage_connection=azurite, requests_per_minute=10_000)


@pytest.fixture
def app(api_settings: Settings, database: Database, blobs: Blobs, starter: RecordingStarter) -> AsgiApp:
    return api_app(api_settings, database, blobs, starter)


@pytest.fixture
async def anonymous(app: AsgiApp) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app) as client:
        yield client


@pytest.fixture
async def reader(app: AsgiApp, database: Database) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app, await make_key(database, Role.READER)) as client:
        yield client


@pytest.fixture
async def operator(app: AsgiApp, database: Database) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app, await make_key(database, Role.OPERATOR)) as client:
        yield client


@pytest.fixture
async def admin(app: AsgiApp, database: Database) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app, await make_key(database, Role.ADMIN)) as client:
        yield client


@pytest.fixture
async def tracker() -> AsyncIterator[Tracker]:
    """A simulated Jira with thirty issues."""
    async with tracker_of("jira", seeded(30, projects=("HARBOR", "PETREL"))) as tracker:
        yield tracker


@pytest.fixture
async def connected(admin: httpx.AsyncClient, tracker: Tracker) -> dict[str, Any]:
    """A registered and tested connection."""
    created = await admin.post("/api/integrations", json=registration(tracker))
    assert created.status_code == 201, created.text
    tested = await admin.post("/api/integrations/petrel/test")
    assert tested.json()["passed"], tested.text
    return created.json()
