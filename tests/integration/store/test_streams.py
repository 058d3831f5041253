"""Writing streams: however rows travel, the table holds the same."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shared.domain.issue import Severity, StatusCategory
from shared.domain.stream import Issue, Record, Stream
from shared.domain.sync import content_hash, encode_record
from shared.store import streams
from shared.store.copying import NULL
from shared.store.database import Database
from shared.store.stream_rows import Row
from shared.store.streams import Writer

JOB = UUID("00000000-0000-4000-8000-00000000000a")
READ_AT = datetime(2025, 3, 31, 14, 5, tzinfo=UTC)
TEXTS = st.text(max_size=20) | st.sampled_from(["", "\x02", "\x1f", "a\x00b", "\\N", '"', "\n", NULL, "\\x00", "0"])
MOMENTS = st.integers(0, 2**31).map(lambda seconds: datetime.fromtimestamp(seconds + seconds % 1_000 / 1_000, UTC))
ISSUES = st.builds(
    Issue,
    external_id=st.text(min_size=1, max_size=5).map(lambda text: text.replace("\x00", "0")),
    payload=st.dictionaries(TEXTS, TEXTS | st.integers(-5, 5) | st.none(), max_size=3),
    title=st.text(min_size=1, max_size=10),
    description=st.none() | TEXTS,
    status_category=st.sampled_from(StatusCategory),
    severity=st.none() | st.sampled_from(Severity),
    labels=st.lists(TEXTS, max_size=3).map(tuple),
    environment=st.none() | st.dictionaries(TEXTS, TEXTS, max_size=2),
    due_on=st.none() | st.dates(date(1990, 1, 1), date(2100, 1, 1)),
    story_points=st.none() | st.floats(-1e6, 1e6),
    estimate_seconds=st.none() | st.integers(0, 10**12),
    source_updated_at=st.none() | MOMENTS,
)


def row_of(record: Record, scope: str = "pumps") -> Row:
    encoded = encode_record(record.payload)
    return Row(record.external_id, vars(record), encoded, content_hash(encoded), scope)


def issue(number: int, **over: Any) -> Issue:
    return Issue(
        external_id=f"I-{number}", title=f"Issue {number}", status_category=StatusCategory.OPEN, payload={}, **over
    )


@asynccontextmanager
async def writing(database: Database, source: str = "tracker", *, read_at: datetime = READ_AT) -> AsyncIterator[Writer]:
    async with database.transaction() as connection:
        yield Writer(connection, source=source, job_id=JOB, read_at=read_at)


async def stored(database: Database, source: str) -> list[dict[str, Any]]:
    left_out = ("import_source", "created_at", "updated_at")
    async with database.connection() as connection:
        cursor = await connection.execute(
            'select * from issues where import_source = %s order by external_id collate "C"', (source,)
        )
        return [{name: value for name, value in row.items() if name not in left_out} for row in await cursor.fetchall()]


@settings(max_examples=150)
@given(issues=st.lists(ISSUES, min_size=1, max_size=6, unique_by=lambda issue: issue.external_id))
@example(issues=[issue(1, description=NULL), issue(2, description="a\x02b"), issue(3, description="")])
@example(issues=[issue(1, description="a\x00b", environment={"os\x00": "l\x00nux"})])
async def test_rows_that_are_copied_are_those_that_are_inserted(database: Database, issues: list[Issue]) -> None:
    rows = [row_of(each) for each in issues]
    async with database.connection() as connection:
        await connection.execute("truncate issues")

    added: dict[str, set[str]] = {}
    with pytest.MonkeyPatch.context() as patch:
        for way, enough in {"copied": 1, "inserted": 1_000}.items():
            patch.setattr(streams, "_ENOUGH_TO_COPY", enough)
            async with writing(database, way) as writer:
                added[way] = await writer.add(Stream.ISSUES, rows)

    assert added["copied"] == added["inserted"] == {each.external_id for each in issues}
    for copied, inserted in zip(await stored(database, "copied"), await stored(database, "inserted"), strict=True):
        assert copied == inserted


async def test_many_new_rows_of_which_one_came_by_another_way_are_added_but_for_that_one(database: Database) -> None:
    rows = [row_of(issue(number)) for number in range(200)]
    async with writing(database) as writer:
        assert await writer.add(Stream.ISSUES, rows[120:121]) == {"I-120"}

    async with writing(database) as writer:
        added = await writer.add(Stream.ISSUES, rows)

    assert added == {row.external_id for row in rows} - {"I-120"}
    assert len(await stored(database, "tracker")) == 200


@pytest.mark.parametrize("lock", [False, True])
async def test_what_is_held_is_told_of_each_record_that_is_there(database: Database, lock: bool) -> None:
    async with writing(database) as writer:
        await writer.add(Stream.ISSUES, [row_of(issue(1, source_updated_at=READ_AT - timedelta(days=1)))])

        held = await writer.find_held(Stream.ISSUES, ["I-2", "I-1", "I-1"], lock=lock)

    assert set(held) == {"I-1"}
    assert (held["I-1"].updated, held["I-1"].deleted_at) == (READ_AT - timedelta(days=1), None)


@pytest.mark.parametrize(("seconds", "gone"), [(-1, True), (1, False)], ids=["read-before", "read-after"])
async def test_what_is_written_at_the_same_moment_is_gone_unless_it_was_read_later(
    database: Database, seconds: int, gone: bool
) -> None:
    async with writing(database, read_at=READ_AT - timedelta(days=1)) as writer:
        await writer.add(Stream.ISSUES, [row_of(issue(1))])

    async def mark() -> int:
        async with writing(database) as writer:
            return (await writer.mark_gone(Stream.ISSUES, ["I-1"], "deleted"))[Stream.ISSUES]

    async with writing(database, read_at=READ_AT + timedelta(seconds=seconds)) as other:
        await other.replace(Stream.ISSUES, [row_of(issue(1, description="Written meanwhile"))])
        marking = asyncio.create_task(mark())
        await waits_for_a_lock(database)

    assert await marking == int(gone)
    [row] = await stored(database, "tracker")
    assert (row["description"], row["deleted_at"] is not None) == ("Written meanwhile", gone)


async def waits_for_a_lock(database: Database) -> None:
    async with asyncio.timeout(10), database.connection() as connection:
        while True:
            cursor = await connection.execute("select count(*) as waiting from pg_locks where not granted")
            if (row := await cursor.fetchone()) and row["waiting"]:
                return
