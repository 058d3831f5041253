"""Connections over HTTP on a bad day: outages, limits, slips of the hand, two admins, keys nobody knows."""

import logging
from typing import Any

import httpx
import orjson
import pytest
from psycopg import sql

from local.trackers.known import tracker_of
from local.trackers.service import Fault, Tracker
from local.trackers.world import seeded
from shared.store.database import Database
from tests.support.connections import registration, run


async def test_no_table_and_no_log_holds_a_secret(
    admin: httpx.AsyncClient,
    connected: dict[str, Any],
    database: Database,
    tracker: Tracker,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    echo = orjson.dumps({"message": f"What is {tracker.token}?"}).decode()
    for faults in ([], [Fault("status", times=9, status=400, body=echo)]):
        tracker.faults.extend(faults)
        asked = await admin.post("/api/integrations/petrel/sync", json={"mode": "full"})
        await run(database, tracker, asked.json()["job_id"])
        await admin.post("/api/integrations/petrel/test")

    held = ""
    async with database.connection() as connection:
        tables = await connection.execute("select tablename from pg_tables where schemaname = 'public'")
        for table in await tables.fetchall():
            rows = await connection.execute(
                sql.SQL("select row_to_json(t)::text as row from {} t").format(sql.Identifier(table["tablename"]))
            )
            held += "".join(row["row"] for row in await rows.fetchall())

    assert "What is [redacted]?" in held
    assert len(tracker.token) > 8
    for place in (held, caplog.text):
        assert tracker.token not in place


@pytest.mark.parametrize(
    ("fault", "code"),
    [(Fault("maintenance", times=9), "MAINTENANCE"), (Fault("limited", times=9, seconds=90), "RATE_LIMIT")],
    ids=["maintenance", "limited"],
)
async def test_an_outage_takes_nothing_from_a_connection_that_passed(
    operator: httpx.AsyncClient, connected: dict[str, Any], tracker: Tracker, fault: Fault, code: str
) -> None:
    tracker.faults.append(fault)

    tested = (await operator.post("/api/integrations/petrel/test")).json()

    assert (tested["passed"], tested["error"]["code"]) == (False, code)
    assert (await operator.get("/api/integrations/petrel")).json()["test_passed"] is True


async def test_a_refused_token_takes_the_test_away(
    operator: httpx.AsyncClient, connected: dict[str, Any], tracker: Tracker
) -> None:
    tracker.token = "revoked"

    await operator.post("/api/integrations/petrel/test")

    assert (await operator.get("/api/integrations/petrel")).json()["test_passed"] is False


async def test_a_source_that_says_wait_is_left_alone(
    admin: httpx.AsyncClient, connected: dict[str, Any], tracker: Tracker
) -> None:
    tracker.faults.append(Fault("limited", times=1, seconds=90))
    told = await admin.post("/api/import/jira/preview", json={"connection": "petrel"})
    calls = tracker.count()

    again = await admin.post("/api/import/jira/preview", json={"connection": "petrel"})
    listed = await admin.get("/api/integrations/petrel/discover")
    limit = (await admin.get("/api/integrations/petrel/rate-limit")).json()

    for answer in (told, again, listed):
        assert answer.status_code == 502
        assert answer.json()["reason"] == "RATE_LIMIT"
        assert 60 < int(answer.headers["Retry-After"]) <= 91
    assert tracker.count() == calls
    assert limit["blocked_until"] is not None


async def test_keys_nobody_knows_are_told(
    operator: httpx.AsyncClient, connected: dict[str, Any], database: Database, tracker: Tracker
) -> None:
    keys = [next(iter(tracker.world.all_current())).key, "HARBOR-99999"]
    asked = await operator.post("/api/import", json={"connection": "petrel", "keys": keys})

    await run(database, tracker, asked.json()["job_id"])

    (warning,) = (await operator.get(asked.headers["Location"])).json()["warnings"]
    assert warning.startswith("Of 2 keys the source knows 1")


async def test_a_job_whose_connection_was_removed_is_not_retried(
    admin: httpx.AsyncClient, connected: dict[str, Any], database: Database, tracker: Tracker
) -> None:
    job_id = (await admin.post("/api/integrations/petrel/sync")).json()["job_id"]
    await admin.post(f"/api/import/{job_id}/cancel")
    await run(database, tracker, job_id)
    await admin.delete("/api/integrations/petrel")

    retried = await admin.post(f"/api/import/{job_id}/retry")

    assert retried.status_code == 409
    assert "removed" in retried.json()["detail"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"credentials": {"token": ["a"]}}, "credentials.token"),
        ({"credentials": {"token": {"a": 1}}}, "credentials.token"),
        ({"credentials": {"token": ""}}, "credentials.token"),
        ({"credentials": {"email": "a\u0000"}}, "credentials.email"),
        ({"settings": {"jql": "a\u0000"}}, "settings.jql"),
        ({"settings": {"streams": ["commits"]}}, "settings.streams"),
        ({"setings": {}}, "setings"),
    ],
    ids=str,
)
async def test_a_change_that_makes_no_sense_names_its_field(
    admin: httpx.AsyncClient, connected: dict[str, Any], body: dict[str, Any], field: str
) -> None:
    answer = await admin.patch("/api/integrations/petrel", json=body)

    assert answer.status_code == 422, answer.text
    assert list(answer.json()["fields"]) == [field]


