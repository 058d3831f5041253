"""What keeps the pipeline going by itself: dispatch, recovery, clean-up, and files nobody announced."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from shared.blobs import Blobs
from shared.domain.caller import Caller, Role
from shared.domain.errors import NotFoundError
from shared.domain.job import ImportOptions, ImportRequest, JobState, Turn
from shared.services.accept_import import accept_blob, accept_file
from shared.services.clean_up import clean_up
from shared.services.dispatch_jobs import dispatch
from shared.services.record_poison import record_poison
from shared.services.recover_jobs import recover
from shared.store import audit_log, jobs
from shared.store.database import Database
from shared.store.jobs import Job
from tests.integration.services.test_load_batch import given_claimed_job, titles
from tests.support.api import RecordingStarter
from tests.support.files import issues_csv
from tests.support.pipeline import RecordingPurge, run_started_jobs
from tests.support.settings import make_settings

CONTENT = issues_csv([("R-1", "one")], header=("external_id", "title"))
SETTINGS = make_settings()


async def find(database: Database, job_id: UUID) -> Job | None:
    async with database.connection() as connection:
        return await jobs.find_job(connection, job_id)


async def given_imported(database: Database, blobs: Blobs, file_name: str, content: bytes) -> UUID:
    caller = Caller(id="key:test", name="test", role=Role.OPERATOR)
    request = ImportRequest(file_name=file_name, import_source="plant")
    job, _ = await accept_file(database, blobs, SETTINGS, caller=caller, request=request, content=[content])
    starter = RecordingStarter()
    await dispatch(database, starter, concurrency=1)
    await run_started_jobs(database, blobs, SETTINGS, starter.started)
    return job.id


async def test_job_whose_start_fails_goes_back_in_the_queue(database: Database, blobs: Blobs) -> None:
    await blobs.upload(SETTINGS.uploads_container, "label/a.csv", CONTENT)
    job = await accept_blob(database, blobs, SETTINGS, name="label/a.csv")
    assert job is not None

    async def fail(turn: Turn) -> None:
        raise ConnectionError("no engine")

    with pytest.raises(ConnectionError):
        await dispatch(database, fail, concurrency=3)

    starter = RecordingStarter()
    assert await dispatch(database, starter, concurrency=3) == 1
    assert starter.started == [(job.id, 2)]


async def test_only_jobs_without_a_live_orchestration_are_recovered(database: Database, blobs: Blobs) -> None:
    lost = await given_claimed_job(database, blobs, SETTINGS, CONTENT, ImportOptions())
    starter = RecordingStarter()
    later = datetime.now(UTC) + timedelta(minutes=1)

    async def dead(turn: Turn) -> bool:
        return False

    async def alive(turn: Turn) -> bool:
        return True

    assert await recover(database, alive, starter, now=later) == 0
    assert await recover(database, dead, starter, now=datetime.now(UTC)) == 0, "it was claimed a moment ago"
    assert await recover(database, dead, starter, now=later) == 1
    assert starter.started == [(lost, 2)]


async def test_clean_up_forgets_old_jobs_and_their_files_but_not_what_they_brought(
    database: Database, blobs: Blobs
) -> None:
    job_id = await given_imported(database, blobs, "index", CONTENT)
    job = await find(database, job_id)
    assert job is not None
    assert job.state is JobState.COMPLETED, "a file may be called index, as one of ours is"
    now = datetime.now(UTC)

    purge = RecordingPurge()

    assert await clean_up(database, blobs, SETTINGS, purge, now=now + timedelta(days=6)) == 0
    assert purge.forgotten == []
    assert await clean_up(database, blobs, SETTINGS, purge, now=now + timedelta(days=8)) == 1

    assert await find(database, job_id) is None
    assert purge.forgotten == [(job_id, 1)]
    with pytest.raises(NotFoundError):
        await blobs.properties(SETTINGS.files_container, job.file_blob or "")
    assert await titles(database) == {"R-1": "one"}


async def test_clean_up_leaves_no_file_of_a_rewritten_import(database: Database, blobs: Blobs) -> None:
    content = b'{"records": [{"external_id": "R-1", "title": "one"}, {"external_id": "R-2", "title": "two"}]}'
    job_id = await given_imported(database, blobs, "a b.json", content)
    names = [f"{job_id}/sent/a_b.json", f"{job_id}/rewritten", f"{job_id}/index"]
    for name in names:
        assert (await blobs.properties(SETTINGS.files_container, name)).size

    assert await clean_up(database, blobs, SETTINGS, RecordingPurge(), now=datetime.now(UTC) + timedelta(days=8)) == 1

    for name in names:
        with pytest.raises(NotFoundError):
            await blobs.properties(SETTINGS.files_container, name)
    async with database.connection() as connection:
        [entry] = await audit_log.list_entries(connection, subject="jobs")
    assert (entry.actor, entry.action, entry.before) == ("retention", "jobs.removed", {"jobs": [str(job_id)]})


async def test_dropped_file_is_taken_once_with_the_options_of_its_metadata(database: Database, blobs: Blobs) -> None:
    metadata = {"import_source": "Plant 7", "duplicates": "skip", "priority": "high"}
    await blobs.upload(SETTINGS.uploads_container, "x.csv", CONTENT, metadata=metadata)

    job = await accept_blob(database, blobs, SETTINGS, name="x.csv")
    again = await accept_blob(database, blobs, SETTINGS, name="x.csv")

    assert job is not None
    assert (job.import_source, job.options.duplicates, job.priority) == ("plant-7", "skip", "high")
    assert again is None
    async with database.connection() as connection:
        entries = await audit_log.list_entries(connection, subject=f"job:{job.id}")
    assert [(entry.actor, entry.action) for entry in entries] == [("container", "job.accepted")]


async def test_file_nobody_could_accept_is_a_dead_letter_once(database: Database) -> None:
    for _ in range(2):
        await record_poison(database, container="uploads", name="bad/name.csv", etag="1")

    async with database.connection() as connection:
        found = await jobs.list_jobs(connection, state=JobState.FAILED)
    assert [(job.file_name, (job.error or {})["code"]) for job in found] == [("name.csv", "not_accepted")]
