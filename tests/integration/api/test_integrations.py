"""Connections over HTTP: registered, tested, previewed, synced, watched, changed, removed."""

from datetime import timedelta
from typing import Any

import httpx
import pytest

from local.trackers.github import GitHubTracker
from local.trackers.known import tracker_of
from local.trackers.service import Tracker
from local.trackers.world import START, seeded
from shared.domain.job import JobState
from shared.store.database import Database
from tests.support.connections import registration, run


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


@pytest.mark.parametrize("text", ["100% of_all", "c:\\temp", "%", "_", "\\"])
async def test_signs_in_a_search_stand_for_themselves(
    text: str, operator: httpx.AsyncClient, connected: dict[str, Any], database: Database, tracker: Tracker
) -> None:
    tracker.world.create("HARBOR", title="Lost 100% of_all in c:\\temp")
    tracker.world.advance(3_600)
    asked = await operator.post("/api/import/jira/execute", json={"connection": "petrel", "mode": "full"})
    await run(database, tracker, asked.json()["job_id"])

    found = await operator.get("/api/issues", params={"text": text})

    assert [issue["title"] for issue in found.json()["items"]] == ["Lost 100% of_all in c:\\temp"]


async def test_named_issues_are_imported_from_json_at_the_door_of_files(
    operator: httpx.AsyncClient, connected: dict[str, Any], database: Database, tracker: Tracker
) -> None:
    keys = [issue.key for issue in tracker.world.all_current()[:3]]

    asked = await operator.post("/api/import", json={"connection": "petrel", "keys": keys})

    assert asked.status_code == 202, asked.text
    assert await run(database, tracker, asked.json()["job_id"]) is JobState.COMPLETED
    listed = (await operator.get("/api/issues", params={"import_source": "petrel"})).json()["items"]
    assert sorted(item["key"] for item in listed) == sorted(keys)


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
