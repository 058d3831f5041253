"""A step that runs again, on another worker or as a new attempt, changes nothing that is there."""

import asyncio
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime, timedelta
from pkgutil import resolve_name
from typing import Any

import pytest
from psycopg import DataError

from local.trackers.service import Call, Fault
from local.trackers.world import World
from shared.domain.errors import DatabaseUnavailableError, InvalidRequestError
from shared.domain.job import JobState
from shared.domain.sync import SyncMode
from shared.services.finish_sync import finish_sync, give_up_sync
from shared.services.plan_sync import plan_sync
from shared.store import claims, sync_ledger
from shared.store.sync_ledger import StoredPart
from tests.integration.sync.conftest import Connect
from tests.integration.sync.mirror import expected_issues, stored_issues
from tests.support.settings import make_settings
from tests.support.sources import SOURCES, new_world
from tests.support.sync import SyncRunner

HOUR = 3_600
LISTED = ["issues", "comments", "users", "projects", "releases", "pull_requests"]


def world_with(issues: int, name: str, **more: Any) -> World:
    world = new_world(SOURCES[name], **more)
    for _ in range(issues):
        world.advance(5)
        world.comment(world.create("HARBOR").id)
    world.advance(HOUR)
    return world


async def tombstones(runner: SyncRunner) -> list[dict[str, Any]]:
    tables = ("issues", "comments", "people", "projects", "releases", "pull_requests")
    counts = " union all ".join(
        f"select '{table}' as gone from {table} where deleted_at is not null" for table in tables
    )
    return await runner.fetch(counts)


@pytest.mark.parametrize("mode", [SyncMode.FULL, SyncMode.CENSUS, SyncMode.INCREMENTAL])
async def test_a_comparison_that_runs_twice_buries_nobody(mode: SyncMode, connected: Connect) -> None:
    async with connected("github", world_with(6, "github"), streams=LISTED) as runner:
        assert await runner.sync(SyncMode.FULL) is JobState.COMPLETED
        job_id = await runner.accept(mode)
        lanes = await plan_sync(runner.database, runner.connectors, job_id, 1)
        await runner.walk(job_id, 1, lanes)

        first = await runner.reconcile(job_id)
        second = await runner.reconcile(job_id)

        assert (first, second) == (0, 0)
        assert await tombstones(runner) == []
        assert await runner.run(job_id) is JobState.COMPLETED
        assert await tombstones(runner) == []


async def test_what_was_asked_for_is_still_asked_when_the_comparison_runs_again(connected: Connect) -> None:
    world = world_with(6, "jira")
    async with connected("jira", world) as runner:
        assert await runner.sync(SyncMode.FULL) is JobState.COMPLETED
        world.delete(world.all_current()[0].id)
        world.advance(HOUR)
        job_id = await runner.accept(SyncMode.CENSUS)
        await runner.walk(job_id, 1, await plan_sync(runner.database, runner.connectors, job_id, 1))

        asked = [await runner.reconcile(job_id) for _ in range(2)]

        assert asked == [1, 1]
        assert await runner.run(job_id) is JobState.COMPLETED
        assert await stored_issues(runner) == expected_issues(SOURCES["jira"], world)


async def test_two_workers_at_one_lane_end_the_sync(connected: Connect) -> None:
    source = SOURCES["gitlab"]
    with source.small_pages():
        async with connected("gitlab", world_with(30, "gitlab")) as runner:
            runner.twins = True
            runner.settings = make_settings(sync_slice_seconds=0.05)

            assert await runner.sync(SyncMode.FULL) is JobState.COMPLETED

            assert await stored_issues(runner) == expected_issues(source, runner.tracker.world)
            seen = await runner.fetch("select sum(seen) as seen from sync_windows where state = 'closed'")
            assert seen == [{"seen": 30 + 30}], "issues or their comments were counted twice"


