"""The view of holes: whatever lies before the last closed window of a line and in none of them."""

from datetime import UTC, datetime
from uuid import uuid4

import pytest

from shared.store.connections import insert_connection
from shared.store.database import Database


def at(hour: int | None) -> datetime | str:
    return "-infinity" if hour is None else datetime(2025, 3, 3, hour, tzinfo=UTC)


@pytest.mark.parametrize(
    ("windows", "holes"),
    [
        ([(None, 1, "closed"), (1, 2, "closed"), (2, 3, "closed")], []),
        ([(1, 2, "closed")], [(None, 1)]),
        ([(None, 1, "closed"), (2, 3, "closed"), (4, 5, "closed")], [(1, 2), (3, 4)]),
        # Closed in another order than they began, and one within another: what counts is what is covered.
        ([(2, 3, "closed"), (None, 2, "closed"), (0, 1, "closed")], []),
        # What was given up, and what is still being read, covers nothing; behind the last closed one nothing is due.
        ([(None, 1, "closed"), (1, 2, "abandoned"), (2, 3, "closed")], [(1, 2)]),
        ([(None, 1, "closed"), (1, 2, "open"), (2, 3, "closed")], [(1, 2)]),
        ([(None, 1, "closed"), (1, 2, "open")], []),
        # The clock of a source stood still.
        ([(None, 1, "closed"), (1, 1, "closed"), (1, 2, "closed")], []),
    ],
)
async def test_holes_are_what_no_closed_window_covers(
    database: Database, windows: list[tuple[int | None, int, str]], holes: list[tuple[int | None, int]]
) -> None:
    connection_id = uuid4()
    async with database.connection() as connection:
        await insert_connection(
            connection,
            connection_id=connection_id,
            slug="petrel",
            source="jira",
            base_url="https://petrel.example",
            settings={},
            credentials={},
            origin="api",
        )
        for scope in ("HARBOR", "PETREL"):
            for lo, hi, state in windows if scope == "HARBOR" else [(None, 9, "closed")]:
                await connection.execute(
                    """
                    insert into sync_windows (connection_id, stream, scope, lo, hi, state)
                    values (%s, 'issues', %s, %s, %s, %s)
                    """,
                    (connection_id, scope, at(lo), at(hi), state),
                )

        found = await connection.execute(
            "select scope, gap_from = '-infinity' as first, gap_to from sync_gaps where slug = 'petrel' order by gap_to"
        )
        rows = await found.fetchall()

        assert [(row["scope"], row["first"], row["gap_to"]) for row in rows] == [
            ("HARBOR", lo is None, at(hi)) for lo, hi in holes
        ]
