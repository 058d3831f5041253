"""Connections that somebody authorized once go on for months: refresh tokens that are taken once, by many workers."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from local.trackers._oauth import RefreshTokens
from local.trackers.gitlab import GitLabTracker
from local.trackers.jira import JiraTracker
from local.trackers.service import Call, Fault
from local.trackers.world import World
from shared.connectors._protocol import Connector
from shared.domain.errors import DatabaseUnavailableError, SourceError, Trouble
from shared.domain.job import JobState
from shared.domain.sync import SyncMode
from shared.services.manage_connections import ConnectionChange, change_connection, find_view
from shared.services.open_connector import open_credentials
from shared.services.probe_connection import probe_connection
from shared.services.rotate_credentials import rotate_credentials
from shared.services.run_schedules import resume_schedule
from shared.store import connections, leases
from shared.store.connections import StoredConnection
from shared.store.database import Database
from tests.integration.sync.mirror import expected_issues, stored_issues
from tests.support.settings import make_settings
from tests.support.sources import SOURCES, new_world
from tests.support.sync import OPERATOR, TEST_KEY, SyncRunner, connectors_for_tests

HOUR = 3_600
BOTH = pytest.mark.parametrize("name", ["jira", "gitlab"])
TOKEN = "/oauth/token"


@dataclass
class Authorized:
    """A connection that somebody authorized."""

    runner: SyncRunner
    tracker: JiraTracker | GitLabTracker

    @property
    def tokens(self) -> RefreshTokens:
        return self.tracker.refresh_tokens

    def asked(self) -> int:
        """How often a token was asked for."""
        return sum(call.path == TOKEN for call in self.tracker.calls)

    async def stored(self) -> StoredConnection:
        async with self.runner.database.connection() as connection:
            found = await connections.find_connection(connection, self.runner.slug)
        assert found is not None
        return found

    async def connector(self, database: Database | None = None) -> Connector:
        """A connector of another worker, or of this one."""
        made = connectors_for_tests(database) if database else self.runner.connectors
        return await made.untracked(await self.stored())

    async def refresh_token(self) -> str:
        return open_credentials(self.runner.connectors.sealer, await self.stored())["refresh_token"]

    async def schedule(self) -> dict[str, Any]:
        return (await self.runner.fetch("select * from schedules"))[0]

    async def patch(self, **change: Any) -> None:
        sealer = self.runner.connectors.sealer
        await change_connection(
            self.runner.database, sealer, OPERATOR, self.runner.slug, ConnectionChange.model_validate(change)
        )


class Authorize:
    """`async with authorize("jira") as held`: a tested connection to a tracker with twelve issues."""

    def __init__(self, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        self._database = database
        self._patch = monkeypatch

    @asynccontextmanager
    async def __call__(self, name: str) -> AsyncIterator[Authorized]:
        source, world = SOURCES[name], world_with(12, name)
        tracker = source.tracker(world)
        assert isinstance(tracker, JiraTracker | GitLabTracker)
        async with tracker:
            self._patch.setattr("shared.connectors._jira_login.ATLASSIAN", tracker.url)
            self._patch.setattr("shared.connectors._jira_login.ATLASSIAN_API", tracker.url)
            runner = SyncRunner(
                self._database,
                make_settings(sync_part_tries=2),
                tracker,
                connection_settings={"streams": source.streams, "concurrency": 1},
                credentials=tracker.authorize(),
            )
            probe = await runner.connect()
            assert probe.passed, probe.error
            assert probe.account
            assert probe.expires_at is None, "nobody has to know when a token ends that is renewed"
            yield Authorized(runner, tracker)


@pytest.fixture
def authorize(database: Database, monkeypatch: pytest.MonkeyPatch) -> Authorize:
    return Authorize(database, monkeypatch)


@pytest.fixture
async def elsewhere(database_url: str) -> AsyncIterator[Database]:
    """The database, as another process has it."""
    database = Database(database_url)
    await database.open()
    yield database
    await database.close()


def world_with(issues: int, name: str) -> World:
    world = new_world(SOURCES[name])
    for _ in range(issues):
        world.advance(5)
        world.comment(world.create("HARBOR").id)
    world.advance(HOUR)
    return world


@BOTH
async def test_a_connection_goes_on_through_many_renewals(authorize: Authorize, name: str) -> None:
    async with authorize(name) as held:
        before, audit = await held.stored(), "select * from audit_log where action not like 'job.%%'"
        done = await held.runner.fetch(audit)
        seen = {await held.refresh_token()}
        for _ in range(4):
            held.tracker.world.advance(3 * HOUR)
            held.tracker.world.create("HARBOR")
            held.tracker.world.advance(HOUR)
            assert await held.runner.sync() is JobState.COMPLETED
            seen.add(await held.refresh_token())

        after = await held.stored()
        assert len(seen) == 5
        assert held.tokens.taken == held.asked() == 5
        assert await stored_issues(held.runner) == expected_issues(SOURCES[name], held.tracker.world)
        # To people nothing happened: no change, no other test, nothing in the audit log.
        kept = {"version", "updated_at", "test_passed", "tested_at", "settings", "active"}
        assert after.model_dump(include=kept) == before.model_dump(include=kept)
        assert await held.runner.fetch(audit) == done
        assert (await held.schedule())["paused"] is False


@BOTH
async def test_of_workers_that_need_a_token_at_once_one_asks(
    authorize: Authorize, elsewhere: Database, name: str
) -> None:
    async with authorize(name) as held:
        workers = [await held.connector(database) for database in (None, elsewhere, elsewhere, None)]
        await asyncio.gather(*(worker.now() for worker in workers))
        assert held.asked() == 1, "a worker that has no token yet asked although one is stored"
        held.tokens.expire()
        held.tracker.latency = 0.05

        await asyncio.gather(*(worker.now() for worker in workers))

        assert held.asked() == 2
        await asyncio.gather(*(worker.now() for worker in workers))
        assert held.asked() == 2


@BOTH
async def test_a_token_is_renewed_before_it_ends(authorize: Authorize, name: str) -> None:
    async with authorize(name) as held:
        held.tokens.seconds = 0.001
        held.tokens.expire()
        connector = await held.connector()
        await connector.now()
        asked, refused = held.asked(), len(held.tracker.calls)

        await connector.now()
        await connector.now()

        assert held.asked() == asked + 2
        assert len(held.tracker.calls) == refused + 4, "the tracker had to refuse a token first"


@BOTH
async def test_a_token_that_ends_in_mid_page_costs_nothing(authorize: Authorize, name: str) -> None:
    async with authorize(name) as held:
        pages = 0

        def end_it(call: Call) -> None:
            nonlocal pages
            pages += "/search/jql" in call.path or call.path.endswith("/notes")
            if pages in {2, 5}:
                pages += 1
                held.tokens.expire()

        with SOURCES[name].small_pages():
            held.tracker.before_request = end_it
            assert await held.runner.sync(SyncMode.FULL) is JobState.COMPLETED

        assert pages > 5
        assert held.asked() == 3
        assert await stored_issues(held.runner) == expected_issues(SOURCES[name], held.tracker.world)
        assert await held.runner.holes() == []
        assert await held.runner.fetch("select * from coverage_gaps") == []


@BOTH
async def test_a_refused_refresh_token_pauses_the_schedule_until_somebody_connects_again(
    authorize: Authorize, name: str
) -> None:
    async with authorize(name) as held:
        held.tokens.end()

        assert await held.runner.sync() is JobState.FAILED

        schedule = await held.schedule()
        assert schedule["paused"]
        assert "AUTH_EXPIRED" in schedule["paused_reason"]
        assert "authorized again" in schedule["paused_reason"]
        tested = await probe_connection(held.runner.database, held.runner.connectors, OPERATOR, held.runner.slug)
        assert tested.error is not None
        assert tested.error.code == "AUTH_EXPIRED"
        assert "save the new refresh token" in tested.error.advice

        await held.patch(credentials={"refresh_token": held.tokens.authorize()})
        again = await probe_connection(held.runner.database, held.runner.connectors, OPERATOR, held.runner.slug)
        await resume_schedule(held.runner.database, OPERATOR, held.runner.slug, now=held.tracker.world.now)
        assert again.passed
        assert await held.runner.sync() is JobState.COMPLETED


async def test_a_parallel_sync_refused_in_the_middle_stops_and_asks_no_more(authorize: Authorize) -> None:
    async with authorize("gitlab") as held:
        held.tracker.before_request = lambda call: held.tokens.end() if call.path.endswith("/notes") else None

        assert await held.runner.sync(SyncMode.FULL) is JobState.FAILED

        error = (await held.runner.fetch("select error from jobs"))[0]["error"]
        assert error["code"] == "AUTH_EXPIRED"
        assert held.asked() <= 1 + 2 * 2, "every walker asks once"


def broken_store(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Let the next lease be lost on its way to the database."""
    save = leases.save_lease

    async def fail(*_: Any, **__: Any) -> None:
        monkeypatch.setattr(leases, "save_lease", save)
        raise error

    monkeypatch.setattr(leases, "save_lease", fail)


