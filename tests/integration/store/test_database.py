"""The connections of the pool: how values travel."""

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
