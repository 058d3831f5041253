"""However many workers a sync runs on, the source sees no more requests at once than its connection allows."""

import asyncio

from shared.domain.sync import SyncMode
from shared.services.plan_sync import plan_sync
from shared.services.walk_parts import walk_parts
from tests.integration.sync.conftest import Connect
from tests.integration.sync.mirror import expected_issues, stored_issues
from tests.integration.sync.test_turns import world_with
from tests.support.sources import SOURCES
from tests.support.sync import connectors_for_tests

ALLOWED = 4


async def test_lanes_on_two_workers_share_what_is_allowed(connected: Connect) -> None:
    with SOURCES["gitlab"].small_pages():
        async with connected("gitlab", world_with(40, "gitlab"), streams=[], concurrency=ALLOWED) as runner:
            workers = [runner.connectors, connectors_for_tests(runner.database)]
            job_id = await runner.accept(SyncMode.FULL)
            lanes = await plan_sync(runner.database, runner.connectors, job_id, 1)
            runner.tracker.latency, runner.tracker.most_at_once = 0.02, 0

            ended = await asyncio.gather(
                *(
                    walk_parts(runner.database, workers[lane % 2], runner.settings, job_id, 1, lane, lanes)
                    for lane in range(lanes)
                )
            )

            assert lanes == ALLOWED
            assert {each.outcome for each in ended} == {"done"}
            assert await stored_issues(runner) == expected_issues(SOURCES["gitlab"], runner.tracker.world)
            assert runner.tracker.most_at_once == ALLOWED


async def test_the_last_lane_takes_over_what_the_others_do_not_need(connected: Connect) -> None:
    async with connected("sentry", world_with(40, "sentry"), streams=[], concurrency=ALLOWED) as runner:
        job_id = await runner.accept(SyncMode.FULL)
        lanes = await plan_sync(runner.database, runner.connectors, job_id, 1)
        runner.tracker.latency, runner.tracker.most_at_once = 0.02, 0

        ended = await runner.lane(job_id, 1, 0, lanes=lanes)

        assert lanes > 1
        assert ended.outcome == "done"
        assert runner.tracker.most_at_once == ALLOWED
