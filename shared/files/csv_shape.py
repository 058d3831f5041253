"""Find the delimiter, the header and the first record of a CSV."""

import codecs
import csv
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from shared.domain.errors import FileRefusedError
from shared.files.lines import physical_lines
from shared.files.preset import normalize_header
from shared.files.presets import recognize

_DELIMITERS = (",", ";", "\t", "|")
_SAMPLE_ROWS = 200
_PREAMBLE_ROWS = 15


@dataclass
class CsvShape:
    """What the head of a CSV says. `sample` holds the first records behind the header."""

    delimiter: str
    escaped: bool
    header: list[str]
    data_offset: int
    first_row: int
    sample: list[list[str]]
    warnings: list[str] = field(default_factory=list[str])


def find_shape(head: bytes, encoding: str, *, delimiter: str | None) -> CsvShape:
    """Raises FileRefusedError if there is no header, no record, or every row is one cell."""
    start = len(codecs.BOM_UTF8) if head.startswith(codecs.BOM_UTF8) else 0
    skipped, named = _separator_line(head[start:])
    escaped = _is_escaped(head)
    asked = {"tab": "\t", "\\t": "\t"}.get(delimiter or "", delimiter)
    chosen = asked or named or _best_delimiter(head[start + skipped :], encoding, escaped=escaped)
    escaped = escaped and _is_escaped_better(head[start + skipped :], encoding, chosen)
    rows = list(_rows(head[start + skipped :], encoding, chosen, escaped=escaped))
    at = _header_position(rows)
    header = [_readable(cell).strip() for cell in rows[at][0]]
    while header and not header[-1]:
        header.pop()
    _refuse_single_cells(header, rows[at + 1 :], chosen)
    warnings = [f"{at} lines above the header were left out"] if at else []
    return CsvShape(
        delimiter=chosen,
        escaped=escaped,
        header=header,
        data_offset=start + skipped + rows[at][1],
        first_row=at + 2,
        sample=[cells for cells, _ in rows[at + 1 :] if cells],
        warnings=warnings,
    )


def _separator_line(head: bytes) -> tuple[int, str | None]:
    """Excel's first line `sep=;`: (its length, the delimiter)."""
    line = head.split(b"\n", 1)[0]
    word = line.strip().strip(b'"')
    if word.lower().startswith(b"sep=") and len(word) <= len("sep=\\t"):
        named = word[4:].decode("ascii", "ignore")
        return len(line) + 1, {"\\t": "\t", "": "\t"}.get(named, named)
    return 0, None


def _is_escaped(head: bytes) -> bool:
    r"""Whether quotes are written \" rather than doubled: some are, and none is doubled."""
    escaped = head.count(b'\\"')
    # A Windows path at the end of a cell looks the same, but is followed by the delimiter.
    closing = sum(head.count(b'\\"' + end) for end in (b",", b";", b"\t", b"\n", b"\r"))
    return escaped - closing > 0 and head.count(b'""') <= escaped // 4


def _is_escaped_better(head: bytes, encoding: str, delimiter: str) -> bool:
    """Whether no fewer rows are as wide as the first: a path that ends in a backslash would swallow its neighbour."""

    def fitting(*, escaped: bool) -> int:
        widths = [len(cells) for cells, _ in _rows(head, encoding, delimiter, escaped=escaped) if cells]
        return widths.count(widths[0]) if widths else 0

    return fitting(escaped=True) >= fitting(escaped=False)


def _readable(name: str) -> str:
    """A column's name without the halves of characters that bytes of another encoding leave behind."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _best_delimiter(head: bytes, encoding: str, *, escaped: bool) -> str:
    def score(delimiter: str) -> tuple[int, float, int]:
        widths = Counter(len(cells) for cells, _ in _rows(head, encoding, delimiter, escaped=escaped) if cells)
        if not widths:
            return (0, 0.0, 0)
        width, rows = widths.most_common(1)[0]
        header = next(cells for cells, _ in _rows(head, encoding, delimiter, escaped=escaped) if len(cells) == width)
        known = 0 if recognize(header).name == "generic" else 1
        return (known if width > 1 else 0, rows / widths.total() if width > 1 else 0.0, width)

    return max(_DELIMITERS, key=score)


def _rows(head: bytes, encoding: str, delimiter: str, *, escaped: bool) -> Iterator[tuple[list[str], int]]:
    """The first rows and the offset behind each."""
    offset = 0

    def lines() -> Iterator[str]:
        nonlocal offset
        for line in physical_lines([head]):
            offset += len(line)
            yield line.decode(encoding, "surrogateescape").replace("\0", "")

    reader = csv.reader(lines(), delimiter=delimiter, escapechar="\\" if escaped else None)
    try:
        for number, cells in enumerate(reader):
            yield cells, offset
            if number > _SAMPLE_ROWS:
                return
    except csv.Error:
        return


def _header_position(rows: list[tuple[list[str], int]]) -> int:
    """The first row as wide as most rows; what stands above is a title or a preamble."""
    filled = [(index, cells) for index, (cells, _) in enumerate(rows) if cells]
    if not filled:
        raise FileRefusedError("empty", "The file has no rows", hint="Export it again")
    usual = Counter(len(cells) for _, cells in filled).most_common(1)[0][0]
    top = [(index, cells) for index, cells in filled if index <= _PREAMBLE_ROWS]
    for index, cells in top:
        if recognize(cells).name != "generic":
            return index
    return next((index for index, cells in top if len(cells) >= usual and len(cells) > 1), filled[0][0])


def _refuse_single_cells(header: list[str], rows: list[tuple[list[str], int]], delimiter: str) -> None:
    if len(header) > 1 or not header:
        return
    if delimiter in header[0] or any(other in normalize_header(header[0]) for other in _DELIMITERS):
        raise FileRefusedError(
            "one_column",
            "Every row is a single quoted cell",
            hint="Open the file in a text editor and remove the quotes around whole rows, or export it again",
        )
    if not rows:
        raise FileRefusedError("header_only", "The file has no records", hint="Export it again")
