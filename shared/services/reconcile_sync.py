"""After a census or a full reading: compare what was seen with what is stored, and ask the source about differences.

Absence from a list is not deletion. What is missing is asked for by its id, and only what the source then says is gone
is marked; when suspiciously much is missing at once nothing is asked or marked until a person accepts it.
"""

import logging
from datetime import datetime
from uuid import UUID

from shared.connectors._protocol import Absence, Connector, Gap, PartKind
from shared.domain.errors import Trouble
from shared.domain.stream import Stream
from shared.domain.sync import SyncMode, is_mass_absence
from shared.services.open_connector import Connectors
from shared.services.plan_sync import keys_parts
from shared.store import connections, coverage, jobs, streams, sync_ledger
from shared.store.connections import StoredConnection
from shared.store.database import Connection, Database
from shared.store.jobs import Job
from shared.store.streams import Writer
from shared.store.sync_ledger import StoredPart

log = logging.getLogger(__name__)

_MOST_ASKED = 5_000


async def reconcile_sync(database: Database, made: Connectors, job_id: UUID, attempt: int) -> int:
    """Compare once, when all parts were walked; returns how many parts were added for what has to be asked."""
    async with database.transaction() as connection:
        job = await jobs.lock_job(connection, job_id)
        if job is None or job.attempt != attempt or job.cancel_requested or not job.connection_id or job.sync is None:
            return 0
        stored = await connections.find_by_id(connection, job.connection_id)
        parts = await sync_ledger.list_parts(connection, job_id)
        if stored is None or any(part.kind == PartKind.KEYS for part in parts):
            return 0
        connector = await made.of(connection, stored)
        cursors = await sync_ledger.find_cursors(connection, stored.id)
        added = 0
        for part in _whole_scopes(job, parts):
            compare = _Compare(connection, job, stored, connector, part)
            added += await compare.run(cursors.get((part.stream, part.scope)))
        await _mark_unseen(connection, job, stored, parts)
        await streams.forget_seen(connection, job_id)
    return added


async def _mark_unseen(connection: Connection, job: Job, stored: StoredConnection, parts: list[StoredPart]) -> None:
    """What no finished snapshot of a stream showed is gone. People may be in several scopes, so all of those count."""
    snapshots = [part for part in parts if part.kind == PartKind.SNAPSHOT]
    broken = {part.stream for part in snapshots if part.state != "done" or part.gaps}
    for part in snapshots:
        if part.stream in broken and (part.stream is Stream.USERS or part.state != "done" or part.gaps):
            continue
        if part.read_from is not None:
            writer = Writer(connection, source=stored.slug, job_id=job.id, read_at=part.read_from)
            gone = await writer.mark_unseen(part.stream, part.scope)
            await sync_ledger.count_deleted(connection, part, gone)


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

    def __init__(
        self, connection: Connection, job: Job, stored: StoredConnection, connector: Connector, part: StoredPart
    ) -> None:
        self._connection = connection
        self._job = job
        self._stored = stored
        self._connector = connector
        self._part = part
        self._stream = part.stream
        self._scope = part.scope
        self._began = part.read_from or job.created_at

    async def run(self, cursor: datetime | None) -> int:
        """Compare, tell, and add parts for what has to be asked; returns how many."""
        found = await streams.compare_seen(
            self._connection,
            source=self._stored.slug,
            job_id=self._job.id,
            stream=self._stream,
            scope=self._scope,
            began=self._began,
            cursor=cursor,
        )
        absent, missed = found.absent, found.missed
        if missed:
            await self._tell(
                "warning", f"{len(missed)} {self._stream} of {self._scope} were missed by earlier syncs", missed
            )
        accepted = self._job.sync is not None and self._job.sync.accept_absences
        if is_mass_absence(len(absent), found.known) and not accepted:
            await self._refuse(len(absent), found.known)
            absent = []
        elif absent and self._stream is not Stream.ISSUES:
            # Only issues can be asked for one by one; a finished list of the others is the source's word.
            writer = Writer(self._connection, source=self._stored.slug, job_id=self._job.id, read_at=self._began)
            gone = await writer.mark_gone(self._stream, [each for each, _ in absent], Absence.DELETED)
            await sync_ledger.count_deleted(self._connection, self._part, gone)
            absent = []
        if self._stream is not Stream.ISSUES:
            return 0
        asked = [*absent, *missed][:_MOST_ASKED]
        parts = keys_parts(self._connector, asked, scope=self._scope)
        if parts:
            await sync_ledger.add_parts(self._connection, self._job.id, parts)
        return len(parts)

    async def _refuse(self, absent: int, known: int) -> None:
        detail = f"{absent} of {known} {self._stream} of {self._scope} are missing at once; none was marked as gone"
        await self._tell("error", detail, [])
        advice = f"{detail}. Check the account's permissions, or sync with accept_absences"
        gap = Gap(self._stream, self._scope, Trouble.PERMISSION_DENIED, advice)
        await coverage.note_gaps(self._connection, self._stored.id, [gap])

    async def _tell(self, level: str, message: str, records: list[tuple[str, str | None]]) -> None:
        examples = [key or external_id for external_id, key in records[:5]]
        await jobs.log(self._connection, self._job.id, level, message, examples=examples)
        log.warning(message, extra={"action": "census_difference", "stream": self._stream, "scope": self._scope})
