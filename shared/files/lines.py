"""Cut a stream of bytes into records, keeping the bytes of each."""

import csv
import json
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, NamedTuple

import orjson

from shared.domain.errors import FileRefusedError
from shared.files.layout import Format, Layout

# One cell. A quote that is never closed would otherwise swallow the rest of the file into memory.
MAX_CELL_CHARS = 16 * 1024 * 1024
csv.field_size_limit(MAX_CELL_CHARS)
_WORD = "end"
_FOOTER = re.compile(rb'\s*"?(?:report )?(?:generated|exported) (?:at|on|by)\b', re.IGNORECASE)


class Record(NamedTuple):
    """One record: the row a spreadsheet shows, its bytes with the line end, and its cells or JSON object.

    `content` is None where the bytes are no JSON object, and an empty list for a blank line.
    """

    row: int
    raw: bytes
    content: Any


def physical_lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    r"""Lines with their ends (\n, \r\n or a bare \r), wherever the chunks were cut."""
    return chain.from_iterable(line_blocks(chunks))


def line_blocks(chunks: Iterable[bytes]) -> Iterator[list[bytes]]:
    """The lines of each chunk; one that is cut off waits for the next."""
    tail = b""
    for chunk in chunks:
        lines = (tail + chunk).splitlines(keepends=True)
        # A closing \r may be half of \r\n.
        tail = lines.pop() if lines and not lines[-1].endswith(b"\n") else b""
        yield lines
    if tail:
        yield tail.splitlines(keepends=True)


def csv_records(chunks: Iterable[bytes], layout: Layout, first_row: int) -> Iterator[Record]:
    """Records of a CSV, exactly as csv.reader sees them; raises FileRefusedError where a quote is never closed."""
    lines = _Lines(chunks, layout.encoding)
    reader = csv.reader(chain.from_iterable(lines), **dialect(layout))
    row = first_row - 1
    raw = b""
    taken = 0
    try:
        for cells in reader:
            row += 1
            start, taken = taken, reader.line_num
            raw = lines.take(start, taken)
            yield Record(row, raw, cells)
    except csv.Error as error:
        raise never_closed(row + 1) from error
    if b'"' in raw and _ends_inside_quotes(raw, layout):
        raise never_closed(row)


class _Lines:
    """Blocks of decoded lines for csv.reader, and the bytes of those it has consumed.

    The reader pulls lines without passing through Python code of ours, which is half the cost of reading a file.
    """

    def __init__(self, chunks: Iterable[bytes], encoding: str) -> None:
        self._chunks = chunks
        self._encoding = encoding
        self._held: list[bytes] = []
        self._first = 0  # number of the first line held
        self._taken = 0

    def __iter__(self) -> Iterator[list[str]]:
        for block in line_blocks(self._chunks):
            del self._held[: self._taken - self._first]
            self._first = self._taken
            self._held += block
            yield self._decode(block)

    def take(self, start: int, end: int) -> bytes:
        """The bytes of the lines from one number up to another."""
        self._taken = end
        if end - start == 1:
            return self._held[start - self._first]
        return b"".join(self._held[start - self._first : end - self._first])

    def _decode(self, block: list[bytes]) -> list[str]:
        return decode_lines(block, self._encoding)


def decode_lines(lines: list[bytes], encoding: str) -> list[str]:
    """Text of lines; bytes that are none become surrogates, NULs are left out."""
    try:
        text = list(map(bytes.decode, lines)) if encoding == "utf-8" else [line.decode(encoding) for line in lines]
    except UnicodeDecodeError:
        text = [line.decode(encoding, "surrogateescape") for line in lines]
    if any("\0" in line for line in text):
        return [line.replace("\0", "") for line in text]
    return text


def json_records(chunks: Iterable[bytes], first_row: int) -> Iterator[Record]:
    """Records of newline-delimited JSON."""
    for row, raw in enumerate(physical_lines(chunks), first_row):
        if not raw.strip():
            yield Record(row, raw, [])
            continue
        content = loads(raw)
        yield Record(row, raw, content if isinstance(content, dict) else None)


def loads(raw: bytes) -> Any:
    """A JSON value, None where there is none; half of a character, as cut titles have it, becomes a question mark."""
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        if b"\\ud" not in raw and b"\\uD" not in raw:
            return None
    try:
        lenient = json.dumps(json.loads(raw), ensure_ascii=False)
        return orjson.loads(lenient.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
    except (ValueError, RecursionError):
        return None


def is_filler(content: bytes, layout: Layout) -> bool:
    """Whether a line is no record: blank, nothing but empty cells, or a tracker's line about the export itself."""
    if layout.format is Format.NDJSON:
        return not content.strip()
    delimiter = layout.delimiter.encode()
    if not content.strip(b' \t\r\n\0"' + delimiter):
        return True
    return delimiter not in content and _FOOTER.match(content) is not None


def dialect(layout: Layout) -> dict[str, Any]:
    """The csv.reader arguments of a layout."""
    if layout.escaped:
        return {"delimiter": layout.delimiter, "escapechar": "\\", "doublequote": True}
    return {"delimiter": layout.delimiter, "doublequote": True}


def _ends_inside_quotes(raw: bytes, layout: Layout) -> bool:
    # Two line ends, because a closing backslash takes one for a cell's text. A quote still open takes the word, too.
    ended = (raw + b"\n\n").splitlines(keepends=True)
    lines = [line.decode(layout.encoding, "surrogateescape") for line in ended]
    return list(csv.reader([*lines, _WORD], **dialect(layout)))[-1] != [_WORD]


def never_closed(row: int) -> FileRefusedError:
    """A quote is still open where the file, or our patience, ends."""
    return FileRefusedError(
        "truncated",
        f"A quote opened in row {row} is never closed",
        hint="The file was cut off, or a quote inside a cell is not doubled; export it again",
    )
