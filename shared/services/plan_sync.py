"""Plan a sync: which scopes and streams to read, since when, in which parts; and open the windows they will close."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

from shared.connectors._on_behalf import start_tally
from shared.connectors._protocol import (
    EVERYTHING,
    SCOPE_SETTINGS,
    Connector,
    ConnectorSettings,
    Gap,
    Part,
    PartKind,
    Scope,
    StreamTraits,
    Walk,
)
from shared.domain.errors import SourceError, TributaryError, Trouble
from shared.domain.stream import Stream
from shared.domain.sync import OVERLAP, NamedIssue, SyncMode, SyncOptions
from shared.services.accept_sync import require_active, require_usable
from shared.services.choose_scopes import choose_scopes
from shared.services.open_connector import Connectors, check_settings, index_lag
from shared.services.wait_turns import unexpected, wait_until
from shared.store import connections, coverage, issues, jobs, sync_ledger, sync_lines
from shared.store.connections import StoredConnection
from shared.store.database import Connection, Database
from shared.store.jobs import Job
from shared.store.sync_ledger import NewPart, NewWindow

log = logging.getLogger(__name__)


@dataclass
class Plan:
    """The windows and parts of one job."""

    windows: list[NewWindow] = field(default_factory=list[NewWindow])
    parts: list[NewPart] = field(default_factory=list[NewPart])
    gaps: list[Gap] = field(default_factory=list[Gap])
    # What the connection reads, where the whole of it was looked at.
    reads: "_Reads | None" = None


@dataclass(frozen=True)
class _Reads:
    streams: Sequence[Stream]
    scopes: Sequence[str]
    # Whether the settings say which scopes; else the source does.
    named: bool


@dataclass(frozen=True)
class _Inputs:
    connector: Connector
    settings: ConnectorSettings
    options: SyncOptions
    scopes: Sequence[Scope]
    cursors: Mapping[tuple[Stream, str], datetime]
    # The source's clock before any walk begins: what changes from now on belongs to the next window.
    asked_at: datetime


async def plan_sync(database: Database, made: Connectors, job_id: UUID, attempt: int) -> int:
    """Write the parts of a job, once; returns how many lanes may walk them side by side, 0 if there is nothing to do.

    Raises SourceError when the source does not answer, wants no calls yet, or shows nothing of what is to be read; no
    part is written then, and it can be planned again. Raises ConflictError when the connection was switched off, or
    changed without a test, while the job waited.
    """
    now = datetime.now(UTC)
    async with database.connection() as connection:
        job = await jobs.find_job(connection, job_id)
        if job is None or job.attempt != attempt or job.cancel_requested or job.sync is None or not job.connection_id:
            return 0
        stored = await connections.find_by_id(connection, job.connection_id)
        if stored is None:
            return 0
        require_active(stored)
        connector = await made.of(connection, stored)
        settings = check_settings(stored.source, stored.settings)
        if job.planned_at:
            await sync_ledger.reopen_parts(connection, job_id)
            return settings.concurrency
        # It may have been changed while the job waited for its turn.
        require_usable(stored)
        if blocked := await connections.find_blocked_until(connection, stored.id, now=now):
            raise SourceError(Trouble.RATE_LIMIT, "The source wants no calls yet", retry_at=blocked)
        cursors = await sync_lines.find_cursors(connection, stored.id)
        known = await _find_known(connection, stored, settings, job.sync)
    tally = start_tally()
    try:
        plan = await _make_plan(connector, settings, job.sync, cursors, known)
    except SourceError as error:
        raise await _as_announced(database, stored, error) from error
    except TributaryError:
        raise
    except Exception as error:
        log.exception("Planning failed", extra={"action": "plan_failed"})
        raise unexpected(error) from error
    if plan.gaps and not plan.parts:
        await _note_nothing(database, job, stored, plan)
    await _save(database, job, stored, plan, requests=tally.requests)
    return min(settings.concurrency, len(plan.parts))


async def _as_announced(database: Database, stored: StoredConnection, error: SourceError) -> SourceError:
    """The error; of a source that says "later", with the time until which everybody now keeps off it."""
    if error.trouble is not Trouble.RATE_LIMIT:
        return error
    until = wait_until(error, datetime.now(UTC))
    async with database.connection() as connection:
        await connections.block(connection, stored.id, until)
    return SourceError(error.trouble, error.detail, status=error.status, retry_at=until, hint=error.hint)


async def _note_nothing(database: Database, job: Job, stored: StoredConnection, plan: Plan) -> None:
    """A sync that may read nothing at all has not succeeded."""
    async with database.transaction() as connection:
        await coverage.note_gaps(connection, stored.id, plan.gaps)
        await jobs.log(connection, job.id, "error", "Nothing can be read", gaps=[gap.scope for gap in plan.gaps])
    first = plan.gaps[0]
    raise SourceError(first.trouble, f"Nothing can be read. {first.scope}: {first.detail}", status=first.status)


async def _make_plan(
    connector: Connector,
    settings: ConnectorSettings,
    options: SyncOptions,
    cursors: Mapping[tuple[Stream, str], datetime],
    known: "Known",
) -> Plan:
    if options.issues:
        return Plan(parts=await plan_named(connector, options.issues, known))
    if options.mode is SyncMode.KEYS:
        return Plan(parts=await _plan_keys(connector, options))
    scopes, gaps, now = await _ask_scopes(connector)
    reads = _reads(connector, settings, scopes, gaps)
    if now is None:
        return Plan(gaps=list(gaps), reads=reads)
    scopes = choose_scopes(scopes, options.scopes)
    inputs = _Inputs(connector, settings, options, scopes, cursors, now)
    plan = Plan(gaps=list(gaps), reads=reads)
    everywhere = [Scope(EVERYTHING, EVERYTHING)]
    lines = [
        (stream, scope)
        for stream in _streams(connector, settings, options)
        for scope in (scopes if connector.streams[stream].per_scope else everywhere)
    ]
    pieces = await asyncio.gather(
        *(_pieces(inputs, stream, connector.streams[stream], scope) for stream, scope in lines)
    )
    for (stream, scope), found in zip(lines, pieces, strict=True):
        if isinstance(found, Gap):
            plan.gaps.append(found)
        else:
            _plan_scope(plan, inputs, stream, scope, found)
    return plan


async def _ask_scopes(connector: Connector) -> tuple[list[Scope], list[Gap], datetime | None]:
    """Scopes, gaps, and the source's time; no time where nothing can be read.

    No walk has begun then: what changes from that time on belongs to the next window. All is asked at once, as each
    wait delays everything that follows.
    """
    asking = asyncio.create_task(connector.now())
    try:
        scopes, gaps = await connector.scopes()
        return scopes, gaps, None if gaps and not scopes else await asking
    finally:
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)


def _reads(connector: Connector, settings: ConnectorSettings, scopes: Sequence[Scope], gaps: Sequence[Gap]) -> _Reads:
    named = any(getattr(settings, name, ()) for name in SCOPE_SETTINGS)
    places = [EVERYTHING, *(scope.id for scope in scopes), *(gap.scope for gap in gaps)]
    wanted = settings.streams or tuple(connector.streams)
    parents = [parent for child in wanted if (parent := connector.streams[child].parent)]
    # Scopes are told as gaps of the stream that lists them, whether it is wanted or not.
    return _Reads([*wanted, *parents, *(gap.stream for gap in gaps)], places, named)


async def _pieces(inputs: _Inputs, stream: Stream, traits: StreamTraits, scope: Scope) -> list[Part] | Gap:
    """The parts of a stream of one scope, or why it cannot be read."""
    options, connector = inputs.options, inputs.connector
    census = Part(kind=PartKind.CENSUS, stream=stream, scope=scope.id)
    wants_census = traits.census and (options.census or options.mode is SyncMode.CENSUS)
    if options.mode is SyncMode.CENSUS:
        return [census] if wants_census else []
    if traits.walk is Walk.SNAPSHOT:
        return [Part(kind=PartKind.SNAPSHOT, stream=stream, scope=scope.id)]
    since = _since(inputs, stream, scope)
    whole = Part(kind=PartKind.WINDOW, stream=stream, scope=scope.id, since=since)
    try:
        pieces = await connector.split(whole) if since is None else [whole]
    except SourceError as error:
        if error.trouble not in {Trouble.PERMISSION_DENIED, Trouble.NOT_FOUND}:
            raise
        return Gap(stream, scope.id, error.trouble, error.detail, error.status)
    return [*pieces, census] if wants_census else pieces


def _plan_scope(plan: Plan, inputs: _Inputs, stream: Stream, scope: Scope, pieces: Sequence[Part]) -> None:
    if any(piece.kind is PartKind.WINDOW for piece in pieces):
        hi = inputs.asked_at - index_lag(inputs.connector.source, inputs.settings.index_lag_seconds)
        plan.windows.append(NewWindow(stream, scope.id, hi, inputs.asked_at))
    window = len(plan.windows) - 1
    plan.parts += [_new_part(piece, scope, window if piece.kind is PartKind.WINDOW else None) for piece in pieces]


def _since(inputs: _Inputs, stream: Stream, scope: Scope) -> datetime | None:
    cursor = inputs.cursors.get((stream, scope.id))
    if cursor is None or (inputs.options.mode is SyncMode.FULL and inputs.options.since is None):
        return None
    since = cursor - OVERLAP
    # Asking to go back further is fine; skipping what lies before `since` would tear a hole.
    return min(since, inputs.options.since) if inputs.options.since else since


async def _plan_keys(connector: Connector, options: SyncOptions) -> list[NewPart]:
    wanted = [(None, key) for key in options.keys]
    if not connector.keys_need_scope:
        return keys_parts(connector, wanted)
    scopes, _ = await connector.scopes()
    return [part for scope in scopes for part in keys_parts(connector, wanted, scope=scope.id)]


@dataclass(frozen=True)
class Known:
    """What decides which of the issues that webhooks told about are asked for."""

    # Keys of those that are stored, by id.
    keys: Mapping[str, str | None]
    # The settings choose among issues: one that is not stored may not be wanted, and is left to the next poll.
    only: bool
    # Streams that are read; empty for all.
    streams: Sequence[Stream]


async def _find_known(
    connection: Connection, stored: StoredConnection, settings: ConnectorSettings, options: SyncOptions
) -> Known:
    keys = await issues.find_keys(connection, stored.slug, [each.id for each in options.issues if each.id])
    tracked = await connections.list_tracked(connection, stored.id)
    return Known(keys, only=settings.chooses or bool(tracked), streams=settings.streams)


async def plan_named(connector: Connector, named: Sequence[NamedIssue], known: Known) -> list[NewPart]:
    """Parts that read what webhooks told about; what lies where this connection does not read is left out."""
    scopes = (await connector.scopes())[0] if any(each.scope for each in named) else []
    places = {name.casefold(): scope for scope in scopes for name in (scope.name, scope.id)}
    wanted: dict[tuple[Stream, Scope, str], list[tuple[str | None, str | None]]] = {}
    for each in named:
        scope = places.get(each.scope.casefold()) if each.scope else Scope(EVERYTHING, EVERYTHING)
        read = each.stream in connector.streams and (not known.streams or each.stream in known.streams)
        if scope is None or not read or (known.only and each.stream is Stream.ISSUES and each.id not in known.keys):
            continue
        key = each.key or known.keys.get(each.id or "")
        wanted.setdefault((each.stream, scope, each.name if each.alone else ""), []).append((each.id, key))
    return [
        part
        for (stream, scope, _), names in wanted.items()
        for part in keys_parts(connector, names, scope=scope.id, stream=stream, scope_name=scope.name)
    ]


def keys_parts(
    connector: Connector,
    wanted: Sequence[tuple[str | None, str | None]],
    *,
    scope: str = EVERYTHING,
    scope_name: str = "",
    stream: Stream = Stream.ISSUES,
) -> list[NewPart]:
    """Parts that read issues by (external id, key); one of both may be unknown."""
    size = connector.keys_per_part
    parts: list[NewPart] = []
    for start in range(0, len(wanted), size):
        piece = wanted[start : start + size]
        known = [{"id": external_id, "key": key} for external_id, key in piece if external_id]
        query = {
            "issues": known,
            "ids": [each["id"] for each in known],
            "keys": [key for external_id, key in piece if not external_id and key],
        }
        parts.append(NewPart(PartKind.KEYS, stream, scope, scope_name or scope, None, query))
    return parts


async def _save(database: Database, job: Job, stored: StoredConnection, plan: Plan, *, requests: int) -> None:
    async with database.transaction() as connection:
        current = await jobs.lock_job(connection, job.id)
        if current is None or current.attempt != job.attempt or current.planned_at:
            return
        if plan.windows:
            await sync_lines.abandon_windows(connection, stored.id, job.id)
        await sync_ledger.save_plan(
            connection, job_id=job.id, connection_id=stored.id, windows=plan.windows, parts=plan.parts
        )
        await sync_ledger.count_requests(connection, job.id, requests)
        if plan.reads:
            await coverage.forget_elsewhere(
                connection,
                stored.id,
                streams=plan.reads.streams,
                scopes=plan.reads.scopes,
                absences=plan.reads.named,
            )
        await coverage.note_gaps(connection, stored.id, plan.gaps)
        await jobs.mark_planned(connection, job.id, parts=len(plan.parts))
        level = "warning" if plan.gaps else "info"
        await jobs.log(
            connection, job.id, level, "Planned", parts=len(plan.parts), gaps=[gap.scope for gap in plan.gaps]
        )
    log.info("Sync planned", extra={"action": "sync_planned", "job_id": str(job.id), "parts": len(plan.parts)})


def _streams(connector: Connector, settings: ConnectorSettings, options: SyncOptions) -> list[Stream]:
    """Streams that have parts of their own, in the order of the connector."""
    wanted = set(options.streams or settings.streams or connector.streams) & set(settings.streams or connector.streams)
    wanted |= {parent for child in wanted if (parent := connector.streams[child].parent)}
    return [
        stream for stream, traits in connector.streams.items() if traits.walk is not Walk.CHILD and stream in wanted
    ]


def _new_part(part: Part, scope: Scope, window: int | None = None) -> NewPart:
    return NewPart(part.kind, part.stream, part.scope, scope.name, part.since, part.query, window)
