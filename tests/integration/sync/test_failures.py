"""What a sync does when its source refuses, fails, shrinks, or sends what makes no sense."""

import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from local.trackers import gitlab
from local.trackers.jira import JiraTracker
from local.trackers.service import Fault
from local.trackers.world import World
from shared.blobs import Blobs
from shared.domain.errors import ConflictError
from shared.domain.job import JobState
from shared.domain.sync import SyncMode
from shared.services.clean_up import clean_up
from shared.services.manage_connections import ConnectionChange, change_connection
from shared.services.plan_sync import plan_sync
from shared.services.probe_connection import probe_connection
from shared.services.run_schedules import start_due_syncs
from shared.services.watch_connections import find_state
from tests.integration.sync.conftest import Connect
from tests.integration.sync.mirror import expected_issues, stored_issues
from tests.support.pipeline import RecordingPurge
from tests.support.settings import make_settings
from tests.support.sources import SOURCES, new_world
from tests.support.sync import OPERATOR, SyncRunner

HOUR = 3_600


def world_with(issues: int, name: str = "jira") -> World:
    world = new_world(SOURCES[name])
    for _ in range(issues):
        world.advance(5)
        world.create("HARBOR")
    world.advance(HOUR)
    return world


async def test_every_lane_keeps_off_a_source_that_says_later(connected: Connect) -> None:
    async with connected("jira", world_with(5)) as runner:
        job_id = await runner.accept(SyncMode.FULL)
        lanes = await plan_sync(runner.database, runner.connectors, job_id, 1)
        runner.tracker.faults[:] = [Fault(kind="limited", seconds=2, path="/search")]
        first = await runner.lane(job_id, 1, 0)
        calls = len(runner.tracker.calls)
        second = await runner.lane(job_id, 1, 1, lanes=2)

        assert lanes >= 1
        assert (first.outcome, second.outcome) == ("wait", "wait")
        assert first.until is not None
        assert second.until is not None
        assert second.until > datetime.now(UTC)
        assert len(runner.tracker.calls) == calls, "a lane called although the source said later"
        assert await runner.run(job_id) is JobState.COMPLETED


async def change(runner: SyncRunner, **values: Any) -> None:
    wanted = ConnectionChange(**values)
    await change_connection(runner.database, runner.connectors.sealer, OPERATOR, runner.slug, wanted)


async def test_nothing_is_read_of_a_connection_that_is_switched_off(connected: Connect) -> None:
    async with connected("jira", world_with(5)) as runner:
        waiting, running = [await runner.accept(SyncMode.FULL) for _ in range(2)]
        await plan_sync(runner.database, runner.connectors, running, 1)
        await change(runner, active=False)
        calls = len(runner.tracker.calls)

        with pytest.raises(ConflictError, match="switched off"):
            await plan_sync(runner.database, runner.connectors, waiting, 1)
        with pytest.raises(ConflictError, match="switched off"):
            await runner.lane(running, 1, 0)

        assert len(runner.tracker.calls) == calls
        await change(runner, active=True)
        assert await runner.run(running) is JobState.COMPLETED


async def test_new_credentials_are_tested_before_a_waiting_sync_uses_them(connected: Connect) -> None:
    async with connected("jira", world_with(5)) as runner:
        waiting = await runner.accept(SyncMode.FULL)
        await change(runner, credentials=dict(runner.credentials))

        with pytest.raises(ConflictError, match="test"):
            await plan_sync(runner.database, runner.connectors, waiting, 1)

        await probe_connection(runner.database, runner.connectors, OPERATOR, runner.slug)
        assert await runner.run(waiting) is JobState.COMPLETED


async def test_only_the_failed_part_runs_again(connected: Connect) -> None:
    async with connected("jira", world_with(5), streams=["issues", "users"]) as runner:
        runner.tracker.faults.append(
            Fault(kind="status", status=400, body='{"errorMessages": ["No."]}', path="/users", times=9)
        )
        assert await runner.sync(SyncMode.FULL) is JobState.FAILED
        job_id = runner.last_job
        runner.tracker.faults.clear()
        runner.tracker.calls.clear()
        await runner.execute("update jobs set state = 'processing', attempt = 2, error = null where id = %s", job_id)
        assert job_id is not None

        assert await runner.run(job_id, 2) is JobState.COMPLETED

        assert runner.tracker.count("/search/jql") == 0, "parts that were done ran again"


