"""Start syncs that are due, and what admins do to schedules."""

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field

from shared.domain.caller import Caller
from shared.domain.sync import RUNGS, SyncMode, SyncOptions
from shared.services.accept_sync import insert_sync
from shared.services.manage_connections import existing
from shared.services.schedule_times import next_run
from shared.store import audit_log, connections
from shared.store.connections import Schedule
from shared.store.database import Connection, Database
from shared.store.jobs import NewSync

log = logging.getLogger(__name__)

SCHEDULE_ACTOR = "schedule"


class ScheduleChange(BaseModel):
    """A new cadence; what is left out stays."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cron: str | None = Field(default=None, max_length=200, description="Five fields", examples=["*/15 * * * *"])
    time_zone: str | None = Field(default=None, max_length=100, examples=["Europe/Berlin"])
    census_hours: int | None = Field(
        default=None, ge=1, le=24 * 31, description="How often a sync is followed by a census"
    )


async def start_due_syncs(database: Database, *, now: datetime) -> int:
    """Queue a sync for every schedule that is due; returns how many.

    A due run that finds its connection at work is left out, and runs that were missed become one: the next one is
    counted from now.
    """
    started = 0
    async with database.transaction() as connection:
        for schedule, busy in await connections.claim_due(connection, now=now):
            started += await _start(connection, schedule, busy=busy, now=now)
    return started


async def _start(connection: Connection, schedule: Schedule, *, busy: bool, now: datetime) -> int:
    due = next_run(schedule.cron, schedule.time_zone, now)
    changes: dict[str, Any] = {"next_run_at": max(due, now + RUNGS[schedule.rung]) if schedule.rung else due}
    stored = await connections.find_by_id(connection, schedule.connection_id)
    if stored is not None and not busy:
        changes["last_started_at"] = now
        census = schedule.next_census_at <= now
        if census:
            changes["next_census_at"] = now + timedelta(hours=schedule.census_hours)
        await insert_sync(
            connection,
            NewSync(
                id=uuid4(),
                source=stored.source,
                import_source=stored.slug,
                connection_id=stored.id,
                options=SyncOptions(mode=SyncMode.INCREMENTAL, census=census),
                idempotency_key=f"{stored.id}/{schedule.next_run_at.isoformat()}",
                requested_by=SCHEDULE_ACTOR,
            ),
        )
    await connections.save_schedule(connection, schedule.model_copy(update=changes))
    return int("last_started_at" in changes)


async def change_schedule(
    database: Database, caller: Caller, slug: str, change: ScheduleChange, *, now: datetime
) -> Schedule:
    """Give a connection another cadence, from now on; a slowed-down schedule starts afresh."""

    def apply(schedule: Schedule) -> Schedule:
        changed = schedule.model_copy(update=change.model_dump(exclude_none=True))
        changed = changed.model_copy(update={"cron": " ".join(changed.cron.split())})
        due = next_run(changed.cron, changed.time_zone, now)
        return changed.model_copy(update={"next_run_at": due, "rung": 0, "failures": 0, "failure_class": None})

    return await _change(database, caller, slug, "schedule.changed", apply)


async def pause_schedule(database: Database, caller: Caller, slug: str) -> Schedule:
    """Start no more syncs of a connection by the clock; what runs goes on."""
    paused = {"paused": True, "paused_reason": f"By {caller.name}"}
    return await _change(database, caller, slug, "schedule.paused", lambda held: held.model_copy(update=paused))


async def resume_schedule(database: Database, caller: Caller, slug: str, *, now: datetime) -> Schedule:
    """Sync by the clock again, now for the first time."""
    resumed = {
        "paused": False,
        "paused_reason": None,
        "failures": 0,
        "failure_class": None,
        "rung": 0,
        "next_run_at": now,
    }
    return await _change(database, caller, slug, "schedule.resumed", lambda held: held.model_copy(update=resumed))


async def _change(
    database: Database, caller: Caller, slug: str, action: str, apply: Callable[[Schedule], Schedule]
) -> Schedule:
    async with database.transaction() as connection:
        stored = await existing(connection, slug)
        before = await connections.find_schedule(connection, stored.id, lock=True)
        if before is None:
            raise LookupError(f"The connection {slug!r} has no schedule")
        after = apply(before)
        await connections.save_schedule(connection, after)
        told = {"cron", "time_zone", "census_hours", "paused", "next_run_at"}
        await audit_log.append(
            connection,
            actor=caller.id,
            action=action,
            subject=f"connection:{slug}",
            before=before.model_dump(mode="json", include=told),
            after=after.model_dump(mode="json", include=told),
        )
    return after
