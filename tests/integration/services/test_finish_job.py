"""An import ends, whatever its ledger holds."""

from typing import Any

import pytest

from shared.blobs import Blobs
from shared.domain.errors import DatabaseUnavailableError
from shared.domain.job import ImportOptions
from shared.services.plan_job import plan_job
from shared.store.database import Database
from tests.integration.services.test_load_batch import given_claimed_job
from tests.support.api import finish_import, list_batches, runtime_of
from tests.support.files import issues_csv
from tests.support.settings import make_settings


@pytest.fixture
async def planned(database: Database, blobs: Blobs, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """An atomic job that was planned, in the database its steps work on."""
    settings = make_settings()

    async def runtime() -> object:
        return runtime_of(settings, database, blobs)

    monkeypatch.setattr("functions.activities.import_job.runtime", runtime)
    content = issues_csv([("R-1", "one")], header=("external_id", "title"))
    job_id = await given_claimed_job(database, blobs, settings, content, ImportOptions(atomic=True))
    await plan_job(database, blobs, settings, job_id, 1)
    return {"job_id": str(job_id), "attempt": 1}


async def jobs_of(database: Database) -> list[dict[str, Any]]:
    async with database.connection() as connection:
        cursor = await connection.execute("select state, error ->> 'code' as code from jobs")
        return await cursor.fetchall()


async def test_an_import_that_cannot_be_summed_up_ends(database: Database, planned: dict[str, Any]) -> None:
    async with database.connection() as connection:
        await connection.execute("""update job_batches set remarks = '{"short": "some"}'""")

    assert await finish_import(planned, None) == {"state": "failed"}

    assert await jobs_of(database) == [{"state": "failed", "code": "internal_error"}]


async def test_an_import_whose_batches_cannot_be_listed_ends(database: Database, planned: dict[str, Any]) -> None:
    async with database.connection() as connection:
        await connection.execute("""update job_batches set remarks = '{"short": "some"}'""")

    todo = await list_batches({**planned, "phase": "load", "limit": 10})

    assert todo == {"waiting": [], "failed": [], "stop": True}
    assert await jobs_of(database) == [{"state": "failed", "code": "internal_error"}]


async def test_a_database_out_of_reach_ends_no_import(
    database: Database, planned: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lost(*_: object) -> None:
        raise DatabaseUnavailableError

    monkeypatch.setattr("functions.activities.import_job.finish", lost)

    with pytest.raises(DatabaseUnavailableError):
        await finish_import(planned, None)

    assert await jobs_of(database) == [{"state": "processing", "code": None}]
