"""Files in through the API, and the jobs they become."""

from uuid import UUID, uuid4

import httpx
import pytest

from shared.blobs import Blobs
from shared.settings import Settings
from shared.store import jobs, pipeline
from shared.store.database import Database
from tests.support.api import AsgiApp, RecordingStarter, api_app, client_of
from tests.support.pipeline import run_started_jobs

CSV = b"external_id,title,status\r\nTERN-1,Feeder jams,Open\r\nTERN-2,Lid squeaks,Done\r\n"


async def send(
    client: httpx.AsyncClient, content: bytes = CSV, name: str = "tern.csv", **fields: str
) -> httpx.Response:
    return await client.post("/api/import", files={"file": (name, content)}, data=fields)


async def test_a_file_becomes_a_queued_job_that_is_started(
    operator: httpx.AsyncClient, database: Database, blobs: Blobs, starter: RecordingStarter
) -> None:
    answer = await send(operator, import_source="feeders", priority="high", mapping='{"title": "title"}')

    assert answer.status_code == 202
    job_id = UUID(answer.json()["job_id"])
    assert answer.headers["Location"] == f"/api/import/status/{job_id}" == answer.json()["links"]["status"]["href"]
    assert starter.started == [(job_id, 1)]
    async with database.connection() as connection:
        job = await jobs.find_job(connection, job_id)
    assert job is not None
    assert (job.import_source, job.priority, job.options.mapping) == ("feeders", "high", {"title": "title"})
    assert b"".join(blobs.read(job.file_container or "", job.file_blob or "")) == CSV


async def test_the_label_is_made_of_the_files_name_when_none_is_given(operator: httpx.AsyncClient) -> None:
    answer = await send(operator, name="Störungen Werk 2.csv")

    assert answer.json()["import_source"] == "st-rungen-werk-2"


async def test_a_repeated_idempotency_key_gets_the_first_job(
    operator: httpx.AsyncClient, starter: RecordingStarter
) -> None:
    operator.headers["Idempotency-Key"] = "nightly-2025-03-31"

    first, second = await send(operator), await send(operator, b"other content")

    assert first.json()["job_id"] == second.json()["job_id"]
    assert len(starter.started) == 1


async def test_status_follows_a_job_to_its_end(
    operator: httpx.AsyncClient,
    database: Database,
    blobs: Blobs,
    api_settings: Settings,
    starter: RecordingStarter,
) -> None:
    url = (await send(operator, CSV + b"TERN-3,,Open\r\n")).headers["Location"]
    before = (await operator.get(url)).json()

    await run_started_jobs(database, blobs, api_settings, starter.started)

    after = (await operator.get(url)).json()
    assert (before["state"], before["percent"], before["rows_total"]) == ("processing", 0, None)
    assert (after["state"], after["percent"], after["rows_total"]) == ("completed", 100, 3)
    assert after["counts"] == dict.fromkeys(after["counts"], 0) | {"rows": 3, "created": 2, "rejected": 1}
    assert after["layout"]["mapping"]["title"] == ["title"]
    assert {"rejections", "replay", "dismiss"} <= set(after["links"])
    issues = (await operator.get(after["links"]["issues"]["href"])).json()["items"]
    assert {issue["external_id"] for issue in issues} == {"TERN-1", "TERN-2"}
    assert "cancel" in before["links"]
    assert "cancel" not in after["links"]


async def test_an_unknown_job_is_a_problem(reader: httpx.AsyncClient) -> None:
    answer = await reader.get(f"/api/import/status/{uuid4()}")

    assert answer.status_code == 404
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["code"] == "not_found"
    assert answer.json()["trace_id"] == answer.headers["X-Trace-Id"]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"import_source": "Has Blanks"}, "import_source"),
        ({"duplicates": "sometimes"}, "duplicates"),
        ({"mapping": "[1]"}, "mapping"),
        ({"delimiter": "::"}, "delimiter"),
        ({"priority": "asap"}, "priority"),
    ],
    ids=lambda value: str(value) if isinstance(value, str) else "",
)
async def test_a_field_that_is_not_understood_is_named(
    operator: httpx.AsyncClient, fields: dict[str, str], field: str
) -> None:
    answer = await send(operator, **fields)

    assert answer.status_code == 422
    assert field in answer.json()["fields"]


async def test_a_body_over_the_limit_is_sent_to_the_upload_address(
    api_settings: Settings, database: Database, blobs: Blobs, operator: httpx.AsyncClient
) -> None:
    small = api_settings.model_copy(update={"max_request_bytes": 1000})
    app = api_app(small, database, blobs, RecordingStarter())
    async with client_of(app, operator.headers["X-API-Key"]) as client:
        by_length = await send(client, b"x" * 200_000)
        by_file = await send(client, b"x" * 2_000)

    assert [by_length.status_code, by_file.status_code] == [413, 413]
    assert "POST /api/import/uploads" in by_length.json()["hint"]
    assert "POST /api/import/uploads" in by_file.json()["hint"]


