"""How connections stand: cursors, coverage, holes, quota, health, numbers."""

from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from shared.security.sealing import Sealer
from shared.services.judge_lag import IndexLag, find_index_lag
from shared.services.manage_connections import existing
from shared.services.open_connector import why_unreadable
from shared.store import connections, coverage, jobs
from shared.store.connections import Schedule, StoredConnection
from shared.store.database import Connection, Database

# Later than its schedule by more than this, a connection is not current any more.
_LATE_SECONDS = 15 * 60


class ScopeState(BaseModel):
    """How far one stream of one scope is read."""

    stream: str
    scope: str
    scope_name: str
    cursor_at: datetime | None = Field(description="Up to here, by the source's clock, everything is known")
    last_read_at: datetime | None
    last_census_at: datetime | None
    last_error: dict[str, Any] | None
    observed_lag_seconds: float | None = Field(
        description="How late the source was seen to show a change, at least; more than windows are held back by"
    )
    observed_lag_at: datetime | None


class CoverageGap(BaseModel):
    """Something that cannot be read."""

    stream: str
    scope: str
    scope_name: str = Field(description="What people call it, where that is known", examples=["tidewater/harbor"])
    trouble: str = Field(examples=["PERMISSION_DENIED"])
    status: int | None
    detail: str
    since: datetime
    last_seen_at: datetime


class Hole(BaseModel):
    """A stretch of time no closed window covers. There should be none, ever."""

    stream: str
    scope: str
    gap_from: datetime
    gap_to: datetime


