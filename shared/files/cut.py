"""Cut a CSV into raw records without parsing them: one regular expression says exactly what csv.reader would.

Reading a file twice through csv.reader would cost more than everything else a reload does. The expression is possessive
throughout, so it never backtracks; a property test holds it against csv.reader.
"""

import re
from collections.abc import Iterable, Iterator, Sequence

from shared.files.layout import Layout
from shared.files.lines import MAX_CELL_CHARS, never_closed

# In these a delimiter, a quote or a line end is never half of another character.
ASCII_COMPATIBLE = frozenset(
    {"ascii", "utf-8", *(f"cp125{number}" for number in range(9)), *(f"iso8859-{number}" for number in range(1, 17))}
)


class Cutter:
    """Cuts records and finds one column in each, the id's."""

    def __init__(self, layout: Layout, column: int) -> None:
        self._pattern = _pattern(layout, column)
        self._first_row = layout.first_row

    def cut(self, chunks: Iterable[bytes]) -> Iterator[tuple[Sequence[bytes], Sequence[bytes]]]:
        """Blocks: records with their line ends, and of each the raw cell of the column, empty where it is too short.

        Blank lines are records too. Raises FileRefusedError where a quote is never closed.
        """
        rest = b""
        row = self._first_row
        for chunk in chunks:
            found = self._pattern.findall(rest + chunk)
            rest = found.pop()[2] if found and found[-1][2] else b""
            if len(rest) > MAX_CELL_CHARS:
                raise never_closed(row + len(found))
            row += len(found)
            if found:
                records, cells, _ = zip(*found, strict=True)
                yield records, cells
        if rest:
            # The last record often has no line end. Two, because a closing backslash would take one for a cell's text.
            record, cell, open_quote = self._pattern.findall(rest + b"\n\n")[0]
            if open_quote:
                raise never_closed(row)
            yield [record[: len(rest)]], [cell]


def _pattern(layout: Layout, column: int) -> re.Pattern[bytes]:
    """Groups: the record with its end, the cell of the column, or what is left when no record is complete."""
    delimiter = re.escape(layout.delimiter.encode())
    junk = rb"[^%b\r\n]" % delimiter  # text behind a closing quote is part of the cell, quotes in it too
    plain = junk + rb"*+"
    inside = rb'[^"]*+(?:""[^"]*+)*+'
    # Most cells are told by their first byte; it comes first because it is quick.
    usual = rb'[^\0"%b\r\n]%b|' % (delimiter, plain)
    if layout.escaped:
        plain = rb"(?:[^%b\r\n\\]++|\\(?s:.))*+" % delimiter
        inside = rb'(?:[^"\\]++|\\(?s:.)|"")*+'
        usual = b""
    field = rb'(?:%b\0*+"%b"(?:%b%b)?+|(?!\0*+")%b)' % (usual, inside, junk, plain, plain)
    more = rb"(?:%b%b)*+" % (delimiter, field)
    with_column = rb"(?:%b%b){%d}+(%b)%b" % (field, delimiter, column, field, more)
    # A \r at the very end may be half of \r\n, so it waits for the next chunk.
    return re.compile(rb"((?:%b|%b%b)(?:\r\n|\n|\r(?!\Z)))|((?s:.+)\Z)" % (with_column, field, more))
