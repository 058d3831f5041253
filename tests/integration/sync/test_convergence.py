"""Whatever happens at a source and to us, in whatever order: after the last sync the mirror equals the source, and
nothing is left of what belonged to issues that are gone.

Each case is a made-up history: edits, deletions, moves, comments, time passing, syncs that are disturbed by changes at
any request, by faults and by our own death; in an eighth of them every step runs twice. `SYNC_CASES` sets how many
histories are tried per source; 500 in CI.
"""

import asyncio
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from local.trackers.service import Call, Fault, Tracker
from local.trackers.world import World
from shared.domain.job import JobState
from shared.domain.sync import SyncMode
from shared.store.database import Database
from tests.integration.sync.mirror import expected_issues, left_behind, stored_issues
from tests.support.postgres import TestDatabases
from tests.support.settings import make_settings
from tests.support.sources import SOURCES, Source, new_world
from tests.support.sync import SyncRunner, connectors_for_tests

CASES = int(os.environ.get("SYNC_CASES", "500"))  # noqa: TID251 - addressed to the tests, not to the product

EDITS = (
    "create",
    "create",
    "rename",
    "status",
    "comment",
    "edit_comment",
    "delete_comment",
    "delete",
    "delete",
    "move",
    "work",
)
SECONDS = st.sampled_from([0.4, 1, 7, 31, 59, 61, 130, 250, 300, 4_000])
EDIT = st.tuples(st.sampled_from(EDITS), st.integers(0, 1_000))
DISTURBANCE = st.one_of(
    st.tuples(st.just("edit"), st.integers(1, 12), EDIT),
    st.tuples(st.just("crash"), st.integers(1, 12), st.none()),
    st.tuples(st.just("fault"), st.integers(1, 12), st.sampled_from(["reset", "truncated", "status"])),
    # The sync fails in the middle, and nobody retries it: the next one has to read what it left.
    st.tuples(st.just("refuse"), st.integers(1, 12), st.none()),
)
STEP = st.one_of(
    st.tuples(st.just("edit"), EDIT),
    st.tuples(st.just("edit"), EDIT),
    st.tuples(st.just("pass"), SECONDS),
    st.tuples(st.just("sync"), st.lists(DISTURBANCE, max_size=3)),
    st.tuples(st.just("full"), st.lists(DISTURBANCE, max_size=1)),
)
HISTORY = st.lists(STEP, max_size=12)


class Loop:
    """An event loop with a database, shared by all cases of a source."""

    def __init__(self, url: str) -> None:
        self._runner = asyncio.Runner()
        self.database = Database(url, size=6)
        self._runner.run(self.database.open())
        self.connectors = connectors_for_tests(self.database)

    def run(self, work: Any) -> Any:
        return self._runner.run(work)

    def close(self) -> None:
        self._runner.run(self.database.close())
        self._runner.close()


@pytest.fixture(scope="module")
def loop(databases: TestDatabases) -> Iterator[Loop]:
    with databases.database() as url:
        loop = Loop(url)
        yield loop
        loop.close()


def edit(world: World, source: Source, kind: str, choice: int) -> None:  # noqa: C901 - a table of changes
    """One change at the source; which issue and which value `choice` says."""
    world.advance(0.001)
    issues = sorted(world.all_current(), key=lambda issue: issue.id)
    if kind == "create" or not issues:
        projects = list(world.projects)
        for _ in range(1 + choice % 4):
            world.create(projects[choice % len(projects)])
        return
    issue = issues[choice % len(issues)]
    match kind:
        case "rename":
            world.edit(issue.id, title=f"{issue.title} ({choice})")
        case "status":
            world.edit(issue.id, bump=source.status_bumps, status=("open", "in_progress", "done")[choice % 3])
        case "comment":
            world.comment(issue.id, f"Remark {choice}.")
        case "edit_comment" if issue.comments and source.comment_edits:
            world.edit_comment(issue.id, issue.comments[choice % len(issue.comments)].id, f"Second thought {choice}.")
        case "delete_comment" if issue.comments and source.comment_edits:
            world.delete_comment(issue.id, issue.comments[choice % len(issue.comments)].id)
        case "delete":
            world.delete(issue.id)
        case "move" if source.moves:
            others = [key for key in world.projects if key != issue.project]
            world.move(issue.id, others[choice % len(others)])
        case "work" if source.worklogs:
            world.log_work(issue.id, 60 * (1 + choice % 90))
        case _:
            pass