class ScheduleView(BaseModel):
    """The schedule of a connection."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    cron: str
    time_zone: str
    census_hours: int
    paused: bool
    paused_reason: str | None
    next_run_at: datetime
    next_census_at: datetime
    last_started_at: datetime | None
    failures: int = Field(description="In a row, of one class")
    failure_class: str | None
    rung: int = Field(description="How far the cadence is slowed down, from 0")


class ConnectionState(BaseModel):
    """Cursors, coverage and the proof that nothing is missing between."""

    slug: str
    complete: bool = Field(description="No hole and no gap")
    index_lag: IndexLag
    states: list[ScopeState]
    coverage_gaps: list[CoverageGap]
    holes: list[Hole]
    schedule: ScheduleView | None
    blocked_until: datetime | None


class ConnectionHealth(BaseModel):
    """A connection at a glance."""

    slug: str
    source: str
    health: str = Field(description="ok, waiting, late, failing, paused, unreadable, untested or off", examples=["ok"])
    reason: str | None
    next_run_at: datetime | None
    last_success_at: datetime | None
    coverage_gaps: int


class ConnectionMetrics(BaseModel):
    """Numbers of a connection over the last 24 hours."""

    slug: str
    source: str
    jobs: int
    failed: int
    requests: int
    records: int
    created: int
    updated: int
    deleted: int
    rejected: int


class ConnectionLog(BaseModel):
    """Something that happened to a connection or in one of its jobs."""

    id: int
    job_id: Any = None
    level: str
    message: str
    data: dict[str, Any]
    created_at: datetime


async def find_state(database: Database, slug: str) -> ConnectionState:
    """Cursors, coverage and holes of a connection."""
    async with database.connection() as connection:
        stored = await existing(connection, slug)
        states = await coverage.list_states(connection, stored.id)
        gaps = await coverage.list_gaps(connection, stored.id)
        holes = await coverage.find_holes(connection, stored.id)
        schedule = await connections.find_schedule(connection, stored.id)
        lag = await find_index_lag(connection, stored)
    return ConnectionState(
        slug=slug,
        index_lag=lag,
        complete=not gaps and not holes,
        states=[ScopeState.model_validate(row) for row in states],
        coverage_gaps=[CoverageGap.model_validate(row) for row in gaps],
        holes=[Hole.model_validate(row) for row in holes],
        schedule=schedule_view(schedule),
        blocked_until=stored.blocked_until,
    )


def schedule_view(schedule: Schedule | None) -> ScheduleView | None:
    """A schedule as people see it."""
    return ScheduleView.model_validate(schedule.model_dump()) if schedule else None


async def list_logs(database: Database, slug: str, *, before: int | None, limit: int) -> list[ConnectionLog]:
    """The log of a connection, newest first."""
    async with database.connection() as connection:
        stored = await existing(connection, slug)
        rows = await connections.list_logs(connection, stored.id, before=before, limit=limit)
    return [ConnectionLog.model_validate(row) for row in rows]


async def find_rate_limit(database: Database, slug: str) -> dict[str, Any]:
    """What the source last said of its limit, and until when it wants no calls."""
    async with database.connection() as connection:
        stored = await existing(connection, slug)
    return {"quota": stored.quota, "blocked_until": stored.blocked_until}


async def list_health(database: Database, sealer: Sealer, *, now: datetime) -> list[ConnectionHealth]:
    """Every connection at a glance."""
    async with database.connection() as connection:
        stored = await connections.list_connections(connection)
        return [await _health(connection, each, why_unreadable(sealer, each), now) for each in stored]


async def _health(
    connection: Connection, stored: StoredConnection, unreadable: str | None, now: datetime
) -> ConnectionHealth:
    schedule = await connections.find_schedule(connection, stored.id)
    gaps = await coverage.list_gaps(connection, stored.id)
    health, reason = _judge(stored, schedule, unreadable, now)
    return ConnectionHealth(
        slug=stored.slug,
        source=stored.source,
        health=health,
        reason=reason,
        next_run_at=schedule.next_run_at if schedule and not schedule.paused else None,
        last_success_at=await jobs.find_last_success(connection, stored.id),
        coverage_gaps=len(gaps),
    )


def _judge(
    stored: StoredConnection, schedule: Schedule | None, unreadable: str | None, now: datetime
) -> tuple[str, str | None]:
    """The first of these that holds."""
    blocked = stored.blocked_until if stored.blocked_until and stored.blocked_until > now else None
    late = schedule is not None and (now - schedule.next_run_at).total_seconds() > _LATE_SECONDS
    found: list[tuple[object, str, str | None]] = [
        (not stored.active, "off", "Switched off"),
        (unreadable, "unreadable", unreadable),
        (not stored.test_passed, "untested", "Its test has not succeeded since it was registered or changed"),
    ]
    if schedule:
        failing = f"{schedule.failures} in a row: {schedule.failure_class}"
        found += [
            (schedule.paused, "paused", schedule.paused_reason),
            (schedule.failures, "failing", failing),
        ]
    found += [
        (
            blocked,
            "waiting",
            f"The source wants no calls before {blocked.astimezone(UTC):%H:%M:%S} UTC" if blocked else "",
        ),
        (late, "late", "A run that was due did not start"),
    ]
    return next(((health, reason) for holds, health, reason in found if holds), ("ok", None))


async def list_metrics(database: Database) -> list[ConnectionMetrics]:
    """Numbers of every connection over the last 24 hours."""
    async with database.connection() as connection:
        return [ConnectionMetrics.model_validate(row) for row in await coverage.sum_by_connection(connection)]


class TrackedUser(BaseModel):
    """An account on the watchlist."""

    account: str = Field(max_length=200, examples=["5b10ac8d82e05b22cc7d4ef5"])
    name: str | None = Field(default=None, max_length=200)
    added_at: datetime | None = None
    backfilled_at: datetime | None = Field(default=None, description="Since when its whole history is here")


async def list_tracked(database: Database, slug: str) -> list[TrackedUser]:
    """The watchlist of a connection."""
    async with database.connection() as connection:
        stored = await existing(connection, slug)
        return [TrackedUser.model_validate(row) for row in await connections.list_tracked(connection, stored.id)]
