"""Read a file as an import does, without blobs and database: detect, rewrite, scan, normalize."""

import io
from collections.abc import Iterator
from typing import Any, NamedTuple

from shared.domain.issue import ISSUE_FIELDS, PROJECT_FIELDS
from shared.domain.job import Duplicates, ImportOptions, Kind
from shared.files.detect import HEAD_BYTES, detect
from shared.files.index import BatchIndex
from shared.files.layout import Layout
from shared.files.reader import BrokenRecord, NormalizedRecord, Reader
from shared.files.remarks import Remarks
from shared.files.rewrite import rewrite
from shared.files.scan import scan_file


class Imported(NamedTuple):
    layout: Layout
    good: list[NormalizedRecord]
    broken: list[BrokenRecord]
    warnings: list[str]
    remarks: Remarks

    def values(self, row: int = 0) -> dict[str, Any]:
        fields = ISSUE_FIELDS if self.layout.kind is Kind.ISSUES else PROJECT_FIELDS
        return dict(zip(fields, self.good[row].values, strict=True))

    @property
    def codes(self) -> list[str]:
        return [problem.code for record in self.broken for problem in record.problems]


def cut(data: bytes) -> Iterator[bytes]:
    return (data[start : start + 4096] for start in range(0, len(data), 4096))


def load(content: bytes | str, **options: Any) -> Imported:
    data = content.encode() if isinstance(content, str) else content
    layout = detect(data[:HEAD_BYTES], name="upload", size=len(data), options=ImportOptions(**options))
    if layout.rewrite:
        data = b"".join(rewrite(cut(data), layout))
    index = io.BytesIO()
    scan = scan_file(
        lambda offset: cut(data[offset:]), layout, index, size=len(data), batch_bytes=1 << 20,
        duplicates=Duplicates.UPDATE,
    )  # fmt: skip
    reader, good, broken = Reader(scan.layout), [], []
    for batch in scan.batches:
        packed = index.getvalue()[batch.index_offset : batch.index_offset + batch.index_length]
        part = BatchIndex.from_bytes(packed)
        raws = part.cut(data[batch.offset : batch.offset + batch.length], range(len(part)))
        fine, bad = reader.normalize(raws, list(part.rows))
        superseded = {part.rows[position] for position in batch.losers}
        good += [record for record in fine if record.row not in superseded]
        broken += bad
    return Imported(scan.layout, good, broken, scan.warnings, reader.remarks)
