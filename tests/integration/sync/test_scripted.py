"""The cases in which synchronizers lose data, one by one: in the end the mirror equals the source."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from local.trackers.service import Call, Fault, Tracker
from local.trackers.world import World, seeded
from shared.domain.job import JobState
from shared.domain.sync import SyncMode
from tests.integration.sync.conftest import Connect
from tests.integration.sync.mirror import expected_issues, stored_issues
from tests.support.sources import SOURCES, new_world
from tests.support.sync import SyncRunner

HOUR = 3_600


async def assert_mirrored(runner: SyncRunner, name: str, world: World) -> None:
    """The table holds what the source has, each once, and the ledger has no hole."""
    assert await stored_issues(runner) == expected_issues(SOURCES[name], world)
    assert await runner.holes() == []


@pytest.mark.parametrize(
    ("name", "issues"), [("jira", 10_000), ("servicenow", 10_000), ("gitlab", 2_000), ("github", 2_000)]
)
async def test_thousands_of_issues_in_one_second_arrive_once_each(name: str, issues: int, connected: Connect) -> None:
    world = new_world(SOURCES[name])
    async with connected(name, world) as runner:
        assert await runner.sync() is JobState.COMPLETED
        world.advance(HOUR)
        for _ in range(issues):
            world.create("HARBOR")
        world.advance(HOUR)

        assert await runner.sync() is JobState.COMPLETED

        await assert_mirrored(runner, name, world)


@pytest.mark.parametrize(
    "name", [name for name, source in SOURCES.items() if source.status_bumps and not source.variant]
)
async def test_edits_inserts_and_deletes_while_paging_lose_nothing(name: str, connected: Connect) -> None:
    world = new_world(SOURCES[name])
    for _ in range(60):
        world.advance(5)
        world.create("HARBOR")
    source = SOURCES[name]

    left = 60

    def meddle(_call: Call) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            return
        existing = world.all_current()
        world.advance(1)
        world.edit(world.random.choice(existing).id, title=f"Edited at {world.now:%H:%M:%S}")
        world.create("HARBOR")
        if len(existing) > 40:
            world.delete(world.random.choice(existing).id)

    with source.small_pages():
        async with connected(name, world) as runner:
            runner.tracker.before_request = meddle
            assert await runner.sync(SyncMode.FULL) is JobState.COMPLETED
            assert await runner.sync() is JobState.COMPLETED
            runner.tracker.before_request = None
            world.advance(HOUR)
            assert await runner.sync() is JobState.COMPLETED
            stored, expected = await stored_issues(runner), expected_issues(source, world)
            assert {each: stored.get(each) for each in expected} == expected

            assert await runner.sync(SyncMode.CENSUS, accept_absences=True) is JobState.COMPLETED

            await assert_mirrored(runner, name, world)


@pytest.mark.parametrize(
    ("name", "lag"),
    [
        ("jira", timedelta(minutes=3)),
        *((name, source.world["index_lag"]) for name, source in SOURCES.items() if not source.variant),
    ],
)
async def test_lists_that_lag_hide_nothing_for_good(name: str, lag: timedelta, connected: Connect) -> None:
    world = new_world(SOURCES[name], index_lag=lag)
    async with connected(name, world) as runner:
        for step in range(12):
            world.create("HARBOR")
            world.advance(lag.total_seconds() * (0.5 + step / 20))
            assert await runner.sync() is JobState.COMPLETED
        world.advance(HOUR)

        assert await runner.sync() is JobState.COMPLETED

        await assert_mirrored(runner, name, world)
        assert await census_missed(runner) == 0


@pytest.mark.parametrize("zone", ["America/Los_Angeles", "Asia/Tokyo", "Europe/Berlin"])
@pytest.mark.parametrize("name", ["jira", "servicenow"])
async def test_the_time_zone_of_the_account_moves_no_window(name: str, zone: str, connected: Connect) -> None:
    world = new_world(SOURCES[name])
    # The hour that comes twice in Berlin, and an evening in California.
    world.now = datetime(2025, 10, 25, 22, 30, tzinfo=UTC)

    def in_zone(tracker: Tracker) -> None:
        tracker.time_zone = zone  # type: ignore[attr-defined]

    async with connected(name, world, prepare=in_zone) as runner:
        for _ in range(10):
            world.create("HARBOR")
            world.advance(20 * 60)
            assert await runner.sync() is JobState.COMPLETED
        world.advance(HOUR)

        assert await runner.sync() is JobState.COMPLETED

        await assert_mirrored(runner, name, world)
        assert await census_missed(runner) == 0


async def test_a_note_that_leaves_the_issue_unchanged_is_found(connected: Connect) -> None:
    world = new_world(SOURCES["gitlab"])
    async with connected("gitlab", world) as runner:
        issue = world.create("HARBOR")
        world.advance(HOUR)
        world.edit(issue.id, title="Changed")
        world.comment(issue.id, "At once.")
        world.advance(10)
        assert await runner.sync() is JobState.COMPLETED
        world.advance(20)
        changed = world.current(issue.id)
        world.comment(issue.id, "Thirty seconds later.")
        world.advance(HOUR)

        assert await runner.sync() is JobState.COMPLETED

        now = world.current(issue.id)
        assert changed is not None
        assert now is not None
        assert now.updated == changed.updated, "GitLab would not have told of this note"
        await assert_mirrored(runner, "gitlab", world)


async def test_rows_that_the_account_may_not_see_shorten_pages_and_hide_nothing_else(connected: Connect) -> None:
    source = SOURCES["servicenow"]
    world = new_world(source)
    for number in range(40):
        world.advance(1)
        world.create("HARBOR", hidden=number % 3 != 0)
    with source.small_pages():
        async with connected("servicenow", world) as runner:
            world.advance(HOUR)

            assert await runner.sync() is JobState.COMPLETED

            await assert_mirrored(runner, "servicenow", world)


async def test_pages_that_github_refuses_are_not_needed(connected: Connect) -> None:
    source = SOURCES["github"]
    world = new_world(source)
    for _ in range(60):
        world.create("HARBOR")

    def shallow(tracker: Tracker) -> None:
        tracker.page_cap = 3  # type: ignore[attr-defined]

    with source.small_pages():
        async with connected("github", world, prepare=shallow, streams=["issues"]) as runner:
            world.advance(HOUR)

            assert await runner.sync() is JobState.COMPLETED

            await assert_mirrored(runner, "github", world)


async def test_a_sentry_issue_resolved_without_an_event_is_found_by_the_census(connected: Connect) -> None:
    world = new_world(SOURCES["sentry"])
    async with connected("sentry", world) as runner:
        issue = world.create("HARBOR")
        world.advance(HOUR)
        assert await runner.sync() is JobState.COMPLETED
        world.edit(issue.id, bump=False, status="done")
        world.advance(HOUR)
        assert await runner.sync() is JobState.COMPLETED
        unseen = (await stored_issues(runner))[str(issue.id)]["category"]

        assert await runner.sync(census=True) is JobState.COMPLETED

        assert unseen == "open"
        await assert_mirrored(runner, "sentry", world)


async def test_an_issue_that_moves_keeps_its_row(connected: Connect) -> None:
    world = new_world(SOURCES["jira"])
    async with connected("jira", world) as runner:
        issue = world.create("HARBOR")
        world.comment(issue.id)
        world.advance(HOUR)
        assert await runner.sync() is JobState.COMPLETED
        moved = world.move(issue.id, "PETREL")
        world.advance(HOUR)

        assert await runner.sync(census=True) is JobState.COMPLETED

        rows = await runner.fetch("select key, deleted_at from issues where import_source = %s", runner.slug)
        assert rows == [{"key": moved.key, "deleted_at": None}]
        await assert_mirrored(runner, "jira", world)


@pytest.mark.parametrize("name", [name for name, source in SOURCES.items() if not source.variant])
async def test_a_token_that_expires_in_mid_page_costs_nothing_but_time(name: str, connected: Connect) -> None:
    source = SOURCES[name]
    world = new_world(source)
    for _ in range(30):
        world.advance(5)
        world.create("HARBOR")
    world.advance(HOUR)
    with source.small_pages():
        async with connected(name, world) as runner:
            runner.tracker.faults.append(Fault(kind="expired", after=8))
            failed = await runner.sync(SyncMode.FULL)
            job_id = runner.last_job
            runner.tracker.expired = False
            before = await stored_issues(runner)

            assert job_id is not None
            await runner.execute(
                "update jobs set state = 'processing', attempt = 2, error = null where id = %s", job_id
            )
            again = await runner.run(job_id, 2)

            assert failed is JobState.FAILED
            assert again is JobState.COMPLETED
            assert len(before) <= 30
            await assert_mirrored(runner, name, world)
            paused = await runner.fetch("select paused, paused_reason from schedules")
            assert paused[0]["paused"]
            assert "AUTH" in paused[0]["paused_reason"]


@pytest.mark.parametrize("name", [name for name, source in SOURCES.items() if not source.variant])
async def test_a_crash_at_every_request_repeats_no_page_that_was_stored(name: str, connected: Connect) -> None:
    source = SOURCES[name]
    world = new_world(source)
    for _ in range(18):
        world.advance(5)
        world.comment(world.create("HARBOR").id)
    world.advance(HOUR)
    with source.small_pages():
        async with connected(name, world, concurrency=1) as runner:
            calls = await calls_of_a_full_sync(runner)
            for at in range(1, calls + 1):
                job_id = await runner.accept(SyncMode.FULL)
                runner.tracker.calls.clear()
                await killed_at(runner, at, runner.run(job_id))
                stored = await runner.fetch(
                    "select coalesce(sum(pages), 0) as pages from sync_parts where job_id = %s", job_id
                )
                await runner.execute("update jobs set attempt = 2 where id = %s", job_id)

                ended = await runner.run(job_id, 2)

                assert ended is JobState.COMPLETED, await runner.logs()
                total = await runner.fetch("select sum(pages) as pages from sync_parts where job_id = %s", job_id)
                assert stored[0]["pages"] <= total[0]["pages"]
                assert len(runner.tracker.calls) <= 2 * calls + 2
            await assert_mirrored(runner, name, world)


@pytest.mark.parametrize("name", [name for name, source in SOURCES.items() if not source.variant])
async def test_what_a_sync_left_when_it_failed_is_read_by_the_next_one(name: str, connected: Connect) -> None:
    source = SOURCES[name]
    world = new_world(source)
    for _ in range(12):
        world.advance(5)
        world.create("HARBOR")
    world.advance(HOUR)
    with source.small_pages():
        async with connected(name, world, concurrency=1) as first:
            calls = await calls_of_a_full_sync(first)
            for at in range(2, calls + 1, 2):
                fresh = SyncRunner(
                    first.database, first.settings, first.tracker, first.connection_settings, first.credentials
                )
                await fresh.register()
                await fresh.execute("update connections set test_passed = true where slug = %s", fresh.slug)
                fresh.tracker.faults.append(Fault(kind="status", status=401, body="{}", after=at - 1))
                await fresh.sync()
                fresh.tracker.faults.clear()
                world.advance(HOUR)

                assert await fresh.sync() is JobState.COMPLETED

                await assert_mirrored(fresh, name, world)


async def calls_of_a_full_sync(runner: SyncRunner) -> int:
    runner.tracker.calls.clear()
    assert await runner.sync(SyncMode.FULL) is JobState.COMPLETED
    return len(runner.tracker.calls)


async def killed_at(runner: SyncRunner, request: int, work: Any) -> None:
    """Run until the n-th request goes out, and not a step further."""
    task = asyncio.ensure_future(work)
    left = request

    def count(_call: Call) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            task.cancel()

    runner.tracker.before_request = count
    await asyncio.gather(task, return_exceptions=True)
    runner.tracker.before_request = None


async def census_missed(runner: SyncRunner) -> int:
    """How many records a census finds that earlier syncs should have found."""
    assert await runner.sync(SyncMode.CENSUS) is JobState.COMPLETED
    rows = await runner.fetch("select counts from sync_parts where job_id = %s", runner.last_job)
    counted = sum(of.get("missed", 0) for row in rows for of in row["counts"].values())
    return counted + sum("were missed" in line for line in await runner.logs())


async def test_a_full_sync_of_a_seeded_world_equals_it(connected: Connect) -> None:
    world = seeded(120, projects=("HARBOR", "PETREL"))
    async with connected("jira", world) as runner:
        assert await runner.sync(SyncMode.FULL) is JobState.COMPLETED

        await assert_mirrored(runner, "jira", world)