async def test_three_failures_of_a_kind_slow_the_schedule_and_a_success_restores_it(connected: Connect) -> None:
    async with connected("jira", world_with(2)) as runner:
        rungs: list[int] = []
        for _ in range(3):
            runner.tracker.faults[:] = [Fault(kind="status", status=400, body="{}", path="/search", times=99)]
            assert await runner.sync(SyncMode.FULL) is JobState.FAILED
            rungs.append((await schedule_of(runner))["rung"])
        slowed = await schedule_of(runner)
        runner.tracker.faults.clear()

        assert await runner.sync() is JobState.COMPLETED

        restored = await schedule_of(runner)
        assert rungs == [0, 0, 1]
        assert slowed["next_run_at"] > datetime.now(UTC) + timedelta(minutes=50)
        assert (restored["rung"], restored["failures"]) == (0, 0)
        assert restored["next_run_at"] < datetime.now(UTC) + timedelta(minutes=16)


async def schedule_of(runner: SyncRunner) -> dict[str, Any]:
    return (await runner.fetch("select * from schedules"))[0]


async def test_a_forbidden_project_is_told_and_the_others_are_read(connected: Connect) -> None:
    world = world_with(3, "gitlab")
    world.create("PETREL")
    world.advance(HOUR)
    async with connected("gitlab", world, streams=["issues", "comments", "projects"]) as runner:
        path = f"/projects/{world.projects['PETREL'].id}/issues"
        runner.tracker.faults.append(
            Fault(kind="status", status=403, body='{"message": "403 Forbidden"}', path=path, times=99)
        )

        assert await runner.sync() is JobState.COMPLETED

        gaps = await runner.fetch("select scope, trouble, status from coverage_gaps where stream = 'issues'")
        assert gaps == [{"scope": str(world.projects["PETREL"].id), "trouble": "PERMISSION_DENIED", "status": 403}]
        told = (await find_state(runner.database, runner.slug)).coverage_gaps
        assert {each.scope_name for each in told} == {"tidewater/petrel"}
        assert len(await stored_issues(runner)) == 3
        runner.tracker.faults.clear()
        assert await runner.sync() is JobState.COMPLETED
        assert await runner.fetch("select * from coverage_gaps") == []
        assert await stored_issues(runner) == expected_issues(SOURCES["gitlab"], world)


async def test_deleted_issues_become_tombstones(connected: Connect) -> None:
    world = world_with(8)
    async with connected("jira", world) as runner:
        assert await runner.sync(SyncMode.FULL) is JobState.COMPLETED
        gone = world.all_current()[0]
        world.delete(gone.id)
        world.advance(HOUR)

        assert await runner.sync(census=True) is JobState.COMPLETED

        rows = await runner.fetch("select external_id, absence from issues where deleted_at is not null")
        assert rows == [{"external_id": str(gone.id), "absence": "deleted_or_hidden"}]


async def test_half_a_project_that_vanishes_is_not_believed(connected: Connect) -> None:
    world = world_with(60)
    async with connected("jira", world) as runner:
        assert await runner.sync(SyncMode.FULL) is JobState.COMPLETED
        for issue in world.all_current()[:30]:
            world.delete(issue.id)
        world.advance(HOUR)

        assert await runner.sync(SyncMode.CENSUS) is JobState.COMPLETED

        assert len(await stored_issues(runner)) == 60
        gaps = await runner.fetch("select detail from coverage_gaps")
        assert "30 of 60" in gaps[0]["detail"]
        assert await runner.sync(SyncMode.CENSUS, accept_absences=True) is JobState.COMPLETED
        assert len(await stored_issues(runner)) == 30


