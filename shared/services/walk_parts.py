"""One lane of a sync: claim a part, read and store its pages until the time is used up, then the next part.

A lane is one activity, with two walkers: while one stores a page, the other's request is on its way. It ends when its
slice of time is over, when nothing is left for it, or when the source says "later": then the orchestration waits on a
durable timer, and no worker does meanwhile.
"""

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from uuid import UUID

from shared.connectors._http import together
from shared.connectors._on_behalf import Share, sharing, start_tally
from shared.connectors._protocol import EVERYTHING, Connector, Gap, Page, Part, PartKind, Quota
from shared.domain.errors import DatabaseUnavailableError, SourceError, Trouble, told
from shared.domain.shares import share_of
from shared.services.accept_sync import require_active
from shared.services.learn_fields import learn_fields
from shared.services.normalize_page import normalize_page
from shared.services.open_connector import Connectors, check_settings
from shared.services.store_page import store_page
from shared.services.wait_turns import hold_until, unexpected, wait_until
from shared.settings import Settings
from shared.store import claims, connections, coverage, jobs, sync_ledger, sync_lines
from shared.store.connections import StoredConnection
from shared.store.database import Connection, Database
from shared.store.jobs import Job
from shared.store.sync_ledger import StoredPart
from shared.telemetry import log_context

log = logging.getLogger(__name__)

_RETRY_SECONDS = (2, 4, 8, 30, 120)
# More would only wait for each other: a lane lets as many requests out as its share allows.
_WALKERS = 2
_STOPS_ALL = {Trouble.AUTH_EXPIRED, Trouble.AUTH_INVALID, Trouble.SUSPENDED_PAYMENT}
_SKIPS_SCOPE = {Trouble.PERMISSION_DENIED, Trouble.NOT_FOUND}


@dataclass(frozen=True)
class LaneResult:
    """How a lane ended: `more` to be called again, `wait` until a time, `done`, or `stop` for the whole job."""

    outcome: Literal["more", "wait", "done", "stop"]
    until: datetime | None = None

    def to_json(self) -> dict[str, Any]:
        """For the orchestration."""
        return {"outcome": self.outcome, "until": self.until.isoformat() if self.until else None}


@dataclass(frozen=True)
class _Stored:
    """What became of a page: the part as it is now, or how the walk ends instead."""

    part: StoredPart | None
    ends: LaneResult | None = None


@dataclass(frozen=True)
class _Walker:
    database: Database
    connector: Connector
    settings: Settings
    job: Job
    stored: StoredConnection
    number: int
    # Requests the connection may have on their way, and this lane's part of them.
    allowed: int
    share: Share


async def walk_parts(
    database: Database, made: Connectors, settings: Settings, job_id: UUID, attempt: int, lane: int, lanes: int
) -> LaneResult:
    """Work as one of the lanes of an attempt at a job for one slice of time.

    Raises ConflictError when the connection was switched off, and what a lost database raises.
    """
    with log_context(job_id=str(job_id), lane=lane):
        async with database.connection() as connection:
            job = await jobs.find_job(connection, job_id)
            stored = await connections.find_by_id(connection, job.connection_id) if job and job.connection_id else None
            if job is None or stored is None or job.attempt != attempt or job.cancel_requested:
                return LaneResult("stop")
            require_active(stored)
            await jobs.mark_processing(connection, job_id)
            connector = await made.of(connection, stored)
        deadline = time.monotonic() + settings.sync_slice_seconds
        allowed = check_settings(stored.source, stored.settings).concurrency
        share = Share(share_of(lane, range(lanes), allowed))
        walkers = [
            _Walker(database, connector, settings, job, stored, lane * _WALKERS + number, allowed, share)
            for number in range(_WALKERS)
        ]
        with sharing(share):
            # Whatever ends one walker, none is left at work behind the back of the next attempt.
            return _sum_up(await together(_work(walker, deadline) for walker in walkers))