async def test_a_sync_of_what_the_settings_leave_out_is_refused(
    admin: httpx.AsyncClient, connected: dict[str, Any]
) -> None:
    await admin.patch("/api/integrations/petrel", json={"settings": {"streams": ["issues"]}})

    answer = await admin.post("/api/integrations/petrel/sync", json={"streams": ["users"]})

    assert answer.status_code == 422
    assert "issues" in answer.json()["hint"]


async def test_a_token_copied_with_its_line_break_works(admin: httpx.AsyncClient, tracker: Tracker) -> None:
    body = registration(tracker)
    body["credentials"]["token"] += "\n"
    await admin.post("/api/integrations", json=body)

    tested = await admin.post("/api/integrations/petrel/test")

    assert tested.json()["passed"], tested.text


async def test_a_token_that_cannot_be_sent_is_no_fault_of_the_tracker(admin: httpx.AsyncClient) -> None:
    async with tracker_of("github", seeded(3)) as tracker:
        body = {**registration(tracker), "credentials": {"token": "“github_pat”"}}
        await admin.post("/api/integrations", json=body)

        tested = (await admin.post("/api/integrations/petrel/test")).json()

    assert tested["error"]["code"] == "AUTH_INVALID"
    assert "characters" in tested["error"]["detail"]


async def test_a_connection_at_work_is_not_moved(
    admin: httpx.AsyncClient, connected: dict[str, Any], tracker: Tracker
) -> None:
    await admin.post("/api/integrations/petrel/sync")
    credentials = registration(tracker)["credentials"]

    moved = await admin.patch(
        "/api/integrations/petrel", json={"base_url": "https://elsewhere.example", "credentials": credentials}
    )
    renewed = await admin.patch("/api/integrations/petrel", json={"credentials": credentials})

    assert (moved.status_code, renewed.status_code) == (409, 200)
    assert renewed.json()["test_passed"] is None


async def test_of_two_changes_the_second_is_refused(admin: httpx.AsyncClient, connected: dict[str, Any]) -> None:
    seen = connected["version"]

    first = await admin.patch("/api/integrations/petrel", json={"settings": {}, "version": seen})
    second = await admin.patch("/api/integrations/petrel", json={"active": False, "version": seen})

    assert (first.status_code, second.status_code) == (200, 409)
    assert first.json()["version"] == seen + 1


async def test_a_day_that_never_comes_is_no_schedule(admin: httpx.AsyncClient, connected: dict[str, Any]) -> None:
    answer = await admin.put("/api/integrations/petrel/schedule", json={"cron": "0 0 30 2 *"})

    assert answer.status_code == 422
    assert "cron" in answer.json()["fields"]
