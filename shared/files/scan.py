"""Read a file once from end to end and write down where everything is.

Where a record ends is what csv.reader would say: a quoted newline, a stray quote, a bare CR (see cut.py).
Duplicates are settled over the whole file in bounded memory: a bitmap over the ids says "never seen" for sure and
"seen" almost always rightly, so only the few that may be repeats are remembered one by one.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import BinaryIO, NamedTuple

from shared.domain.errors import FileRefusedError
from shared.domain.job import Duplicates
from shared.files.cut import ASCII_COMPATIBLE, Cutter
from shared.files.dates import OrderCensus
from shared.files.index import BatchIndex, record_hash
from shared.files.layout import Layout
from shared.files.lines import is_filler
from shared.files.presets import PRESETS
from shared.files.reader import Reader

_MAX_BITMAP_BYTES = 32 * 1024 * 1024

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
    key = layout.key
    row = layout.first_row - 1
    for block in _identified(reader, open_at(layout.data_offset)):
        for raw, identity in block:
            row += 1
            if is_filler(raw, layout):
                writer.skip(len(raw))
                continue
            writer.add(row, len(raw), identity, record_hash(key, raw))
            if identity is not None:
                repeats.see(identity, row, raw)
    writer.close()
    if not scan.rows:
        raise FileRefusedError("header_only", "The file has a header and no records", hint="Export it again")
    scan.batches = _with_losers(scan.batches, index, repeats.winners(open_at))
    _warn(scan)
    return scan


def _identified(reader: Reader, chunks: Iterable[bytes]) -> Iterator[list[tuple[bytes, str | None]]]:
    """Blocks of (record, id), by the fast way where the id stands in one column of a CSV."""
    layout = reader.layout
    column = reader.identity_column
    if column is None or layout.encoding not in ASCII_COMPATIBLE:
        for record in reader.records(chunks, layout.first_row):
            yield [(record.raw, reader.identity(record.content) if record.content else None)]
        return
    identity = reader.identity_in_cell
    for block in Cutter(layout, column).cut(chunks):
        yield [(raw, identity(cell)) for raw, cell in block]


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
        self._offset = scan.layout.data_offset
        self._begin()

    def add(self, row: int, length: int, identity: str | None, content_hash: bytes) -> None:
        if self._length + length > self._batch_bytes and len(self._batch):
            self.close()
        self._batch.lengths.append(length + self._blank)
        self._batch.rows.append(row)
        self._batch.ids.append(identity)
        self._batch.hashes += content_hash
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

    def see(self, identity: str, row: int, raw: bytes) -> None:
        bit = hash(identity) % self._bits
        byte, mask = bit >> 3, 1 << (bit & 7)
        if not self._seen[byte] & mask:
            self._seen[byte] |= mask
        elif not self._last_wins:
            self._candidates.add(identity)
        elif self._reader.is_valid(raw):
            self._winners[identity] = row

    def winners(self, open_at: Open) -> dict[str, int]:
        """The row that counts of every repeated id. The first valid one can only be known by a second look."""
        if self._candidates:
            layout = self._reader.layout
            records = chain.from_iterable(_identified(self._reader, open_at(layout.data_offset)))
            for row, (raw, identity) in enumerate(records, layout.first_row):
                if identity in self._candidates and self._reader.is_valid(raw):
                    self._winners[identity] = row
                    self._candidates.remove(identity)
        return self._winners


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
