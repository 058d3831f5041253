"""Reading records together and reading them one by one come to the same."""

import csv
import io

from hypothesis import given
from hypothesis import strategies as st

from shared.files.layout import Format, Layout
from shared.files.reader import Reader

HEADER = ("id", "summary", "status", "priority", "label", "label", "points", "updated", "resolved", "env", "team")
LAYOUT = Layout(
    format=Format.CSV,
    header=HEADER,
    columns={
        "external_id": ("id",),
        "title": ("summary",),
        "status": ("status",),
        "priority": ("priority",),
        "labels": ("label",),
        "story_points": ("points",),
        "source_updated_at": ("updated",),
        "resolved_at": ("resolved",),
        "environment": ("env",),
    },
)
CELLS = st.one_of(
    st.sampled_from(
        [
            *("", " ", "7", "A-1", "Done", "open", "High", "2025-03-01T10:00:00Z", "2025-02-31", "12/Mar/25 3:04 PM"),
            *("3,5", "many", '{"os": "tern"}', "{broken", "---", "\x1d", "\x1e", "a\0b", "é", "first\nsecond", 'a "b"'),
        ]
    ),
    st.text(max_size=8),
)
ROWS = st.lists(st.lists(CELLS, min_size=len(HEADER) - 1, max_size=len(HEADER) + 1), min_size=20, max_size=40)


@given(rows=ROWS, encoding=st.sampled_from(["utf-8", "cp1252"]), preset=st.sampled_from(["generic", "bugzilla"]))
def test_records_read_together_are_those_read_one_by_one(rows: list[list[str]], encoding: str, preset: str) -> None:
    reader = Reader(LAYOUT.model_copy(update={"encoding": encoding, "preset": preset}))
    raws = [_written(row).encode(encoding, "replace") for row in rows]
    numbers = list(range(1, len(raws) + 1))

    good, broken = reader.normalize(raws, numbers)

    singly = [reader.normalize([raw], [number]) for raw, number in zip(raws, numbers, strict=True)]
    assert good == [record for found, _ in singly for record in found]
    assert broken == [record for _, found in singly for record in found]
    assert len(good) + len(broken) == len(raws)


def test_bytes_that_are_no_text_break_their_own_record_only() -> None:
    raws = [_written([str(number), "Title", *[""] * 9]).encode() for number in range(30)]
    raws[7] = raws[7].replace(b"Title", b"T\xfftle")

    good, broken = Reader(LAYOUT).normalize(raws, list(range(30)))

    assert [record.row for record in broken] == [7]
    assert len(good) == 29


def _written(row: list[str]) -> str:
    line = io.StringIO(newline="")
    csv.writer(line).writerow([cell.encode("utf-8", "replace").decode() for cell in row])
    return line.getvalue()
