"""Run syncs in this process against a simulated tracker, step by step as the orchestration does, without one."""

import asyncio
import base64
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from psycopg import sql

from local.trackers.service import Tracker
from shared.domain.caller import Caller, Role
from shared.domain.errors import SourceError
from shared.domain.job import JobState
from shared.domain.sync import SyncMode, SyncOptions
from shared.security.outbound import guarded_client
from shared.security.sealing import KeyRing, Sealer
from shared.services.accept_sync import accept_sync
from shared.services.finish_sync import finish_sync
from shared.services.manage_connections import NewConnection, create_connection
from shared.services.open_connector import Connectors
from shared.services.plan_sync import plan_sync
from shared.services.probe_connection import ProbeResult, probe_connection
from shared.services.reconcile_sync import reconcile_sync
from shared.services.walk_parts import LaneResult, walk_parts
from shared.settings import Settings
from shared.store.database import Database

TEST_KEY = f"test:{base64.b64encode(bytes(range(32))).decode()}"
OPERATOR = Caller(id="key:tests", name="tests", role=Role.ADMIN)
_DEADLINE_SECONDS = 60


def connectors_for_tests(database: Database, keys: str = TEST_KEY) -> Connectors:
    """Connectors that may call loopback."""
    return Connectors(guarded_client(allow_private=True), Sealer(lambda: KeyRing(keys)), database)


@dataclass
class SyncRunner:
    """One connection to one simulated tracker, and ways to run its syncs."""

    database: Database
    settings: Settings
    tracker: Tracker
    connection_settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    credentials: Mapping[str, Any] = field(default_factory=dict[str, Any])
    slug: str = field(default_factory=lambda: f"t-{uuid4().hex[:12]}")
    connectors: Connectors = field(init=False)
    last_job: UUID | None = None
    # Whether every step runs twice, the lanes at once, as activities may whose worker was thought to be lost.
    twins: bool = False
    # Told when a plan is made and its walk begins.
    on_walk: Callable[[], object] = lambda: None
    # Connectors to share with others: to make a client for HTTPS takes as long as a small sync.
    shared: Connectors | None = None

    def __post_init__(self) -> None:
        self.connectors = self.shared or connectors_for_tests(self.database)

    async def connect(self) -> ProbeResult:
        """Register the connection and test it."""
        await self.register()
        return await probe_connection(self.database, self.connectors, OPERATOR, self.slug)

    async def register(self) -> None:
        """Register the connection."""
        await create_connection(
            self.database,
            self.connectors.sealer,
            OPERATOR,
            NewConnection(
                slug=self.slug,
                source=self.tracker.source,
                base_url=self.tracker.url,
                settings=dict(self.connection_settings),
                credentials=dict(self.credentials),
            ),
            cron="*/15 * * * *",
        )

    async def sync(self, mode: SyncMode = SyncMode.INCREMENTAL, **options: Any) -> JobState | None:
        """Accept, claim and run a sync to its end."""
        return await self.run(await self.accept(mode, **options))

    async def accept(self, mode: SyncMode = SyncMode.INCREMENTAL, **options: Any) -> UUID:
        """Queue a sync and claim it for ourselves."""
        job = await accept_sync(self.database, OPERATOR, self.slug, SyncOptions(mode=mode, **options))
        await self.execute(
            "update jobs set state = 'processing', attempt = attempt + 1, started_at = now() where id = %s", job.id
        )
        self.last_job = job.id
        return job.id

    async def run(self, job_id: UUID, attempt: int = 1) -> JobState | None:
        """Do what the orchestration does, waiting in place."""
        error: dict[str, Any] | None = None
        lanes = 0
        try:
            lanes = await self._step(lambda: plan_sync(self.database, self.connectors, job_id, attempt))
        except SourceError as raised:
            error = {"code": raised.trouble.value, "detail": raised.detail}
        if lanes:
            self.on_walk()
            await self.walk(job_id, attempt, lanes)
            if await self.reconcile(job_id, attempt):
                await self.walk(job_id, attempt, lanes)
        return await self._step(lambda: finish_sync(self.database, job_id, attempt, error=error, now=datetime.now(UTC)))

    async def reconcile(self, job_id: UUID, attempt: int = 1) -> int:
        """Compare what was seen with what is stored."""
        return await self._step(lambda: reconcile_sync(self.database, self.connectors, job_id, attempt))

    async def _step[T](self, step: Callable[[], Awaitable[T]]) -> T:
        if self.twins:
            await step()
        return await step()

    async def walk(self, job_id: UUID, attempt: int, lanes: int) -> None:
        """Let the lanes work until nothing is left for them."""
        async with asyncio.timeout(_DEADLINE_SECONDS):
            while True:
                twins = [*range(lanes), *(range(lanes) if self.twins else ())]
                results = await asyncio.gather(*(self.lane(job_id, attempt, lane, lanes) for lane in twins))
                outcomes = {result.outcome for result in results}
                if "stop" in outcomes or outcomes == {"done"}:
                    return
                if "more" not in outcomes:
                    until = min(result.until for result in results if result.until)
                    await asyncio.sleep(max(0, (until - datetime.now(UTC)).total_seconds()))

    async def lane(self, job_id: UUID, attempt: int, lane: int, lanes: int = 1) -> LaneResult:
        """One slice of one lane."""
        return await walk_parts(self.database, self.connectors, self.settings, job_id, attempt, lane, lanes)

    async def fetch(self, statement: str, *values: object) -> list[dict[str, Any]]:
        """Rows of a query."""
        async with self.database.connection() as connection:
            cursor = await connection.execute(sql.SQL(statement), values)  # type: ignore[arg-type]
            return await cursor.fetchall()

    async def execute(self, statement: str, *values: object) -> None:
        """A statement without an answer."""
        async with self.database.connection() as connection:
            await connection.execute(sql.SQL(statement), values)  # type: ignore[arg-type]

    async def holes(self) -> list[dict[str, Any]]:
        """Holes in the ledger of this connection."""
        return await self.fetch("select stream, scope, gap_from, gap_to from sync_gaps where slug = %s", self.slug)

    async def logs(self) -> list[str]:
        """What was logged of the last job."""
        rows = await self.fetch("select message from sync_logs where job_id = %s order by id", self.last_job)
        return [row["message"] for row in rows]