async def test_a_part_that_a_dying_session_still_holds_is_not_left_unread(connected: Connect) -> None:
    world = world_with(3, "gitlab")
    async with connected("gitlab", world, concurrency=1) as runner:
        job_id = await runner.accept(SyncMode.FULL)
        lanes = await plan_sync(runner.database, runner.connectors, job_id, 1)
        async with runner.database.transaction() as dying:
            await sync_ledger.lock_part(dying, job_id, 0)
            walk = asyncio.ensure_future(runner.walk(job_id, 1, lanes))
            while not walk.done() and not await is_anybody_waiting(runner):
                pass

        await walk

        assert await runner.fetch("select state from sync_parts group by state") == [{"state": "done"}]
        assert await stored_issues(runner) == expected_issues(SOURCES["gitlab"], world)


async def test_lanes_that_wait_for_the_same_parts_do_not_block_each_other(connected: Connect) -> None:
    async with connected("gitlab", world_with(3, "gitlab"), concurrency=1) as runner:
        job_id = await runner.accept(SyncMode.FULL)
        await plan_sync(runner.database, runner.connectors, job_id, 1)
        await runner.execute("update sync_parts set state = 'done' where number > 1")

        async def claim(lane: int) -> StoredPart | None:
            async with runner.database.transaction() as connection:
                return await claims.claim_part(connection, job_id, attempt=1, lane=lane, now=datetime.now(UTC))

        async with AsyncExitStack() as held:
            for number in range(2):
                holder = await held.enter_async_context(runner.database.transaction())
                await sync_ledger.lock_part(holder, job_id, number)
                await holder.execute("update sync_parts set state = 'done' where number = %s", (number,))
            claiming = [asyncio.ensure_future(claim(lane)) for lane in (0, 1)]
            while len(await runner.fetch("select from pg_stat_activity where wait_event_type = 'Lock'")) < 2:
                assert not any(lane.done() for lane in claiming)

        assert await asyncio.gather(*claiming) == [None, None]


async def is_anybody_waiting(runner: SyncRunner) -> bool:
    """Whether a session waits for what another one holds."""
    return bool(await runner.fetch("select from pg_stat_activity where wait_event_type = 'Lock'"))


