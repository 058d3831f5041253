"""One pass over a file: where records and batches lie, and which duplicates win."""

import csv
import io
import tracemalloc
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.errors import FileRefusedError
from shared.domain.job import Duplicates
from shared.files.cut import Cutter
from shared.files.index import BatchIndex
from shared.files.layout import Format, Layout
from shared.files.lines import csv_records, physical_lines
from shared.files.reader import Reader
from shared.files.scan import Scan, scan_file

LAYOUT = Layout(
    format=Format.CSV,
    header=("id", "title"),
    columns={"external_id": ("id",), "title": ("title",)},
    first_row=1,
)
NASTY = st.text(st.sampled_from(list('ab",;\n\r\\ é')), max_size=60)


def cut(data: bytes, size: int) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


def scan(
    data: bytes, *, batch_bytes: int = 64, duplicates: Duplicates = Duplicates.UPDATE, layout: Layout = LAYOUT
) -> tuple[Scan, list[tuple[BatchIndex, bytes]]]:
    index = io.BytesIO()
    found = scan_file(
        lambda offset: cut(data[offset:], 7),
        layout,
        index,
        size=len(data),
        batch_bytes=batch_bytes,
        duplicates=duplicates,
    )
    packed = index.getvalue()
    parts = [
        (
            BatchIndex.from_bytes(packed[batch.index_offset : batch.index_offset + batch.index_length]),
            data[batch.offset : batch.offset + batch.length],
        )
        for batch in found.batches
    ]
    return found, parts


def kept(found: Scan, parts: list[tuple[BatchIndex, bytes]]) -> dict[str, tuple[int, str]]:
    """What a load of these batches would store: id → (row, title)."""
    reader = Reader(LAYOUT)
    stored: dict[str, tuple[int, str]] = {}
    for batch, (index, content) in zip(found.batches, parts, strict=True):
        good, _ = reader.normalize(index.cut(content, range(len(index))), list(index.rows))
        losers = {index.rows[position] for position in batch.losers}
        for record in good:
            if record.row not in losers:
                assert record.external_id not in stored, "two rows of one identity would be stored"
                stored[record.external_id] = (record.row, record.values[2] or "")
    return stored


@given(text=NASTY, size=st.integers(1, 20))
def test_records_are_those_of_csv_reader_wherever_the_chunks_are_cut(text: str, size: int) -> None:
    data = text.encode()
    expected = [cells for cells in csv.reader(io.StringIO(text, newline=""), strict=False) if cells]

    try:
        records = list(csv_records(cut(data, size), LAYOUT, 1))
    except FileRefusedError:
        # Refused because a quote is open at the end; closing it must be all that is missing.
        assert list(csv_records(cut(data + b'"', size), LAYOUT, 1))
        return

    assert [record.content for record in records if record.content] == expected
    assert b"".join(record.raw for record in records) == data


@given(
    text=NASTY,
    size=st.integers(1, 20),
    delimiter=st.sampled_from([",", ";"]),
    escaped=st.booleans(),
    column=st.integers(0, 2),
)
def test_cutter_says_what_csv_reader_says(text: str, size: int, delimiter: str, escaped: bool, column: int) -> None:
    data = text.encode()
    layout = LAYOUT.model_copy(update={"delimiter": delimiter, "escaped": escaped})
    try:
        expected = list(csv_records(cut(data, size), layout, 1))
    except FileRefusedError:
        expected = None

    try:
        found = [
            pair
            for raws, cells in Cutter(layout, column).cut(cut(data, size))
            for pair in zip(raws, cells, strict=True)
        ]
    except FileRefusedError:
        found = None

    if expected is None or found is None:
        assert found is None
        assert expected is None
        return
    header = tuple(f"c{number}" for number in range(3))
    columns = {"external_id": (header[column],), "title": ("c0",)}
    reader = Reader(layout.model_copy(update={"header": header, "columns": columns}))
    assert [raw for raw, _ in found] == [record.raw for record in expected]
    assert reader.identities_in_cells([cell for _, cell in found]) == [
        reader.identity(record.content) if record.content else None for record in expected
    ]


@given(data=st.binary(max_size=80), size=st.integers(1, 9))
def test_lines_join_to_the_bytes_they_came_from(data: bytes, size: int) -> None:
    assert list(physical_lines(cut(data, size))) == data.splitlines(keepends=True)


