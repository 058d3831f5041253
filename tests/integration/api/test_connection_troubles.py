"""Connections over HTTP on a bad day: outages, limits, slips of the hand, two admins, keys nobody knows."""

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import httpx
import orjson
import pytest
from psycopg import sql

from local.trackers.known import tracker_of
from local.trackers.service import Fault, Tracker
from local.trackers.world import seeded
from shared.blobs import Blobs
from shared.domain.caller import Role
from shared.settings import Settings
from shared.store.database import Database
from tests.support.api import RecordingStarter, api_app, client_of, make_key
from tests.support.connections import registration, run

Restarted = Callable[[str], AbstractAsyncContextManager[httpx.AsyncClient]]


@pytest.fixture
def restarted(api_settings: Settings, database: Database, blobs: Blobs, starter: RecordingStarter) -> Restarted:
    """The application after a start with other master keys."""

    @asynccontextmanager
    async def start(keys: str) -> AsyncIterator[httpx.AsyncClient]:
        app = api_app(api_settings, database, blobs, starter, keys)
        async with client_of(app, await make_key(database, Role.ADMIN)) as client:
            yield client

    return start


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


@pytest.mark.parametrize(
    ("source", "good", "form"),
    [("github", "tidewater/harbor#1", "owner/name#12"), ("gitlab", "tidewater/harbor#1", "group/project#12")],
)
async def test_what_cannot_be_a_key_is_refused_before_it_costs_the_others(
    admin: httpx.AsyncClient, source: str, good: str, form: str
) -> None:
    async with tracker_of(source, seeded(3)) as tracker:
        await admin.post("/api/integrations", json=registration(tracker))
        await admin.post("/api/integrations/petrel/test")

        refused = await admin.post("/api/import", json={"connection": "petrel", "keys": [good, "HARBOR-1"]})
        taken = await admin.post("/api/import", json={"connection": "petrel", "keys": [good]})

    assert (refused.status_code, taken.status_code) == (422, 202)
    told = refused.json()
    assert (told["detail"], told["hint"]) == (f"'HARBOR-1' is no key of {source}", f"Keys look like {form}")
    assert told["fields"] == {"keys.1": f"must look like {form}"}


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        (
            "other:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
            "'test' that sealed these credentials is not in",
        ),
        ("", "There is no key to seal credentials with"),
        ("test:short", "CREDENTIAL_ENCRYPTION_KEY has an entry"),
    ],
    ids=["lost", "none", "broken"],
)
async def test_health_tells_of_credentials_that_cannot_be_opened(
    admin: httpx.AsyncClient, connected: dict[str, Any], restarted: Restarted, keys: str, told: str
) -> None:
    async with restarted(keys) as client:
        [health] = (await client.get("/api/integrations/health")).json()["items"]

    assert health["health"] == "unreadable"
    assert told in health["reason"]
    assert "CREDENTIAL_ENCRYPTION_KEY" in health["reason"], "nothing says what to do"


async def test_a_broken_key_ring_is_no_fault_of_the_caller_and_of_no_connection(
    admin: httpx.AsyncClient, connected: dict[str, Any], restarted: Restarted, tracker: Tracker
) -> None:
    async with restarted("test:short") as client:
        made = await client.post("/api/integrations", json={**registration(tracker), "slug": "second"})
        tested = await client.post("/api/integrations/petrel/test")

    for refused in (made, tested):
        assert (refused.status_code, refused.json()["code"]) == (500, "misconfigured")
        assert "openssl rand" in refused.json()["hint"]
    assert (await admin.get("/api/integrations/petrel")).json()["test_passed"] is True


async def test_a_record_the_tracker_has_to_mend_is_not_replayed(admin: httpx.AsyncClient, database: Database) -> None:
    world = seeded(3)
    world.create("HARBOR", title="")
    async with tracker_of("gitlab", world) as tracker:
        await admin.post("/api/integrations", json=registration(tracker))
        await admin.post("/api/integrations/petrel/test")
        asked = await admin.post("/api/import/gitlab/execute", json={"connection": "petrel", "mode": "full"})
        await run(database, tracker, asked.json()["job_id"])

    status = (await admin.get(asked.headers["Location"])).json()
    replayed = await admin.post(f"/api/import/{status['job_id']}/rejections/replay")

    assert status["counts"]["rejected"] == 1
    assert "dismiss" in status["links"]
    assert "replay" not in status["links"]
    assert (replayed.status_code, "next sync" in replayed.json()["hint"]) == (409, True)


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
        ({"settings": {"payload_days": 10**12}}, "settings.payload_days"),
        ({"base_url": "https://jira.example/?"}, "base_url"),
        ({"base_url": "https://jira.example/#"}, "base_url"),
    ],
    ids=str,
)
async def test_a_change_that_makes_no_sense_names_its_field(
    admin: httpx.AsyncClient, connected: dict[str, Any], body: dict[str, Any], field: str
) -> None:
    answer = await admin.patch("/api/integrations/petrel", json=body)

    assert answer.status_code == 422, answer.text
    assert list(answer.json()["fields"]) == [field]


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("integrations/petrel/sync", {"scopes": ["HARBOR\u0000"]}, "scopes.0"),
        ("integrations/petrel/sync", {"scopes": [""]}, "scopes.0"),
        ("integrations/petrel/sync", {"since": "0001-01-01T00:00:00+14:00"}, "since"),
        ("import", {"connection": "petrel", "keys": ["HARBOR-1\u0000"]}, "keys.0"),
        ("import/jira/preview", {"connection": "petrel", "scopes": ["HARBOR\u0000"]}, "scopes.0"),
        ("integrations/petrel/sync", "HARBOR", "body"),
    ],
    ids=str,
)
async def test_a_wish_that_makes_no_sense_names_its_field(
    admin: httpx.AsyncClient, connected: dict[str, Any], path: str, body: dict[str, Any], field: str
) -> None:
    answer = await admin.post(f"/api/{path}", json=body)

    assert answer.status_code == 422, answer.text
    assert list(answer.json()["fields"]) == [field]


