"""Store one page of a part: decide what is new, write it, mark what is gone, count, and move the part on.

All of it is one transaction with the ledger, so a page that was stored and one that is noted are the same thing.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from typing import Any, NamedTuple, Protocol

from pydantic import ValidationError

from shared.connectors._protocol import Page, PartKind, Sent
from shared.domain.rejection import Problem
from shared.domain.stream import Issue, Record, Stream
from shared.domain.sync import Fate, Held, SyncMode, content_hash, decide, digest_of, encode_record
from shared.domain.turns import in_turns
from shared.services.open_connector import connector_class
from shared.store import coverage, rejections, sync_ledger
from shared.store.connections import StoredConnection
from shared.store.database import Connection
from shared.store.jobs import Job
from shared.store.seen import note_seen
from shared.store.stream_rows import Row
from shared.store.streams import Writer
from shared.store.sync_ledger import StoredPart

# Parents before children, and always in one order, so that two pages never wait for each other's rows.
_ORDER = {stream: position for position, stream in enumerate(Stream)}
_SHOWN_CHARACTERS = 200


class Keeps(NamedTuple):
    """What a reading does not bring, so that what is stored of it stays."""

    fields: Sequence[str]
    payload: Sequence[str]


def keeps_of(sent: Sent) -> Keeps:
    """What a record says it does not bring."""
    return Keeps(sent.context.get("keep", ()), sent.context.get("keep_payload", ()))


class Normalize(Protocol):
    """A connector's normalize."""

    def __call__(self, sent: Sent) -> Record: ...


@dataclass(frozen=True)
class Refused:
    """A record that makes no sense, as rejections keep it."""

    row: int
    external_id: str | None
    problems: tuple[Problem, ...]
    payload: dict[str, Any]


@dataclass
class Normalized:
    """A page in our words. The last of several versions of one record on a page is the one that counts."""

    records: dict[Stream, dict[str, tuple[Record, Sent]]] = field(
        default_factory=dict[Stream, dict[str, tuple[Record, Sent]]]
    )
    refused: list[tuple[Stream, Refused]] = field(default_factory=list[tuple[Stream, Refused]])


async def normalize_page(normalize: Normalize, page: Page, *, first_row: int) -> Normalized:
    """Turn what the source sent into records; what makes no sense is told apart, and nothing stops for it."""
    done = Normalized()
    async for number, sent in in_turns(enumerate(page.records, first_row)):
        try:
            record = normalize(sent)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            done.refused.append((sent.stream, _refuse(number, sent, error)))
            continue
        versions = done.records.setdefault(sent.stream, {})
        earlier = versions.get(record.external_id)
        if earlier is None or not _is_older(record, earlier[0]):
            versions[record.external_id] = (record, sent)
    return done


async def store_page(
    connection: Connection,
    *,
    stored: StoredConnection,
    job: Job,
    part: StoredPart,
    page: Page,
    normalized: Normalized,
    requests: int,
    cursor_at: datetime | None,
) -> StoredPart:
    """Write a page and note it in the ledger; returns the part then. Call inside a transaction that holds the part."""
    writer = Writer(connection, source=stored.slug, job_id=job.id, read_at=page.read_at)
    counts: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    work = _Write(writer, counts, authoritative=part.kind == PartKind.KEYS, census_until=_census_line(part, cursor_at))
    for stream in sorted(normalized.records, key=_ORDER.__getitem__):
        await work.stream(stream, normalized.records[stream])
    await _mark_gone(writer, page, counts, fresh=work.created)
    await _keep_refused(connection, job, part, normalized, counts)
    await coverage.note_gaps(connection, stored.id, page.gaps)
    await _note_seen(connection, job, part, page, normalized)
    stepped = await sync_ledger.save_step(
        connection,
        part,
        position=page.next,
        counts=counts,
        requests=requests,
        read_at=page.read_at,
        digest=_digest(part, normalized),
        gaps=_own_gaps(part, page),
    )
    if page.next is None:
        await _close(connection, stored, part, page, met=part.stream in part.counts or part.stream in counts)
    return stepped


