"""Look at a file without importing it: how it is read, where its records lie, which of them lose to others.

Everything is found in one pass over the file; only where a large JSON document would take too long, its beginning
stands for the whole.
"""

import random
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import BinaryIO

from shared.domain.errors import FileRefusedError
from shared.domain.job import ImportOptions
from shared.files.detect import HEAD_BYTES, detect
from shared.files.index import BatchIndex
from shared.files.layout import Format, Layout
from shared.files.reader import BrokenRecord, NormalizedRecord, Reader
from shared.files.rewrite import rewrite
from shared.files.scan import Scan, scan_file

_CHUNK_BYTES = 1024 * 1024
_BATCH_BYTES = 4 * 1024 * 1024
_SLICE = 128


@dataclass
class Examined:
    """What one pass found, record by record; positions count from 0."""

    layout: Layout
    reader: Reader
    share: float  # of the file; below 1 where only its beginning was read
    warnings: list[str]
    rows: list[int] = field(default_factory=list[int])
    ids: list[str | None] = field(default_factory=list[str | None])
    hashes: bytearray = field(default_factory=bytearray)
    places: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    losers: set[int] = field(default_factory=set[int])
    copy: BinaryIO = field(default_factory=BytesIO)

    def normalize(self, positions: Sequence[int], seconds: float) -> "Normalized":
        """Normalize the records at some positions, as many as the time allows, picked evenly from all of them."""
        slices = [positions[start : start + _SLICE] for start in range(0, len(positions), _SLICE)]
        # The same file gives the same estimate.
        random.Random(len(positions)).shuffle(slices)  # noqa: S311  # not a secret
        found = Normalized()
        until = time.monotonic() + seconds
        for each in slices:
            good, broken = self.reader.normalize(self._raws(each), [self.rows[position] for position in each])
            position_of = {self.rows[position]: position for position in each}
            found.good += [(position_of[record.row], record) for record in good]
            found.broken += broken
            found.seen += len(each)
            if time.monotonic() > until:
                break
        found.good.sort(key=lambda pair: pair[0])
        found.broken.sort(key=lambda record: record.row)
        return found

    def _raws(self, positions: Sequence[int]) -> list[bytes]:
        raws: list[bytes] = []
        for position in positions:
            offset, length = self.places[position]
            self.copy.seek(offset)
            raws.append(self.copy.read(length))
        return raws


@dataclass
class Normalized:
    """Records that may be stored with their positions, and those that may not, both in the order of the file."""

    good: list[tuple[int, NormalizedRecord]] = field(default_factory=list[tuple[int, NormalizedRecord]])
    broken: list[BrokenRecord] = field(default_factory=list[BrokenRecord])
    seen: int = 0


def examine(
    file: BinaryIO, *, name: str, size: int, options: ImportOptions, expected: str | None, seconds: float
) -> Examined:
    """Find the records of a file. `seconds` bounds the rewriting of JSON. Raises FileRefusedError, also if the file is
    not of the `expected` format.
    """
    file.seek(0)
    layout = check_format(file.read(HEAD_BYTES), name=name, size=size, options=options, expected=expected)
    share = 1.0
    if layout.rewrite:
        file, share = _rewritten(file, layout, size, time.monotonic() + seconds)
        layout = layout_of_copy(file.read(HEAD_BYTES), layout, name=name, size=size, options=options)

    def open_at(offset: int) -> Iterable[bytes]:
        file.seek(offset)
        return iter(lambda: file.read(_CHUNK_BYTES), b"")

    index = BytesIO()
    scan = scan_file(open_at, layout, index, size=size, batch_bytes=_BATCH_BYTES, duplicates=options.duplicates)
    found = Examined(scan.layout, Reader(scan.layout), share, scan.warnings, copy=file)
    _collect(found, scan, index)
    return found


def check_format(head: bytes, *, name: str, size: int, options: ImportOptions, expected: str | None) -> Layout:
    """The layout of a file that has to be `csv` or `json`, or anything; raises FileRefusedError."""
    layout = detect(head, name=name, size=size, options=options)
    actual = "csv" if layout.format is Format.CSV else "json"
    if expected not in {None, actual}:
        raise FileRefusedError(
            "wrong_format", f"This is a {actual.upper()} file, not {expected}", hint=f"Call it as {actual}, or as auto"
        )
    return layout


def layout_of_copy(head: bytes, original: Layout, *, name: str, size: int, options: ImportOptions) -> Layout:
    """The layout of a rewritten copy by its first bytes."""
    found = detect(head, name=name, size=size, options=options.model_copy(update={"encoding": "utf-8"}))
    return found.model_copy(update={"rewrite": False, "warnings": original.warnings})


def _rewritten(file: BinaryIO, layout: Layout, size: int, until: float) -> tuple[BinaryIO, float]:
    """(a copy in which records are found by their bytes, the share of the file that is in it)."""
    copy = tempfile.TemporaryFile()  # noqa: SIM115  # lives as long as what was examined
    file.seek(0)
    share = 1.0
    for chunk in rewrite(iter(lambda: file.read(_CHUNK_BYTES // 4), b""), layout):
        copy.write(chunk)
        # Only lines of JSON end where a chunk does; text of another encoding is quick to copy whole.
        if layout.json_prefix is not None and time.monotonic() > until and file.tell() < size:
            share = file.tell() / size
            break
    copy.seek(0)
    return copy, share


def _collect(found: Examined, scan: Scan, index: BinaryIO) -> None:
    for batch in scan.batches:
        index.seek(batch.index_offset)
        part = BatchIndex.from_bytes(index.read(batch.index_length))
        found.losers.update(len(found.rows) + position for position in batch.losers)
        found.places += _places(batch.offset, part.lengths)
        found.rows += part.rows
        found.ids += part.ids
        found.hashes += part.hashes


def _places(offset: int, lengths: Iterable[int]) -> Iterator[tuple[int, int]]:
    for length in lengths:
        yield offset, length
        offset += length
