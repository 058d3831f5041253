"""Connections over HTTP: registered, tested, previewed, synced, watched, changed, removed."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest

from local.trackers.github import GitHubTracker
from local.trackers.known import connection_to, tracker_of
from local.trackers.service import Tracker
from local.trackers.world import START, seeded
from shared.domain.job import JobState
from shared.store.database import Database
from tests.support.settings import make_settings
from tests.support.sync import SyncRunner


@pytest.fixture
async def tracker() -> AsyncIterator[Tracker]:
    """A simulated Jira with thirty issues."""
    async with tracker_of("jira", seeded(30, projects=("HARBOR", "PETREL"))) as tracker:
        yield tracker


def registration(tracker: Tracker, slug: str = "petrel") -> dict[str, Any]:
    known = connection_to(tracker)
    return {
        "slug": slug,
        "source": known.source,
        "base_url": tracker.url,
        "settings": dict(known.settings),
        "credentials": dict(known.credentials),
    }


@pytest.fixture
async def connected(admin: httpx.AsyncClient, tracker: Tracker) -> dict[str, Any]:
    """A registered and tested connection."""
    created = await admin.post("/api/integrations", json=registration(tracker))
    assert created.status_code == 201, created.text
    tested = await admin.post("/api/integrations/petrel/test")
    assert tested.json()["passed"], tested.text
    return created.json()


async def run(database: Database, tracker: Tracker, job_id: str) -> JobState | None:
    """Do what the orchestration would do with a queued job."""
    runner = SyncRunner(database, make_settings(), tracker, slug="petrel")
    await runner.execute("update jobs set state = 'processing', attempt = 1, started_at = now() where id = %s", job_id)
    return await runner.run(UUID(job_id))


async def test_secrets_go_in_and_never_come_out(admin: httpx.AsyncClient, tracker: Tracker) -> None:
    created = await admin.post("/api/integrations", json=registration(tracker))
    shown = await admin.get("/api/integrations/petrel")
    audit = await admin.get("/api/audit", params={"subject": "connection:petrel"})

    assert created.status_code == 201
    assert created.headers["Location"] == "/api/integrations/petrel"
    assert shown.json()["credentials"] == {"email": "ada@tidewater.example", "token": True}
    for answer in (created, shown, audit):
        assert tracker.token not in answer.text
    assert audit.json()["items"][0]["after"]["credentials"] == ["email", "token"]


async def test_nothing_works_before_the_test_succeeds(admin: httpx.AsyncClient, tracker: Tracker) -> None:
    wrong = {**registration(tracker), "credentials": {"email": "ada@tidewater.example", "token": "wrong"}}
    await admin.post("/api/integrations", json=wrong)

    tested = (await admin.post("/api/integrations/petrel/test")).json()
    synced = await admin.post("/api/integrations/petrel/sync")
    previewed = await admin.post("/api/import/jira/preview", json={"connection": "petrel"})
    discovered = await admin.get("/api/integrations/petrel/discover")
    executed = await admin.post("/api/import/jira/execute", json={"connection": "petrel"})
    named = await admin.post("/api/import", json={"connection": "petrel", "keys": ["PETREL-1"]})

    assert tested["passed"] is False
    assert tested["error"]["code"] == "AUTH_INVALID"
    assert tested["error"]["advice"]
    assert {each.status_code for each in (synced, previewed, discovered, executed, named)} == {409}
    assert "test" in synced.json()["hint"]


async def test_the_test_tells_what_a_first_import_takes(admin: httpx.AsyncClient, connected: dict[str, Any]) -> None:
    shown = (await admin.get("/api/integrations/petrel")).json()

    found = shown["test"]
    assert found["issues"] == 30
    assert found["estimated_calls"] > 0
    assert found["time_zone"] == "UTC"
    assert sorted(found["scopes"]) == ["HARBOR", "PETREL"]
    assert sum(found["issues_by_scope"].values()) == 30
    assert found["estimated_seconds"] > 0
    assert found["clock_skew_seconds"] < -3_600


async def test_a_preview_shows_issues_and_stores_none(
    operator: httpx.AsyncClient, connected: dict[str, Any], database: Database
) -> None:
    seen = await operator.post("/api/import/jira/preview", json={"connection": "petrel"})

    assert seen.status_code == 200, seen.text
    body = seen.json()
    assert len(body["sample"]) >= 10
    assert {"title", "status", "assignee", "created_at", "updated_at"} <= set(body["sample"][0])
    assert body["counts"] == {"created": len(body["sample"])}
    listed = await operator.get("/api/issues", params={"import_source": "petrel"})
    assert listed.json()["items"] == []


async def test_a_preview_of_one_project_counts_that_one(
    operator: httpx.AsyncClient, connected: dict[str, Any], tracker: Tracker
) -> None:
    seen = await operator.post("/api/import/jira/preview", json={"connection": "petrel", "scopes": ["HARBOR"]})
    unknown = await operator.post("/api/import/jira/preview", json={"connection": "petrel", "scopes": ["HARBUR"]})

    assert {each["project"] for each in seen.json()["sample"]} == {"HARBOR"}
    assert seen.json()["issues"] == sum(issue.project == "HARBOR" for issue in tracker.world.all_current())
    assert unknown.status_code == 422
    assert "HARBUR" in unknown.json()["detail"]


async def test_a_preview_goes_on_until_its_sample_is_worth_something(
    admin: httpx.AsyncClient, operator: httpx.AsyncClient
) -> None:
    async with tracker_of("github", seeded(30, projects=("HARBOR",))) as tracker:
        assert isinstance(tracker, GitHubTracker)
        for _ in range(35):
            # One list holds both, oldest first.
            tracker.open_pull("HARBOR", START - timedelta(days=900))
        await admin.post("/api/integrations", json=registration(tracker, "buried"))
        await admin.post("/api/integrations/buried/test")

        seen = await operator.post("/api/import/github/preview", json={"connection": "buried"})

    sample = seen.json()["sample"]
    assert len(sample) >= 10
    assert len({each["external_id"] for each in sample}) == len(sample)


async def test_a_sync_is_asked_for_run_and_read(
    operator: httpx.AsyncClient, connected: dict[str, Any], database: Database, tracker: Tracker
) -> None:
    asked = await operator.post(
        "/api/integrations/petrel/sync", json={"mode": "full"}, headers={"Idempotency-Key": "k"}
    )
    again = await operator.post(
        "/api/integrations/petrel/sync", json={"mode": "full"}, headers={"Idempotency-Key": "k"}
    )
    job_id = asked.json()["job_id"]
    assert asked.status_code == 202
    assert again.json()["job_id"] == job_id

    assert await run(database, tracker, job_id) is JobState.COMPLETED

    status = (await operator.get(asked.headers["Location"])).json()
    assert status["sync"]["streams"]["issues"]["created"] == 30
    assert status["percent"] == 100
    state = (await operator.get("/api/integrations/petrel/state")).json()
    assert state["complete"]
    assert state["states"]
    logs = (await operator.get("/api/integrations/petrel/sync-logs")).json()["items"]
    assert logs[0]["message"] == "Sync completed"
    health = (await operator.get("/api/integrations/health")).json()["items"]
    assert [(each["slug"], each["health"]) for each in health] == [("petrel", "ok")]
    metrics = (await operator.get("/api/integrations/metrics")).json()["items"]
    assert metrics[0]["created"] >= 30
    assert metrics[0]["requests"] == status["sync"]["requests"]


async def test_issues_are_listed_page_by_page_and_shown_with_all_that_belongs_to_them(
    operator: httpx.AsyncClient, connected: dict[str, Any], database: Database, tracker: Tracker
) -> None:
    asked = await operator.post("/api/import/jira/execute", json={"connection": "petrel", "mode": "full"})
    await run(database, tracker, asked.json()["job_id"])

    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = (await operator.get("/api/issues", params={"import_source": "petrel", "limit": 7, **cursor})).json()
        seen += [item["external_id"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    commented = next(issue for issue in tracker.world.all_current() if issue.comments)
    one = (await operator.get(f"/api/issues/petrel/{commented.id}")).json()
    done = (await operator.get("/api/issues", params={"status_category": "done", "limit": 200})).json()["items"]

    assert sorted(seen) == sorted(str(issue.id) for issue in tracker.world.all_current())
    assert [comment["body"] for comment in one["comments"]] == [comment.body for comment in commented.comments]
    assert one["payload"]["key"] == commented.key
    assert len(done) == sum(issue.status == "done" for issue in tracker.world.all_current())


async def test_named_issues_are_imported_from_json_at_the_door_of_files(
    operator: httpx.AsyncClient, connected: dict[str, Any], database: Database, tracker: Tracker
) -> None:
    keys = [issue.key for issue in tracker.world.all_current()[:3]]

    asked = await operator.post("/api/import", json={"connection": "petrel", "keys": keys})

    assert asked.status_code == 202, asked.text
    assert await run(database, tracker, asked.json()["job_id"]) is JobState.COMPLETED
    listed = (await operator.get("/api/issues", params={"import_source": "petrel"})).json()["items"]
    assert sorted(item["key"] for item in listed) == sorted(keys)


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


async def test_choices_are_listed(operator: httpx.AsyncClient, connected: dict[str, Any]) -> None:
    projects = (await operator.get("/api/integrations/petrel/discover")).json()["items"]
    tools = (await operator.get("/api/import/tools")).json()["items"]

    assert {each["id"] for each in projects} == {"HARBOR", "PETREL"}
    assert {each["source"]: each["connected"] for each in tools}["jira"] is True
    assert {each["source"]: each["connected"] for each in tools}["github"] is False


async def test_a_new_address_needs_the_secrets_again(admin: httpx.AsyncClient, connected: dict[str, Any]) -> None:
    moved = await admin.patch("/api/integrations/petrel", json={"base_url": "https://elsewhere.example"})
    renamed = await admin.patch("/api/integrations/petrel", json={"settings": {"projects": ["HARBOR"]}})

    assert moved.status_code == 422
    assert "credentials" in moved.json()["fields"]
    assert renamed.json()["settings"] == {"projects": ["HARBOR"]}
    assert renamed.json()["test_passed"] is True


async def test_schedules_are_changed_paused_and_resumed(admin: httpx.AsyncClient, connected: dict[str, Any]) -> None:
    base = "/api/integrations/petrel"

    changed = await admin.put(f"{base}/schedule", json={"cron": "0 6 * * *", "time_zone": "Europe/Berlin"})
    refused = await admin.put(f"{base}/schedule", json={"cron": "often"})
    paused = await admin.post(f"{base}/pause")
    resumed = await admin.post(f"{base}/resume")

    assert changed.json()["cron"] == "0 6 * * *"
    assert refused.status_code == 422
    assert paused.json()["paused"] is True
    assert resumed.json()["paused"] is False


async def test_added_accounts_are_backfilled(
    admin: httpx.AsyncClient, connected: dict[str, Any], database: Database, tracker: Tracker
) -> None:
    base = "/api/integrations/petrel/tracked-users"
    person = (await admin.get("/api/integrations/petrel/discover", params={"kind": "users"})).json()["items"][0]

    answer = await admin.put(base, json={"items": [{"account": person["id"], "name": person["name"]}]})

    assert answer.status_code == 200, answer.text
    assert await run(database, tracker, answer.json()["backfill"]["job_id"]) is JobState.COMPLETED
    tracked = (await admin.get(base)).json()["items"]
    assert tracked[0]["backfilled_at"] is not None
    same = await admin.put(base, json={"items": [{"account": person["id"]}]})
    assert same.json()["backfill"] is None


async def test_a_connection_at_work_is_not_removed(
    admin: httpx.AsyncClient, connected: dict[str, Any], database: Database, tracker: Tracker
) -> None:
    asked = await admin.post("/api/integrations/petrel/sync")

    busy = await admin.delete("/api/integrations/petrel")
    job_id = asked.json()["job_id"]
    await admin.post(f"/api/import/{job_id}/cancel")
    assert await run(database, tracker, job_id) is JobState.CANCELLED
    removed = await admin.delete("/api/integrations/petrel")
    gone = await admin.get("/api/integrations/petrel")

    assert (busy.status_code, removed.status_code, gone.status_code) == (409, 204, 404)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"credentials": {"token": ["a"]}}, "credentials.token"),
        ({"credentials": {"token": {"a": 1}}}, "credentials.token"),
        ({"credentials": {"token": ""}}, "credentials.token"),
        ({"credentials": {"email": "a\u0000"}}, "credentials.email"),
        ({"settings": {"jql": "a\u0000"}}, "settings.jql"),
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


async def test_wrong_settings_are_named(admin: httpx.AsyncClient, tracker: Tracker) -> None:
    body = registration(tracker)

    settings = await admin.post("/api/integrations", json={**body, "settings": {"project": ["HARBOR"]}})
    credentials = await admin.post("/api/integrations", json={**body, "credentials": {"email": "a@b.example"}})
    source = await admin.post("/api/integrations", json={**body, "source": "trello"})

    assert list(settings.json()["fields"]) == ["settings.project"]
    assert list(credentials.json()["fields"]) == ["credentials.token"]
    assert source.status_code == 422


async def test_forms_tell_what_every_source_takes(reader: httpx.AsyncClient) -> None:
    forms = (await reader.get("/api/integrations/sources")).json()["items"]

    assert [each["source"] for each in forms] == ["github", "gitlab", "jira", "sentry", "servicenow"]
    token = next(each for each in forms if each["source"] == "jira")["credentials"]["properties"]["token"]
    assert token["writeOnly"] is True
