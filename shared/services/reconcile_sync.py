"""After a census or a full reading: compare what was seen with what is stored, and ask the source about differences.

Absence from a list is not deletion. What is missing is asked for by its id, and only what the source then says is gone
is marked; when suspiciously much is missing at once nothing is asked or marked until a person accepts it.
"""

import logging
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from shared.connectors._protocol import SCOPE_SETTINGS, Absence, Connector, Gap, PartKind
from shared.domain.errors import Trouble
from shared.domain.stream import Stream
from shared.domain.sync import OVERLAP, SyncMode, is_mass_absence
from shared.services.open_connector import Connectors, check_settings
from shared.services.plan_sync import keys_parts
from shared.store import connections, coverage, jobs, seen, streams, sync_ledger, sync_lines
from shared.store.connections import StoredConnection
from shared.store.database import Connection, Database
from shared.store.jobs import Job
from shared.store.streams import Writer
from shared.store.sync_ledger import StoredPart

log = logging.getLogger(__name__)

_MOST_ASKED = 5_000
# A list that was longer than this is not believed when it is suddenly empty.
_MOST_LOST_AT_ONCE = 5
# Merged branches are cleared away by the dozen.
_COMES_AND_GOES = {Stream.BRANCHES}


async def reconcile_sync(database: Database, made: Connectors, job_id: UUID, attempt: int) -> int:
    """Compare once in an attempt, when all parts were walked; returns how many parts ask about differences."""
    async with database.transaction() as connection:
        job = await jobs.lock_job(connection, job_id)
        if job is None or job.attempt != attempt or job.cancel_requested or not job.connection_id or job.sync is None:
            return 0
        stored = await connections.find_by_id(connection, job.connection_id)
        parts = await sync_ledger.list_parts(connection, job_id)
        if stored is None:
            return 0
        if job.compared_attempt is not None and job.compared_attempt >= attempt:
            return sum(part.kind == PartKind.KEYS and part.state == "waiting" for part in parts)
        await jobs.mark_compared(connection, job_id, attempt)
        work = _Work(connection, job, stored)
        connector = await made.of(connection, stored)
        cursors = await sync_lines.find_cursors(connection, stored.id)
        whole = _whole_scopes(job, parts)
        added = 0
        for part in whole:
            added += await _Compare(work, connector, part).run(cursors.get((part.stream, part.scope)))
        await _mark_unseen(work, parts)
        await _tell_unlisted(work, parts)
        if whole:
            # Of a whole scope that is gone, and where two jobs wrote an issue and its comment at the same moment.
            await work.writer(job.created_at).follow_all()
    return added


@dataclass(frozen=True)
class _Work:
    """A comparison at work."""

    connection: Connection
    job: Job
    stored: StoredConnection

    @property
    def accepts_absences(self) -> bool:
        """Whether a person said that what is missing is gone."""
        return self.job.sync is not None and self.job.sync.accept_absences

    def writer(self, read_at: datetime) -> Writer:
        """Writes for a reading that began then."""
        return Writer(self.connection, source=self.stored.slug, job_id=self.job.id, read_at=read_at)

    async def believes(self, stream: Stream, scope: str, *, absent: int, known: int, suspicious: bool) -> bool:
        """Whether what is missing may be marked; if not, that is told, and shown until a comparison finds it well."""
        if not suspicious or self.accepts_absences:
            await coverage.close_absences(self.connection, self.stored.id, stream, scope)
            return True
        detail = f"{absent} of {known} {stream} of {scope} are missing at once; none was marked as gone"
        await self.doubt(stream, scope, Trouble.PERMISSION_DENIED, detail)
        return False

    async def doubt(self, stream: Stream, scope: str, trouble: Trouble, detail: str) -> None:
        """Tell of something that only a person can judge."""
        await self.tell("error", stream, scope, detail, [])
        advice = f"{detail}. Check permissions and filters; if it is right so, sync with accept_absences"
        gap = Gap(stream, scope, trouble, advice)
        await coverage.note_gaps(self.connection, self.stored.id, [gap], absences=True)

    async def tell(
        self, level: str, stream: Stream, scope: str, message: str, records: list[tuple[str, str | None]]
    ) -> None:
        """Log a difference."""
        examples = [key or external_id for external_id, key in records[:5]]
        await jobs.log(self.connection, self.job.id, level, message, examples=examples)
        extra = {"action": "census_difference", "stream": stream, "scope": scope}
        log.log(logging.getLevelNamesMapping()[level.upper()], message, extra=extra)


