"""Fixtures every test may ask for. What is slow to start is started once per session, and only when asked for."""

import os
from collections.abc import AsyncIterator, Iterator

import pytest
from hypothesis import HealthCheck, settings

from shared.blobs import Blobs
from shared.store.database import Database
from tests.support.azurite import running_azurite
from tests.support.postgres import TestDatabases, embedded_server
from tests.support.settings import make_settings

# No test depends on how fast the machine is. Fixtures are shared by examples, which clear what they use.
settings.register_profile(
    "ours", deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
settings.load_profile("ours")


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """URL of a PostgreSQL server on which databases may be created and dropped."""
    if url := os.environ.get("TEST_DATABASE_URL"):  # noqa: TID251  # addressed to the tests, not to the product
        yield url
        return
    with embedded_server() as url:
        yield url


@pytest.fixture(scope="session")
def databases(postgres_url: str) -> Iterator[TestDatabases]:
    databases = TestDatabases(postgres_url)
    yield databases
    databases.close()


@pytest.fixture
def database_url(databases: TestDatabases) -> Iterator[str]:
    """URL of this test's own database: newest schema, no rows."""
    with databases.database() as url:
        yield url


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """This test's own database, open."""
    database = Database(database_url)
    await database.open()
    yield database
    await database.close()


@pytest.fixture(scope="session")
def azurite() -> Iterator[str]:
    """Connection string of a blob and queue store."""
    with running_azurite() as connection:
        yield connection


@pytest.fixture
async def blobs(azurite: str) -> Blobs:
    """A client of the store; both containers exist and may hold the blobs of other tests."""
    blobs = Blobs(make_settings(storage_connection=azurite))
    await blobs.create_containers()
    return blobs
