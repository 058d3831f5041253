"""Who waits at a source, and for how long."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from local.trackers.service import Fault
from local.trackers.world import World
from shared.connectors._protocol import Quota
from shared.domain.errors import SourceError, Trouble
from shared.domain.job import JobState
from shared.domain.sync import SyncMode, SyncOptions
from shared.services.accept_sync import accept_sync
from shared.services.control_jobs import cancel_job
from shared.services.normalize_page import Normalized, normalize_page
from shared.services.plan_sync import plan_sync
from shared.services.run_schedules import start_due_syncs
from shared.store import claims, sync_ledger, turns
from tests.integration.sync.conftest import Connect
from tests.integration.sync.mirror import expected_issues, stored_issues
from tests.support.sources import SOURCES, new_world
from tests.support.sync import OPERATOR, SyncRunner, connectors_for_tests

HOUR = 3_600


def world_with(issues: int, name: str = "jira") -> World:
    world = new_world(SOURCES[name])
    for number in range(issues):
        world.advance(5)
        world.create("HARBOR" if number % 2 else "PETREL")
    world.advance(HOUR)
    return world


async def test_a_source_that_says_later_without_a_time_is_left_alone_for_a_minute(connected: Connect) -> None:
    async with connected("jira", world_with(3)) as runner:
        runner.tracker.faults.append(Fault(kind="status", status=429, times=99))
        job_id = await runner.accept(SyncMode.FULL)
        with pytest.raises(SourceError) as first:
            await plan_sync(runner.database, runner.connectors, job_id, 1)
        calls = len(runner.tracker.calls)
        with pytest.raises(SourceError) as second:
            await plan_sync(runner.database, runner.connectors, job_id, 1)

        assert first.value.trouble is Trouble.RATE_LIMIT
        assert first.value.retry_at is not None
        assert first.value.retry_at > datetime.now(UTC) + timedelta(seconds=50)
        assert second.value.retry_at == first.value.retry_at
        assert len(runner.tracker.calls) == calls, "the source was asked although it had said later"


async def test_walkers_stop_between_pages_when_one_of_them_is_told_later(connected: Connect) -> None:
    source = SOURCES["gitlab"]
    with source.small_pages():
        async with connected("gitlab", world_with(60, "gitlab")) as runner:
            job_id = await runner.accept(SyncMode.FULL)
            await plan_sync(runner.database, runner.connectors, job_id, 1)
            runner.tracker.calls.clear()
            runner.tracker.faults.append(Fault(kind="limited", seconds=30, after=4))

            ended = await runner.lane(job_id, 1, 0)

            assert ended.outcome == "wait"
            # Pages that are on their way come with the notes of their four issues; more come if it does not stop.
            assert len(runner.tracker.calls) <= 12, "the other walker went on"


async def test_connections_of_one_account_keep_off_together(connected: Connect) -> None:
    world = world_with(3)
    async with connected("jira", world) as runner:
        other = SyncRunner(runner.database, runner.settings, runner.tracker, {}, runner.credentials)
        assert (await other.connect()).passed
        waiting = await other.accept(SyncMode.FULL)
        job_id = await runner.accept(SyncMode.FULL)
        runner.tracker.faults.append(Fault(kind="limited", seconds=30))
        with pytest.raises(SourceError):
            await plan_sync(runner.database, runner.connectors, job_id, 1)
        calls = len(runner.tracker.calls)

        with pytest.raises(SourceError) as refused:
            await plan_sync(other.database, other.connectors, waiting, 1)

        assert refused.value.trouble is Trouble.RATE_LIMIT
        assert len(runner.tracker.calls) == calls


@contextmanager
def quota_of(runner: SyncRunner, monkeypatch: pytest.MonkeyPatch, quota: Quota) -> Iterator[None]:
    with monkeypatch.context() as patched:
        patched.setattr("shared.connectors._gitlab_refusals.read_quota", lambda _headers: quota)
        patched.setattr("shared.connectors._gitlab_api.read_quota", lambda _headers: quota)
        runner.connectors = connectors_for_tests(runner.database)
        yield
    runner.connectors = connectors_for_tests(runner.database)


async def test_a_first_reading_leaves_the_last_of_a_quota_to_named_issues(
    connected: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = SOURCES["gitlab"]
    world = world_with(40, "gitlab")
    resets = datetime.now(UTC) + timedelta(minutes=40)
    with source.small_pages():
        async with connected("gitlab", world) as runner:
            scarce = Quota(limit=1_000, remaining=100, resets_at=resets)
            with quota_of(runner, monkeypatch, scarce):
                full = await runner.accept(SyncMode.FULL)
                lanes = await plan_sync(runner.database, runner.connectors, full, 1)
                held = await runner.lane(full, 1, 0)
                named = await runner.sync(SyncMode.KEYS, keys=("tidewater/harbor#1",))

            assert (held.outcome, held.until) == ("wait", resets)
            assert named is JobState.COMPLETED
            rows = await runner.fetch("select key from issues")
            assert len(rows) >= 1
            await runner.walk(full, 1, lanes)
            assert await runner.run(full) is JobState.COMPLETED
            assert await stored_issues(runner) == expected_issues(source, world)


async def test_named_issues_wait_for_no_backfill_and_break_none_of_its_windows(connected: Connect) -> None:
    world = world_with(6)
    async with connected("jira", world) as runner:
        slug = runner.slug
        waiting = [
            await accept_sync(runner.database, OPERATOR, slug, SyncOptions(mode=SyncMode.FULL)),
            await accept_sync(runner.database, OPERATOR, slug, SyncOptions(mode=SyncMode.FULL)),
            await accept_sync(runner.database, OPERATOR, slug, SyncOptions(mode=SyncMode.KEYS, keys=("HARBOR-1",))),
            await accept_sync(runner.database, OPERATOR, slug, SyncOptions(mode=SyncMode.KEYS, keys=("HARBOR-2",))),
        ]
        async with runner.database.transaction() as connection:
            claimed = {turn.job_id for turn in await turns.claim_jobs(connection, limit=1)}
        full, _, named, _ = (job.id for job in waiting)
        lanes = await plan_sync(runner.database, runner.connectors, full, 1)

        assert claimed == {full, named}
        assert await runner.run(named) is JobState.COMPLETED
        assert await runner.fetch("select key from issues") == [{"key": "HARBOR-1"}]
        await runner.walk(full, 1, lanes)
        assert await runner.run(full) is JobState.COMPLETED
        assert await runner.fetch("select state, count(*) as n from sync_windows group by state") == [
            {"state": "closed", "n": 2}
        ]


async def test_named_issues_keep_no_connection_from_its_schedule(connected: Connect) -> None:
    async with connected("jira", world_with(1)) as runner:
        await accept_sync(runner.database, OPERATOR, runner.slug, SyncOptions(mode=SyncMode.KEYS, keys=("HARBOR-1",)))
        await runner.execute("update schedules set next_run_at = now() - interval '1 minute'")

        assert await start_due_syncs(runner.database, now=datetime.now(UTC)) == 1


async def test_named_issues_neither_slow_a_schedule_down_nor_restore_it(connected: Connect) -> None:
    async with connected("jira", world_with(2)) as runner:
        await runner.execute("update schedules set failures = 2, failure_class = 'BAD_REQUEST'")
        assert await runner.sync(SyncMode.KEYS, keys=("PETREL-1",)) is JobState.COMPLETED
        runner.tracker.faults.append(Fault(kind="status", status=400, body="{}", path="/issue", times=99))
        assert await runner.sync(SyncMode.KEYS, keys=("PETREL-1",)) is JobState.FAILED

        rows = await runner.fetch("select failures, failure_class, rung from schedules")
        assert rows == [{"failures": 2, "failure_class": "BAD_REQUEST", "rung": 0}]


async def test_a_sync_that_waits_is_cancelled_at_once(connected: Connect) -> None:
    async with connected("jira", world_with(2)) as runner:
        job_id = await runner.accept(SyncMode.FULL)
        lanes = await plan_sync(runner.database, runner.connectors, job_id, 1)
        await runner.execute(
            "update jobs set state = 'retrying', retry_at = now() + interval '1 hour' where id = %s", job_id
        )

        cancelled = await cancel_job(runner.database, OPERATOR, job_id)
        later = await runner.lane(job_id, 1, 0)

        assert lanes
        assert cancelled.state is JobState.CANCELLED
        assert later.outcome == "stop"
        assert await runner.run(job_id) is JobState.CANCELLED


async def test_a_job_of_nobody_does_nothing(connected: Connect) -> None:
    async with connected("jira", world_with(1)) as runner:
        assert await plan_sync(runner.database, runner.connectors, uuid4(), 1) == 0
        assert (await runner.lane(uuid4(), 1, 0)).outcome == "stop"


async def test_the_walkers_of_a_lane_take_parts_from_both_ends(connected: Connect) -> None:
    async with connected("github", world_with(3, "github")) as runner:
        job_id = await runner.accept(SyncMode.FULL)
        await plan_sync(runner.database, runner.connectors, job_id, 1)
        async with runner.database.connection() as connection:
            planned = [part.number for part in await sync_ledger.list_parts(connection, job_id)]
            taken = [
                await claims.claim_part(connection, job_id, attempt=1, lane=lane, now=datetime.now(UTC))
                for lane in (0, 1, 2, 3)
            ]

        # Large pages and small ones come together then, and neither the processor nor the source has a pause.
        assert [part.number if part else None for part in taken] == [planned[0], planned[-1], planned[1], planned[-2]]


@pytest.mark.parametrize(
    "change", ["cancel_requested = true", "attempt = attempt + 1"], ids=["cancelled", "begun anew by another worker"]
)
async def test_a_page_that_comes_too_late_is_not_stored(
    change: str, connected: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = 0

    async def normalize(*call: Any, **options: Any) -> Normalized:
        nonlocal pages
        pages += 1
        if pages == 2:
            await runner.execute(f"update jobs set {change} where id = %s", job_id)
        return await normalize_page(*call, **options)

    monkeypatch.setattr("shared.services.walk_parts.normalize_page", normalize)
    with SOURCES["jira"].small_pages():
        async with connected("jira", world_with(30), projects=["HARBOR"], concurrency=1) as runner:
            job_id = await runner.accept(SyncMode.FULL)
            await plan_sync(runner.database, runner.connectors, job_id, 1)

            ended = await runner.lane(job_id, 1, 0)

            parts = await runner.fetch("select sum(pages) as pages, bool_or(state = 'done') as done from sync_parts")
            assert ended.outcome == "stop"
            assert pages == 2
            assert parts == [{"pages": 1, "done": False}]


async def test_a_part_that_has_to_wait_is_anybodys_afterwards(connected: Connect) -> None:
    async with connected("jira", world_with(4), projects=["HARBOR"], streams=["issues"]) as runner:
        job_id = await runner.accept(SyncMode.FULL)
        await plan_sync(runner.database, runner.connectors, job_id, 1)
        runner.tracker.faults.append(Fault(kind="limited", seconds=60, path="/search"))
        told = await runner.lane(job_id, 1, 0, lanes=2)
        await runner.execute("update connections set blocked_until = null")

        went_on = await runner.lane(job_id, 1, 1, lanes=2)

        assert (told.outcome, went_on.outcome) == ("wait", "done")
        assert await runner.fetch("select state from sync_parts") == [{"state": "done"}]


async def test_a_refused_log_in_ends_the_whole_sync(connected: Connect) -> None:
    async with connected("gitlab", world_with(4, "gitlab"), streams=[]) as runner:
        job_id = await runner.accept(SyncMode.FULL)
        await plan_sync(runner.database, runner.connectors, job_id, 1)
        parts = await runner.fetch("select from sync_parts")
        runner.tracker.calls.clear()
        runner.tracker.expired = True

        ended = await runner.lane(job_id, 1, 0)

        assert ended.outcome == "stop"
        assert len(runner.tracker.calls) <= 2 < len(parts), "every part was tried with credentials that were refused"


async def test_a_part_that_failed_is_left_alone_for_a_while(connected: Connect) -> None:
    async with connected("jira", world_with(3), projects=["HARBOR"], streams=["issues"]) as runner:
        job_id = await runner.accept(SyncMode.FULL)
        await plan_sync(runner.database, runner.connectors, job_id, 1)
        # As many as one try of a part makes.
        runner.tracker.faults.append(Fault(kind="status", status=500, body="{}", path="/search", times=3))
        began = datetime.now(UTC)

        ended = await runner.lane(job_id, 1, 0)

        assert ended.outcome == "wait"
        assert ended.until is not None
        assert ended.until >= began + timedelta(seconds=2)
        assert runner.tracker.faults == []


async def test_a_new_attempt_takes_over_what_lanes_held_that_it_has_not(connected: Connect) -> None:
    async with connected("jira", world_with(1), projects=["HARBOR"], streams=["issues"]) as runner:
        job_id = await runner.accept(SyncMode.FULL)
        await plan_sync(runner.database, runner.connectors, job_id, 1)
        async with runner.database.transaction() as connection:
            now = datetime.now(UTC)
            held = await claims.claim_part(connection, job_id, attempt=1, lane=7, now=now)
            other = await claims.claim_part(connection, job_id, attempt=1, lane=0, now=now)

            taken = await claims.claim_part(connection, job_id, attempt=2, lane=0, now=now)

    assert held is not None
    assert other is None
    assert taken is not None
    assert taken.number == held.number
