"""Records that go out to be mended come back as they were, and no spreadsheet runs them on the way."""

import csv
import io

from hypothesis import given
from hypothesis import strategies as st

from shared.domain.job import ImportOptions
from shared.files.corrections import Rejected, csv_header, csv_rows, read_corrections
from shared.files.detect import detect

HEADER = ["external_id", "title", "@note"]
# Control characters would make a file of so few rows look binary.
CELL = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20)
ROW = st.lists(
    st.one_of(CELL, st.sampled_from(["=1+2", "'=x", "''@", "-5", "+49 30", "\tx", "two\nlines", "a\r\nb", '"'])),
    min_size=3,
    max_size=4,
)


def returned(rows: list[list[str]]) -> list[list[str]]:
    """Download, upload: what the import would read."""
    content = csv_header(HEADER) + csv_rows(HEADER, [Rejected(7, 2, (), row) for row in rows])
    layout = detect(content, name="x.csv", size=len(content), options=ImportOptions(delimiter=",", encoding="utf-8"))
    mended = b"".join(read_corrections([content[layout.data_offset :]], layout, as_json=False))
    return list(csv.reader(io.StringIO(mended.decode(), newline="")))


@given(st.lists(ROW, min_size=1, max_size=5))
def test_every_record_returns_as_it_was(rows: list[list[str]]) -> None:
    assert returned(rows) == [["_rejection_id", *HEADER], *[["7", *row] for row in rows]]


@given(ROW)
def test_no_cell_begins_like_a_formula(row: list[str]) -> None:
    [cells] = csv.reader(io.StringIO(csv_rows(HEADER, [Rejected(7, 2, (), row)]).decode(), newline=""))

    for cell in cells:
        assert not cell.startswith(("=", "@", "\t", "\r")), cell
        assert not cell.startswith(("+", "-")) or cell.strip("+-").replace(".", "").replace(",", "").isdecimal(), cell