@pytest.mark.parametrize(
    ("name", "minutes", "ends"),
    [("jira", 5, JobState.COMPLETED), ("jira", 11, JobState.FAILED), ("gitlab", 0, JobState.FAILED)],
)
async def test_a_worker_killed_between_answer_and_commit(
    authorize: Authorize,
    elsewhere: Database,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    minutes: int,
    ends: JobState,
) -> None:
    """Atlassian takes a token again for ten minutes. Elsewhere the answer is gone, and people are told what to do."""
    async with authorize(name) as held:
        held.tokens.expire()
        broken_store(monkeypatch, SystemError("killed"))
        with pytest.raises(SystemError):
            await (await held.connector()).now()
        held.tracker.world.advance(60 * minutes)

        # Another worker knows nothing of the answer.
        held.runner.connectors = connectors_for_tests(elsewhere)
        assert await held.runner.sync() is ends

        schedule = await held.schedule()
        assert schedule["paused"] is (ends is JobState.FAILED)
        assert ends is JobState.COMPLETED or "authorized again" in schedule["paused_reason"]


@BOTH
async def test_a_database_that_fails_after_the_answer_costs_nothing(
    authorize: Authorize, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    async with authorize(name) as held:
        held.tokens.expire()
        broken_store(monkeypatch, DatabaseUnavailableError())
        with pytest.raises(DatabaseUnavailableError):
            await (await held.connector()).now()
        asked, before = held.asked(), await held.refresh_token()

        await (await held.connector()).now()

        assert held.asked() == asked, "the refresh token was taken twice"
        assert await held.refresh_token() != before


@BOTH
async def test_an_answer_that_is_cut_off_is_told_as_what_it_led_to(authorize: Authorize, name: str) -> None:
    async with authorize(name) as held:
        held.tokens.expire()
        held.tracker.faults.append(Fault(kind="truncated", path=TOKEN))

        state = await held.runner.sync()

        # Asked again at once: Atlassian answers, GitLab has taken the token already.
        assert state is (JobState.COMPLETED if name == "jira" else JobState.FAILED)


@pytest.mark.parametrize("kind", ["status", "reset", "maintenance"])
async def test_a_log_in_server_that_fails_pauses_nothing(authorize: Authorize, kind: str) -> None:
    async with authorize("gitlab") as held:
        held.tokens.expire()
        held.tracker.faults.append(Fault(kind=kind, path=TOKEN, times=99))
        assert await held.runner.sync() is JobState.FAILED
        assert (await held.schedule())["paused"] is False
        held.tracker.faults.clear()

        assert await held.runner.sync() is JobState.COMPLETED


async def test_a_caller_that_is_called_off_loses_no_token(authorize: Authorize) -> None:
    async with authorize("gitlab") as held:
        held.tokens.expire()
        before, connector = await held.refresh_token(), await held.connector()
        asked = asyncio.Event()
        held.tracker.before_request = lambda call: asked.set() if call.path == TOKEN else None
        held.tracker.latency = 0.05
        reading = asyncio.create_task(connector.now())
        await asked.wait()
        reading.cancel()
        with suppress(asyncio.CancelledError):
            await reading

        await connector.now()

        assert held.asked() == 2
        assert await held.refresh_token() != before


async def test_while_the_tracker_is_asked_only_the_connection_waits(authorize: Authorize, database_url: str) -> None:
    async with authorize("gitlab") as held:
        held.tokens.expire()
        connection_id = (await held.stored()).id
        locked: list[bool] = []

        def look(call: Call) -> None:
            if call.path != TOKEN:
                return
            with psycopg.connect(database_url, autocommit=True, options="-c lock_timeout=1s") as other:
                # What a page writes refers to its connection, and must not wait.
                other.execute(
                    "insert into sync_logs (connection_id, level, message) values (%s, 'info', 'x')", (connection_id,)
                )
                found = other.execute("select id from connections for update skip locked").fetchall()
                locked.append(not found)

        held.tracker.before_request = look
        await (await held.connector()).now()

        assert locked == [True]


async def test_credentials_that_somebody_saves_win_over_what_was_renewed(
    authorize: Authorize, elsewhere: Database
) -> None:
    async with authorize("gitlab") as held:
        working = await held.connector(elsewhere)
        await working.now()
        held.tokens.end()
        new, asked = held.tokens.authorize(), held.asked()
        await held.patch(credentials={"refresh_token": new})

        assert (await held.stored()).lease is None
        assert (await held.stored()).test_passed is None
        await (await held.connector()).now()
        assert held.asked() == asked + 1, "the access token of the former authorization was used"
        assert family_of(await held.refresh_token()) == family_of(new)

        # A worker in the middle of a sync, which was made with the former ones.
        await working.now()
        assert held.asked() == asked + 1
        held.tokens.expire()
        await working.now()
        assert family_of(await held.refresh_token()) == family_of(new)


def family_of(refresh_token: str) -> str:
    """Which authorization a token of a simulated tracker came from."""
    return refresh_token.split("-")[1]


async def test_credentials_saved_while_a_token_is_renewed_stay(authorize: Authorize) -> None:
    async with authorize("gitlab") as held:
        held.tokens.expire()
        patches: list[asyncio.Task[None]] = []
        new = held.tokens.authorize()

        def patch(call: Call) -> None:
            if call.path == TOKEN:
                patches.append(asyncio.create_task(held.patch(credentials={"refresh_token": new})))

        held.tracker.before_request, held.tracker.latency = patch, 0.05
        await (await held.connector()).now()
        await asyncio.gather(*patches)

        assert await held.refresh_token() == new
        assert (await held.stored()).lease is None


async def test_other_credentials_stay_beside_the_renewed_one(authorize: Authorize) -> None:
    async with authorize("gitlab") as held:
        renewed = await held.refresh_token()
        await held.patch(credentials={"webhook_secret": "a secret of webhooks"})
        assert (await held.stored()).lease is not None, "the tracker never sees it"
        assert (await held.stored()).test_passed
        await held.patch(credentials={"client_secret": held.tracker.authorize()["client_secret"]})

        assert await held.refresh_token() == renewed
        assert await (await held.connector()).now()


async def test_new_secrets_are_not_sent_to_the_address_before(authorize: Authorize) -> None:
    async with authorize("gitlab") as held:
        working = await held.connector()
        await working.now()
        held.tokens.expire()
        asked = held.asked()
        other = {"client_id": "a", "client_secret": "new-secret", "refresh_token": "new-token"}
        await held.patch(base_url="https://elsewhere.example", credentials=other)

        with pytest.raises(SourceError, match="replaced meanwhile") as refused:
            await working.now()

        assert refused.value.trouble is Trouble.AUTH_EXPIRED
        assert held.asked() == asked


async def test_a_rotated_master_key_wraps_what_was_renewed(authorize: Authorize, elsewhere: Database) -> None:
    async with authorize("gitlab") as held:
        new = "new:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
        both = connectors_for_tests(elsewhere, f"{new},{TEST_KEY}")
        rotation = await rotate_credentials(elsewhere, both.sealer, OPERATOR)

        assert (rotation.secrets, rotation.unreadable) == (3, []), "client secret, refresh token, lease"
        held.runner.connectors = connectors_for_tests(elsewhere, new)
        asked = held.asked()
        assert await (await held.connector()).now()
        assert held.asked() == asked
        assert await held.runner.sync() is JobState.COMPLETED


@BOTH
async def test_no_token_is_seen_anywhere(authorize: Authorize, caplog: pytest.LogCaptureFixture, name: str) -> None:
    caplog.set_level(logging.DEBUG)
    async with authorize(name) as held:
        secrets = {held.runner.credentials["client_secret"], held.runner.credentials["refresh_token"]}
        for _ in range(2):
            held.tokens.expire()
            assert await held.runner.sync(SyncMode.FULL) is JobState.COMPLETED
            secrets.add(await held.refresh_token())
        # A proxy that repeats the request in its error.
        body = f'{{"error": "invalid_grant", "error_description": "no: refresh_token={await held.refresh_token()}"}}'
        held.tracker.faults.append(Fault(kind="status", status=400, body=body, path=TOKEN, times=9))
        held.tokens.expire()
        assert await held.runner.sync() is JobState.FAILED
        view, schedule = await find_view(held.runner.database, held.runner.slug)
        tables = await held.runner.fetch("select tablename from pg_tables where schemaname = 'public'")
        stored = [str(await held.runner.fetch(f"select t::text from {each['tablename']} t")) for each in tables]

    told = [view.model_dump_json(), str(schedule), caplog.text, *stored]
    assert view.credentials["refresh_token"] is True
    assert "lease" not in view.model_dump_json()
    assert not [secret for secret in {*secrets, "once-", "made-"} if any(secret in each for each in told)]


async def test_ten_idle_weeks_are_survived_and_fourteen_are_told(authorize: Authorize) -> None:
    async with authorize("jira") as held:
        held.tracker.world.advance(timedelta(days=70).total_seconds())
        assert await held.runner.sync() is JobState.COMPLETED
        held.tracker.world.advance(timedelta(days=98).total_seconds())

        assert await held.runner.sync() is JobState.FAILED

        assert "authorized again" in (await held.schedule())["paused_reason"]
