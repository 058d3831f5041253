"""Sum a sync up: how it ended, what that means for its schedule, and what could not be read."""

import logging
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from shared.connectors._protocol import PartKind
from shared.domain.errors import Trouble
from shared.domain.job import ENDED, JobState
from shared.domain.stream import Stream
from shared.domain.sync import RUNGS, SyncMode, next_rung
from shared.services.give_up import give_up
from shared.services.learn_fields import tell_vanished
from shared.services.schedule_times import next_run
from shared.store import connections, jobs, seen, sync_ledger
from shared.store.connections import Schedule
from shared.store.database import Connection, Database
from shared.store.jobs import Job
from shared.store.sync_ledger import StoredPart
from shared.telemetry import jobs_finished

log = logging.getLogger(__name__)

_PAUSING = {Trouble.AUTH_EXPIRED.value, Trouble.AUTH_INVALID.value, Trouble.SUSPENDED_PAYMENT.value}


async def finish_sync(
    database: Database, job_id: UUID, attempt: int, *, error: dict[str, Any] | None, now: datetime
) -> JobState | None:
    """Decide how a sync ended from its ledger; `error` is why it could not be planned. None if it is not ours."""
    async with database.transaction() as connection:
        job = await jobs.lock_job(connection, job_id)
        if job is None or job.attempt != attempt:
            return None
        if job.state in ENDED:
            return job.state
        parts = await sync_ledger.list_parts(connection, job_id)
        state, why = _verdict(job, parts, error)
        await jobs.end_job(connection, job_id, state, error=why)
        counts = total_counts(parts)
        level = "info" if state is JobState.COMPLETED else "error"
        await jobs.log(connection, job_id, level, f"Sync {state}", counts=counts, error=why)
        if job.connection_id and not _is_of_keys(job):
            await seen.forget_seen(connection, job.connection_id, but=job_id if state is JobState.FAILED else None)
        if job.connection_id and state is not JobState.CANCELLED:
            await _update_schedule(connection, job, state, why, now)
            if state is JobState.COMPLETED and _read_all_issues(job, parts):
                await connections.mark_backfilled(connection, job.connection_id, since=job.started_at or job.created_at)
            if state is JobState.COMPLETED and job.sync and job.sync.mode is SyncMode.FULL:
                await tell_vanished(connection, job.connection_id, job_id)
    jobs_finished(state)
    log.info("Sync ended", extra={"action": "sync_finished", "job_id": str(job_id), "state": state, "counts": counts})
    return state


async def give_up_sync(
    database: Database, job_id: UUID, attempt: int, *, error: dict[str, Any], now: datetime
) -> JobState | None:
    """End a sync whose ledger cannot be summed up, as a failure of its schedule."""
    job = await give_up(database, job_id, attempt, error=error, message="Sync given up")
    if job is None:
        return None
    # In a transaction of its own: what broke may be the schedule, and the sync has to end all the same.
    async with database.transaction() as connection:
        await _update_schedule(connection, job, JobState.FAILED, error, now)
    return JobState.FAILED


def total_counts(parts: list[StoredPart]) -> dict[str, dict[str, int]]:
    """Counts of a job by stream."""
    total: dict[str, dict[str, int]] = {}
    for part in parts:
        for stream, of in part.counts.items():
            into = total.setdefault(stream, dict.fromkeys(sync_ledger.COUNTED, 0))
            for name, count in of.items():
                into[name] += count
    return total


def _verdict(job: Job, parts: list[StoredPart], error: dict[str, Any] | None) -> tuple[JobState, dict[str, Any] | None]:
    if job.cancel_requested:
        return JobState.CANCELLED, {"code": "cancelled", "detail": "Cancelled on request; what was stored before stays"}
    if error:
        return JobState.FAILED, error
    if job.planned_at is None:
        return JobState.FAILED, job.error or {"code": "not_planned", "detail": "The sync could not be planned"}
    failed = [part for part in parts if part.state == "failed"]
    unread = [part for part in parts if part.state == "waiting"]
    if parts and all(part.state == "skipped" for part in parts):
        return JobState.FAILED, parts[0].error or {"code": "incomplete", "detail": "Nothing could be read"}
    if failed or unread:
        first = next((part.error for part in [*failed, *unread] if part.error), None)
        return JobState.FAILED, first or {"code": "incomplete", "detail": f"{len(unread)} parts were not read"}
    return JobState.COMPLETED, None


def _is_of_keys(job: Job) -> bool:
    return job.sync is not None and job.sync.mode is SyncMode.KEYS


def _read_all_issues(job: Job, parts: list[StoredPart]) -> bool:
    """Whether the job read the issues of every scope from the beginning."""
    if job.sync is None or job.sync.scopes:
        return False
    windows = [part for part in parts if part.stream is Stream.ISSUES and part.kind == PartKind.WINDOW]
    return bool(windows) and all(part.since is None and part.state == "done" for part in windows)


async def _update_schedule(
    connection: Connection, job: Job, state: JobState, why: dict[str, Any] | None, now: datetime
) -> None:
    """One failure is bad luck. Three of one kind in a row slow the schedule down; a refused log-in stops it."""
    if job.connection_id is None:
        return
    schedule = await connections.find_schedule(connection, job.connection_id, lock=True)
    if schedule is None:
        return
    # Named issues say nothing of how scheduled syncs fare, in luck or not; a refused log-in concerns them all.
    if _is_of_keys(job) and (why or {}).get("code") not in _PAUSING:
        return
    after = _after_success(schedule, job, now) if state is JobState.COMPLETED else _after_failure(schedule, why, now)
    await connections.save_schedule(connection, after)
    if after.paused and not schedule.paused:
        await connections.log(connection, job.connection_id, "error", f"Schedule paused: {after.paused_reason}")
    elif after.rung > schedule.rung:
        wait = RUNGS[after.rung]
        await connections.log(
            connection, job.connection_id, "warning", f"Schedule slowed down to one run in {wait}", error=why
        )


def _after_success(schedule: Schedule, job: Job, now: datetime) -> Schedule:
    changes: dict[str, Any] = {"failures": 0, "failure_class": None, "rung": 0}
    if schedule.rung:
        changes["next_run_at"] = next_run(schedule.cron, schedule.time_zone, now)
    if job.sync and (job.sync.census or job.sync.mode in {SyncMode.FULL, SyncMode.CENSUS}):
        changes["next_census_at"] = now + timedelta(hours=schedule.census_hours)
    return schedule.model_copy(update=changes)


def _after_failure(schedule: Schedule, why: dict[str, Any] | None, now: datetime) -> Schedule:
    kind = str((why or {}).get("code", "unknown"))
    if kind in _PAUSING:
        reason = f"{kind}: {(why or {}).get('detail', '')}"
        return schedule.model_copy(update={"paused": True, "paused_reason": reason, "failure_class": kind})
    failures = schedule.failures + 1 if schedule.failure_class == kind else 1
    rung = next_rung(schedule.rung, failures)
    due = next_run(schedule.cron, schedule.time_zone, now)
    if rung:
        due = max(due, now + RUNGS[rung])
    return schedule.model_copy(update={"failures": failures, "failure_class": kind, "rung": rung, "next_run_at": due})
