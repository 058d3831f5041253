"""A preview says what the import then does, and stores nothing."""

import json
from typing import Any

import httpx
import pytest

from shared.blobs import Blobs
from shared.settings import Settings
from shared.store.database import Database
from tests.support.api import RecordingStarter
from tests.support.pipeline import run_started_jobs

HEADER = "external_id,title,status,source_updated_at"
STORED = [
    "GULL-1,Winch stalls,Open,2025-03-02T10:00:00Z",
    "GULL-2,Rope frays,Open,2025-03-02T10:00:00Z",
    "GULL-3,Hook bends,Open,2025-03-02T10:00:00Z",
]
NEXT = [
    "GULL-1,Winch stalls,Open,2025-03-02T10:00:00Z",  # unchanged
    "GULL-2,Rope frays badly,Open,2025-03-03T10:00:00Z",  # updated
    "GULL-3,Hook bent,Open,2025-03-01T10:00:00Z",  # older than what is stored
    "GULL-4,New one,Open,2025-03-03T10:00:00Z",  # loses
    "GULL-4,New one again,Open,2025-03-03T10:00:00Z",  # created
    "GULL-5,,Open,2025-03-03T10:00:00Z",  # no title
    "GULL-6,Bad date,Open,never",
]


def csv_of(lines: list[str]) -> bytes:
    return "\r\n".join([HEADER, *lines, ""]).encode()


def json_of(lines: list[str]) -> bytes:
    names = HEADER.split(",")
    return json.dumps([dict(zip(names, line.split(","), strict=True)) for line in lines]).encode()


async def counts_of_import(client: httpx.AsyncClient, content: bytes, run: Any, **fields: str) -> dict[str, int]:
    answer = await client.post(
        "/api/import", files={"file": ("gulls", content)}, data={"import_source": "gulls", **fields}
    )
    await run()
    return (await client.get(answer.headers["Location"])).json()["counts"]


@pytest.fixture
def run(database: Database, blobs: Blobs, api_settings: Settings, starter: RecordingStarter) -> Any:
    async def run_all() -> None:
        await run_started_jobs(database, blobs, api_settings, starter.started)

    return run_all


async def preview(client: httpx.AsyncClient, content: bytes, **fields: str) -> dict[str, Any]:
    answer = await client.post(
        "/api/import/auto/preview", files={"file": ("gulls", content)}, data={"import_source": "gulls", **fields}
    )
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize("duplicates", ["update", "skip"])
@pytest.mark.parametrize(
    "encode",
    [csv_of, json_of, lambda lines: csv_of(lines).decode().encode("utf-16")],
    ids=["csv", "json-array", "utf-16"],
)
async def test_a_preview_foretells_what_the_import_does(
    operator: httpx.AsyncClient, run: Any, encode: Any, duplicates: str
) -> None:
    await counts_of_import(operator, encode(STORED), run)

    foretold = await preview(operator, encode(NEXT), duplicates=duplicates)

    assert foretold["exact"] is True
    assert foretold["counts"] == await counts_of_import(operator, encode(NEXT), run, duplicates=duplicates)


async def test_the_same_file_again_is_all_unchanged(operator: httpx.AsyncClient, run: Any) -> None:
    await counts_of_import(operator, csv_of(STORED), run)

    foretold = await preview(operator, csv_of(STORED))

    assert foretold["counts"]["unchanged"] == 3
    assert [row["external_id"] for row in foretold["sample"]] == ["GULL-1", "GULL-2", "GULL-3"]


async def test_other_columns_around_the_same_content_are_unchanged(operator: httpx.AsyncClient, run: Any) -> None:
    await counts_of_import(operator, csv_of(STORED), run)

    foretold = await preview(operator, json_of(STORED))

    assert foretold["counts"]["unchanged"] == 3


async def test_problems_are_shown_by_kind_with_examples(operator: httpx.AsyncClient) -> None:
    foretold = await preview(operator, csv_of(NEXT))

    assert {kind["code"]: kind["count"] for kind in foretold["problems"]} == {"missing_title": 1, "invalid_date": 1}
    [example] = next(kind for kind in foretold["problems"] if kind["code"] == "invalid_date")["examples"]
    assert (example["row_number"], example["column"], example["value"]) == (8, "source_updated_at", "never")


async def test_rows_with_too_few_cells_are_told_before_and_after(operator: httpx.AsyncClient, run: Any) -> None:
    content = csv_of([*STORED, "GULL-7,Crane sways"])

    foretold = await preview(operator, content)
    sent = await operator.post("/api/import", files={"file": ("gulls", content)}, data={"atomic": "true"})
    await run()

    status = (await operator.get(sent.headers["Location"])).json()
    assert status["counts"]["created"] == 4
    for warnings in (foretold["warnings"], status["warnings"]):
        assert [warning[:36] for warning in warnings] == ["1 row has fewer cells than the heade"]


async def test_a_sample_is_shown_also_where_the_first_rows_are_broken(operator: httpx.AsyncClient) -> None:
    broken = [f"GULL-{number},,Open,2025-03-03T10:00:00Z" for number in range(100, 200)]

    foretold = await preview(operator, csv_of([*broken, *STORED]))

    assert [row["external_id"] for row in foretold["sample"]] == ["GULL-1", "GULL-2", "GULL-3"]


async def test_a_preview_stores_nothing(operator: httpx.AsyncClient, database: Database) -> None:
    await preview(operator, csv_of(NEXT))

    async with database.connection() as connection:
        for table in ("jobs", "issues", "rejections", "audit_log"):
            where = "where action <> 'api_key.created'" if table == "audit_log" else ""
            cursor = await connection.execute(f"select from {table} {where}")
            assert cursor.rowcount == 0, table


async def test_a_broken_file_is_refused_with_its_reason(operator: httpx.AsyncClient) -> None:
    answer = await operator.post("/api/import/csv/preview", files={"file": ("a.csv", b'id,title\n1,"never closed\n')})

    assert answer.status_code == 422
    assert (answer.json()["code"], answer.json()["reason"]) == ("file_refused", "truncated")
