"""Rejected records go out, are mended and come back as they were."""

import csv
import io
import json
from typing import Any

import httpx
import pytest

from shared.blobs import Blobs
from shared.settings import Settings
from shared.store.database import Database
from tests.support.api import RecordingStarter
from tests.support.pipeline import run_started_jobs

CSV = (
    b"external_id,title,labels,due_on,note\r\n"
    b"KEEL-1,Good row,a,,x\r\n"
    b'KEEL-2,,"=1+2,b",,"two\nlines"\r\n'
    b"KEEL-3,Bad day,,31.31.2025,-5\r\n"
    b"KEEL-4,Too many cells,,,x,y,z\r\n"
)


@pytest.fixture
def run(database: Database, blobs: Blobs, api_settings: Settings, starter: RecordingStarter) -> Any:
    async def run_all() -> None:
        await run_started_jobs(database, blobs, api_settings, starter.started)

    return run_all


async def given_import(client: httpx.AsyncClient, run: Any, content: bytes = CSV, **fields: str) -> str:
    """The address of an ended job's rejections."""
    answer = await client.post("/api/import", files={"file": ("keels.csv", content)}, data=fields)
    await run()
    return answer.json()["links"]["rejections"]["href"]


async def replay(client: httpx.AsyncClient, run: Any, url: str, **content: Any) -> dict[str, Any]:
    answer = await client.post(f"{url}/replay", **content)
    assert answer.status_code == 202, answer.text
    await run()
    return (await client.get(answer.headers["Location"])).json()


async def states(client: httpx.AsyncClient, url: str) -> dict[str, int]:
    return (await client.get(url)).json()["by_state"]


async def payload_of(database: Database, external_id: str) -> dict[str, Any]:
    async with database.connection() as connection:
        cursor = await connection.execute("select payload from issues where external_id = %s", (external_id,))
        row = await cursor.fetchone()
    assert row is not None
    return row["payload"]


async def test_rejections_say_where_what_and_why(operator: httpx.AsyncClient, run: Any) -> None:
    url = await given_import(operator, run)

    page = (await operator.get(url)).json()

    assert [item["row_number"] for item in page["items"]] == [3, 4, 5]
    assert page["items"][0]["problems"][0]["code"] == "missing_title"
    assert page["items"][0]["payload"] == ["KEEL-2", "", "=1+2,b", "", "two\nlines"]
    assert page["by_code"] == {"invalid_date": 1, "missing_title": 1, "too_many_cells": 1}
    assert page["header"] == ["external_id", "title", "labels", "due_on", "note"]


async def test_rejections_page_and_filter(operator: httpx.AsyncClient, run: Any) -> None:
    url = await given_import(operator, run)

    first = (await operator.get(url, params={"limit": 2})).json()
    rest = (await operator.get(url, params={"limit": 2, "cursor": first["next_cursor"]})).json()
    dates = (await operator.get(url, params={"code": "invalid_date"})).json()

    assert [len(first["items"]), len(rest["items"]), rest["next_cursor"]] == [2, 1, None]
    assert [item["external_id"] for item in dates["items"]] == ["KEEL-3"]


async def test_a_download_has_the_original_columns_and_no_formula(operator: httpx.AsyncClient, run: Any) -> None:
    url = await given_import(operator, run)

    answer = await operator.get(url, params={"format": "csv"})

    rows = list(csv.reader(io.StringIO(answer.text, newline="")))
    assert answer.headers["Content-Type"].startswith("text/csv")
    assert 'filename="keels-rejections.csv"' in answer.headers["Content-Disposition"]
    assert rows[0] == ["_rejection_id", "_row", "_reason", "_hint", "external_id", "title", "labels", "due_on", "note"]
    assert rows[1][4:] == ["KEEL-2", "", "'=1+2,b", "", "two\nlines"]
    assert rows[2][8] == "-5"
    assert rows[3][4:] == ["KEEL-4", "Too many cells", "", "", "x", "y", "z"]


async def test_a_mended_download_is_imported_and_closes_its_rejections(
    operator: httpx.AsyncClient, run: Any, database: Database
) -> None:
    url = await given_import(operator, run)
    mended = (await operator.get(url, params={"format": "csv"})).text.replace("KEEL-2,,", "KEEL-2,Now with a title,")
    # Excel in many countries saves with semicolons.
    rows = list(csv.reader(io.StringIO(mended, newline="")))
    out = io.StringIO(newline="")
    csv.writer(out, delimiter=";").writerows(rows[:3])

    job = await replay(operator, run, url, files={"file": ("fixed.csv", out.getvalue().encode("cp1252"))})

    assert (job["state"], job["counts"]["created"], job["counts"]["rejected"]) == ("completed", 1, 1)
    assert job["links"]["parent"]["href"] in url.replace("/rejections", "").replace("import/", "import/status/")
    assert await states(operator, url) == {"open": 1, "replayed": 2, "dismissed": 0}
    assert await payload_of(database, "KEEL-2") == {
        "external_id": "KEEL-2",
        "title": "Now with a title",
        "labels": "=1+2,b",
        "due_on": "",
        "note": "two\nlines",
    }


