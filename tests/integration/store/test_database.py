"""The connections of the pool: how values travel."""

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.store.database import Database

TEXTS = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=8)


@settings(max_examples=200)
@given(values=st.lists(st.none() | TEXTS | st.sampled_from(["NULL", '"', "\\", '","', "{}", ""]), max_size=5))
async def test_lists_of_texts_arrive_as_they_are(database: Database, values: list[str | None]) -> None:
    async with database.connection() as connection:
        cursor = await connection.execute("select %s::text[] as values", (values,))
        row = await cursor.fetchone()

    assert row is not None
    assert row["values"] == values


@pytest.mark.parametrize(
    ("zone", "moment"),
    [("Asia/Tokyo", "9999-12-31T23:59:59+00:00"), ("America/Lima", "0001-01-01T00:00:00+00:00")],
)
async def test_every_time_of_the_calendar_is_read_whatever_zone_the_server_keeps(
    database: Database, database_url: str, zone: str, moment: str
) -> None:
    with psycopg.connect(database_url, autocommit=True) as owner:
        owner.execute(
            f"do $$ begin execute format('alter database %I set timezone to %L', current_database(), '{zone}'); end $$"
        )

    async with database.connection() as connection:
        cursor = await connection.execute("select %s::timestamptz as moment", (moment,))
        row = await cursor.fetchone()

    assert row is not None
    assert row["moment"].isoformat() == moment
