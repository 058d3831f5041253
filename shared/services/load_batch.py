"""Load one batch of a file: read, hash, ask what is new, normalize only that, store, count, all in one transaction."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import Enum, auto
from itertools import batched
from typing import NamedTuple
from uuid import UUID

from shared.blobs import Blobs
from shared.domain.errors import DatabaseUnavailableError, TributaryError
from shared.domain.job import Counts, Duplicates
from shared.files.index import BatchIndex
from shared.files.layout import Layout
from shared.files.reader import BrokenRecord, Reader
from shared.settings import Settings
from shared.store import batches, jobs, rejections
from shared.store.batches import Batch
from shared.store.database import Connection, Database
from shared.store.jobs import Job
from shared.store.records import MIRRORS, Merged, copy_lines
from shared.telemetry import log_context, record_batch

log = logging.getLogger(__name__)

_SLICE = 1_024
# One thread parses for all batches of this worker: several would only take the interpreter from each other.
_PARSER = ThreadPoolExecutor(1, thread_name_prefix="parser")


async def _parse[T](work: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(_PARSER, work)


class _Fate(Enum):
    """What is known of a record before it is read."""

    NEW = auto()
    KNOWN = auto()  # the table holds it in another form, or it has no id to ask for
    LOSER = auto()
    SKIPPED = auto()


@dataclass
class _Outcome:
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(batches.COUNTED, 0))
    broken: list[BrokenRecord] = field(default_factory=list[BrokenRecord])
    replayed: list[int] = field(default_factory=list[int])

    def note(self, normalized: "_Normalized") -> None:
        """Keep what is to be told of normalized records beside their being stored."""
        self.broken += normalized.broken
        self.counts["rejected"] += len(normalized.broken)
        self.replayed += normalized.replayed
        self.replayed += [record.rejection_id for record in normalized.broken if record.rejection_id is not None]

    def take(self, other: "_Outcome") -> None:
        """Add what came of other records."""
        self.broken += other.broken
        self.replayed += other.replayed
        for name, count in other.counts.items():
            self.counts[name] += count

    def count_merge(self, created: int, merged: Merged) -> None:
        self.counts["created"] += created
        for name, count in merged._asdict().items():
            self.counts[name] += count


async def load_batch(
    database: Database, blobs: Blobs, settings: Settings, job_id: UUID, attempt: int, phase: str, number: int
) -> bool:
    """Load a batch, or in the `check` phase only validate it; True when the ledger shows it done or it is not ours.

    Any failure is written to the ledger and answered with False; only a lost database is raised, because then the
    ledger cannot know.
    """
    with log_context(job_id=str(job_id), batch=number):
        started = time.perf_counter()
        try:
            counts = await _load(database, blobs, settings, job_id, attempt, phase, number)
        except DatabaseUnavailableError:
            raise
        except Exception as error:
            log.exception("Batch failed", extra={"action": "batch_failed", "phase": phase})
            async with database.connection() as connection:
                await batches.fail_batch(connection, job_id, phase, number, _describe(error))
            return False
        if counts:
            record_batch(counts, seconds=time.perf_counter() - started)
            log.info("Batch done", extra={"action": "batch_done", "phase": phase, "counts": counts.model_dump()})
        return True


async def _load(
    database: Database, blobs: Blobs, settings: Settings, job_id: UUID, attempt: int, phase: str, number: int
) -> Counts | None:
    async with database.connection() as connection:
        job = await jobs.find_job(connection, job_id)
        if job is None or job.attempt != attempt or job.cancel_requested:
            return None
        batch = await batches.find_batch(connection, job_id, phase, number)
    if batch is None or batch.state == "done":
        return None
    index = await _read_index(blobs, settings, job, batch)
    outcome = _Outcome()
    async with database.transaction() as connection:
        # A repeated activity waits here for its twin, and then finds the batch done.
        locked = await batches.lock_batch(connection, job_id, phase, number)
        if locked is None or locked.state == "done":
            return None
        work = _Work(connection, blobs, job, batch, index, Reader(Layout.model_validate(job.layout)))
        if phase == "check":
            await _check(work, outcome)
        else:
            await _store(work, outcome)
        await rejections.insert_rejections(connection, job_id, number, outcome.broken)
        if outcome.replayed and job.parent_id:
            await rejections.mark_replayed(connection, job.parent_id, outcome.replayed, job_id)
        counts = Counts(rows=len(index), **outcome.counts)
        await batches.close_batch(connection, job_id, phase, number, counts, work.reader.remarks.to_counts())
    return counts


@dataclass(frozen=True)
class _Work:
    connection: Connection
    blobs: Blobs
    job: Job
    batch: Batch
    index: BatchIndex
    reader: Reader

    async def read(self) -> bytes:
        """The bytes of the batch."""
        job, batch = self.job, self.batch
        chunks = self.blobs.read(
            job.file_container or "",
            job.file_blob or "",
            offset=batch.byte_offset,
            length=batch.byte_length,
            etag=job.file_etag,
        )
        return await asyncio.to_thread(b"".join, chunks)

    async def normalize(self, content: bytes, positions: Sequence[int], *, encode: bool) -> "_Normalized":
        """Normalize the records at some positions of the batch's bytes, and encode the good ones for COPY."""
        index, job = self.index, self.job

        def normalize() -> _Normalized:
            rows = [index.rows[position] for position in positions]
            good, broken = self.reader.normalize(index.cut(content, positions), rows)
            lines = b""
            if encode:
                position_of = dict(zip(rows, positions, strict=True))
                hashes = [index.hash_at(position_of[record.row]) for record in good]
                lines = copy_lines(good, hashes, job.id, job.import_source)
            return _Normalized(
                good=len(good),
                lines=lines,
                broken=broken,
                replayed=[record.rejection_id for record in good if record.rejection_id is not None],
            )

        return await _parse(normalize)


