"""What is not read is told, for as long as that is so; what was never asked for is asked for from the beginning."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from local.trackers import gitlab
from local.trackers.service import Call, Fault
from local.trackers.world import World
from shared.domain.job import JobState
from shared.domain.sync import SyncMode
from shared.services.manage_connections import ConnectionChange, change_connection
from shared.services.plan_sync import plan_sync
from shared.services.track_users import track_users
from shared.store import sync_lines
from tests.integration.sync.conftest import Connect
from tests.integration.sync.mirror import expected_issues, left_behind, stored_issues
from tests.support.sources import SOURCES, new_world
from tests.support.sync import OPERATOR, SyncRunner

HOUR = 3_600


def world_with(issues: int, name: str = "jira", **values: Any) -> World:
    world = new_world(SOURCES[name])
    for number in range(issues):
        world.advance(5)
        world.create("HARBOR" if number % 2 else "PETREL", **values)
    world.advance(HOUR)
    return world


async def gaps_of(runner: SyncRunner) -> list[tuple[str, str, str]]:
    rows = await runner.fetch("select stream, scope, trouble from coverage_gaps order by stream, scope")
    return [(row["stream"], row["scope"], row["trouble"]) for row in rows]


async def change(runner: SyncRunner, **settings: Any) -> None:
    wanted = {**runner.connection_settings, **settings}
    change = ConnectionChange(settings=wanted)
    await change_connection(runner.database, runner.connectors.sealer, OPERATOR, runner.slug, change)


async def test_a_gap_goes_when_its_scope_is_not_wanted_any_more(connected: Connect) -> None:
    async with connected("jira", world_with(4), projects=["HARBOR", "NOWHERE"]) as runner:
        assert await runner.sync() is JobState.COMPLETED
        before = await gaps_of(runner)
        await change(runner, projects=["HARBOR"])

        assert await runner.sync() is JobState.COMPLETED

        assert before == [("issues", "NOWHERE", "NOT_FOUND")]
        assert await gaps_of(runner) == []


async def test_a_gap_goes_when_its_stream_is_not_wanted_any_more(connected: Connect) -> None:
    async with connected("jira", world_with(4), streams=["issues", "users"]) as runner:
        runner.tracker.faults.append(Fault(kind="status", status=403, body="{}", path="/users", times=9))
        assert await runner.sync() is JobState.COMPLETED
        before = await gaps_of(runner)
        await change(runner, streams=["issues"])

        assert await runner.sync() is JobState.COMPLETED

        assert before == [("users", "*", "PERMISSION_DENIED")]
        assert await gaps_of(runner) == []


async def test_a_sync_that_may_read_nothing_fails(connected: Connect) -> None:
    async with connected("gitlab", world_with(4, "gitlab")) as runner:
        runner.tracker.faults.append(
            Fault(kind="status", status=403, body='{"message": "403 Forbidden"}', path="/issues", times=99)
        )

        assert await runner.sync() is JobState.FAILED

        errors = await runner.fetch("select error ->> 'code' as code from jobs")
        assert errors == [{"code": "PERMISSION_DENIED"}]
        assert len(await gaps_of(runner)) == 2


async def test_named_issues_that_are_refused_fail_and_leave_no_gap(connected: Connect) -> None:
    async with connected("jira", world_with(4)) as runner:
        runner.tracker.faults.append(Fault(kind="status", status=403, body="{}", path="/issue", times=99))

        assert await runner.sync(SyncMode.KEYS, keys=("HARBOR-1",)) is JobState.FAILED

        assert await gaps_of(runner) == []


async def test_a_list_that_is_suddenly_empty_buries_nobody(connected: Connect) -> None:
    async with connected("jira", world_with(4), streams=["issues", "users"]) as runner:
        assert await runner.sync() is JobState.COMPLETED
        people = await runner.fetch("select count(*) as there from people where deleted_at is null")
        runner.tracker.faults.append(Fault(kind="status", status=200, body="[]", path="/users", times=9))

        assert await runner.sync() is JobState.COMPLETED

        assert await runner.fetch("select count(*) as there from people where deleted_at is null") == people
        assert await gaps_of(runner) == [("users", "*", "PERMISSION_DENIED")]
        assert await runner.sync(accept_absences=True) is JobState.COMPLETED
        assert await runner.fetch("select count(*) as there from people where deleted_at is null") == [{"there": 0}]
        assert await gaps_of(runner) == []


async def test_a_mass_absence_is_shown_until_a_comparison_finds_it_well(connected: Connect) -> None:
    world = world_with(60)
    async with connected("jira", world) as runner:
        assert await runner.sync(SyncMode.FULL) is JobState.COMPLETED
        for issue in [each for each in world.all_current() if each.project == "HARBOR"]:
            world.delete(issue.id)
        world.advance(HOUR)
        assert await runner.sync(census=True) is JobState.COMPLETED
        told = await runner.fetch("select since from coverage_gaps")

        assert await runner.sync() is JobState.COMPLETED
        still = await runner.fetch("select since from coverage_gaps")
        assert await runner.sync(census=True, accept_absences=True) is JobState.COMPLETED

        assert len(told) == 1
        assert still == told
        assert await gaps_of(runner) == []
        assert await stored_issues(runner) == expected_issues(SOURCES["jira"], world)


async def test_a_project_that_is_not_listed_any_more_is_told_and_its_issues_stay(connected: Connect) -> None:
    world = world_with(8)
    for issue in world.all_current():
        world.comment(issue.id)
    world.advance(HOUR)
    async with connected("jira", world) as runner:
        assert await runner.sync(SyncMode.FULL) is JobState.COMPLETED
        lost = world.projects.pop("PETREL")

        assert await runner.sync(census=True) is JobState.COMPLETED

        assert await gaps_of(runner) == [("issues", str(lost.id), "NOT_FOUND")]
        assert len(await stored_issues(runner)) == 8
        assert await runner.sync(census=True, accept_absences=True) is JobState.COMPLETED
        assert len(await stored_issues(runner)) == 4
        assert await left_behind(runner) == []
        assert await gaps_of(runner) == []
        world.projects["PETREL"] = lost
        assert await runner.sync(census=True) is JobState.COMPLETED
        assert await stored_issues(runner) == expected_issues(SOURCES["jira"], world)


async def test_a_wider_filter_brings_what_the_narrow_one_left_out(connected: Connect) -> None:
    world = world_with(3, priority="High")
    for _ in range(3):
        world.create("HARBOR", priority="Low")
    world.advance(HOUR)
    async with connected("jira", world, jql="priority = High") as runner:
        assert await runner.sync() is JobState.COMPLETED
        narrow = await stored_issues(runner)
        await change(runner, jql="")

        assert await runner.sync() is JobState.COMPLETED

        assert len(narrow) == 3
        assert await stored_issues(runner) == expected_issues(SOURCES["jira"], world)
        assert await runner.holes() == []


async def test_another_pace_reads_nothing_again(connected: Connect) -> None:
    async with connected("jira", world_with(4)) as runner:
        assert await runner.sync() is JobState.COMPLETED
        await change(runner, concurrency=3, projects=["HARBOR", "PETREL"])

        assert await runner.sync() is JobState.COMPLETED

        parts = await runner.fetch("select since from sync_parts where job_id = %s", runner.last_job)
        assert all(part["since"] for part in parts)


async def test_a_watched_account_has_its_history_though_its_backfill_failed(connected: Connect) -> None:
    world = world_with(0)
    ada, iva = world.users[0], world.users[1]
    for user in (ada, iva, iva):
        world.create("HARBOR", reporter=user, assignee=user)
    world.advance(HOUR)
    async with connected("jira", world, streams=["issues", "users"]) as runner:
        accounts = {name: await account_of(runner, user.name) for name, user in (("ada", ada), ("iva", iva))}
        await track_users(runner.database, OPERATOR, runner.slug, {accounts["ada"]: None})
        await runner.execute("update jobs set state = 'failed', finished_at = now()")
        assert await runner.sync(streams=("issues",)) is JobState.COMPLETED
        watched = len(await stored_issues(runner))
        job = await track_users(runner.database, OPERATOR, runner.slug, dict.fromkeys(accounts.values()))
        assert job is not None
        await runner.execute("update jobs set state = 'failed', finished_at = now() where id = %s", job.id)

        assert await runner.sync(streams=("issues",)) is JobState.COMPLETED

        assert watched == 1
        assert await stored_issues(runner) == expected_issues(SOURCES["jira"], world)
        assert await runner.fetch("select 1 from tracked_users where backfilled_at is null") == []


async def account_of(runner: SyncRunner, name: str) -> str:
    assert await runner.sync(streams=("users",)) is JobState.COMPLETED
    rows = await runner.fetch("select external_id from people where name = %s", name)
    return rows[0]["external_id"]


async def test_an_edit_during_a_census_is_no_missed_update(connected: Connect) -> None:
    source = SOURCES["jira"]
    world = world_with(24)
    with source.small_pages():
        async with connected("jira", world) as runner:
            assert await runner.sync() is JobState.COMPLETED
            for issue in world.all_current():
                world.edit(issue.id, title="Before")
            world.advance(HOUR)
            calls = 0

            def meddle(_call: Call) -> None:
                nonlocal calls
                calls += 1
                if calls == 8:
                    for issue in world.all_current():
                        world.edit(issue.id, title="Meanwhile")
                    world.advance(HOUR)

            runner.tracker.before_request = meddle
            assert await runner.sync(census=True) is JobState.COMPLETED
            runner.tracker.before_request = None

            assert calls > 8
            assert [line for line in await runner.logs() if "were missed" in line] == []


async def test_old_windows_are_joined_and_a_hole_stays_a_hole(connected: Connect) -> None:
    world = world_with(2)
    async with connected("jira", world) as runner:
        for _ in range(6):
            world.advance(HOUR)
            assert await runner.sync() is JobState.COMPLETED
        async with runner.database.connection() as connection:
            ids = await runner.fetch("select id, connection_id from sync_windows order by scope, lo")
            torn = ids[2]
            before = await sync_lines.find_cursors(connection, torn["connection_id"])
            await connection.execute("delete from sync_windows where id = %s", (torn["id"],))
            holes = await runner.holes()
            kept = await sync_lines.compact_lines(connection, before=datetime.now(UTC) + timedelta(days=1))
            await connection.execute("update sync_windows set job_id = null")

            joined = await sync_lines.compact_lines(connection, before=datetime.now(UTC) + timedelta(days=1))

            assert kept == 0, "windows of jobs that are still there were joined"
            assert joined > 0
            assert len(holes) == 1
            assert await runner.holes() == holes
            assert await sync_lines.find_cursors(connection, torn["connection_id"]) == before
            left = await runner.fetch("select scope, count(*) as windows from sync_windows group by scope order by 1")
            assert [row["windows"] for row in left] == [3, 2]


async def test_a_field_that_changes_to_and_fro_is_told_once(
    connected: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = gitlab.issue_json
    world = world_with(6, "gitlab")
    async with connected("gitlab", world) as runner:
        assert await runner.sync(SyncMode.FULL) is JobState.COMPLETED
        for number in range(4):
            value: object = number if number % 2 else "three"
            monkeypatch.setattr(gitlab, "issue_json", lambda *args, v=value: {**plain(*args), "weight": v})
            assert await runner.sync(SyncMode.FULL) is JobState.COMPLETED

        told = await runner.fetch("select message from sync_logs where message like '%%weight was%%'")
        assert [row["message"] for row in told] == ["issues: the field weight was text and is now number"]


async def test_asking_to_begin_later_leaves_no_hole(connected: Connect) -> None:
    world = world_with(3)
    async with connected("jira", world) as runner:
        assert await runner.sync() is JobState.COMPLETED
        world.edit(world.all_current()[0].id, title="In between")
        world.advance(HOUR)

        assert await runner.sync(since=world.now) is JobState.COMPLETED

        assert await stored_issues(runner) == expected_issues(SOURCES["jira"], world)
        assert await runner.holes() == []


async def test_asking_to_begin_earlier_reads_again_what_changed_since(connected: Connect) -> None:
    world = world_with(3)
    began = world.now - timedelta(seconds=HOUR)
    async with connected("jira", world) as runner:
        assert await runner.sync() is JobState.COMPLETED
        await runner.execute("delete from issues")
        assert await runner.sync() is JobState.COMPLETED
        left_out = await stored_issues(runner)

        assert await runner.sync(since=began - timedelta(minutes=5)) is JobState.COMPLETED

        assert left_out == {}
        assert await stored_issues(runner) == expected_issues(SOURCES["jira"], world)
        assert await runner.holes() == []


async def test_a_window_of_which_a_part_was_refused_stays_open(connected: Connect) -> None:
    world = world_with(24, "servicenow")
    source = SOURCES["servicenow"]
    with source.small_pages(divided=True):
        async with connected("servicenow", world, streams=["issues"]) as runner:
            job_id = await runner.accept(SyncMode.INCREMENTAL)
            lanes = await plan_sync(runner.database, runner.connectors, job_id, 1)
            runner.tracker.faults.append(Fault(kind="status", status=403, body="{}", path="/table/incident"))
            await runner.walk(job_id, 1, lanes)
            states = await runner.fetch("select state, count(*) from sync_parts where scope = 'incident' group by 1")
            closed = await runner.fetch("select from sync_windows where scope = 'incident' and state = 'closed'")
            await runner.run(job_id)

            assert await runner.sync() is JobState.COMPLETED

            assert {row["state"] for row in states} == {"done", "skipped"}
            assert closed == []
            assert await stored_issues(runner) == expected_issues(source, world)


async def test_what_a_list_leaves_out_with_a_gap_is_not_taken_for_gone(connected: Connect) -> None:
    world = world_with(2)
    for key in ("HARBOR", "PETREL"):
        world.add_sprint(key, f"{key} 1")
    async with connected("jira", world, streams=["issues", "sprints"]) as runner:
        assert await runner.sync() is JobState.COMPLETED
        before = await runner.fetch("select external_id, deleted_at from sprints order by external_id")
        runner.tracker.faults.append(Fault(kind="status", status=403, body="{}", path="/sprint"))

        assert await runner.sync(SyncMode.FULL) is JobState.COMPLETED

        assert len(before) == 2
        assert await runner.fetch("select external_id, deleted_at from sprints order by external_id") == before
        assert [stream for stream, _, _ in await gaps_of(runner)] == ["sprints"]


async def test_a_census_finds_an_update_that_the_windows_missed(connected: Connect) -> None:
    world = world_with(3)
    async with connected("jira", world) as runner:
        assert await runner.sync() is JobState.COMPLETED
        world.edit(world.all_current()[0].id, title="Nobody saw it")
        world.advance(HOUR)
        await runner.execute("update sync_windows set hi = %s where state = 'closed'", world.now)
        assert await runner.sync() is JobState.COMPLETED
        unseen = await stored_issues(runner)

        assert await runner.sync(SyncMode.CENSUS) is JobState.COMPLETED

        assert [line for line in await runner.logs() if "missed" in line] == [
            "1 issues of 10002 were missed by earlier syncs"
        ]
        assert unseen != expected_issues(SOURCES["jira"], world)
        assert await stored_issues(runner) == expected_issues(SOURCES["jira"], world)
