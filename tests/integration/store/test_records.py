"""The write path: what is new, what differs, and what a merge does with it."""

from collections.abc import AsyncGenerator
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from shared.domain.job import Kind
from shared.store.database import Database
from shared.store.records import MIRRORS, Differences, Merged
from tests.support.factories import Issue, hash_of, issue_lines, issue_values

ISSUES = MIRRORS[Kind.ISSUES]


async def stored(database: Database, columns: str = "external_id, title") -> list[dict[str, Any]]:
    async with database.connection() as connection:
        cursor = await connection.execute(f"select {columns} from issues order by external_id")  # pyright: ignore[reportArgumentType]
        return await cursor.fetchall()


async def changes(database: Database) -> list[dict[str, Any]]:
    async with database.connection() as connection:
        cursor = await connection.execute("select external_id, changes from issue_changes order by id")
        return await cursor.fetchall()


async def in_pieces(lines: bytes) -> AsyncGenerator[bytes]:
    for line in lines.splitlines(keepends=True):
        yield line


async def add(database: Database, *issues: Issue) -> bool:
    async with database.transaction() as connection:
        return await ISSUES.add(connection, in_pieces(issue_lines(*issues)))


async def merge(database: Database, *issues: Issue, may_create: bool = False) -> tuple[int, Merged]:
    async with database.transaction() as connection:
        return await ISSUES.merge(connection, issue_lines(*issues), may_create=may_create)


async def test_only_new_and_different_records_are_reported(database: Database) -> None:
    same, other = issue_values("A-1"), issue_values("A-2")
    await add(database, same, other)
    edited, new = issue_values("A-2", title="Edited"), issue_values("A-3")

    async with database.transaction() as connection:
        found = await ISSUES.find_differences(
            connection, "shop", ["A-1", "A-2", "A-3"], hash_of(same) + hash_of(edited) + hash_of(new)
        )

    assert found == Differences(new=[2], changed=[1])


async def test_another_label_has_records_of_its_own(database: Database) -> None:
    issue = issue_values("A-1")
    await add(database, issue)

    async with database.transaction() as connection:
        found = await ISSUES.find_differences(connection, "warehouse", ["A-1"], hash_of(issue))

    assert found == Differences(new=[0], changed=[])


async def test_change_is_written_and_explained(database: Database) -> None:
    await add(database, issue_values("A-1", assignee="Imre Vidal"))

    result = await merge(database, issue_values("A-1", title="Edited", assignee=None))

    assert result == (0, Merged(updated=1))
    assert await stored(database, "title, assignee") == [{"title": "Edited", "assignee": None}]
    assert await changes(database) == [
        {
            "external_id": "A-1",
            "changes": {"title": {"from": "Title of A-1", "to": "Edited"}, "assignee": {"from": "Imre Vidal"}},
        }
    ]


async def test_older_news_never_overwrites_newer(database: Database) -> None:
    await add(database, issue_values("A-1", source_updated_at="2025-03-02T00:00:00Z"))

    result = await merge(database, issue_values("A-1", title="Old", source_updated_at="2025-03-01T23:59:59Z"))

    assert result == (0, Merged(stale=1))
    assert await stored(database) == [{"external_id": "A-1", "title": "Title of A-1"}]
    assert await changes(database) == []


async def test_same_content_in_another_layout_is_unchanged(database: Database) -> None:
    issue = issue_values("A-1")
    await add(database, issue)
    async with database.connection() as connection:
        await connection.execute("update issues set content_hash = 'of another layout'")

    result = await merge(database, issue)

    assert result == (0, Merged(unchanged=1))
    assert await changes(database) == []
    async with database.transaction() as connection:
        assert await ISSUES.find_differences(connection, "shop", ["A-1"], hash_of(issue)) == ([], [])


async def test_deleted_issue_comes_back_when_it_is_imported_again(database: Database) -> None:
    issue = issue_values("A-1")
    await add(database, issue)
    async with database.connection() as connection:
        await connection.execute("update issues set deleted_at = now()")

    async with database.transaction() as connection:
        assert await ISSUES.find_differences(connection, "shop", ["A-1"], hash_of(issue)) == ([], [0])
    await merge(database, issue)

    assert await stored(database, "deleted_at") == [{"deleted_at": None}]


async def test_record_stored_meanwhile_by_another_door_is_merged_instead(database: Database) -> None:
    await add(database, issue_values("A-1"))
    batch = (issue_values("A-1", title="Edited"), issue_values("A-2"))

    assert await add(database, *batch) is False
    result = await merge(database, *batch, may_create=True)

    assert result == (1, Merged(updated=1))
    assert [row["title"] for row in await stored(database)] == ["Edited", "Title of A-2"]


async def test_unknown_column_that_changes_is_kept_in_the_payload(database: Database) -> None:
    await add(database, issue_values("A-1", payload='{"Team": "Tern"}'))

    result = await merge(database, issue_values("A-1", payload='{"Team": "Gull"}'))

    assert result == (0, Merged(updated=1))
    assert await changes(database) == [{"external_id": "A-1", "changes": {"Team": {"from": "Tern", "to": "Gull"}}}]


@settings(max_examples=60)
@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=60))
async def test_every_text_arrives_as_it_was(database: Database, text: str) -> None:
    async with database.connection() as connection:
        await connection.execute("truncate issues")

    await add(database, issue_values("A-1", title=text), issue_values("A-2", description=None, title="\\N"))

    assert [row["title"] for row in await stored(database)] == [text, "\\N"]