@given(
    rows=st.lists(
        st.tuples(
            st.sampled_from(["1", "2", "3", "4", "", "x\ny"]), st.sampled_from(["", "one", "two", 'a "quoted"\n'])
        ),
        min_size=1,
        max_size=30,
    ),
    batch_bytes=st.integers(1, 200),
    last_wins=st.booleans(),
)
def test_duplicates_are_settled_as_by_reading_row_after_row(
    rows: list[tuple[str, str]], batch_bytes: int, last_wins: bool
) -> None:
    rows = [("1", "at least one record"), *rows]
    written = io.StringIO(newline="")
    csv.writer(written).writerows(rows)
    expected: dict[str, tuple[int, str]] = {}
    for row, (identity, title) in enumerate(rows, 1):
        if identity.strip() and title.strip() and (last_wins or identity not in expected):
            expected[identity] = (row, title.strip())

    duplicates = Duplicates.UPDATE if last_wins else Duplicates.SKIP
    found, parts = scan(written.getvalue().encode(), batch_bytes=batch_bytes, duplicates=duplicates)

    assert kept(found, parts) == expected
    assert found.rows == sum(any(cell.strip() for cell in cells) for cells in rows)


@pytest.mark.parametrize("last_wins", [True, False])
def test_many_duplicates_are_settled_in_groups_as_singly(last_wins: bool) -> None:
    rows = [(str(number % 300), "" if number % 7 == 0 else f"title {number}") for number in range(2_000)]
    expected: dict[str, tuple[int, str]] = {}
    for row, (identity, title) in enumerate(rows, 1):
        if title and (last_wins or identity not in expected):
            expected[identity] = (row, title)
    data = "".join(f"{identity},{title}\n" for identity, title in rows).encode()

    duplicates = Duplicates.UPDATE if last_wins else Duplicates.SKIP
    found, parts = scan(data, batch_bytes=4_096, duplicates=duplicates)

    assert kept(found, parts) == expected


@given(wanted=st.sets(st.integers(0, 11)))
def test_hashes_of_some_records_are_those_of_each(wanted: set[int]) -> None:
    _, [(index, _)] = scan(b"".join(b"%d,a\n" % number for number in range(12)), batch_bytes=4_096)

    assert index.hashes_at(sorted(wanted)) == b"".join(index.hash_at(position) for position in sorted(wanted))


@given(st.integers(1, 300))
def test_batches_tile_the_file_whatever_their_size(batch_bytes: int) -> None:
    data = b'1,a\n\n2,"b\nb"\r\n\n\n3,c\n4,d\n\n'

    found, parts = scan(data, batch_bytes=batch_bytes)

    assert [row for index, _ in parts for row in index.rows] == [1, 3, 6, 7]
    ends = [batch.offset + batch.length for batch in found.batches]
    assert [0, *ends[:-1]] == [batch.offset for batch in found.batches]
    assert [record.values[2] for index, content in parts for record in _normalized(index, content)] == [
        "a",
        "b\nb",
        "c",
        "d",
    ]


def _normalized(index: BatchIndex, content: bytes) -> list:
    return Reader(LAYOUT).normalize(index.cut(content, range(len(index))), list(index.rows))[0]


def test_equal_records_hash_alike_only_under_the_same_layout() -> None:
    data = b"1,a\n"
    other = LAYOUT.model_copy(update={"columns": {"external_id": ("id",), "title": ("title",), "status": ("title",)}})

    (_, [(first, _)]), (_, [(again, _)]) = scan(data), scan(b"1,a\r\n")
    (_, [(elsewhere, _)]) = scan(data, layout=other)

    assert first.hash_at(0) == again.hash_at(0) != elsewhere.hash_at(0)


def test_file_cut_off_inside_a_quote_names_the_row() -> None:
    with pytest.raises(FileRefusedError, match="row 2") as caught:
        scan(b'1,a\n2,"never closed\n3,c\n')

    assert caught.value.reason == "truncated"


def test_header_alone_is_refused() -> None:
    with pytest.raises(FileRefusedError) as caught:
        scan(b"\n\n")

    assert caught.value.reason == "header_only"


def test_large_records_are_not_held_all_at_once() -> None:
    records, size = 100, 200_000
    layout = Layout(format=Format.NDJSON, columns={"external_id": ("id",), "title": ("title",)})
    lines = (b'{"id": "%d", "title": "%b"}\n' % (number, b"x" * size) for number in range(records))

    tracemalloc.start()
    found = scan_file(
        lambda _: lines,
        layout,
        io.BytesIO(),
        size=records * size,
        batch_bytes=1_000_000,
        duplicates=Duplicates.UPDATE,
    )
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert found.rows == records
    assert peak < records * size / 2