class _Normalized(NamedTuple):
    """What some records came to; of the good ones only their COPY lines are kept."""

    good: int
    lines: bytes
    broken: list[BrokenRecord]
    replayed: list[int]


async def _read_index(blobs: Blobs, settings: Settings, job: Job, batch: Batch) -> BatchIndex:
    def read() -> BatchIndex:
        chunks = blobs.read(
            settings.files_container, job.index_blob or "", offset=batch.index_offset, length=batch.index_length
        )
        return BatchIndex.from_bytes(b"".join(chunks))

    return await asyncio.to_thread(read)


async def _check(work: _Work, outcome: _Outcome) -> None:
    content = await work.read()
    for some in batched(range(len(work.index)), _SLICE, strict=False):
        outcome.note(await work.normalize(content, some, encode=False))


async def _store(work: _Work, outcome: _Outcome) -> None:
    index, job = work.index, work.job
    losers = set(work.batch.losers)
    askable = [p for p, identity in enumerate(index.ids) if identity is not None and p not in losers]
    differences = await MIRRORS[job.options.kind].find_differences(
        work.connection,
        job.import_source,
        [index.ids[position] or "" for position in askable],
        index.hashes_at(askable),
    )
    new = {askable[position] for position in differences.new}
    changed = {askable[position] for position in differences.changed}
    unchanged = len(askable) - len(new) - len(changed)
    if job.options.duplicates is Duplicates.SKIP:
        outcome.counts["skipped"] = unchanged + len(changed)
        # A replay has to say which rejections it took up, even where what is stored stays.
        skipped = changed if job.parent_id else set[int]()
        changed = set[int]()
    else:
        outcome.counts["unchanged"] = unchanged
        skipped = set[int]()
    unread = {position for position, identity in enumerate(index.ids) if identity is None}
    groups = {_Fate.NEW: new, _Fate.KNOWN: changed | unread, _Fate.LOSER: losers, _Fate.SKIPPED: skipped}
    content = await work.read() if any(groups.values()) else b""
    for fate, positions in groups.items():
        if fate is _Fate.NEW and positions:
            await _add(work, content, sorted(positions), outcome)
            continue
        # A slice at a time, so that the records of a batch are never all in memory as Python objects.
        for some in batched(sorted(positions), _SLICE, strict=False):
            normalized = await work.normalize(content, some, encode=fate is _Fate.KNOWN)
            outcome.note(normalized)
            if fate is _Fate.LOSER:
                outcome.counts["duplicates"] += normalized.good
            elif fate is _Fate.KNOWN and normalized.good:
                outcome.count_merge(*await MIRRORS[job.options.kind].merge(work.connection, normalized.lines))
    outcome.broken.sort(key=lambda record: record.row)


async def _add(work: _Work, content: bytes, positions: Sequence[int], outcome: _Outcome) -> None:
    """Stream new records into the table, the server busy with one slice while the next is normalized."""
    mirror = MIRRORS[work.job.options.kind]
    slices = list(batched(positions, _SLICE, strict=False))
    first = await work.normalize(content, slices[0], encode=True)
    if len(slices) == 1 and not first.good:
        # What is "new" in a file that was loaded before are its broken rows.
        outcome.note(first)
        return
    added = _Outcome()

    async def lines() -> AsyncGenerator[bytes]:
        for some in slices:
            normalized = first if some is slices[0] else await work.normalize(content, some, encode=True)
            added.note(normalized)
            added.counts["created"] += normalized.good
            yield normalized.lines

    if not await mirror.add(work.connection, lines()):
        # Another door stored one of them a moment ago.
        added = _Outcome()
        for some in slices:
            normalized = await work.normalize(content, some, encode=True)
            added.note(normalized)
            added.count_merge(*await mirror.merge(work.connection, normalized.lines, may_create=True))
    outcome.take(added)


def _describe(error: Exception) -> dict[str, str]:
    if isinstance(error, TributaryError):
        return {"code": error.code, "detail": error.detail, "hint": error.hint}
    return {"code": "internal_error", "detail": f"{type(error).__name__} while loading this part; see the logs"}
