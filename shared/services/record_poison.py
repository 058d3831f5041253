"""Make a file that could not even be accepted visible in the dead-letter queue."""

from hashlib import sha256
from uuid import uuid4

from shared.domain.job import JobState
from shared.services.accept_import import CONTAINER_ACTOR
from shared.store import jobs
from shared.store.database import Database
from shared.store.jobs import NewJob


async def record_poison(database: Database, *, container: str, name: str, etag: str) -> None:
    """Store a failed job for a blob whose trigger gave up; again for the same blob version changes nothing."""
    new = NewJob(
        id=uuid4(),
        source="file",
        import_source="unaccepted",
        file_name=name.rsplit("/", 1)[-1],
        file_container=container,
        file_blob=name,
        file_bytes=0,
        file_etag=etag or None,
        idempotency_key="poison:" + sha256(f"{container}/{name}/{etag}".encode()).hexdigest(),
        requested_by=CONTAINER_ACTOR,
    )
    async with database.transaction() as connection:
        job = await jobs.insert_job(connection, new)
        if job is None:
            return
        error = {
            "code": "not_accepted",
            "detail": f"The file {container}/{name} could not be accepted after five tries",
            "hint": "See the function's log, then drop the file again under a name such as label/file.csv",
        }
        await jobs.end_job(connection, job.id, JobState.FAILED, error=error)
