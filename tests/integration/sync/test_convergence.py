"""Whatever happens at a source and to us, in whatever order: after the last sync the mirror equals the source.

Each case is a made-up history: a tracker with its size, zone and clock; edits one by one and many in one instant,
deletions, moves, comments, time passing; syncs that are disturbed by changes at any request, by faults and by our own
death, that fail, and that are retried or not. In an eighth of them every step runs twice. Pages hold a few records, so
that walks have several. `SYNC_CASES` sets how many histories are tried per source; 500 in CI.
"""

import asyncio
import os
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import pytest
from tenacity import wait_none

from local.trackers.world import World
from shared.domain.job import JobState
from shared.domain.sync import SyncMode
from shared.store.database import Database
from tests.integration.sync.histories import (
    Disturber,
    Edit,
    History,
    Named,
    Sync,
    apply,
    imagine,
    shortened,
    tracker_of,
)
from tests.integration.sync.mirror import expected_issues, left_behind, stored_issues
from tests.support.postgres import TestDatabases
from tests.support.settings import make_settings
from tests.support.sources import SOURCES, Source
from tests.support.sync import SyncRunner, connectors_for_tests

CASES = int(os.environ.get("SYNC_CASES", "500"))  # noqa: TID251 - addressed to the tests, not to the product

NOT_TILED = """
    select * from (
        select stream, scope, state, lo, hi, lag(hi, 1, '-infinity') over (partition by stream, scope order by lo, hi)
               as before
          from sync_windows join connections on connections.id = connection_id
         where slug = %s and state <> 'abandoned') line
     where state = 'open' or lo <> before
"""
GONE = """
    select external_id from issues where import_source = %s and deleted_at is not null
     union all select external_id from comments where import_source = %s and deleted_at is not null
"""
CREATED = """
    select coalesce(sum((counts #>> '{issues,created}')::int), 0) as counted,
           (select count(*) from issues where import_source = slug) as there
      from connections left join jobs on connection_id = connections.id
      left join sync_parts on job_id = jobs.id
     where slug = %s group by slug
"""


class Loop:
    """An event loop with a database, shared by all cases of a source."""

    def __init__(self, url: str) -> None:
        self._runner = asyncio.Runner()
        self.database = Database(url, size=6)
        self._runner.run(self.database.open())
        self.connectors = connectors_for_tests(self.database)

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        self._runner.run(work)

    def close(self) -> None:
        self._runner.run(self.database.close())
        self._runner.close()


@pytest.fixture(scope="module")
def loop(databases: TestDatabases) -> Iterator[Loop]:
    with databases.database() as url:
        loop = Loop(url)
        yield loop
        loop.close()


async def disturbed(runner: SyncRunner, source: Source, sync: Sync) -> None:
    """Run a sync while things happen; one that is killed, or is retried, is continued by a new attempt."""
    job_id = await runner.accept(SyncMode.FULL if sync.full else SyncMode.INCREMENTAL)
    attempt = 1
    named: list[asyncio.Task[None]] = []
    disturber = Disturber(
        runner.tracker,
        source,
        list(sync.disturbances),
        name=lambda told: named.append(asyncio.ensure_future(read_named(runner, source, told))),
    )
    runner.tracker.before_request = disturber
    runner.on_walk = lambda: disturber.begin(walking=True)
    try:
        while True:
            disturber.begin(walking=False)
            task = asyncio.ensure_future(runner.run(job_id, attempt))
            disturber.crash = task.cancel
            try:
                state = await task
            except asyncio.CancelledError:
                state = None
            if state is JobState.COMPLETED:
                await assert_closed(runner)
            if state is JobState.COMPLETED or (state and not disturber.patient):
                return
            disturber.patient = False
            attempt += 1
            await runner.execute(
                "update jobs set attempt = %s, state = 'processing', error = null where id = %s", attempt, job_id
            )
    finally:
        await asyncio.gather(*named)
        runner.tracker.before_request = None
        runner.on_walk = lambda: None
        runner.tracker.faults.clear()


async def read_named(runner: SyncRunner, source: Source, named: Named) -> None:
    """What a webhook causes: an issue is read by its key, beside whatever else is at work."""
    rows = await runner.fetch("select external_id, key from issues where import_source = %s order by 1", runner.slug)
    stored = {row["external_id"]: row["key"] for row in rows}
    latest = sorted(runner.tracker.world.all_current(), key=lambda issue: issue.at)[-1 - named.choice % 3 :]
    if named.choice % 4 and latest:
        key = stored.get(source.external_id(latest[0]), latest[0].key if source.moves else None)
    else:
        key = rows[named.choice % len(rows)]["key"] if rows else None
    if key:
        beside = replace(runner, on_walk=lambda: None)
        await beside.sync(SyncMode.KEYS, keys=(key,))