class _Write:
    """Writes the records of one page, stream by stream."""

    def __init__(
        self,
        writer: Writer,
        counts: dict[str, dict[str, int]],
        *,
        authoritative: bool,
        census_until: datetime | None,
    ) -> None:
        self._writer = writer
        self._counts = counts
        self._authoritative = authoritative
        self._census_until = census_until
        # Issues this page added.
        self.created: set[str] = set()

    async def stream(self, stream: Stream, records: Mapping[str, tuple[Record, Sent]]) -> None:
        rows = await self._rows(records)
        open_ids = list(rows)
        held = await self._writer.find_held(stream, open_ids)
        touched = [
            i for i in open_ids if i not in held or held[i].content_hash != rows[i].content_hash or held[i].deleted
        ]
        self._count(stream, Fate.UNCHANGED, len(open_ids) - len(touched))
        fresh = [rows[i] for i in touched if i not in held]
        added = await self._writer.add(stream, fresh)
        known = [i for i in touched if i not in added]
        fates = await self._decide(stream, known, rows, records) if known else {}
        changed = [rows[i] for i in known if fates[i] is Fate.CHANGED]
        await self._writer.replace(stream, changed)
        self._count(stream, Fate.NEW, len(added))
        for fate in fates.values():
            self._count(stream, fate, 1)
        written = added | {row.external_id for row in changed}
        self._count_missed(stream, written, records)
        if stream is Stream.ISSUES:
            self.created = added
            await self._link_sprints(written, records)

    async def _decide(
        self, stream: Stream, ids: list[str], rows: Mapping[str, Row], records: Mapping[str, tuple[Record, Sent]]
    ) -> dict[str, Fate]:
        held = await self._writer.find_held(stream, ids, lock=True)
        return {each: self._fate(held.get(each), rows[each], records[each][0]) for each in ids}

    def _fate(self, held: Held | None, row: Row, record: Record) -> Fate:
        return decide(
            held,
            content_hash=row.content_hash,
            updated=record.source_updated_at,
            read_at=self._writer.read_at,
            authoritative=self._authoritative,
        )

    async def _rows(self, records: Mapping[str, tuple[Record, Sent]]) -> dict[str, Row]:
        partial = {i: keeps_of(sent) for i, (_, sent) in records.items() if keeps_of(sent).fields}
        kept: dict[str, Any] = {}
        if partial:
            keeps = next(iter(partial.values()))
            kept = await self._writer.find_kept(list(partial), keeps.fields, keeps.payload)
        rows: dict[str, Row] = {}
        async for each, (record, sent) in in_turns(records.items()):
            # The fields as they are: to have the model copy them would cost more than to write them.
            values, payload = vars(record), record.payload
            if each in partial and each in kept:
                values, payload = {**values, **kept[each]}, {**payload, **kept[each]["payload"]}
            encoded = encode_record(payload)
            rows[each] = Row(each, values, encoded, content_hash(encoded), sent.scope)
        return rows

    async def _link_sprints(self, written: set[str], records: Mapping[str, tuple[Record, Sent]]) -> None:
        issues = [record for each in written if isinstance(record := records[each][0], Issue)]
        sprints_of = {issue.external_id: issue.sprint_ids for issue in issues}
        await self._writer.link_sprints(sprints_of, fresh=self.created)

    def _count_missed(self, stream: Stream, written: set[str], records: Mapping[str, tuple[Record, Sent]]) -> None:
        """What a census finds new or changed before the cursor, a window should have found."""
        if self._census_until is None:
            return
        updated = (records[each][0].source_updated_at for each in written)
        missed = sum(1 for moment in updated if moment is not None and moment < self._census_until)
        if missed:
            self._counts[stream]["missed"] += missed

    def _count(self, stream: Stream, fate: Fate, number: int) -> None:
        if number:
            self._counts[stream][fate.value] += number


async def _mark_gone(writer: Writer, page: Page, counts: dict[str, dict[str, int]], *, fresh: Collection[str]) -> None:
    """Mark what the page says is gone. An issue that was not there a moment ago has no children to lose."""
    complete = sorted((each for each in page.complete if each.issue_id not in fresh), key=lambda c: _ORDER[c.stream])
    for stream, group in groupby(complete, key=lambda c: c.stream):
        children = list(group)
        gone = await writer.mark_children_gone(
            stream, [child.issue_id for child in children], [each for child in children for each in child.ids]
        )
        if gone:
            counts[stream]["deleted"] += gone
    absent: dict[tuple[Stream, str], list[str]] = defaultdict(list)
    for gone in page.gone:
        absent[gone.stream, gone.absence].append(gone.external_id)
    for (stream, absence), ids in sorted(absent.items()):
        marked = await writer.mark_gone(stream, ids, absence)
        if marked:
            counts[stream]["deleted"] += marked


