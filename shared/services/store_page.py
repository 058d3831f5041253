"""Store one page of a part: decide what is new, write it, mark what is gone, count, and move the part on.

All of it is one transaction with the ledger, so a page that was stored and one that is noted are the same thing.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from itertools import groupby
from typing import Any

from shared.connectors._protocol import Children, Page, PartKind
from shared.domain.stream import Stream
from shared.domain.sync import OVERLAP, Fate, Held, SyncMode, decide, fingerprint_of
from shared.services.normalize_page import Normal, Normalized, complete
from shared.services.open_connector import connector_class
from shared.store import coverage, rejections, sync_ledger
from shared.store.connections import StoredConnection
from shared.store.database import Connection
from shared.store.gone import CHILDREN, GoneIssue, Link
from shared.store.jobs import Job
from shared.store.seen import note_seen
from shared.store.stream_rows import Row
from shared.store.streams import Writer
from shared.store.sync_ledger import StoredPart

# Parents before children, and always in one order, so that two pages never wait for each other's rows.
_ORDER = {stream: position for position, stream in enumerate(Stream)}


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
    await _note_lag(connection, stored, part, work.news.get(part.stream))
    await _mark_gone(writer, page, counts, silent=work.created | work.stale)
    await _keep_refused(connection, job, part, normalized, counts)
    await _note_gaps(connection, stored, part, page)
    await _note_seen(connection, job, part, page, normalized, written=work.written[part.stream])
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
        # Issues this page added, and those of which it has an older version than is held.
        self.created: set[str] = set()
        self.stale: set[str] = set()
        # What this page added or changed.
        self.written: dict[Stream, set[str]] = defaultdict(set)
        # Ids and keys of issues this page shows, which are there.
        self._shown: set[str | None] = set()
        # The earliest time of change of what was not known.
        self.news: dict[Stream, datetime] = {}

    async def stream(self, stream: Stream, records: Mapping[str, Normal]) -> None:
        rows = await self._rows(records)
        open_ids = list(rows)
        held = await self._writer.find_held(stream, open_ids)
        touched = [
            i for i in open_ids if i not in held or held[i].content_hash != rows[i].content_hash or held[i].deleted_at
        ]
        gone_with = await self._gone_with([rows[i] for i in touched]) if stream in CHILDREN else {}
        # Some sources go on listing what belongs to an issue that is gone.
        touched = [i for i in touched if not (i in gone_with and _went_with(held.get(i), rows[i], gone_with[i]))]
        self._count(stream, Fate.UNCHANGED, len(open_ids) - len(touched))
        fresh = [rows[i] for i in touched if i not in held]
        added = await self._writer.add(stream, fresh)
        self._note_news(stream, [rows[i].values["source_updated_at"] for i in added])
        known = [i for i in touched if i not in added]
        fates = await self._write_known(stream, known, rows) if known else {}
        self._count(stream, Fate.NEW, len(added))
        for fate in fates.values():
            self._count(stream, fate, 1)
        written = self.written[stream] = added | {each for each, fate in fates.items() if fate is Fate.CHANGED}
        self._count_missed(stream, written, rows)
        if stream is Stream.ISSUES:
            self.created = added
            self.stale = {each for each, fate in fates.items() if fate is Fate.STALE}
            shown = (rows[each] for each in rows if each not in self.stale)
            self._shown = {name for row in shown for name in (row.external_id, row.values["key"])}
            await self._link_sprints(written, rows)
        await self._writer.follow({gone_with[i].external_id for i in touched if i in gone_with})

    async def _write_known(self, stream: Stream, ids: list[str], rows: Mapping[str, Row]) -> dict[str, Fate]:
        """Write what is news of records that are there; an issue that is back brings back what went with it."""
        held = await self._writer.find_held(stream, ids, lock=True)
        fates = {each: self._fate(stream, held.get(each), rows[each]) for each in ids}
        changed = [each for each in ids if fates[each] is Fate.CHANGED]
        await self._writer.replace(stream, [rows[each] for each in changed])
        moments = {each: rows[each].values["source_updated_at"] for each in changed if not held[each].deleted_at}
        # Some changes leave the time of change alone.
        self._note_news(stream, [moment for each, moment in moments.items() if moment != held[each].updated])
        if stream is Stream.ISSUES:
            back = {each: gone_at for each in changed if (gone_at := held[each].deleted_at)}
            await self._writer.bring_back(
                [GoneIssue(each, rows[each].values["key"], gone_at) for each, gone_at in back.items()]
            )
        return fates

    def _note_news(self, stream: Stream, moments: Sequence[datetime | None]) -> None:
        if times := [moment for moment in (*moments, self.news.get(stream)) if moment]:
            self.news[stream] = min(times)

    async def _gone_with(self, children: Sequence[Row]) -> dict[str, GoneIssue]:
        """Which of these children belong to an issue that is gone; nobody asks about issues the page itself shows."""
        found: dict[str, GoneIssue] = {}
        for column, names in (("external_id", _ids_of_issues(children)), ("key", _keys_of_issues(children))):
            unsure = {name for name in names.values() if name not in self._shown}
            if unsure:
                issues = {getattr(i, column): i for i in await self._writer.find_gone_issues(column, unsure)}
                found |= {child: issues[name] for child, name in names.items() if name in issues}
        return found

    def _fate(self, stream: Stream, held: Held | None, row: Row) -> Fate:
        return decide(
            held,
            content_hash=row.content_hash,
            updated=row.values["source_updated_at"],
            read_at=self._writer.read_at,
            authoritative=self._authoritative,
            askable=stream is Stream.ISSUES,
        )

    async def _rows(self, records: Mapping[str, Normal]) -> dict[str, Row]:
        """The rows to store; of records that were read in part, with what is stored of the rest."""
        kept: dict[str, Any] = {}
        if partial := {each: normal.partial for each, normal in records.items() if normal.partial}:
            first = next(iter(partial.values()))
            kept = await self._writer.find_kept(list(partial), first.fields, first.payload_keys)
        return {each: complete(normal, kept.get(each)) for each, normal in records.items()}

    async def _link_sprints(self, written: set[str], rows: Mapping[str, Row]) -> None:
        sprints_of = {each: rows[each].values["sprint_ids"] for each in written}
        await self._writer.link_sprints(sprints_of, fresh=self.created)

    def _count_missed(self, stream: Stream, written: set[str], rows: Mapping[str, Row]) -> None:
        """What a census finds new or changed before the cursor, a window should have found."""
        if self._census_until is None:
            return
        updated = (rows[each].values["source_updated_at"] for each in written)
        missed = sum(1 for moment in updated if moment is not None and moment < self._census_until)
        if missed:
            self._counts[stream]["missed"] += missed

    def _count(self, stream: Stream, fate: Fate, number: int) -> None:
        if number:
            self._counts[stream][fate.value] += number


async def _mark_gone(writer: Writer, page: Page, counts: dict[str, dict[str, int]], *, silent: Collection[str]) -> None:
    """Mark what the page says is gone. `silent` issues say nothing of their children: one that was not there a moment
    ago has none to lose, and an older version of one knows nothing of the newest.
    """
    complete = sorted((each for each in page.complete if each.issue_id not in silent), key=_link_of)
    for link, group in groupby(complete, key=_link_of):
        children = list(group)
        gone = await writer.mark_children_gone(
            link, [c.issue_key or c.issue_id for c in children], [each for c in children for each in c.ids]
        )
        if gone:
            counts[link.stream]["deleted"] += gone
    absent: dict[tuple[Stream, str], list[str]] = defaultdict(list)
    for gone in page.gone:
        absent[gone.stream, gone.absence].append(gone.external_id)
    for (stream, absence), ids in sorted(absent.items()):
        for each, marked in (await writer.mark_gone(stream, ids, absence)).items():
            if marked:
                counts[each]["deleted"] += marked


async def _note_lag(
    connection: Connection, stored: StoredConnection, part: StoredPart, earliest: datetime | None
) -> None:
    """What was not known though it changed before the window was shown late: the window before should have found it."""
    if part.kind == PartKind.WINDOW and part.since and earliest and earliest < part.since + OVERLAP:
        await coverage.note_lag(connection, stored.id, part, earliest)


def _link_of(children: Children) -> Link:
    return Link(children.stream, "issue_key" if children.issue_key else "issue_id")


def _ids_of_issues(children: Sequence[Row]) -> dict[str, str]:
    return {child.external_id: issue for child in children if (issue := child.values["issue_id"])}


def _keys_of_issues(children: Sequence[Row]) -> dict[str, str]:
    """Of children that know their issue by its key only."""
    return {
        child.external_id: key
        for child in children
        if (key := child.values["issue_key"]) and not child.values["issue_id"]
    }


def _went_with(held: Held | None, row: Row, issue: GoneIssue) -> bool:
    """Whether a child is held as it came, and marked as gone with its issue."""
    return held is not None and held.deleted_at == issue.deleted_at and held.content_hash == row.content_hash


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


async def _note_seen(
    connection: Connection,
    job: Job,
    part: StoredPart,
    page: Page,
    normalized: Normalized,
    *,
    written: Collection[str],
) -> None:
    """Remember what the page showed; of what it wrote the table itself says that it was read since the walk began."""
    if not _is_whole(part, job):
        return
    seen: dict[str, datetime | None] = dict(page.seen)
    for each, normal in normalized.records.get(part.stream, {}).items():
        if each not in written or part.kind == PartKind.SNAPSHOT:
            seen[each] = normal.updated
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


async def _note_gaps(connection: Connection, stored: StoredConnection, part: StoredPart, page: Page) -> None:
    """A window goes on without what its page could not bring; of places in a scope the census knows."""
    inside = [gap for gap in page.gaps if part.kind == PartKind.WINDOW and gap.scope == part.scope]
    await coverage.note_gaps(connection, stored.id, inside, inside=True)
    await coverage.note_gaps(connection, stored.id, [gap for gap in page.gaps if gap not in inside])


async def _close(connection: Connection, stored: StoredConnection, part: StoredPart, page: Page, *, met: bool) -> None:
    if part.kind in {PartKind.SNAPSHOT, PartKind.CENSUS}:
        await coverage.note_read(connection, stored.id, part, census=part.kind == PartKind.CENSUS)
    began = part.read_from or page.read_at
    if part.window_id is not None:
        # Parts of one window are read one after another: the last one speaks for all.
        began = await sync_ledger.find_began(connection, part.window_id)
    if began and part.kind in {PartKind.SNAPSHOT, PartKind.WINDOW}:
        traits = connector_class(stored.source).streams
        # A walk that met no record has asked for the children of none: their gaps stay.
        children = [stream for stream, each in traits.items() if each.parent is part.stream and met]
        await coverage.close_gaps(
            connection,
            stored.id,
            streams=[part.stream, *children],
            scope=part.scope,
            before=began,
            whole=part.kind == PartKind.SNAPSHOT or part.since is None,
        )


def _own_gaps(part: StoredPart, page: Page) -> int:
    """Refusals that leave the part's own stream incomplete; those of its children do not."""
    return sum(gap.stream is part.stream for gap in page.gaps)


def _census_line(part: StoredPart, cursor_at: datetime | None) -> datetime | None:
    return cursor_at if part.kind == PartKind.CENSUS else None


def _digest(part: StoredPart, normalized: Normalized) -> int:
    return sum(fingerprint_of(normal.row.content_hash) for normal in normalized.records.get(part.stream, {}).values())
