"""A file goes in through each door, and issues come out in PostgreSQL."""

from typing import Any

import httpx

from tests.support.files import issues_csv, many_issues
from tests.support.issuer import Issuer
from tests.support.local_stack import eventually
from tests.support.outside import Outside


def counts_of(status: dict[str, Any]) -> dict[str, int]:
    return {name: count for name, count in status["counts"].items() if count}


def test_small_csv_becomes_rows(outside: Outside) -> None:
    content = issues_csv([("S-1", "Belt slips", "Line one\nline two", "In Progress", "belt", "2025-03-01T10:00:00Z")])

    status = outside.imported(content, "small")

    assert status["state"] == "completed"
    assert status["percent"] == 100
    assert outside.rows(
        "select external_id, title, description, status_category, labels from issues where import_source = 'small'"
    ) == [
        {
            "external_id": "S-1",
            "title": "Belt slips",
            "description": "Line one\nline two",
            "status_category": "in_progress",
            "labels": ["belt"],
        }
    ]


def test_second_import_of_the_same_file_changes_nothing(outside: Outside) -> None:
    content = many_issues(500)

    first = outside.imported(content, "again")
    before = outside.rows("select external_id, xmin::text from issues where import_source = 'again' order by 1")
    second = outside.imported(content, "again")

    assert counts_of(first) == {"rows": 500, "created": 500}
    assert counts_of(second) == {"rows": 500, "unchanged": 500}
    assert first["batches"]["total"] > 1
    assert outside.rows("select external_id, xmin::text from issues where import_source = 'again' order by 1") == before


def test_blob_dropped_into_the_container_is_imported(outside: Outside) -> None:
    content = issues_csv([("B-1", "Valve leaks", "", "Open", "", "")])
    outside.blobs.get_blob_client("uploads", "plant-7/export.csv").upload_blob(content)

    def look() -> None:
        assert outside.rows("select title from issues where import_source = 'plant-7'") == [{"title": "Valve leaks"}]

    eventually(look)
    jobs = outside.api.get("/import/history", params={"import_source": "plant-7"}).json()["items"]
    assert [(job["file_name"], job["requested_by"]) for job in jobs] == [("export.csv", "container")]


def test_large_file_goes_through_an_upload_address(outside: Outside) -> None:
    offer = outside.api.post("/import/uploads", json={"file_name": "big.csv", "import_source": "big"}).json()
    assert outside.status(offer["job_id"])["waiting_for"] == "file"

    sent = httpx.put(offer["upload_url"], content=many_issues(3_000), headers=offer["headers"])

    assert sent.status_code == 201
    status = outside.ended(offer["job_id"])
    assert (status["state"], counts_of(status)) == ("completed", {"rows": 3_000, "created": 3_000})


def test_atomic_import_with_a_broken_row_stores_nothing(outside: Outside) -> None:
    content = issues_csv([("A-1", "Good", "", "Open", "", ""), ("A-2", "", "", "Open", "", "")])

    status = outside.imported(content, "atomic", atomic="true")

    assert status["state"] == "failed"
    assert status["error"]["code"] == "atomic_rejected"
    assert outside.rows("select * from issues where import_source = 'atomic'") == []
    listed = outside.api.get(f"/import/{status['job_id']}/rejections").json()["items"]
    assert [(item["row_number"], item["problems"][0]["code"]) for item in listed] == [(3, "missing_title")]


def test_mended_rejections_are_replayed(outside: Outside) -> None:
    broken = issues_csv([("M-1", "", "Kept", "Open", "", ""), ("M-2", "Fine", "", "Open", "", "")])
    job_id = outside.imported(broken, "mend")["job_id"]
    download = outside.api.get(f"/import/{job_id}/rejections", params={"format": "csv"})

    mended = download.text.replace("M-1,,", "M-1,Mended title,").encode()
    replay = outside.api.post(f"/import/{job_id}/rejections/replay", files={"file": ("mended.csv", mended)})

    assert replay.status_code == 202, replay.text
    status = outside.ended(replay.json()["job_id"])
    assert counts_of(status) == {"rows": 1, "created": 1}
    assert outside.rows("select title, description from issues where external_id = 'M-1'") == [
        {"title": "Mended title", "description": "Kept"}
    ]
    listed = outside.api.get(f"/import/{job_id}/rejections").json()["items"]
    assert [item["state"] for item in listed] == ["replayed"]


def test_broken_file_fails_with_a_reason_and_stays_retryable(outside: Outside) -> None:
    status = outside.imported(b'external_id,title\r\nT-1,"never closed\r\n', "cut-off")

    assert status["state"] == "failed"
    assert status["error"]["reason"] == "truncated"
    assert "row 2" in status["error"]["detail"]
    dead = outside.api.get("/pipeline/dlq").json()["items"]
    assert status["job_id"] in [job["job_id"] for job in dead]


def test_same_idempotency_key_starts_one_job(outside: Outside) -> None:
    content = issues_csv([("I-1", "Once", "", "Open", "", "")])
    send = {"files": {"file": ("i.csv", content)}, "headers": {"Idempotency-Key": "build-4711"}}

    first, second = (outside.api.post("/import", **send).json() for _ in range(2))

    assert first["job_id"] == second["job_id"]


def test_entra_roles_decide_what_a_caller_may_do(outside: Outside, issuer: Issuer) -> None:
    content = {"file": ("e.csv", issues_csv([("E-1", "By token", "", "Open", "", "")]))}

    def post(token: str) -> int:
        return httpx.post(
            f"{outside.stack.url}/api/import", files=content, headers={"Authorization": f"Bearer {token}"}
        ).status_code

    assert post(issuer.token("Tributary.Write")) == 202
    assert post(issuer.token("Tributary.Read")) == 403
    assert post(issuer.token("Tributary.Write", aud="another-api")) == 401
    assert httpx.post(f"{outside.stack.url}/api/import", files=content).status_code == 401