async def _keep_refused(
    connection: Connection, job: Job, part: StoredPart, normalized: Normalized, counts: dict[str, dict[str, int]]
) -> None:
    refused = [each for _, each in normalized.refused]
    for stream, _ in normalized.refused:
        counts[stream]["rejected"] += 1
    read = [each for records in normalized.records.values() for each in records]
    read += [each.external_id for each in refused if each.external_id]
    await rejections.settle_earlier(connection, job.import_source, job.id, read)
    await rejections.insert_rejections(connection, job.id, part.number, refused)


async def _note_seen(connection: Connection, job: Job, part: StoredPart, page: Page, normalized: Normalized) -> None:
    if not _is_whole(part, job):
        return
    seen: dict[str, datetime | None] = dict(page.seen)
    for each, (record, _) in normalized.records.get(part.stream, {}).items():
        seen[each] = record.source_updated_at
    for stream, refused in normalized.refused:
        # A record that cannot be stored is there all the same; an older version of it must not vanish.
        if stream is part.stream and refused.external_id:
            seen.setdefault(refused.external_id, None)
    if seen:
        await note_seen(connection, job.id, part.stream, part.scope, list(seen.items()))


def _is_whole(part: StoredPart, job: Job) -> bool:
    """Whether what a part does not show is not there."""
    if part.kind in {PartKind.CENSUS, PartKind.SNAPSHOT}:
        return True
    full = job.sync is not None and job.sync.mode is SyncMode.FULL
    return part.kind == PartKind.WINDOW and full and part.since is None


async def _close(connection: Connection, stored: StoredConnection, part: StoredPart, page: Page, *, met: bool) -> None:
    if part.kind in {PartKind.SNAPSHOT, PartKind.CENSUS}:
        await coverage.note_read(connection, stored.id, part, census=part.kind == PartKind.CENSUS)
    if part.kind in {PartKind.SNAPSHOT, PartKind.WINDOW}:
        traits = connector_class(stored.source).streams
        # A walk that met no record has asked for the children of none: their gaps stay.
        children = [stream for stream, each in traits.items() if each.parent is part.stream and met]
        await coverage.close_gaps(
            connection,
            stored.id,
            streams=[part.stream, *children],
            scope=part.scope,
            before=part.read_from or page.read_at,
        )


def _own_gaps(part: StoredPart, page: Page) -> int:
    """Refusals that leave the part's own stream incomplete; those of its children do not."""
    return sum(gap.stream is part.stream for gap in page.gaps)


def _census_line(part: StoredPart, cursor_at: datetime | None) -> datetime | None:
    return cursor_at if part.kind == PartKind.CENSUS else None


def _digest(part: StoredPart, normalized: Normalized) -> int:
    records: Sequence[tuple[Record, Sent]] = list(normalized.records.get(part.stream, {}).values())
    return sum(digest_of(record.external_id, record.source_updated_at) for record, _ in records)


def _is_older(record: Record, other: Record) -> bool:
    mine, theirs = record.source_updated_at, other.source_updated_at
    return mine is not None and theirs is not None and mine < theirs


def _refuse(number: int, sent: Sent, error: Exception) -> Refused:
    identity = sent.raw.get("id") or sent.raw.get("sys_id")
    external_id = str(identity) if isinstance(identity, str | int) else None
    return Refused(number, external_id, tuple(_problems(sent, error)), sent.raw)


def _problems(sent: Sent, error: Exception) -> list[Problem]:
    hint = f"Mend it in the tracker; the next sync reads it again. It is one of the {sent.stream}"
    if isinstance(error, ValidationError):
        return [
            Problem(
                code="invalid_field",
                column=".".join(map(str, each["loc"])) or None,
                value=str(each["input"])[:_SHOWN_CHARACTERS],
                reason=each["msg"],
                hint=hint,
            )
            for each in error.errors(include_url=False, include_context=False)
        ]
    reason = f"{type(error).__name__}: {error}"[:_SHOWN_CHARACTERS]
    return [Problem(code="unreadable_record", reason=reason, hint=hint)]
