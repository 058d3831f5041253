"""Whichever request of a sync is refused: the sync fails, or coverage tells what is missing until it was read."""

import pytest

from local.trackers.service import Fault
from local.trackers.world import World
from shared.domain.job import JobState
from shared.domain.sync import SyncMode
from tests.integration.sync.conftest import Connect
from tests.integration.sync.mirror import expected_issues, stored_issues
from tests.support.settings import make_settings
from tests.support.sources import SOURCES, Source, new_world
from tests.support.sync import SyncRunner

HOUR = 3_600


def world_of(source: Source, issues: int = 4) -> World:
    world = new_world(source, projects=("HARBOR",))
    for _ in range(issues):
        world.advance(5)
        issue = world.create("HARBOR")
        world.comment(issue.id)
        if source.worklogs:
            world.log_work(issue.id)
    world.advance(HOUR)
    return world


async def gaps_of(runner: SyncRunner) -> list[dict[str, object]]:
    return await runner.fetch(
        """
        select stream, status from coverage_gaps join connections on connections.id = connection_id where slug = %s
        """,
        runner.slug,
    )


async def beginner(like: SyncRunner) -> SyncRunner:
    """A new connection to the same tracker, which has read nothing yet and tries nothing again."""
    runner = SyncRunner(
        like.database, make_settings(sync_part_tries=1), like.tracker, like.connection_settings, like.credentials
    )
    await runner.register()
    await runner.execute("update connections set test_passed = true where slug = %s", runner.slug)
    return runner


@pytest.mark.parametrize("status", [403, 404])
@pytest.mark.parametrize("name", [name for name, source in SOURCES.items() if not source.variant])
async def test_a_refused_request_is_told_until_what_it_asked_for_was_read(
    name: str, status: int, connected: Connect
) -> None:
    source = SOURCES[name]
    world = world_of(source)
    with source.small_pages():
        async with connected(name, world, concurrency=1) as first:
            first.tracker.calls.clear()
            assert await first.sync(SyncMode.FULL) is JobState.COMPLETED
            for at, call in enumerate(list(first.tracker.calls)):
                runner = await beginner(first)
                runner.tracker.faults.append(
                    Fault(kind="status", status=status, body='{"message": "No."}', after=at, times=1)
                )
                ended = await runner.sync()
                runner.tracker.faults.clear()
                assert ended is JobState.FAILED or await is_honest(runner, source, world), call
                other = world.all_current()[-1]
                world.edit(other.id, title=f"{other.title}, later")
                world.advance(HOUR)

                assert await runner.sync() is JobState.COMPLETED

                assert await is_honest(runner, source, world), call
                assert await runner.sync(SyncMode.FULL) is JobState.COMPLETED
                assert await stored_issues(runner) == expected_issues(source, world)
                assert await gaps_of(runner) == []


async def is_honest(runner: SyncRunner, source: Source, world: World) -> bool:
    """Whether all is there, or something is told to be missing."""
    return await stored_issues(runner) == expected_issues(source, world) or await gaps_of(runner) != []


async def test_one_part_of_a_reading_does_not_take_back_what_another_one_met(connected: Connect) -> None:
    source = SOURCES["gitlab"]
    with source.small_pages(divided=True):
        async with connected("gitlab", world_of(source, issues=12), concurrency=1) as runner:
            runner.tracker.faults.append(Fault(kind="status", status=403, body="{}", path="/issues/1/notes"))

            assert await runner.sync() is JobState.COMPLETED

            windows = await runner.fetch("select count(*) as parts from sync_parts where kind = 'window'")
            assert windows[0]["parts"] > 2
            assert await gaps_of(runner) == [{"stream": "comments", "status": 403}]
