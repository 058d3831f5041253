"""Read a file once from end to end and write down where everything is.

Where a record ends is what csv.reader would say: a quoted newline, a stray quote, a bare CR (see cut.py).
Duplicates are settled over the whole file in bounded memory: a bitmap over the ids says "never seen" for sure and
"seen" almost always rightly, so only the few that may be repeats are remembered one by one.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, chain
from typing import BinaryIO, NamedTuple

from shared.domain.errors import FileRefusedError
from shared.domain.job import Duplicates
from shared.files.cut import ASCII_COMPATIBLE, Cutter
from shared.files.dates import OrderCensus
from shared.files.index import BatchIndex, record_hash
from shared.files.layout import Layout
from shared.files.lines import Record, is_filler
from shared.files.presets import PRESETS
from shared.files.reader import Reader

_MAX_BITMAP_BYTES = 32 * 1024 * 1024
_BLOCK_BYTES = 256 * 1024
_JUDGED_TOGETHER = 256

# Opens the file at a byte offset.
Open = Callable[[int], Iterable[bytes]]


class ScannedBatch(NamedTuple):
    """A byte range of the file, and the range of its index."""

    offset: int
    length: int
    first_row: int
    rows: int
    index_offset: int
    index_length: int
    losers: tuple[int, ...] = ()  # positions of records that another row of the file supersedes


class _Records(NamedTuple):
    """Records that follow each other, and their ids."""

    raws: Sequence[bytes]
    ids: Sequence[str | None]

    def part(self, start: int, end: int) -> "_Records":
        return _Records(self.raws[start:end], self.ids[start:end])


@dataclass
class Scan:
    """What a pass over the file found."""

    layout: Layout
    batches: list[ScannedBatch] = field(default_factory=list[ScannedBatch])
    rows: int = 0
    warnings: list[str] = field(default_factory=list[str])


def scan_file(
    open_at: Open, layout: Layout, index: BinaryIO, *, size: int, batch_bytes: int, duplicates: Duplicates
) -> Scan:
    """Find batches, duplicates and the order of dates; write each batch's index to `index`, a file that can be read.

    Raises FileRefusedError if the file ends inside a quote or has no record.
    """
    layout = _with_date_order(open_at, layout)
    scan = Scan(layout, warnings=list(layout.warnings))
    reader = Reader(layout)
    repeats = _Repeats(reader, size, last_wins=duplicates is Duplicates.UPDATE)
    writer = _BatchWriter(scan, index, batch_bytes)
    row = layout.first_row
    for block in _identified(reader, open_at(layout.data_offset)):
        for records in _without_fillers(block, layout):
            if isinstance(records, int):
                writer.skip(records)
                row += 1
                continue
            writer.add(row, records)
            repeats.see(row, records)
            row += len(records.raws)
    writer.close()
    if not scan.rows:
        raise FileRefusedError("header_only", "The file has a header and no records", hint="Export it again")
    scan.batches = _with_losers(scan.batches, index, repeats.winners(open_at))
    _warn(scan)
    return scan


def _identified(reader: Reader, chunks: Iterable[bytes]) -> Iterator[_Records]:
    """Records with their ids, by the fast way where the id stands in one column of a CSV."""
    layout = reader.layout
    column = reader.identity_column
    if column is None or layout.encoding not in ASCII_COMPATIBLE:
        yield from _in_blocks(reader, reader.records(chunks, layout.first_row))
        return
    for raws, cells in Cutter(layout, column).cut(chunks):
        yield _Records(raws, reader.identities_in_cells(cells))


def _in_blocks(reader: Reader, records: Iterable[Record]) -> Iterator[_Records]:
    """Blocks of about a size, because one record may have megabytes."""
    raws: list[bytes] = []
    ids: list[str | None] = []
    size = 0
    for record in records:
        raws.append(record.raw)
        ids.append(reader.identity(record.content) if record.content else None)
        size += len(record.raw)
        if size >= _BLOCK_BYTES:
            yield _Records(raws, ids)
            raws, ids, size = [], [], 0
    if raws:
        yield _Records(raws, ids)


def _without_fillers(block: _Records, layout: Layout) -> Iterator[_Records | int]:
    """Runs of records, and between them the length in bytes of each line that is none."""
    delimiter = layout.delimiter.encode()
    start = 0
    # What has an id and a second cell is a record, so that few have to be looked at closely.
    for position, (raw, identity) in enumerate(zip(block.raws, block.ids, strict=True)):
        if (identity is None or delimiter not in raw) and is_filler(raw, layout):
            if start < position:
                yield block.part(start, position)
            yield len(raw)
            start = position + 1
    if start < len(block.raws):
        yield block.part(start, len(block.raws)) if start else block


def _with_losers(batches: list[ScannedBatch], index: BinaryIO, winners: dict[str, int]) -> list[ScannedBatch]:
    if not winners:
        return batches
    marked: list[ScannedBatch] = []
    for batch in batches:
        index.seek(batch.index_offset)
        records = BatchIndex.from_bytes(index.read(batch.index_length))
        losers = tuple(
            position
            for position, identity in enumerate(records.ids)
            if identity in winners and winners[identity] != records.rows[position]
        )
        marked.append(batch._replace(losers=losers))
    return marked


class _BatchWriter:
    """Cuts the stream of records into batches and writes their indexes."""

    def __init__(self, scan: Scan, index: BinaryIO, batch_bytes: int) -> None:
        self._scan = scan
        self._index = index
        self._batch_bytes = batch_bytes
        self._key = scan.layout.key
        self._offset = scan.layout.data_offset
        self._begin()

    def add(self, row: int, records: _Records) -> None:
        """Append records, the first of them a row of the file."""
        ends = list(accumulate(map(len, records.raws)))
        start = taken = 0
        while start < len(ends):
            end = bisect_right(ends, taken + self._batch_bytes - self._length, lo=start)
            if end == start and not len(self._batch):
                end = start + 1
            if end > start:
                self._append(row + start, records.part(start, end), ends[end - 1] - taken)
                start, taken = end, ends[end - 1]
            if start < len(ends):
                self.close()

    def _append(self, row: int, records: _Records, length: int) -> None:
        batch = self._batch
        first = len(batch)
        batch.lengths.extend(map(len, records.raws))
        batch.lengths[first] += self._blank
        batch.rows.extend(range(row, row + len(records.raws)))
        batch.ids += records.ids
        batch.hashes += b"".join([record_hash(self._key, raw) for raw in records.raws])
        self._length += length
        self._blank = 0

    def skip(self, length: int) -> None:
        """Blank lines belong to the record behind them."""
        self._blank += length
        self._length += length

    def close(self) -> None:
        """Write the batch at hand and begin the next."""
        if len(self._batch):
            packed = self._batch.to_bytes()
            length = self._length - self._blank
            self._scan.batches.append(
                ScannedBatch(
                    self._offset, length, self._batch.rows[0], len(self._batch), self._index.tell(), len(packed)
                )
            )
            self._index.write(packed)
            self._scan.rows += len(self._batch)
            self._offset += length
            blank = self._blank
            self._begin()
            self._blank = self._length = blank

    def _begin(self) -> None:
        self._batch = BatchIndex()
        self._length = 0
        self._blank = 0


class _Repeats:
    """Which rows share an id, in memory that does not grow with the file but with its repeats."""

    def __init__(self, reader: Reader, size: int, *, last_wins: bool) -> None:
        # A record has more than 16 bytes, so this many bits keep false alarms rare until the largest size is reached.
        self._bits = min(_MAX_BITMAP_BYTES, max(1024, size // 8)) * 8
        self._seen = bytearray(self._bits // 8)
        self._reader = reader
        self._last_wins = last_wins
        self._winners: dict[str, int] = {}
        self._candidates: set[str] = set()
        self._pending = _Pending()

    def see(self, row: int, records: _Records) -> None:
        """Take note of records, the first of them a row of the file."""
        bits, seen = self._bits, self._seen
        for position, identity in enumerate(records.ids):
            if identity is None:
                continue
            bit = hash(identity) % bits
            byte, mask = bit >> 3, 1 << (bit & 7)
            if not seen[byte] & mask:
                seen[byte] |= mask
            elif self._last_wins:
                self._judge_later(row + position, records.raws[position], identity)
            else:
                self._candidates.add(identity)

    def winners(self, open_at: Open) -> dict[str, int]:
        """The row that counts of every repeated id. The first valid one can only be known by a second look."""
        if self._candidates:
            layout = self._reader.layout
            blocks = _identified(self._reader, open_at(layout.data_offset))
            records = chain.from_iterable(zip(block.raws, block.ids, strict=True) for block in blocks)
            for row, (raw, identity) in enumerate(records, layout.first_row):
                if identity in self._candidates and identity not in self._winners:
                    self._judge_later(row, raw, identity)
        self._judge()
        return self._winners

    def _judge_later(self, row: int, raw: bytes, identity: str) -> None:
        self._pending.add(row, raw, identity)
        if self._pending.is_enough:
            self._judge()

    def _judge(self) -> None:
        """A broken record displaces nobody. Many together are read in a quarter of the time."""
        pending, self._pending = self._pending, _Pending()
        good, _ = self._reader.normalize(pending.raws, pending.rows)
        valid = {record.row for record in good}
        for row, identity in zip(pending.rows, pending.ids, strict=True):
            if row in valid and (self._last_wins or identity not in self._winners):
                self._winners[identity] = row


class _Pending:
    """Records that wait for being judged."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.raws: list[bytes] = []
        self.ids: list[str] = []
        self._bytes = 0

    def add(self, row: int, raw: bytes, identity: str) -> None:
        self.rows.append(row)
        self.raws.append(raw)
        self.ids.append(identity)
        self._bytes += len(raw)

    @property
    def is_enough(self) -> bool:
        return len(self.rows) == _JUDGED_TOGETHER or self._bytes > _BLOCK_BYTES


def _with_date_order(open_at: Open, layout: Layout) -> Layout:
    """Decide once for the whole file how 03/04/2025 is read, if it has such dates and nobody said."""
    if layout.date_order or not layout.ambiguous_dates:
        return layout
    reader = Reader(layout)
    census = OrderCensus()
    for record in reader.records(open_at(layout.data_offset), layout.first_row):
        for cell in reader.dates(record.content):
            census.see(cell)
    order, warning = census.verdict()
    warnings = (*layout.warnings, warning) if warning else layout.warnings
    return layout.model_copy(update={"date_order": order, "warnings": warnings})


def _warn(scan: Scan) -> None:
    caps = next(preset.caps for preset in PRESETS if preset.name == scan.layout.preset)
    if scan.rows in caps:
        scan.warnings.append(f"Exactly {scan.rows} rows: the export was probably cut off at the tracker's limit")
