"""A webhook is a hint: what it names is read again by the write path of every sync, and losing one costs time only."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest

from local.trackers.service import Fault
from local.trackers.world import Issue, World
from shared.blobs import Blobs
from shared.connectors import connectors
from shared.domain.errors import ConflictError, NotAuthenticatedError, NotFoundError, UnavailableError
from shared.domain.job import JobState, Turn
from shared.domain.sync import SyncMode
from shared.services.accept_delivery import Taken, accept_delivery
from shared.services.announce_retry import announce_wait
from shared.services.clean_up import clean_up
from shared.services.control_jobs import cancel_job
from shared.services.dispatch_jobs import dispatch
from shared.services.manage_connections import ConnectionChange, change_connection
from shared.services.run_schedules import pause_schedule, resume_schedule, start_due_syncs
from shared.services.take_up_deliveries import MOST_TRIES, take_up_deliveries
from shared.services.watch_connections import list_health
from shared.services.watch_webhooks import list_deliveries, list_webhooks, replay_delivery
from tests.integration.sync.conftest import Connect
from tests.integration.sync.mirror import expected_issues, left_behind, stored_issues
from tests.support.pipeline import RecordingPurge
from tests.support.settings import make_settings
from tests.support.sources import SOURCES, new_world
from tests.support.sync import OPERATOR, SyncRunner, connectors_for_tests
from tests.support.webhooks import SECRET, call_of, payload_of

HOUR = 3_600
ALL = sorted(connectors())
NAMES = {name: name if name in SOURCES else next(each for each in SOURCES if each.startswith(name)) for name in ALL}
every_source = pytest.mark.parametrize("source", ALL)


def world_with(issues: int, source: str = "jira") -> World:
    world = new_world(SOURCES[NAMES[source]])
    for _ in range(issues):
        world.advance(5)
        world.create("HARBOR")
    world.advance(HOUR)
    return world


@asynccontextmanager
async def hooked(connected: Connect, world: World, source: str = "jira", **settings: Any) -> AsyncIterator[SyncRunner]:
    """A connection that has been read once, and whose webhooks have a secret."""
    async with connected(NAMES[source], world, **settings) as runner:
        change = ConnectionChange(credentials={"webhook_secret": SECRET})
        await change_connection(runner.database, runner.connectors.sealer, OPERATOR, runner.slug, change)
        assert await runner.sync(SyncMode.FULL) is JobState.COMPLETED
        yield runner


async def deliver(runner: SyncRunner, issue: Issue, *, delivery: str | None = None, known: bool = True) -> Taken:
    """What the tracker sends of an issue, stored."""
    source = SOURCES[NAMES[runner.tracker.source]]
    found = await runner.fetch(
        "select external_id, key, scope from issues where import_source = %s and external_id = %s",
        runner.slug,
        source.external_id(issue),
    )
    names = found[0] if known else {"external_id": source.external_id(issue), "key": issue.key, "scope": None}
    call = call_of(runner.tracker.source, payload_of(runner.tracker.source, **names), delivery=delivery)
    return await accept_delivery(runner.database, runner.connectors, runner.slug, call, now=datetime.now(UTC))


async def act(runner: SyncRunner, *, now: datetime | None = None) -> list[JobState | None]:
    """Take up what waits and run it, until nothing is left; returns how each job ended."""
    ended: list[JobState | None] = []
    turns: list[Turn] = []

    async def start(turn: Turn) -> None:
        turns.append(turn)

    while True:
        await take_up_deliveries(runner.database, now=now or datetime.now(UTC))
        await dispatch(runner.database, start, concurrency=3)
        if not turns:
            return ended
        turn = turns.pop()
        runner.last_job = turn.job_id
        ended.append(await runner.run(turn.job_id, turn.attempt))


async def statuses(runner: SyncRunner) -> list[tuple[str, str | None]]:
    rows = await runner.fetch("select status, error from webhook_deliveries order by received_at, delivery_id")
    return [(row["status"], row["error"]) for row in rows]


async def titles(runner: SyncRunner) -> set[str]:
    rows = await runner.fetch("select title from issues where import_source = %s and deleted_at is null", runner.slug)
    return {row["title"] for row in rows}


@every_source
async def test_an_edit_and_a_deletion_arrive_without_a_poll(connected: Connect, source: str) -> None:
    world = world_with(4, source)
    world.comment(world.all_current()[1].id)
    world.advance(HOUR)
    async with hooked(connected, world, source) as runner:
        edited, deleted, *_ = world.all_current()
        windows = await runner.fetch("select id, state, hi from sync_windows order by id")
        world.edit(edited.id, title="Came by webhook")
        world.delete(deleted.id)
        for issue in (edited, deleted):
            assert not (await deliver(runner, issue)).repeated

        assert await act(runner) == [JobState.COMPLETED]

        wanted = {each: row["title"] for each, row in expected_issues(SOURCES[NAMES[source]], world).items()}
        assert {each: row["title"] for each, row in (await stored_issues(runner)).items()} == wanted
        assert await statuses(runner) == [("done", None)] * 2
        assert await runner.fetch("select id, state, hi from sync_windows order by id") == windows
        (gone,) = await runner.fetch("select absence from issues where deleted_at is not null")
        assert gone["absence"] in {"deleted", "deleted_or_hidden"}
        assert await left_behind(runner) == []


@every_source
async def test_what_a_webhook_brought_is_no_news_to_the_next_poll(connected: Connect, source: str) -> None:
    world = world_with(3, source)
    async with hooked(connected, world, source) as runner:
        issue = world.edit(world.all_current()[0].id, title="Came by webhook")
        await deliver(runner, issue)
        assert await act(runner) == [JobState.COMPLETED]
        world.advance(HOUR)

        assert await runner.sync() is JobState.COMPLETED

        parts = await runner.fetch("select counts from sync_parts where job_id = %s", runner.last_job)
        counts = [part["counts"]["issues"] for part in parts if "issues" in part["counts"]]
        assert sum(count["unchanged"] for count in counts) >= 1
        assert not any(count["updated"] or count["created"] for count in counts)


async def test_a_new_issue_comes_and_a_webhook_of_a_deletion_is_not_believed_by_itself(connected: Connect) -> None:
    world = world_with(2)
    async with hooked(connected, world) as runner:
        alive = world.all_current()[0]
        created = world.create("HARBOR", title="Brand new")
        await deliver(runner, created, known=False)
        payload = {"webhookEvent": "jira:issue_deleted", "issue": {"id": str(alive.id), "key": alive.key}}
        await accept_delivery(
            runner.database, runner.connectors, runner.slug, call_of("jira", payload), now=datetime.now(UTC)
        )

        assert await act(runner) == [JobState.COMPLETED]

        assert "Brand new" in await titles(runner)
        assert len(await titles(runner)) == 3


@every_source
async def test_an_issue_of_another_project_is_not_brought(connected: Connect, source: str) -> None:
    async with hooked(connected, world_with(1, source), source) as runner:
        scope = "sc_task" if source == "servicenow" else "99999"
        elsewhere = {"external_id": "99999", "key": "elsewhere/else#1", "scope": scope}
        call = call_of(source, payload_of(source, **elsewhere))
        await accept_delivery(runner.database, runner.connectors, runner.slug, call, now=datetime.now(UTC))

        assert await act(runner) == [JobState.COMPLETED]

        assert await statuses(runner) == [("done", None)]
        assert len(await titles(runner)) == 1
        assert await runner.fetch("select scope from coverage_gaps") == []


async def test_where_a_filter_chooses_only_known_issues_are_asked_for(connected: Connect) -> None:
    world = world_with(1)
    async with hooked(connected, world, jql="labels = never OR created > 0") as runner:
        world.create("HARBOR", title="May not be wanted")
        await deliver(runner, world.all_current()[-1], known=False)

        assert await act(runner) == [JobState.COMPLETED]

        assert "May not be wanted" not in await titles(runner)


async def test_a_delivery_that_comes_again_is_acted_upon_once(connected: Connect) -> None:
    world = world_with(2)
    async with hooked(connected, world) as runner:
        issue = world.all_current()[0]
        first = await deliver(runner, issue, delivery="d-1")
        second = await deliver(runner, issue, delivery="d-1")
        assert (first.repeated, second.repeated) == (False, True)
        assert await act(runner) == [JobState.COMPLETED]

        assert (await deliver(runner, issue, delivery="d-1")).repeated

        assert await act(runner) == []
        (row,) = await runner.fetch("select repeats, attempts from webhook_deliveries")
        assert row == {"repeats": 2, "attempts": 1}


async def test_older_news_that_come_late_change_nothing(connected: Connect) -> None:
    world = world_with(1)
    async with hooked(connected, world) as runner:
        issue = world.all_current()[0]
        for title in ("second", "third"):
            world.advance(60)
            world.edit(issue.id, title=title)
        await deliver(runner, issue)
        await act(runner)
        await deliver(runner, issue)  # of the edit before, overtaken on its way

        assert await act(runner) == [JobState.COMPLETED]

        assert await titles(runner) == {"third"}
        changes = await runner.fetch("select 1 from issue_changes where import_source = %s", runner.slug)
        assert len(changes) == 1, "reading the same again is no change"


async def test_a_burst_becomes_a_few_jobs_and_each_issue_is_asked_for_once(connected: Connect) -> None:
    world = world_with(10)
    async with hooked(connected, world) as runner:
        runner.tracker.calls.clear()
        for number in range(500):
            await deliver(runner, world.all_current()[number % 10])
            if number in {0, 250}:
                await take_up_deliveries(runner.database, now=datetime.now(UTC))

        assert await act(runner) == [JobState.COMPLETED] * 2

        assert {status for status, _ in await statuses(runner)} == {"done"}
        assert runner.tracker.count("/bulkfetch") == 2, "one issue, then the other deliveries together"


async def test_deliveries_wait_for_the_job_before_them_and_for_no_other(connected: Connect) -> None:
    world = world_with(2)
    async with hooked(connected, world) as runner:
        await runner.accept()  # a sync that runs for hours
        first, second = world.all_current()
        await deliver(runner, first)
        assert await take_up_deliveries(runner.database, now=datetime.now(UTC)) == 1
        turns: list[Turn] = []

        async def start(turn: Turn) -> None:
            turns.append(turn)

        await dispatch(runner.database, start, concurrency=3)
        (turn,) = turns
        await deliver(runner, second)
        assert await take_up_deliveries(runner.database, now=datetime.now(UTC)) == 0
        assert [status for status, _ in await statuses(runner)] == ["processing", "pending"]
        await runner.run(turn.job_id, turn.attempt)

        assert await act(runner) == [JobState.COMPLETED]
        assert await statuses(runner) == [("done", None)] * 2


async def test_webhooks_keep_no_poll_from_its_turn(connected: Connect) -> None:
    world = world_with(1)
    async with hooked(connected, world) as runner:
        await deliver(runner, world.all_current()[0])
        assert await take_up_deliveries(runner.database, now=datetime.now(UTC)) == 1
        await runner.execute("update schedules set next_run_at = now() - interval '1 minute'")
        assert await start_due_syncs(runner.database, now=datetime.now(UTC)) == 1
        turns: list[Turn] = []

        async def start(turn: Turn) -> None:
            turns.append(turn)

        assert await dispatch(runner.database, start, concurrency=3) == 2


async def test_a_source_that_says_later_holds_up_the_webhooks_of_no_other(connected: Connect) -> None:
    async with (
        hooked(connected, world_with(1)) as limited,
        hooked(connected, world_with(1, "gitlab"), "gitlab") as other,
    ):
        await deliver(limited, limited.tracker.world.all_current()[0])
        await take_up_deliveries(limited.database, now=datetime.now(UTC))
        turns: list[Turn] = []

        async def start(turn: Turn) -> None:
            turns.append(turn)

        await dispatch(limited.database, start, concurrency=3)
        await announce_wait(limited.database, turns[0].job_id, until=datetime.now(UTC) + timedelta(hours=1))
        await deliver(other, other.tracker.world.all_current()[0])

        assert await act(other) == [JobState.COMPLETED]


async def test_a_failed_job_leaves_its_deliveries_to_be_tried_again_and_then_to_a_person(connected: Connect) -> None:
    world = world_with(1)
    async with hooked(connected, world) as runner:
        issue = world.all_current()[0]
        world.edit(issue.id, title="At last")
        taken = await deliver(runner, issue)
        refusal = Fault(kind="status", status=400, body='{"errorMessages": ["No."]}', path="/bulkfetch", times=99)
        runner.tracker.faults.append(refusal)
        now = datetime.now(UTC)
        for tried in range(1, MOST_TRIES + 1):
            assert await act(runner, now=now) == [JobState.FAILED]
            (status, error), *_ = await statuses(runner)
            assert status == ("pending" if tried < MOST_TRIES else "failed")
            assert error
            assert await act(runner, now=now) == [], "tried again at once"
            now += timedelta(minutes=6)
        runner.tracker.faults.clear()
        (schedule,) = await runner.fetch("select failures, rung, paused from schedules")
        assert schedule == {"failures": 0, "rung": 0, "paused": False}, "a few issues slowed the whole schedule down"

        identity = taken.delivery.delivery_id
        assert (await replay_delivery(runner.database, OPERATOR, runner.slug, identity)).status == "pending"
        assert await act(runner) == [JobState.COMPLETED]

        assert await titles(runner) == {"At last"}
        assert await statuses(runner) == [("done", None)]
        with pytest.raises(ConflictError):
            await replay_delivery(runner.database, OPERATOR, runner.slug, identity)
        with pytest.raises(NotFoundError):
            await replay_delivery(runner.database, OPERATOR, runner.slug, "unknown")


async def test_an_issue_that_cannot_be_read_does_not_spoil_the_others_for_ever(connected: Connect) -> None:
    world = world_with(2, "github")
    async with hooked(connected, world, "github") as runner:
        broken, sound = world.all_current()
        for issue in (broken, sound):
            world.edit(issue.id, title="Edited")
            await deliver(runner, issue, delivery=f"d-{issue.number}")
        path = f"/issues/{broken.number}"
        runner.tracker.faults.append(Fault(kind="status", status=400, body="{}", path=path, times=99))

        assert await act(runner) == [JobState.FAILED]
        assert await act(runner, now=datetime.now(UTC) + timedelta(minutes=2)) == [JobState.FAILED]

        assert [status for status, _ in await statuses(runner)] == ["pending", "done"]
        assert "Edited" in await titles(runner)


async def test_deliveries_that_come_at_the_same_time_are_taken_up_once(connected: Connect) -> None:
    world = world_with(4)
    async with hooked(connected, world) as runner:

        async def one(number: int) -> bool:
            taken = await deliver(runner, world.all_current()[number % 4], delivery=f"d-{number % 10}")
            await take_up_deliveries(runner.database, now=datetime.now(UTC), connection_id=taken.delivery.connection_id)
            return taken.repeated

        repeated = await asyncio.gather(*(one(number) for number in range(40)))

        assert sum(repeated) == 30
        queued = await runner.fetch("select id from jobs where requested_by = 'webhook'")
        assert len(queued) == 1
        assert set(await act(runner)) == {JobState.COMPLETED}
        assert await runner.fetch("select attempts from webhook_deliveries where attempts <> 1") == []
        assert await statuses(runner) == [("done", None)] * 10


async def test_what_somebody_cancels_is_not_tried_again_by_itself(connected: Connect) -> None:
    world = world_with(1)
    async with hooked(connected, world) as runner:
        await deliver(runner, world.all_current()[0])
        await take_up_deliveries(runner.database, now=datetime.now(UTC))
        (job,) = await runner.fetch("select id from jobs where requested_by = 'webhook'")
        await cancel_job(runner.database, OPERATOR, job["id"])

        assert await act(runner) == []

        assert [status for status, _ in await statuses(runner)] == ["failed"]


async def test_a_paused_connection_stores_and_acts_when_it_is_resumed(connected: Connect) -> None:
    world = world_with(1)
    async with hooked(connected, world) as runner:
        issue = world.all_current()[0]
        world.edit(issue.id, title="During the pause")
        await pause_schedule(runner.database, OPERATOR, runner.slug)
        await deliver(runner, issue)
        assert await act(runner) == []
        (told,) = await list_webhooks(runner.database, base_url="https://tributary.example")
        assert (told.waiting, told.address) == (1, f"https://tributary.example/api/webhooks/{runner.slug}")
        assert "resume" in (told.advice or "")
        await resume_schedule(runner.database, OPERATOR, runner.slug, now=datetime.now(UTC))

        assert await act(runner) == [JobState.COMPLETED]

        assert await titles(runner) == {"During the pause"}


async def test_a_refused_log_in_pauses_and_the_deliveries_wait(connected: Connect) -> None:
    world = world_with(1)
    async with hooked(connected, world) as runner:
        await deliver(runner, world.all_current()[0])
        runner.tracker.expired = True

        assert await act(runner) == [JobState.FAILED]

        (schedule,) = await runner.fetch("select paused, failure_class from schedules")
        assert schedule["paused"]
        runner.tracker.expired = False
        await resume_schedule(runner.database, OPERATOR, runner.slug, now=datetime.now(UTC))
        assert await act(runner, now=datetime.now(UTC) + timedelta(minutes=2)) == [JobState.COMPLETED]


async def test_a_lost_delivery_is_brought_by_the_next_incremental(connected: Connect) -> None:
    world = world_with(3)
    async with hooked(connected, world) as runner:
        first, lost, _ = world.all_current()
        world.advance(60)
        world.edit(first.id, title="told")
        world.edit(lost.id, title="not told")
        await deliver(runner, first)
        await act(runner)
        assert "not told" not in await titles(runner)
        world.advance(HOUR)

        assert await runner.sync() is JobState.COMPLETED

        assert {"told", "not told"} <= await titles(runner)
        assert await runner.holes() == []


async def test_a_webhook_proves_nothing_about_the_rest(connected: Connect) -> None:
    world = world_with(1)
    async with hooked(connected, world) as runner:
        (before,) = await list_health(runner.database, runner.connectors.sealer, now=datetime.now(UTC))
        await deliver(runner, world.all_current()[0])
        await act(runner)

        (after,) = await list_health(runner.database, runner.connectors.sealer, now=datetime.now(UTC))

        assert after.last_success_at == before.last_success_at


async def test_a_forged_call_is_counted_and_nothing_of_it_is_kept(connected: Connect) -> None:
    world = world_with(1)
    async with hooked(connected, world) as runner:
        call = call_of("jira", {"webhookEvent": "jira:issue_updated", "secret": "kept?"}, secret="not the secret")
        for slug in (runner.slug, "nobody", "\x00"):
            with pytest.raises(NotAuthenticatedError) as refused:
                await accept_delivery(runner.database, runner.connectors, slug, call, now=datetime.now(UTC))
            assert refused.value.detail == "This delivery is not accepted"
        change = ConnectionChange(credentials={"webhook_secret": None})
        await change_connection(runner.database, runner.connectors.sealer, OPERATOR, runner.slug, change)
        with pytest.raises(NotAuthenticatedError):
            await deliver(runner, world.all_current()[0])

        assert await statuses(runner) == []
        (told,) = await list_webhooks(runner.database, base_url="")
        assert (told.refused, told.has_secret) == (2, False)
        assert told.refused_why == "The connection has no webhook_secret"


async def test_a_new_secret_needs_no_new_test_and_is_shown_nowhere(connected: Connect) -> None:
    async with hooked(connected, world_with(1)) as runner:
        await deliver(runner, runner.tracker.world.all_current()[0])

        (stored,) = await runner.fetch("select test_passed, credentials from connections")
        dumped = ""
        for table in ("connections", "webhook_deliveries", "webhook_refusals", "audit_log", "jobs", "sync_logs"):
            rows = await runner.fetch(f"select to_jsonb(t) as row from {table} t")
            dumped += orjson.dumps(rows).decode()

        assert stored["test_passed"]
        assert SECRET not in dumped
        assert "sha256=" not in dumped, "a signature was kept"


async def test_an_event_without_an_issue_and_a_body_without_sense_are_stored_with_the_reason(
    connected: Connect,
) -> None:
    async with hooked(connected, world_with(1)) as runner:
        for payload in ({"webhookEvent": "board_created"}, b"{ not json"):
            call = call_of("jira", payload)
            await accept_delivery(runner.database, runner.connectors, runner.slug, call, now=datetime.now(UTC))

        assert await act(runner) == []

        (ignored, why), (failed, error) = await statuses(runner)
        assert (ignored, failed) == ("ignored", "failed")
        assert why == "It is about no issue"
        assert "makes no sense" in (error or "")
        failed_ones = await list_deliveries(runner.database, runner.slug, status="failed", before=None, limit=10)
        with pytest.raises(ConflictError):
            await replay_delivery(runner.database, OPERATOR, runner.slug, failed_ones[0].delivery_id)


async def test_a_lost_master_key_is_our_fault_and_told_as_such(connected: Connect) -> None:
    world = world_with(1)
    async with hooked(connected, world) as runner:
        other = "other:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
        runner.connectors = connectors_for_tests(runner.database, other)

        with pytest.raises(UnavailableError):
            await deliver(runner, world.all_current()[0])


async def test_deliveries_are_kept_for_thirty_days_and_no_longer_than_payloads(
    connected: Connect, blobs: Blobs
) -> None:
    async with hooked(connected, world_with(1)) as runner:
        for age in (31, 29, 3):
            taken = await deliver(runner, runner.tracker.world.all_current()[0], delivery=f"d-{age}")
            moment = datetime.now(UTC) - timedelta(days=age)
            await runner.execute(
                "update webhook_deliveries set received_at = %s where delivery_id = %s",
                moment,
                taken.delivery.delivery_id,
            )
        settings = make_settings()

        await clean_up(runner.database, blobs, settings, RecordingPurge(), now=datetime.now(UTC))
        kept = await runner.fetch("select delivery_id from webhook_deliveries order by delivery_id")
        await runner.execute("""update connections set settings = settings || '{"payload_days": 7}'""")
        await clean_up(runner.database, blobs, settings, RecordingPurge(), now=datetime.now(UTC))

        assert [row["delivery_id"] for row in kept] == ["d-29", "d-3"]
        left = await runner.fetch("select delivery_id from webhook_deliveries")
        assert [row["delivery_id"] for row in left] == ["d-3"]


@pytest.mark.parametrize("deleted", [False, True])
async def test_a_list_that_lags_behind_a_webhook_shows_no_miss(connected: Connect, deleted: bool) -> None:
    world = world_with(3)
    async with hooked(connected, world, index_lag_seconds=0) as runner:
        issue = world.all_current()[0]
        if deleted:
            world.delete(issue.id)
        else:
            world.edit(issue.id, title="Told by a webhook")
        await deliver(runner, issue)
        assert await act(runner) == [JobState.COMPLETED]
        world.index_lag = timedelta(minutes=5)
        world.advance(60)

        assert await runner.sync(SyncMode.FULL) is JobState.COMPLETED

        assert [line for line in await runner.logs() if "missed" in line] == []
        assert await stored_issues(runner) == expected_issues(SOURCES["jira"], world)