async def test_a_second_round_begins_at_the_replays_rejections(operator: httpx.AsyncClient, run: Any) -> None:
    url = await given_import(operator, run)
    first = await replay(operator, run, url)
    again = first["links"]["rejections"]["href"]

    page = (await operator.get(again)).json()
    second = await replay(operator, run, again)

    assert page["items"][0]["payload"][1:] == ["KEEL-2", "", "=1+2,b", "", "two\nlines"]
    assert second["counts"]["rejected"] == 3
    assert await states(operator, again) == {"open": 0, "replayed": 3, "dismissed": 0}


async def test_stored_records_are_replayed_with_another_date_order(operator: httpx.AsyncClient, run: Any) -> None:
    content = b"external_id,title,due_on\nKEEL-1,First,03/04/2025\nKEEL-2,Second,05/06/2025\n"
    url = await given_import(operator, run, content)

    job = await replay(operator, run, url, data={"date_order": "dmy"})

    assert (job["counts"]["created"], job["counts"]["rejected"]) == (2, 0)


async def test_json_keeps_its_shape_on_the_way_out_and_in(
    operator: httpx.AsyncClient, run: Any, database: Database
) -> None:
    records = [{"external_id": "KEEL-7", "title": "", "team": {"name": "Rigging", "size": 4}}]
    url = await given_import(operator, run, json.dumps(records).encode())

    line = json.loads((await operator.get(url, params={"format": "ndjson"})).text)
    line["title"] = "Mended"
    job = await replay(operator, run, url, files={"file": ("fixed.json", json.dumps([line]).encode())})

    assert job["counts"]["created"] == 1
    assert await payload_of(database, "KEEL-7") == {**records[0], "title": "Mended"}
    assert (await states(operator, url))["replayed"] == 1


async def test_json_can_be_mended_as_csv(operator: httpx.AsyncClient, run: Any, database: Database) -> None:
    records = [{"external_id": "KEEL-7", "title": "", "team": {"name": "Rigging", "size": 4}}]
    url = await given_import(operator, run, json.dumps(records).encode())

    download = (await operator.get(url, params={"format": "csv"})).text
    [row] = csv.DictReader(io.StringIO(download, newline=""))
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, list(row))
    writer.writeheader()
    writer.writerow({**row, "title": "Mended"})
    job = await replay(operator, run, url, files={"file": ("fixed.csv", out.getvalue().encode())})

    assert job["counts"]["created"] == 1
    assert await payload_of(database, "KEEL-7") == {**records[0], "title": "Mended"}


async def test_dismissed_rejections_are_closed_and_audited(
    operator: httpx.AsyncClient, admin: httpx.AsyncClient, run: Any
) -> None:
    url = await given_import(operator, run)
    ids = [item["id"] for item in (await operator.get(url)).json()["items"]]

    some = await operator.post(f"{url}/dismiss", json={"ids": [ids[0], 999_999]})
    rest = await operator.post(f"{url}/dismiss", json={"all": True})
    neither = await operator.post(f"{url}/dismiss", json={})
    empty = await operator.post(f"{url}/replay")

    assert some.json() == {"dismissed": 1, "ids": [ids[0]]}
    assert rest.json()["ids"] == ids[1:]
    assert (neither.status_code, empty.status_code) == (422, 409)
    entry = (await admin.get("/api/audit")).json()["items"][0]
    assert (entry["action"], entry["after"]["state"]) == ("rejections.dismissed", "dismissed")


async def test_nothing_of_a_failed_atomic_import_is_replayed(operator: httpx.AsyncClient, run: Any) -> None:
    url = await given_import(operator, run, atomic="true")

    answer = await operator.post(f"{url}/replay")

    assert answer.status_code == 409
    assert "atomic" in answer.json()["detail"]


async def test_an_atomic_import_with_rejections_is_not_offered_for_retry(operator: httpx.AsyncClient, run: Any) -> None:
    job = (await given_import(operator, run, atomic="true")).removesuffix("/rejections")

    status = (await operator.get(job.replace("/import/", "/import/status/"))).json()
    answer = await operator.post(f"{job}/retry")

    assert status["error"]["code"] == "atomic_rejected"
    assert "retry" not in status["links"]
    assert (answer.status_code, answer.json()["hint"][:4]) == (409, "Mend")
