"""How late a source's lists show a change: where the figure comes from, and what syncs saw."""

from datetime import timedelta
from typing import Any

import pytest

from shared.domain.job import JobState
from shared.services.manage_connections import ConnectionChange, change_connection
from shared.services.probe_connection import probe_connection
from shared.services.watch_connections import find_state
from tests.integration.sync.conftest import Connect
from tests.integration.sync.mirror import expected_issues, stored_issues
from tests.support.sources import SOURCES, new_world
from tests.support.sync import OPERATOR, SyncRunner

HOUR = 3_600


async def probed(runner: SyncRunner) -> Any:
    return await probe_connection(runner.database, runner.connectors, OPERATOR, runner.slug)


async def test_a_test_says_where_the_index_lag_comes_from(connected: Connect) -> None:
    async with connected("jira", new_world(SOURCES["jira"])) as runner:
        known = await probed(runner)
        change = ConnectionChange(settings={"index_lag_seconds": 20})
        await change_connection(runner.database, runner.connectors.sealer, OPERATOR, runner.slug, change)
        chosen = await probed(runner)

    assert (known.index_lag.seconds, known.index_lag.origin) == (300, "default")
    assert (chosen.index_lag.seconds, chosen.index_lag.origin) == (20, "setting")
    assert known.index_lag.observed_seconds is None


@pytest.mark.parametrize("name", ["jira", "github", "gitlab", "servicenow"])
async def test_a_change_that_was_shown_late_is_told_with_advice(name: str, connected: Connect) -> None:
    source = SOURCES[name]
    world = new_world(source, index_lag=timedelta(seconds=40))
    async with connected(name, world, index_lag_seconds=10) as runner:
        world.create("HARBOR")
        world.advance(HOUR)
        assert await runner.sync() is JobState.COMPLETED
        # Changed 20 s before the next sync, which reads up to 10 s before; shown 40 s after the change.
        world.create("HARBOR")
        world.advance(20)
        assert await runner.sync() is JobState.COMPLETED
        early = await probed(runner)
        world.advance(40)
        assert await runner.sync() is JobState.COMPLETED

        late = await probed(runner)

        assert early.index_lag.observed_seconds is None
        assert 19 <= late.index_lag.observed_seconds <= 40
        assert late.index_lag.observed_in in {"issues of HARBOR", "issues of tidewater/harbor", "issues of incident"}
        assert any("raise index_lag_seconds" in warning for warning in late.warnings)
        state = await find_state(runner.database, runner.slug)
        assert state.index_lag == late.index_lag
        assert [each.observed_lag_seconds for each in state.states if each.observed_lag_at] != []
        assert await stored_issues(runner) == expected_issues(source, world)


@pytest.mark.parametrize("name", [name for name, source in SOURCES.items() if not source.variant])
async def test_what_comes_in_time_is_no_lag(name: str, connected: Connect) -> None:
    source = SOURCES[name]
    world = new_world(source)
    async with connected(name, world) as runner:
        for _ in range(5):
            issue = world.create("HARBOR")
            world.comment(issue.id)
            world.advance(100)
            world.edit(issue.id, title="Another title")
            world.advance(40)
            assert await runner.sync() is JobState.COMPLETED

        assert (await probed(runner)).index_lag.observed_seconds is None


async def test_a_longer_lag_does_not_turn_the_time_line_back(connected: Connect) -> None:
    world = new_world(SOURCES["jira"], index_lag=timedelta(0))
    async with connected("jira", world, index_lag_seconds=0) as runner:
        world.create("HARBOR")
        world.advance(HOUR)
        assert await runner.sync() is JobState.COMPLETED
        change = ConnectionChange(settings={**runner.connection_settings, "index_lag_seconds": 600})
        await change_connection(runner.database, runner.connectors.sealer, OPERATOR, runner.slug, change)
        await probed(runner)
        before = await runner.fetch("select max(hi) as hi from sync_windows where state = 'closed'")
        world.create("HARBOR")
        world.advance(5)

        assert await runner.sync() is JobState.COMPLETED

        windows = await runner.fetch("select lo, hi from sync_windows where state = 'closed' order by id desc limit 1")
        assert windows == [{"lo": before[0]["hi"], "hi": before[0]["hi"]}]
        assert await runner.holes() == []
        assert await stored_issues(runner) == expected_issues(SOURCES["jira"], world)