async def play(loop: Loop, source: Source, history: History) -> None:
    """Play a history, then hold the mirror against the source."""
    async with tracker_of(history, source) as tracker:
        runner = SyncRunner(
            loop.database,
            make_settings(sync_slice_seconds=30),
            tracker,
            connection_settings={**source.settings, "concurrency": 1, "streams": source.streams},
            credentials=source.credentials(tracker),
            twins=history.twins,
            shared=loop.connectors,
        )
        await runner.register()
        await runner.execute("update connections set test_passed = true where slug = %s", runner.slug)
        held: dict[str, Any] = {}
        for step in history.steps:
            match step:
                case Edit():
                    apply(step, tracker.world, source)
                case Sync():
                    await disturbed(runner, source, step)
                case Named():
                    await read_named(runner, source, step)
                case seconds:
                    tracker.world.advance(seconds)
            held = await assert_no_step_back(runner, source, tracker.world, held)
        tracker.world.advance(3_600)
        await hold(runner, source, tracker.world)


async def hold(runner: SyncRunner, source: Source, world: World) -> None:
    """The last two syncs: an incremental one finds every change it can see, a census what nobody tells."""
    assert await runner.sync() is JobState.COMPLETED
    stored, expected = await stored_issues(runner), expected_issues(source, world)
    if source.status_bumps and (source.comment_deletions or not source.comment_edits):
        assert {each: stored.get(each) for each in expected} == expected, "an incremental sync missed something"
    assert await runner.sync(SyncMode.CENSUS, accept_absences=True) is JobState.COMPLETED
    assert await stored_issues(runner) == expected
    assert await left_behind(runner) == [], "what belongs to an issue that is gone is still there"
    await assert_closed(runner)
    [created] = await runner.fetch(CREATED, runner.slug)
    assert created["counted"] == created["there"], "issues were counted twice, or never"
    if source.status_bumps:
        assert not [line for line in await runner.logs() if "were missed" in line]


async def assert_no_step_back(runner: SyncRunner, source: Source, world: World, held: dict[str, Any]) -> dict[str, Any]:
    """Older never overwrites newer, whichever door it comes through, and what is there is never taken for gone.

    Returns what is held now.
    """
    rows = await runner.fetch("select external_id, source_updated_at from issues where import_source = %s", runner.slug)
    now = {row["external_id"]: row["source_updated_at"] for row in rows}
    assert [each for each, updated in held.items() if now[each] < updated] == []
    issues = world.all_current()
    there = {source.external_id(issue) for issue in issues}
    # Where a comment leaves its issue as it was, a list that lags cannot be told from a comment that went.
    if "note_throttle" not in source.world:
        there |= {str(comment.id) for issue in issues for comment in issue.comments}
    gone = await runner.fetch(GONE, runner.slug, runner.slug)
    assert [row["external_id"] for row in gone if row["external_id"] in there] == []
    return now


async def assert_closed(runner: SyncRunner) -> None:
    """A sync that says it is done has closed its windows, and they tile the line: no hole, and no overlap."""
    assert await runner.holes() == []
    assert await runner.fetch(NOT_TILED, runner.slug) == []


@contextmanager
def without_waiting() -> Iterator[None]:
    """No case waits before it tries again."""
    with (
        patch("shared.services.walk_parts._RETRY_SECONDS", (0,)),
        patch("shared.connectors._http._WAIT", wait_none()),
    ):
        yield


@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("name", SOURCES)
def test_the_mirror_equals_the_source_after_the_last_sync(name: str, loop: Loop) -> None:
    source = SOURCES[name]

    def run(history: History) -> None:
        with source.small_pages(divided=history.divided), without_waiting():
            loop.run(play(loop, source, history))

    def fails(history: History) -> bool:
        try:
            run(history)
        except Exception:  # noqa: BLE001 - whatever it is, it is worth a shorter history
            return True
        return False

    for number in range(max(CASES // 5, 1) if source.variant else CASES):
        history = imagine(name, number)
        try:
            run(history)
        except Exception as error:
            raise AssertionError(f"History {number} fails, also as {shortened(history, fails)}") from error