async def test_a_large_file_goes_straight_to_the_storage(
    operator: httpx.AsyncClient, database: Database, blobs: Blobs
) -> None:
    answer = await operator.post("/api/import/uploads", json={"file_name": "terns.csv", "options": {"kind": "issues"}})
    offer = answer.json()

    async with httpx.AsyncClient() as anybody:
        put = await anybody.request(offer["method"], offer["upload_url"], headers=offer["headers"], content=CSV)
        read = await anybody.get(offer["upload_url"])

    assert (answer.status_code, put.status_code, read.status_code) == (201, 201, 403)
    status = (await operator.get(offer["links"]["status"]["href"])).json()
    assert (status["state"], status["waiting_for"], status["import_source"]) == ("queued", "file", "terns")
    async with database.connection() as connection:
        job = await jobs.find_job(connection, UUID(offer["job_id"]))
    assert job is not None
    assert b"".join(blobs.read(job.file_container or "", job.file_blob or "")) == CSV


async def test_history_pages_through_all_jobs_once(operator: httpx.AsyncClient) -> None:
    sent = [(await send(operator, import_source=f"tern-{number}")).json()["job_id"] for number in range(5)]

    seen: list[str] = []
    cursor: dict[str, str] = {}
    for _ in range(3):
        page = (await operator.get("/api/import/history", params={"limit": 2, **cursor})).json()
        seen += [item["job_id"] for item in page["items"]]
        cursor = {"cursor": page["next_cursor"]} if page.get("next_cursor") else {}

    assert seen == sent[::-1]
    assert cursor == {}


async def test_history_filters(operator: httpx.AsyncClient) -> None:
    await send(operator, import_source="feeders")
    await send(operator, import_source="lids", kind="projects")

    async def labels(**filters: str) -> list[str]:
        page = (await operator.get("/api/import/history", params=filters)).json()
        return [item["import_source"] for item in page["items"]]

    assert await labels(import_source="feeders") == ["feeders"]
    assert await labels(kind="projects") == ["lids"]
    assert await labels(state="failed") == []
    assert await labels(since="2100-01-01T00:00:00Z") == []


async def test_execute_refuses_another_format_and_a_broken_file_at_once(
    operator: httpx.AsyncClient, starter: RecordingStarter
) -> None:
    wrong = await operator.post("/api/import/json/execute", files={"file": ("a.csv", CSV)})
    broken = await operator.post("/api/import/auto/execute", files={"file": ("a.csv", b"PK\x03\x04 and so on")})
    right = await operator.post("/api/import/csv/execute", files={"file": ("a.csv", CSV)})

    assert [wrong.status_code, broken.status_code, right.status_code] == [422, 422, 202]
    assert [wrong.json()["reason"], broken.json()["reason"]] == ["wrong_format", "zip"]
    assert len(starter.started) == 1


async def test_a_cancelled_job_can_be_retried(operator: httpx.AsyncClient, database: Database) -> None:
    async with database.connection() as connection:
        await pipeline.set_paused(connection, paused=True)
    job_id = (await send(operator)).json()["job_id"]

    cancelled = await operator.post(f"/api/import/{job_id}/cancel")
    again = await operator.post(f"/api/import/{job_id}/cancel")
    retried = await operator.post(f"/api/import/{job_id}/retry")

    assert (cancelled.status_code, cancelled.json()["state"]) == (202, "cancelled")
    assert (again.status_code, again.json()["code"]) == (409, "conflict")
    assert (retried.status_code, retried.json()["state"], retried.json()["waiting_for"]) == (202, "queued", "turn")


async def test_every_change_of_a_job_is_audited(
    operator: httpx.AsyncClient, admin: httpx.AsyncClient, database: Database
) -> None:
    async with database.connection() as connection:
        await pipeline.set_paused(connection, paused=True)
    job_id = (await send(operator)).json()["job_id"]
    await operator.post(f"/api/import/{job_id}/cancel")
    await operator.post(f"/api/import/{job_id}/retry")

    entries = (await admin.get("/api/audit", params={"subject": f"job:{job_id}"})).json()["items"]

    assert [entry["action"] for entry in entries] == ["job.retried", "job.cancelled", "job.accepted"]
    assert [entry["before"] and entry["before"]["state"] for entry in entries] == ["cancelled", "queued", None]
    assert len({entry["actor"] for entry in entries}) == 1


async def test_the_published_schema_needs_no_mapping(operator: httpx.AsyncClient) -> None:
    published = (await operator.get("/api/import/schema")).json()
    columns = published["csv_header"].strip().split(",")
    row = ",".join({"external_id": "TERN-9", "title": "Rope frays"}.get(column, "") for column in columns)

    answer = await operator.post(
        "/api/import/csv/preview", files={"file": ("t.csv", f"{published['csv_header']}{row}\r\n".encode())}
    )

    assert set(columns) == set(published["record"]["properties"])
    assert answer.json()["counts"]["created"] == 1
    assert set(answer.json()["layout"]["mapping"]) == set(columns)


async def test_an_unknown_fault_tells_nothing_of_our_insides(
    app: AsgiApp, operator: httpx.AsyncClient, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    async with database.connection() as connection:
        await connection.execute("alter table jobs rename to secret_name")

    answer = await operator.get("/api/import/history")

    assert answer.status_code == 500
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert "jobs" not in answer.text
    assert any(record.exc_info for record in caplog.records if record.name == "functions.api.errors")