async def test_a_body_that_is_not_json_is_called_so(admin: httpx.AsyncClient) -> None:
    answer = await admin.post(
        "/api/integrations", content=b'{"slug": "petrel",', headers={"Content-Type": "application/json"}
    )

    assert (answer.status_code, answer.json()["fields"]) == (422, {"body": "This is not JSON"})


@pytest.mark.parametrize(
    ("source", "settings", "field", "words"),
    [
        ("github", {"repositories": ["harbor"]}, "settings.repositories.0", "Write it like tidewater/harbor"),
        ("gitlab", {"projects": "tidewater/harbor"}, "settings.projects", "Input should be a list"),
        ("jira", {"jql": "("}, "settings.jql", "The filter leaves a bracket open"),
        ("trello", {}, "source", "one of github, gitlab, jira, sentry, servicenow"),
    ],
    ids=["shape", "list", "filter", "source"],
)
async def test_what_is_wrong_with_settings_is_told_in_words(
    admin: httpx.AsyncClient, source: str, settings: dict[str, Any], field: str, words: str
) -> None:
    body = {"slug": "odd", "source": source, "base_url": "https://tracker.example", "settings": settings}

    answer = await admin.post("/api/integrations", json={**body, "credentials": {"token": "t"}})

    assert answer.json()["fields"] == {field: words}


async def test_a_secret_that_is_too_short_is_told_in_words(admin: httpx.AsyncClient, tracker: Tracker) -> None:
    body = registration(tracker)
    credentials = {**body["credentials"], "webhook_secret": "short"}

    answer = await admin.post("/api/integrations", json={**body, "credentials": credentials})

    assert answer.json()["fields"] == {"credentials.webhook_secret": "Give at least 12 characters"}


async def test_projects_are_named_however_they_are_capitalized(
    admin: httpx.AsyncClient, connected: dict[str, Any]
) -> None:
    seen = await admin.post("/api/import/jira/preview", json={"connection": "petrel", "scopes": ["harbor"]})

    assert seen.json()["scopes"] == ["HARBOR"], seen.text


async def test_a_limit_by_the_second_is_no_cause_for_alarm(admin: httpx.AsyncClient) -> None:
    async with tracker_of("sentry", seeded(60)) as tracker:
        await admin.post("/api/integrations", json=registration(tracker))
        tested = (await admin.post("/api/integrations/petrel/test")).json()

    assert tested["quota"]["remaining"] < tested["estimated_calls"]
    assert not any("pause" in warning for warning in tested["warnings"])


async def test_a_path_that_leads_nowhere_is_told_as_such(admin: httpx.AsyncClient, tracker: Tracker) -> None:
    body = registration(tracker)
    await admin.post("/api/integrations", json={**body, "base_url": f"{body['base_url']}/jira"})

    tested = (await admin.post("/api/integrations/petrel/test")).json()

    assert tested["error"]["code"] == "NOT_FOUND"
    assert "base_url" in tested["error"]["advice"]


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


@pytest.mark.parametrize("token", ["“github_pat”", "github\npat"])
async def test_a_token_that_cannot_be_sent_is_no_fault_of_the_tracker(token: str, admin: httpx.AsyncClient) -> None:
    async with tracker_of("github", seeded(3)) as tracker:
        body = {**registration(tracker), "credentials": {"token": token}}
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


@pytest.mark.parametrize("cron", ["R * * * *", "0 H * * *", "* * * * * *"])
async def test_a_schedule_by_chance_is_none(cron: str, admin: httpx.AsyncClient, connected: dict[str, Any]) -> None:
    answer = await admin.put("/api/integrations/petrel/schedule", json={"cron": cron})

    assert answer.status_code == 422
    assert "cron" in answer.json()["fields"]


async def test_a_cron_line_is_kept_without_its_slips(admin: httpx.AsyncClient, connected: dict[str, Any]) -> None:
    answer = await admin.put("/api/integrations/petrel/schedule", json={"cron": " */5  *\n* * *"})

    assert answer.json()["cron"] == "*/5 * * * *"