async def _mark_unseen(work: _Work, parts: list[StoredPart]) -> None:
    """What no finished snapshot of a stream showed is gone. People may be in several scopes, so all of those count."""
    snapshots = [part for part in parts if part.kind == PartKind.SNAPSHOT]
    broken = {part.stream for part in snapshots if part.state != "done" or part.gaps}
    for part in snapshots:
        if part.stream in broken and (part.stream is Stream.USERS or part.state != "done" or part.gaps):
            continue
        if part.read_from is not None:
            writer = work.writer(part.read_from)
            absent, known = await writer.count_unseen(part.stream, part.scope)
            # Nobody can be asked about these one by one, so an empty list counts for nothing.
            mass = is_mass_absence(absent, known) and part.stream not in _COMES_AND_GOES
            suspicious = mass or (absent == known > _MOST_LOST_AT_ONCE)
            if await work.believes(part.stream, part.scope, absent=absent, known=known, suspicious=suspicious):
                gone = await writer.mark_unseen(part.stream, part.scope) if absent else 0
                await sync_ledger.count_deleted(work.connection, part, gone)


async def _tell_unlisted(work: _Work, parts: list[StoredPart]) -> None:
    """Issues of scopes that the source does not list any more, where it is the source who says which there are."""
    censuses = [part for part in parts if part.kind == PartKind.CENSUS and part.stream is Stream.ISSUES]
    settings = check_settings(work.stored.source, work.stored.settings)
    chosen = work.job.sync is None or work.job.sync.scopes or any(getattr(settings, n, ()) for n in SCOPE_SETTINGS)
    if chosen or not censuses:
        return
    gaps = {gap["scope"] for gap in await coverage.list_gaps(work.connection, work.stored.id) if not gap["absences"]}
    listed = {part.scope for part in parts} | gaps
    for scope, issues in (await streams.count_by_scope(work.connection, work.stored.slug)).items():
        if scope in listed:
            continue
        if work.accepts_absences:
            gone = await streams.mark_scope_gone(
                work.connection, work.stored.slug, work.job.id, scope, Absence.DELETED_OR_HIDDEN
            )
            await sync_ledger.count_deleted(work.connection, censuses[0], gone)
            await coverage.close_absences(work.connection, work.stored.id, Stream.ISSUES, scope)
        else:
            detail = f"{scope} is not listed any more; its {issues} issues were not marked as gone"
            await work.doubt(Stream.ISSUES, scope, Trouble.NOT_FOUND, detail)


def _whole_scopes(job: Job, parts: list[StoredPart]) -> list[StoredPart]:
    """Scopes whose every record was seen, by the part that began first."""
    whole: dict[tuple[Stream, str], StoredPart] = {}
    broken: set[tuple[Stream, str]] = set()
    full = job.sync is not None and job.sync.mode is SyncMode.FULL
    for part in parts:
        if part.kind != PartKind.CENSUS and not (part.kind == PartKind.WINDOW and full and part.since is None):
            continue
        place = (part.stream, part.scope)
        if part.state != "done" or part.read_from is None or part.gaps:
            broken.add(place)
        elif place not in whole or part.read_from < (whole[place].read_from or part.read_from):
            whole[place] = part
    return [part for place, part in whole.items() if place not in broken]


class _Compare:
    """The comparison of one scope."""

    def __init__(self, work: _Work, connector: Connector, part: StoredPart) -> None:
        self._work = work
        self._connector = connector
        self._part = part
        self._stream = part.stream
        self._scope = part.scope
        self._began = part.read_from or work.job.created_at

    async def run(self, cursor: datetime | None) -> int:
        """Compare, tell, and add parts for what has to be asked; returns how many."""
        work, stream, scope = self._work, self._stream, self._scope
        found = await seen.compare_seen(
            work.connection,
            source=work.stored.slug,
            job_id=work.job.id,
            stream=stream,
            scope=scope,
            began=self._began,
            cursor=cursor,
            # Only issues are asked for. Others that are younger than what lists surely show are judged another time.
            settled=cursor - OVERLAP if cursor and stream is not Stream.ISSUES else None,
        )
        missed = found.missed
        if missed:
            message = f"{len(missed)} {stream} of {scope} were missed by earlier syncs"
            await work.tell("warning", stream, scope, message, missed)
        if stream is Stream.ISSUES and found.doubtful:
            message = f"{len(found.doubtful)} issues of {scope} are listed otherwise than they were read; asked again"
            await work.tell("info", stream, scope, message, found.doubtful)
        absent, known = len(found.absent), found.known
        suspicious = is_mass_absence(absent, known)
        believed = await work.believes(stream, scope, absent=absent, known=known, suspicious=suspicious)
        if stream is not Stream.ISSUES:
            await self._mark_gone(found.absent if believed else [])
            return 0
        return await self._ask([*(found.absent if believed else []), *missed, *found.doubtful][:_MOST_ASKED])

    async def _mark_gone(self, absent: list[tuple[str, str | None]]) -> None:
        """Only issues can be asked for one by one; a finished list of the others is the source's word."""
        if absent:
            writer = self._work.writer(self._began)
            marked = await writer.mark_gone(self._stream, [each for each, _ in absent], Absence.DELETED)
            await sync_ledger.count_deleted(self._work.connection, self._part, marked[self._stream])

    async def _ask(self, asked: list[tuple[str, str | None]]) -> int:
        parts = keys_parts(self._connector, asked, scope=self._scope)
        if parts:
            await sync_ledger.add_parts(self._work.connection, self._work.job.id, parts)
        return len(parts)
