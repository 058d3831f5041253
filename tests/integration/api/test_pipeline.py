"""All jobs, the dead-letter queue, pause and resume."""

from typing import Any
from uuid import UUID

import httpx
import pytest

from shared.blobs import Blobs
from shared.settings import Settings
from shared.store.database import Database
from tests.support.api import RecordingStarter
from tests.support.pipeline import run_started_jobs

CSV = b"external_id,title\r\nSKUA-1,Mast leans\r\n"
TRUNCATED = b'external_id,title\r\nSKUA-1,"never closed\r\n'


async def send(client: httpx.AsyncClient, content: bytes, label: str) -> str:
    answer = await client.post("/api/import", files={"file": ("skua.csv", content)}, data={"import_source": label})
    return answer.json()["job_id"]


@pytest.fixture
def run(database: Database, blobs: Blobs, api_settings: Settings, starter: RecordingStarter) -> Any:
    async def run_all() -> None:
        await run_started_jobs(database, blobs, api_settings, starter.started)

    return run_all


async def test_a_broken_file_ends_in_the_dead_letter_queue_with_its_reason(admin: httpx.AsyncClient, run: Any) -> None:
    job_id = await send(admin, TRUNCATED, "skua")
    await run()

    [dead] = (await admin.get("/api/pipeline/dlq")).json()["items"]
    details = (await admin.get(f"/api/pipeline/jobs/{job_id}")).json()

    assert (dead["job_id"], dead["state"], dead["error"]["reason"]) == (job_id, "failed", "truncated")
    assert dead["error"]["hint"]
    assert "error" in {entry["level"] for entry in details["log"]}


async def test_dead_letters_are_queued_again(admin: httpx.AsyncClient, run: Any, starter: RecordingStarter) -> None:
    first, second = await send(admin, TRUNCATED, "skua-1"), await send(admin, TRUNCATED, "skua-2")
    good = await send(admin, CSV, "skua-3")
    await run()

    one = await admin.post("/api/pipeline/dlq/retry", json={"job_ids": [first, good]})
    rest = await admin.post("/api/pipeline/dlq/retry", json={"all": True})
    neither = await admin.post("/api/pipeline/dlq/retry", json={})

    assert (one.json()["job_ids"], rest.json()["job_ids"], neither.status_code) == ([first], [second], 422)
    assert starter.started == [(UUID(first), 2), (UUID(second), 2)]


async def test_a_paused_pipeline_starts_nothing_until_it_is_resumed(
    admin: httpx.AsyncClient, starter: RecordingStarter
) -> None:
    paused = await admin.post("/api/pipeline/pause")
    job_id = await send(admin, CSV, "skua")
    stats = (await admin.get("/api/pipeline/stats")).json()
    started_while_paused = list(starter.started)
    resumed = await admin.post("/api/pipeline/resume")

    assert (paused.json()["paused"], resumed.json()["paused"], resumed.json()["changed"]) == (True, False, True)
    assert (stats["paused"], stats["queued"], stats["running"]) == (True, 1, 0)
    assert "resume" in stats["links"]
    assert (started_while_paused, starter.started) == ([], [(UUID(job_id), 1)])
    actions = [
        entry["action"] for entry in (await admin.get("/api/audit", params={"subject": "pipeline"})).json()["items"]
    ]
    assert actions == ["pipeline.resumed", "pipeline.paused"]


async def test_pausing_twice_changes_nothing_and_is_audited_once(admin: httpx.AsyncClient) -> None:
    answers = [await admin.post("/api/pipeline/pause") for _ in range(2)]

    assert [answer.json()["changed"] for answer in answers] == [True, False]
    assert len((await admin.get("/api/audit", params={"subject": "pipeline"})).json()["items"]) == 1


async def test_statistics_count_what_was_done(admin: httpx.AsyncClient, run: Any) -> None:
    await send(admin, CSV + b"SKUA-2,\r\n", "skua-1")
    await send(admin, TRUNCATED, "skua-2")
    await run()

    stats = (await admin.get("/api/pipeline/stats")).json()

    assert (stats["failed"], stats["jobs"]["completed"], stats["rejections_open"]) == (1, 1, 1)
    assert stats["last_hour"] == {"jobs_completed": 1, "jobs_failed": 1, "rows": 2}
    assert "dlq_retry" in stats["links"]