async def _work(work: _Walker, deadline: float) -> LaneResult:
    """Part after part until the time is used up."""
    while time.monotonic() < deadline:
        result = await _next_part(work, deadline)
        if result is not None:
            return result
    return LaneResult("more")


def _sum_up(results: list[LaneResult]) -> LaneResult:
    """How a lane ended whose walkers ended so."""
    outcomes = {result.outcome for result in results}
    for outcome in ("stop", "more"):
        if outcome in outcomes:
            return LaneResult(outcome)
    untils = [result.until for result in results if result.until]
    return LaneResult("wait", min(untils)) if untils else LaneResult("done")


async def _next_part(work: _Walker, deadline: float) -> LaneResult | None:
    """Claim a part and walk it; None to claim the next."""
    now = datetime.now(UTC)
    async with work.database.transaction() as connection:
        blocked = await connections.find_blocked_until(connection, work.stored.id, now=now)
        if blocked:
            return LaneResult("wait", blocked)
        part = await claims.claim_part(connection, work.job.id, attempt=work.job.attempt, lane=work.number, now=now)
        if part is None:
            left = await claims.find_left(connection, work.job.id, now=now)
            return LaneResult("wait", left.retry_at) if left.retry_at and not left.ready else LaneResult("done")
        await _widen(work, connection)
    with log_context(part=part.number):
        try:
            return await _walk(work, part, deadline)
        except SourceError as error:
            return await _fail(work, part, error)
        except DatabaseUnavailableError:
            raise
        except Exception as error:
            log.exception("Part failed", extra={"action": "part_failed"})
            return await _fail(work, part, unexpected(error))


async def _walk(work: _Walker, part: StoredPart, deadline: float) -> LaneResult | None:
    """Read and store page after page; the next one is on its way while one is stored."""
    if held := hold_until(part, work.connector.quota, datetime.now(UTC)):
        return LaneResult("wait", held)
    asked = Part(kind=PartKind(part.kind), stream=part.stream, scope=part.scope, since=part.since, query=part.query)
    reading = asyncio.create_task(_read(work.connector, asked, part.position))
    try:
        while True:
            page, used = await reading
            in_time = time.monotonic() < deadline
            held = hold_until(part, work.connector.quota, datetime.now(UTC))
            if page.next is not None and in_time and not held:
                reading = asyncio.create_task(_read(work.connector, asked, page.next))
            stored = await _store(work, part, page, used)
            if stored.part is None or page.next is None:
                return stored.ends
            if stored.ends or held:
                return stored.ends or LaneResult("wait", held)
            if not in_time:
                return LaneResult("more")
            part = stored.part
    finally:
        if not reading.done():
            reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


async def _read(connector: Connector, part: Part, position: Mapping[str, Any] | None) -> tuple[Page, int]:
    """A page, and how many requests it took."""
    tally = start_tally()
    page = await connector.fetch(part, position)
    return _without_absent_names(page, part), tally.requests


def _without_absent_names(page: Page, part: Part) -> Page:
    """The page without what people named and the source does not know: a name may be the id of another record."""
    if part.kind is not PartKind.KEYS:
        return page
    names: set[str] = set(part.query.get("keys", ())) - set(part.query.get("ids", ()))
    return replace(page, gone=[gone for gone in page.gone if gone.external_id not in names])