async def test_a_new_field_is_told_once(connected: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    world = world_with(6, "gitlab")
    async with connected("gitlab", world) as runner:
        assert await runner.sync(SyncMode.FULL) is JobState.COMPLETED
        plain = gitlab.issue_json
        monkeypatch.setattr(gitlab, "issue_json", lambda *args: {**plain(*args), "mood": "bright", "title": 7})

        await runner.sync(SyncMode.FULL)
        await runner.sync(SyncMode.FULL)

        told = await runner.fetch(
            "select message from sync_logs where message like '%%mood%%' or message like '%%title was%%'"
        )
        assert sorted(row["message"] for row in told) == [
            "issues: new field mood (text)",
            "issues: the field title was text and is now number",
        ]


async def test_a_field_that_vanishes_is_told_after_a_full_reading(
    connected: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = gitlab.issue_json
    monkeypatch.setattr(gitlab, "issue_json", lambda *args: {**plain(*args), "mood": "bright"})
    async with connected("gitlab", world_with(30, "gitlab")) as runner:
        assert await runner.sync(SyncMode.FULL) is JobState.COMPLETED
        monkeypatch.setattr(gitlab, "issue_json", plain)

        await runner.sync(SyncMode.FULL)
        await runner.sync(SyncMode.FULL)

        told = await runner.fetch("select message from sync_logs where message like '%%any more%%'")
        assert [row["message"] for row in told] == ["issues: the field mood is not sent any more"]


async def test_payloads_are_emptied_after_their_days_and_columns_stay(connected: Connect) -> None:
    async with connected("gitlab", world_with(3, "gitlab"), payload_days=30) as runner:
        assert await runner.sync(SyncMode.FULL) is JobState.COMPLETED
        before = await stored_issues(runner)
        blobs = Blobs(make_settings(storage_connection="UseDevelopmentStorage=true"))
        now = datetime.now(UTC)

        await clean_up(runner.database, blobs, runner.settings, RecordingPurge(), now=now + timedelta(days=1))
        kept = await runner.fetch("select count(*) as full from issues where payload <> '{}'")
        await clean_up(runner.database, blobs, runner.settings, RecordingPurge(), now=now + timedelta(days=31))
        left = await runner.fetch("select count(*) as full from issues where payload <> '{}'")

        assert (kept[0]["full"], left[0]["full"]) == (3, 0)
        assert await stored_issues(runner) == before


@pytest.mark.parametrize("source", ["github", "gitlab"])
async def test_a_record_that_makes_no_sense_is_kept_and_the_rest_goes_on(connected: Connect, source: str) -> None:
    world = world_with(4, source)
    broken = world.create("HARBOR", title="")
    world.advance(HOUR)
    async with connected(source, world) as runner:
        assert await runner.sync(SyncMode.FULL) is JobState.COMPLETED
        rejected = await runner.fetch("select external_id, problems, payload, state from rejections")
        assert [(row["external_id"], row["state"]) for row in rejected] == [(str(broken.id), "open")]
        assert broken.number in {rejected[0]["payload"].get(name) for name in ("iid", "number")}
        assert len(await stored_issues(runner)) == 4
        assert await runner.sync(SyncMode.CENSUS) is JobState.COMPLETED
        missed = await runner.fetch("select message from sync_logs where message like '%%missed%%'")
        assert missed == [], "a rejection is no fault of the cursor"
        world.edit(broken.id, title="Mended")
        world.advance(HOUR)

        assert await runner.sync() is JobState.COMPLETED

        assert (await runner.fetch("select state from rejections"))[0]["state"] == "replayed"
        assert await stored_issues(runner) == expected_issues(SOURCES[source], world)


async def test_a_null_character_costs_no_record(connected: Connect) -> None:
    world = world_with(1)
    world.create("HARBOR", title="A\x00B", body="C\x00D")
    world.advance(HOUR)
    async with connected("jira", world) as runner:
        assert await runner.sync(SyncMode.FULL) is JobState.COMPLETED

        titles = await runner.fetch("select title from issues where title like 'A%%'")
        assert titles == [{"title": "AB"}]


@pytest.mark.parametrize(
    "odd",
    [
        {"created_at": "0001-01-01T00:00:00.000+08:00"},
        {"created_at": "9999-12-31T23:59:59.000-08:00"},
        {"time_stats": {"time_estimate": 2**63}},
    ],
    ids=["before the calendar", "after the calendar", "more than a number holds"],
)
async def test_what_no_column_holds_is_a_rejection(
    odd: dict[str, Any], connected: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = gitlab.issue_json
    async with connected("gitlab", world_with(3, "gitlab")) as runner:
        first = runner.tracker.world.all_current()[0].id
        monkeypatch.setattr(gitlab, "issue_json", lambda *args: _bent(plain(*args), first, odd))

        assert await runner.sync(SyncMode.FULL) is JobState.COMPLETED

        assert len(await runner.fetch("select external_id from rejections")) == 1
        assert len(await runner.fetch("select source_created_at, estimate_seconds from issues")) == 2


def _bent(record: dict[str, Any], which: int, values: dict[str, Any]) -> dict[str, Any]:
    return {**record, **values} if record["id"] == which else record


@pytest.mark.parametrize("source", ["github", "gitlab", "jira", "servicenow"])
async def test_a_null_character_in_a_rejection_costs_no_record(source: str, connected: Connect) -> None:
    world = world_with(1, source)
    world.create("HARBOR", title="A\x00" * 9_000)
    world.advance(HOUR)
    async with connected(source, world) as runner:
        assert await runner.sync(SyncMode.FULL) is JobState.COMPLETED

        assert len(await runner.fetch("select id from rejections")) == 1
        assert len(await stored_issues(runner)) == 1


async def test_a_null_character_in_a_name_costs_nothing(connected: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = gitlab.issue_json
    monkeypatch.setattr(gitlab, "issue_json", lambda *args: {**plain(*args), "mo\x00od": ["br\x00ight"]})
    async with connected("gitlab", world_with(3, "gitlab")) as runner:
        assert await runner.sync(SyncMode.FULL) is JobState.COMPLETED

        told = await runner.fetch("select payload ->> 'mood' as mood from issues")
        assert {row["mood"] for row in told} == {'["bright"]'}


async def test_a_null_character_in_a_refusal_is_told_without_it(connected: Connect) -> None:
    async with connected("jira", world_with(1)) as runner:
        body = '{"errorMessages": ["No\\u0000pe"]}'
        runner.tracker.faults.append(Fault(kind="status", status=400, body=body, path="/search/jql", times=9))

        assert await runner.sync(SyncMode.FULL) is JobState.FAILED

        (job,) = await runner.fetch("select error ->> 'detail' as detail from jobs where state = 'failed'")
        assert "Nope" in job["detail"]


async def test_half_a_character_costs_that_character_and_no_page(
    connected: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = world_with(3, "gitlab")
    world.create("HARBOR", title="Cut off HALF")
    world.advance(HOUR)
    plain = gitlab.json_response

    def cut(*args: Any, **more: Any) -> Any:
        response = plain(*args, **more)
        response.body = bytes(response.body or b"").replace(b"HALF", b"\\ud83d")
        return response

    monkeypatch.setattr(gitlab, "json_response", cut)
    async with connected("gitlab", world) as runner:
        assert await runner.sync(SyncMode.FULL) is JobState.COMPLETED

        titles = await runner.fetch("select title from issues where title like 'Cut%%'")
        assert titles == [{"title": "Cut off \ufffd"}]
        assert len(await stored_issues(runner)) == 4


async def test_the_token_is_nowhere_to_be_found(connected: Connect, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with connected("github", world_with(3, "github")) as runner:
        secret = runner.tracker.token
        assert await runner.sync(SyncMode.FULL) is JobState.COMPLETED
        runner.tracker.expired = True
        assert await runner.sync() is JobState.FAILED

        tables = await runner.fetch("select tablename from pg_tables where schemaname = 'public'")
        for table in tables:
            rows = await runner.fetch(f"select t::text as row from {table['tablename']} t")
            assert not any(secret in row["row"] for row in rows), table["tablename"]
        assert secret not in caplog.text


async def test_a_due_run_starts_once_and_never_on_a_running_one(connected: Connect) -> None:
    async with connected("jira", world_with(1)) as runner:
        missed = datetime.now(UTC) - timedelta(hours=5)
        await runner.execute("update schedules set next_run_at = %s", missed)
        now = datetime.now(UTC)

        started = [await start_due_syncs(runner.database, now=now) for _ in range(2)]
        await runner.execute("update schedules set next_run_at = %s", missed)
        while_busy = await start_due_syncs(runner.database, now=now)
        moved_on = await schedule_of(runner)
        await runner.execute("update jobs set state = 'completed'")
        await runner.execute("update schedules set next_run_at = %s, paused = true", missed)
        while_paused = await start_due_syncs(runner.database, now=now)

        assert started == [1, 0]
        assert (while_busy, while_paused) == (0, 0)
        assert moved_on["next_run_at"] > now
        jobs = await runner.fetch("select requested_by, sync ->> 'mode' as mode from jobs")
        assert jobs == [{"requested_by": "schedule", "mode": "incremental"}]


async def test_a_gap_of_children_stays_until_all_of_them_were_read(connected: Connect) -> None:
    async with connected("jira", world_with(3), streams=["issues", "worklogs"]) as runner:
        assert isinstance(runner.tracker, JiraTracker)
        runner.tracker.refusing_lists["worklog"] = (403, "Not for you.")
        issue = runner.tracker.world.all_current("HARBOR")[0]
        for _ in range(25):
            runner.tracker.world.log_work(issue.id)
        gaps = []
        for refused, mode in (
            (True, SyncMode.INCREMENTAL),
            (True, SyncMode.INCREMENTAL),
            # That some can be read again says nothing of those that were refused.
            (False, SyncMode.INCREMENTAL),
            (False, SyncMode.FULL),
        ):
            if not refused:
                runner.tracker.refusing_lists.clear()
                runner.tracker.world.log_work(issue.id)
            runner.tracker.world.advance(HOUR)
            assert await runner.sync(mode) is JobState.COMPLETED
            gaps.append(await runner.fetch("select stream from coverage_gaps"))

    assert [[row["stream"] for row in each] for each in gaps] == [["worklogs"], ["worklogs"], ["worklogs"], []]
