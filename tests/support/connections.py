"""Connections to simulated trackers, registered through the API."""

from typing import Any
from uuid import UUID

from local.trackers.known import connection_to
from local.trackers.service import Tracker
from shared.domain.job import JobState
from shared.store.database import Database
from tests.support.settings import make_settings
from tests.support.sync import SyncRunner


def registration(tracker: Tracker, slug: str = "petrel") -> dict[str, Any]:
    known = connection_to(tracker)
    return {
        "slug": slug,
        "source": known.source,
        "base_url": tracker.url,
        "settings": dict(known.settings),
        "credentials": dict(known.credentials),
    }


async def run(database: Database, tracker: Tracker, job_id: str) -> JobState | None:
    """Do what the orchestration would do with a queued job."""
    runner = SyncRunner(database, make_settings(), tracker, slug="petrel")
    await runner.execute("update jobs set state = 'processing', attempt = 1, started_at = now() where id = %s", job_id)
    return await runner.run(UUID(job_id))