async def _store(work: _Walker, part: StoredPart, page: Page, requests: int) -> _Stored:
    """Store a page, unless it, or the job, is not ours any more."""
    first_row = 1 + sum(sum(of.values()) for of in part.counts.values())
    normalized = await normalize_page(work.connector.normalize, page, first_row=first_row)
    async with work.database.transaction() as connection:
        locked = await sync_ledger.lock_part(connection, part.job_id, part.number)
        job = await jobs.find_job(connection, part.job_id)
        if job is None or job.attempt != work.job.attempt or job.cancel_requested:
            return _Stored(None, LaneResult("stop"))
        # A twin of this lane may have stored this page before us: then we go on from where it is.
        if locked is None or locked.state != "waiting" or locked.position != part.position:
            return _Stored(None)
        cursor_at = None
        if part.kind == PartKind.CENSUS:
            cursor_at = await sync_lines.find_cursor(connection, work.stored.id, part.stream, part.scope)
        now_at = await store_page(
            connection,
            stored=work.stored,
            job=work.job,
            part=locked,
            page=page,
            normalized=normalized,
            requests=requests,
            cursor_at=cursor_at,
        )
        await learn_fields(connection, work.stored.id, work.job.id, normalized.shapes)
        if page.next is None:
            if work.connector.quota:
                await connections.save_quota(connection, work.stored.id, quota_json(work.connector.quota))
            return _Stored(now_at)
        await _widen(work, connection)
        blocked = await connections.find_blocked_until(connection, work.stored.id, now=datetime.now(UTC))
        return _Stored(now_at, LaneResult("wait", blocked) if blocked else None)


async def _widen(work: _Walker, connection: Connection) -> None:
    """Take over a part of the share of lanes that have ended: nothing is left for them to claim."""
    if work.share.size == work.allowed:
        return
    walkers = await claims.find_last_lanes(connection, work.job.id, attempt=work.job.attempt, now=datetime.now(UTC))
    lane, lanes = work.number // _WALKERS, {walker // _WALKERS for walker in walkers}
    if lane in lanes:
        work.share.grow_to(share_of(lane, lanes, work.allowed))


async def _fail(work: _Walker, part: StoredPart, error: SourceError) -> LaneResult | None:
    """Write down what went wrong, and decide who goes on and when; nothing, if the part is another's by now."""
    now = datetime.now(UTC)
    log.warning(
        "Part could not be read",
        extra={"action": "part_refused", "trouble": error.trouble, "status": error.status, "detail": error.detail},
    )
    refusal = told(error)
    async with work.database.transaction() as connection:
        if error.trouble is Trouble.RATE_LIMIT:
            until = wait_until(error, now)
            await connections.block(connection, work.stored.id, until)
            await claims.release_part(connection, part)
            return LaneResult("wait", until)
        state, retry_at = _sentence(part, error, work.settings.sync_part_tries, now)
        ours = await claims.postpone_part(connection, part, state=state, retry_at=retry_at, error=refusal)
        if not ours:
            return None
        if state != "waiting" and not _is_asked_for(part):
            gap = Gap(part.stream, part.scope, error.trouble, error.detail, error.status)
            await coverage.note_gaps(connection, work.stored.id, [gap])
        level = "warning" if state == "waiting" else "error"
        await jobs.log(
            connection,
            part.job_id,
            level,
            f"{part.stream} of {part.scope_name}: {error.detail}",
            **refusal,
            state=state,
        )
    return LaneResult("stop") if error.trouble in _STOPS_ALL else None


def _sentence(part: StoredPart, error: SourceError, tries: int, now: datetime) -> tuple[str, datetime | None]:
    """What becomes of a part whose step failed: its state, and when it is tried again."""
    if error.trouble in _SKIPS_SCOPE and not _is_asked_for(part):
        return "skipped", None
    if not error.trouble.retryable or part.attempts + 1 >= tries:
        return "failed", None
    wait = timedelta(seconds=_RETRY_SECONDS[min(part.attempts, len(_RETRY_SECONDS) - 1)])
    return "waiting", max(error.retry_at or now, now + wait)


def _is_asked_for(part: StoredPart) -> bool:
    """Whether people named what the part reads: no scope is read less well for it, and they must not be told "done"."""
    return part.kind == PartKind.KEYS and part.scope == EVERYTHING


def quota_json(quota: Quota) -> dict[str, Any]:
    """A quota as it is stored and shown."""
    return {
        "bucket": quota.bucket,
        "limit": quota.limit,
        "remaining": quota.remaining,
        "resets_at": quota.resets_at.isoformat() if quota.resets_at else None,
    }
