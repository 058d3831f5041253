"""Loading batches: in any order, any number of times, the table comes out the same."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.blobs import Blobs
from shared.domain.job import Duplicates, ImportOptions
from shared.services.finish_job import finish_job
from shared.services.load_batch import load_batch
from shared.services.plan_job import plan_job
from shared.settings import Settings
from shared.store import batches, jobs, turns
from shared.store.database import Connection, Database
from shared.store.jobs import NewJob
from shared.store.records import Differences, Mirror
from tests.support.files import issues_csv
from tests.support.settings import make_settings

ROWS = st.lists(
    st.tuples(st.sampled_from([f"R-{n}" for n in range(8)]), st.sampled_from(["", "one", "two", "three"])),
    min_size=1,
    max_size=25,
)


async def given_claimed_job(
    database: Database, blobs: Blobs, chosen: Settings, content: bytes, options: ImportOptions, **over: Any
) -> UUID:
    job_id = uuid4()
    stored = await blobs.upload(chosen.files_container, f"{job_id}/t.csv", content)
    new = NewJob(
        id=job_id,
        source="file",
        import_source="prop",
        options=options,
        file_name="t.csv",
        file_container=chosen.files_container,
        file_blob=f"{job_id}/t.csv",
        file_bytes=stored.size,
        file_etag=stored.etag,
        requested_by="key:test",
        **over,
    )
    async with database.transaction() as connection:
        await jobs.insert_job(connection, new)
        await turns.claim_jobs(connection, limit=1)
    return job_id


async def titles(database: Database) -> dict[str, str]:
    async with database.connection() as connection:
        cursor = await connection.execute("select external_id, title from issues")
        return {row["external_id"]: row["title"] for row in await cursor.fetchall()}


def expected_titles(rows: list[tuple[str, str]], *, last_wins: bool) -> dict[str, str]:
    kept: dict[str, str] = {}
    for identity, title in rows:
        if title and (last_wins or identity not in kept):
            kept[identity] = title
    return kept


@settings(max_examples=40)
@given(rows=ROWS, duplicates=st.sampled_from(Duplicates), order=st.data())
async def test_any_order_and_repetition_of_batches_on_any_worker_gives_the_same_table(
    database: Database,
    blobs: Blobs,
    azurite: str,
    rows: list[tuple[str, str]],
    duplicates: Duplicates,
    order: st.DataObject,
) -> None:
    chosen = make_settings(batch_bytes=1024).model_copy(update={"batch_bytes": 40})
    async with database.connection() as connection:
        await connection.execute("truncate issues, issue_changes, jobs cascade")
    content = issues_csv(rows, header=("external_id", "title"))
    job_id = await given_claimed_job(database, blobs, chosen, content, ImportOptions(duplicates=duplicates))
    assert await plan_job(database, blobs, chosen, job_id, 1) == ["load"]
    async with database.connection() as connection:
        numbers = await batches.list_open(connection, job_id, "load", state="waiting", limit=100)
    repeated = order.draw(st.permutations(numbers + order.draw(st.lists(st.sampled_from(numbers), max_size=4))))

    # One worker planned the file and has a copy of it, the other has to fetch what it loads.
    workers = [blobs, Blobs(make_settings(storage_connection=azurite))]
    for number in repeated:
        worker = order.draw(st.sampled_from(workers))
        assert await load_batch(database, worker, chosen, job_id, 1, "load", number)
    await finish_job(database, blobs, job_id, 1)

    assert await titles(database) == expected_titles(rows, last_wins=duplicates is Duplicates.UPDATE)
    async with database.connection() as connection:
        counts = (await batches.find_progress(connection, job_id)).counts
    broken = sum(not title for _, title in rows)
    assert counts.rejected == broken
    assert counts.created == len(await titles(database))
    assert counts.duplicates == len(rows) - broken - counts.created
    assert counts.rows == len(rows)


async def test_superseded_attempt_leaves_the_job_alone(database: Database, blobs: Blobs) -> None:
    chosen = make_settings()
    content = issues_csv([("R-1", "one")], header=("external_id", "title"))
    job_id = await given_claimed_job(database, blobs, chosen, content, ImportOptions())
    await plan_job(database, blobs, chosen, job_id, 1)
    async with database.connection() as connection:
        await turns.begin_new_attempt(connection, job_id, 1)

    await load_batch(database, blobs, chosen, job_id, 1, "load", 0)

    assert await titles(database) == {}
    assert await finish_job(database, blobs, job_id, 1) is None
    await load_batch(database, blobs, chosen, job_id, 2, "load", 0)
    assert await titles(database) == {"R-1": "one"}


async def test_file_replaced_while_it_is_imported_fails_the_job(database: Database, blobs: Blobs) -> None:
    chosen = make_settings()
    content = issues_csv([("R-1", "one")], header=("external_id", "title"))
    job_id = await given_claimed_job(database, blobs, chosen, content, ImportOptions())
    await blobs.upload(chosen.files_container, f"{job_id}/t.csv", content + b"R-2,two\r\n", overwrite=True)

    assert await plan_job(database, blobs, chosen, job_id, 1) == []

    async with database.connection() as connection:
        job = await jobs.find_job(connection, job_id)
    assert job is not None
    assert (job.state, (job.error or {})["code"]) == ("failed", "conflict")


async def test_record_stored_by_another_door_while_new_ones_stream_in_costs_none_of_them(
    database: Database, blobs: Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = make_settings()
    rows = [(f"R-{number}", f"Title {number}") for number in range(2_000)]
    rows[1_500] = ("R-1500", "")
    content = issues_csv(rows, header=("external_id", "title"))
    job_id = await given_claimed_job(database, blobs, chosen, content, ImportOptions())
    await plan_job(database, blobs, chosen, job_id, 1)
    ask = Mirror.find_differences

    async def ask_and_be_overtaken(
        mirror: Mirror, connection: Connection, source: str, ids: Sequence[str], hashes: bytes
    ) -> Differences:
        answer = await ask(mirror, connection, source, ids, hashes)
        async with database.transaction() as other:
            await other.execute(
                "insert into issues (import_source, external_id, title, status_category, payload, content_hash, job_id)"
                " values ('prop', 'R-1700', 'From the other door', 'open', '{}', '', %s)",
                (job_id,),
            )
        return answer

    monkeypatch.setattr(Mirror, "find_differences", ask_and_be_overtaken)
    assert await load_batch(database, blobs, chosen, job_id, 1, "load", 0)

    assert await titles(database) == expected_titles(rows, last_wins=True)
    async with database.connection() as connection:
        counts = (await batches.find_progress(connection, job_id)).counts
        rejected = await (await connection.execute("select row_number from rejections")).fetchall()
    assert (counts.created, counts.updated, counts.rejected) == (1_998, 1, 1)
    assert [row["row_number"] for row in rejected] == [1_502]
