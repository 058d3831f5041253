"""Reading again what did not change writes nothing."""

import pytest

from local.trackers.known import connection_to, tracker_of
from local.trackers.world import seeded
from shared.connectors import connectors
from shared.domain.job import JobState
from shared.domain.sync import SyncMode
from shared.store.database import Database
from tests.support.settings import make_settings
from tests.support.sources import SOURCES, new_world
from tests.support.sync import SyncRunner


@pytest.mark.parametrize("name", sorted(connectors()))
@pytest.mark.parametrize("again", [SyncMode.FULL, SyncMode.CENSUS, SyncMode.INCREMENTAL])
async def test_a_second_reading_of_the_same_source_changes_nothing(
    name: str, again: SyncMode, database: Database
) -> None:
    world = seeded(40, projects=("HARBOR", "PETREL"))
    async with tracker_of(name, world) as tracker:
        known = connection_to(tracker)
        runner = SyncRunner(database, make_settings(), tracker, known.settings, known.credentials)
        assert (await runner.connect()).passed
        assert await runner.sync(SyncMode.FULL) is JobState.COMPLETED
        before = await versions(runner)
        world.advance(3_600)

        assert await runner.sync(again) is JobState.COMPLETED

        assert await versions(runner) == before


@pytest.mark.parametrize("name", [name for name, source in SOURCES.items() if not source.variant])
async def test_records_at_the_edge_of_windows_are_written_once(name: str, database: Database) -> None:
    source = SOURCES[name]
    world = new_world(source)
    async with source.tracker(world) as tracker:
        runner = SyncRunner(
            database,
            make_settings(),
            tracker,
            connection_settings={**source.settings, "streams": source.streams},
            credentials=source.credentials(tracker),
        )
        assert (await runner.connect()).passed
        lag = connectors()[source.name].index_lag
        written: set[tuple[object, ...]] = set()
        # Every issue is at some time within the lag, at the end of a window to the second, and in its overlap.
        for _ in range(20):
            world.comment(world.create("HARBOR").id)
            world.advance(lag.total_seconds() / 10)
            assert await runner.sync() is JobState.COMPLETED
            now = set(await versions(runner))
            assert written - now == set(), "a record that did not change was written again"
            written = now

        ids = [row[1] for row in written if row[0] == "issues"]
        assert len(ids) >= 10
        assert len(ids) == len(set(ids))


async def versions(runner: SyncRunner) -> list[tuple[object, ...]]:
    """Which version of which row is in the tables of all streams: PostgreSQL's own count of writes."""
    tables = ["issues", "comments", "worklogs", "issue_history", "people", "projects", "pull_requests", "commits"]
    tables += ["sprints", "branches", "releases"]
    found: list[tuple[object, ...]] = []
    for table in tables:
        rows = await runner.fetch(f"select external_id, xmin::text as version from {table} order by external_id")
        found += [(table, row["external_id"], row["version"]) for row in rows]
    return found