@dataclass
class Disturber:
    """Does things while a sync is at work, at the n-th request from its start."""

    tracker: Tracker
    source: Source
    crash: Callable[[], object]
    due: dict[int, list[tuple[str, Any]]] = field(default_factory=dict[int, list[tuple[str, Any]]])
    requests: int = 0

    def __call__(self, _call: Call) -> None:
        self.requests += 1
        for kind, value in self.due.pop(self.requests, ()):
            match kind:
                case "edit":
                    edit(self.tracker.world, self.source, *value)
                case "fault":
                    self.tracker.faults.append(Fault(kind=value, status=502))
                case "refuse":
                    self.tracker.faults.append(Fault(kind="status", status=401, body="{}"))
                case _:
                    asyncio.get_running_loop().call_soon(self.crash)


async def disturbed(runner: SyncRunner, source: Source, mode: SyncMode, disturbances: list[Any]) -> JobState | None:
    """Run a sync while things happen; one that is killed is continued by a new attempt."""
    job_id = await runner.accept(mode)
    attempt = 1
    disturber = Disturber(runner.tracker, source, crash=lambda: None)
    for kind, at, value in disturbances:
        disturber.due.setdefault(at, []).append((kind, value))
    runner.tracker.before_request = disturber
    try:
        while True:
            task = asyncio.ensure_future(runner.run(job_id, attempt))
            disturber.crash = task.cancel
            try:
                return await task
            except asyncio.CancelledError:
                attempt += 1
                await runner.execute("update jobs set attempt = %s where id = %s", attempt, job_id)
    finally:
        runner.tracker.before_request = None
        runner.tracker.faults.clear()


async def play(loop: Loop, source: Source, seed: int, history: list[Any]) -> None:
    """Play a history, then hold the mirror against the source."""
    world = new_world(source, seed=seed)
    for _ in range(seed % 10):  # so that the first walk has some pages, and what is deleted had something to lose
        made = world.create("HARBOR")
        world.comment(made.id)
        if source.worklogs:
            world.log_work(made.id)
        world.advance(7)
    async with source.tracker(world) as tracker:
        runner = SyncRunner(
            loop.database,
            make_settings(sync_slice_seconds=30),
            tracker,
            connection_settings={**source.settings, "concurrency": 1, "streams": source.streams},
            credentials=source.credentials(tracker),
            twins=seed % 8 == 0,
        )
        runner.connectors = loop.connectors
        await runner.register()
        await runner.execute("update connections set test_passed = true where slug = %s", runner.slug)
        if seed % 2:  # what happens then, happens to what is stored
            world.advance(3_600)
            assert await runner.sync() is JobState.COMPLETED
        for kind, value in history:
            match kind:
                case "edit":
                    edit(world, source, *value)
                case "pass":
                    world.advance(value)
                case "sync":
                    await disturbed(runner, source, SyncMode.INCREMENTAL, value)
                case _:
                    await disturbed(runner, source, SyncMode.FULL, value)
        world.advance(3_600)
        await hold(runner, source, world)


async def hold(runner: SyncRunner, source: Source, world: World) -> None:
    """The last two syncs: an incremental one finds every change it can see, a census what nobody tells."""
    assert await runner.sync() is JobState.COMPLETED
    stored, expected = await stored_issues(runner), expected_issues(source, world)
    if source.status_bumps and (source.comment_deletions or not source.comment_edits):
        assert {each: stored.get(each) for each in expected} == expected, "an incremental sync missed something"
    assert await runner.sync(SyncMode.CENSUS, accept_absences=True) is JobState.COMPLETED
    assert await stored_issues(runner) == expected
    assert await left_behind(runner) == []
    assert await runner.holes() == []
    if source.status_bumps:
        assert not [line for line in await runner.logs() if "were missed" in line]


@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("name", SOURCES)
def test_the_mirror_equals_the_source_after_the_last_sync(name: str, loop: Loop) -> None:
    source = SOURCES[name]

    @settings(
        max_examples=max(CASES // 5, 1) if source.variant else CASES,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(st.integers(0, 50), HISTORY)
    def case(seed: int, history: list[Any]) -> None:
        with source.small_pages():
            loop.run(play(loop, source, seed, history))

    case()