async def test_a_lane_that_breaks_leaves_nobody_at_work(connected: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []

    async def work(walker: Any, _deadline: float) -> None:
        if walker.number:
            raise DatabaseUnavailableError("The database connection was lost")
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(walker.number)

    async with connected("jira", world_with(1, "jira")) as runner:
        job_id = await runner.accept(SyncMode.FULL)
        await plan_sync(runner.database, runner.connectors, job_id, 1)
        monkeypatch.setattr("shared.services.walk_parts._work", work)

        with pytest.raises(DatabaseUnavailableError):
            await runner.lane(job_id, 1, 0)

        assert ended == [0]


@pytest.mark.parametrize(
    ("place", "calls", "pages"),
    [
        # Issues and comments of the first two pages are written, then the database goes away.
        ("shared.store.streams.Writer.add", 4, 2),
        ("shared.services.store_page._note_seen", 2, 2),
        ("shared.store.sync_ledger.save_step", 2, 2),
        ("shared.store.sync_ledger.close_window", 0, 3),
    ],
)
async def test_a_page_and_its_place_in_the_ledger_are_stored_together_or_not_at_all(
    place: str, calls: int, pages: int, connected: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = SOURCES["gitlab"]
    world = world_with(16, "gitlab", projects=("HARBOR",))
    with source.small_pages():
        async with connected("gitlab", world, concurrency=1) as runner:
            job_id = await runner.accept(SyncMode.FULL)
            lanes = await plan_sync(runner.database, runner.connectors, job_id, 1)
            with monkeypatch.context() as patched:
                break_after(patched, place, calls)
                with pytest.raises(DatabaseUnavailableError):
                    await runner.walk(job_id, 1, lanes)

            [stored] = await runner.fetch(STORED)

            assert stored == {"issues": 4 * pages, "counted": 4 * pages, "pages": pages, "open": 1}
            assert await runner.run(job_id) is JobState.COMPLETED
            assert await stored_issues(runner) == expected_issues(source, world)
            assert await runner.fetch(STORED) == [{"issues": 16, "counted": 16, "pages": 4, "open": 0}]


def break_after(patched: pytest.MonkeyPatch, place: str, calls: int) -> None:
    """Lose the database at a call, after so many of them that went well."""
    left = calls
    plain = resolve_name(place)

    async def broken(*args: Any, **more: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise DatabaseUnavailableError("The database connection was lost")
        return await plain(*args, **more)

    patched.setattr(place, broken)


STORED = """
    select (select count(*) from issues) as issues, (counts #>> '{issues,created}')::int as counted, pages,
           (select count(*) from sync_windows where state = 'open') as open
      from sync_parts
"""


async def test_a_retried_full_sync_knows_what_it_saw_before_it_failed(connected: Connect) -> None:
    source = SOURCES["github"]
    world = world_with(30, "github")
    with source.small_pages():
        async with connected("github", world, concurrency=1) as runner:
            assert await runner.sync(SyncMode.FULL) is JobState.COMPLETED
            gone = world.all_current()[0]
            world.delete(gone.id)
            world.advance(HOUR)
            runner.tracker.before_request = fail_at(runner, 12)
            assert await runner.sync(SyncMode.FULL) is JobState.FAILED
            job_id = runner.last_job
            assert job_id is not None
            await runner.execute(
                "update jobs set state = 'processing', attempt = 2, error = null where id = %s", job_id
            )

            assert await runner.run(job_id, 2) is JobState.COMPLETED

            rows = await runner.fetch("select external_id from issues where deleted_at is not null")
            assert rows == [{"external_id": str(gone.id)}]
            assert await stored_issues(runner) == expected_issues(source, world)
            assert await runner.fetch("select * from seen_ids") == []


def fail_at(runner: SyncRunner, request: int) -> Any:
    """Refuse the n-th request for good."""
    left = request

    def count(_call: Call) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            runner.tracker.faults.append(Fault(kind="status", status=401, body='{"message": "Bad credentials"}'))

    return count


async def test_a_full_sync_notes_only_what_it_did_not_write(connected: Connect) -> None:
    source = SOURCES["github"]
    world = world_with(6, "github")
    async with connected("github", world) as runner:
        assert await runner.sync(SyncMode.FULL) is JobState.COMPLETED
        edited, gone = world.all_current()[:2]
        world.edit(edited.id, title="Written anew")
        world.delete(gone.id)
        world.advance(HOUR)
        job_id = await runner.accept(SyncMode.FULL)
        await runner.walk(job_id, 1, await plan_sync(runner.database, runner.connectors, job_id, 1))

        noted = await runner.fetch("select external_id from seen_ids where stream = 'issues' order by external_id")
        unchanged = {str(issue.id) for issue in world.all_current()} - {str(edited.id)}
        assert {row["external_id"] for row in noted} == unchanged

        # As if another worker had written them, whose clock is behind.
        for table in ("issues", "comments"):
            await runner.execute(
                f"update {table} set read_at = read_at - interval '1 minute' where job_id = %s", job_id
            )
        before = len(runner.tracker.calls)
        assert await runner.run(job_id) is JobState.COMPLETED
        paths = [call.path for call in list(runner.tracker.calls)[before:]]
        assert not [path for path in paths if path.endswith(f"/issues/{edited.number}")], "what was written is doubted"
        rows = await runner.fetch("select external_id from issues where deleted_at is not null")
        assert rows == [{"external_id": str(gone.id)}]
        assert await stored_issues(runner) == expected_issues(source, world)


async def test_what_a_sync_saw_outlives_a_crash_of_the_database_server(connected: Connect) -> None:
    async with connected("jira", world_with(1, "jira")) as runner:
        rows = await runner.fetch("select relpersistence from pg_class where relname = 'seen_ids'")

        assert rows == [{"relpersistence": "p"}]


@pytest.mark.parametrize("name", sorted(SOURCES))
async def test_an_id_given_for_a_key_buries_nobody(name: str, connected: Connect) -> None:
    async with connected(name, world_with(6, name)) as runner:
        assert await runner.sync(SyncMode.FULL) is JobState.COMPLETED
        ids = [row["external_id"] for row in await runner.fetch("select external_id from issues")]

        # Where an id cannot be a key, it is refused at once.
        with suppress(InvalidRequestError):
            await runner.sync(SyncMode.KEYS, keys=tuple(ids))

        assert await tombstones(runner) == []


async def test_a_sync_whose_ledger_cannot_be_read_ends(connected: Connect) -> None:
    async with connected("jira", world_with(3, "jira")) as runner:
        job_id = await runner.accept(SyncMode.FULL)
        await plan_sync(runner.database, runner.connectors, job_id, 1)
        await runner.execute("update sync_parts set since = '0001-01-01 BC'")

        with pytest.raises(DataError):
            await finish_sync(runner.database, job_id, 1, error=None, now=datetime.now(UTC))
        ended = await give_up_sync(runner.database, job_id, 1, error={"code": "internal_error"}, now=datetime.now(UTC))

        assert ended is JobState.FAILED
        assert await runner.fetch("select state, error ->> 'code' as code from jobs where id = %s", job_id) == [
            {"state": "failed", "code": "internal_error"}
        ]


async def test_syncs_that_are_given_up_slow_the_schedule_down_like_other_failures(connected: Connect) -> None:
    async with connected("jira", world_with(3, "jira")) as runner:
        for _ in range(3):
            job_id = await runner.accept(SyncMode.FULL)
            error = {"code": "internal_error"}
            await give_up_sync(runner.database, job_id, 1, error=error, now=datetime.now(UTC))

        [schedule] = await runner.fetch("select failures, failure_class, rung, next_run_at from schedules")

        assert (schedule["failures"], schedule["failure_class"], schedule["rung"]) == (3, "internal_error", 1)
        assert schedule["next_run_at"] > datetime.now(UTC) + timedelta(minutes=50)


@pytest.mark.parametrize("mode", [SyncMode.FULL, SyncMode.CENSUS])
async def test_a_comment_that_lists_do_not_show_yet_is_not_taken_for_deleted(
    mode: SyncMode, connected: Connect
) -> None:
    world = world_with(3, "github")
    async with connected("github", world) as runner:
        issue = world.create("HARBOR")
        world.advance(55)
        assert await runner.sync() is JobState.COMPLETED
        world.comment(issue.id, "Just now.")
        [row] = await runner.fetch("select key from issues where external_id = %s", str(issue.id))
        assert await runner.sync(SyncMode.KEYS, keys=(row["key"],)) is JobState.COMPLETED

        assert await runner.sync(mode) is JobState.COMPLETED

        assert await tombstones(runner) == []
        assert await stored_issues(runner) == expected_issues(SOURCES["github"], world)


async def test_an_older_version_of_an_issue_takes_none_of_its_comments_away(connected: Connect) -> None:
    world = new_world(SOURCES["gitlab"])
    issue = world.create("HARBOR")
    world.advance(HOUR)
    async with connected("gitlab", world) as runner:
        assert await runner.sync() is JobState.COMPLETED
        world.comment(issue.id, "Just now.")
        [row] = await runner.fetch("select key from issues")
        assert await runner.sync(SyncMode.KEYS, keys=(row["key"],)) is JobState.COMPLETED

        assert await runner.sync(SyncMode.FULL, streams=("issues",)) is JobState.COMPLETED

        parts = await runner.fetch("select counts #>> '{issues,stale}' as stale from sync_parts where kind = 'window'")
        assert {"stale": "1"} in parts
        changed = await runner.fetch("select deleted_at, updated_at = created_at as untouched from comments")
        assert changed == [{"deleted_at": None, "untouched": True}]
