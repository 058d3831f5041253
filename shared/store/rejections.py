"""Rejections: the records that could not be stored, what is wrong with each, and what became of them since."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

import orjson
from pydantic import BaseModel, ConfigDict, Field

from shared.domain.nul import storable, without_nul
from shared.domain.rejection import Problem, RejectionState
from shared.store.database import Connection


class BrokenRow(Protocol):
    """A record as the reader refused it; `payload` is a list of cells or the JSON object."""

    @property
    def row(self) -> int: ...
    @property
    def external_id(self) -> str | None: ...
    @property
    def problems(self) -> tuple[Problem, ...]: ...
    @property
    def payload(self) -> Any: ...


class Rejection(BaseModel):
    """A row of `rejections`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: int = Field(examples=[4711])
    row_number: int = Field(description="The row a spreadsheet shows, or the line of JSON", examples=[17])
    external_id: str | None = Field(examples=["PETREL-17"])
    problems: list[Problem]
    payload: list[str] | dict[str, Any] = Field(
        description="What came: cells in the order of the header, or the JSON object"
    )
    state: RejectionState
    replay_job_id: UUID | None = Field(description="The job this record was handed to")
    created_at: datetime


async def insert_rejections(connection: Connection, job_id: UUID, batch: int, broken: Sequence[BrokenRow]) -> None:
    """Keep the refused records of a batch, in the transaction that closes it."""
    if not broken:
        return
    statement = "copy rejections (job_id, batch, row_number, external_id, problems, payload) from stdin"
    async with connection.cursor().copy(statement) as copy:
        for record in broken:
            problems = storable(orjson.dumps([problem.model_dump(exclude_none=True) for problem in record.problems]))
            payload = storable(orjson.dumps(record.payload))
            known_by = without_nul(record.external_id)
            await copy.write_row((job_id, batch, record.row, known_by, problems.decode(), payload.decode()))


async def mark_replayed(connection: Connection, parent_job_id: UUID, ids: Sequence[int], replay_job_id: UUID) -> None:
    """Note that rejections of a job were handed to another; ids that are not open rejections of it are passed over."""
    await connection.execute(
        """
        update rejections set state = 'replayed', replay_job_id = %(replay)s, updated_at = now()
         where job_id = %(parent)s and id = any(%(ids)s) and state = 'open'
        """,
        {"parent": parent_job_id, "ids": list(ids), "replay": replay_job_id},
    )


async def settle_earlier(connection: Connection, import_source: str, job_id: UUID, ids: Sequence[str]) -> None:
    """Close open rejections of earlier jobs of a source whose records this job read again, whatever came of it."""
    await connection.execute(
        """
        update rejections set state = 'replayed', replay_job_id = %(job)s, updated_at = now()
         where state = 'open' and external_id = any(%(ids)s) and job_id <> %(job)s
           and job_id in (select id from jobs where import_source = %(source)s and kind = 'sync')
        """,
        {"job": job_id, "ids": list(ids), "source": import_source},
    )


async def list_rejections(
    connection: Connection,
    job_id: UUID,
    *,
    state: RejectionState | None = None,
    code: str | None = None,
    after: int = 0,
    limit: int = 50,
) -> list[Rejection]:
    """Rejections of a job in the order they were found; the next page comes after the last id of this one."""
    cursor = await connection.execute(
        """
        select id, row_number, external_id, problems, payload, state, replay_job_id, created_at
          from rejections
         where job_id = %(job_id)s and id > %(after)s
           and (%(state)s::text is null or state = %(state)s)
           and (%(code)s::text is null or problems @> jsonb_build_array(jsonb_build_object('code', %(code)s::text)))
         order by id
         limit %(limit)s
        """,
        {"job_id": job_id, "after": after, "state": state, "code": code, "limit": limit},
    )
    return [Rejection.model_validate(row) for row in await cursor.fetchall()]


async def count_by_code(connection: Connection, job_id: UUID) -> dict[str, int]:
    """How many of a job's open rejections show each problem; one record may show several."""
    cursor = await connection.execute(
        """
        select problem ->> 'code' as code, count(distinct rejections.id) as records
          from rejections cross join jsonb_array_elements(problems) problem
         where job_id = %s and state = 'open'
         group by 1
         order by 2 desc, 1
        """,
        (job_id,),
    )
    return {row["code"]: row["records"] for row in await cursor.fetchall()}


async def count_by_state(connection: Connection, job_id: UUID) -> dict[RejectionState, int]:
    """How many of a job's rejections are open, replayed and dismissed."""
    cursor = await connection.execute(
        "select state, count(*) as records from rejections where job_id = %s group by state", (job_id,)
    )
    found: Mapping[str, int] = {row["state"]: row["records"] for row in await cursor.fetchall()}
    return {state: found.get(state, 0) for state in RejectionState}


async def dismiss(connection: Connection, job_id: UUID, ids: Sequence[int] | None) -> list[int]:
    """Close open rejections of a job, all of them without `ids`; returns those that were closed."""
    cursor = await connection.execute(
        """
        update rejections set state = 'dismissed', updated_at = now()
         where job_id = %(job_id)s and state = 'open' and (%(ids)s::bigint[] is null or id = any(%(ids)s))
        returning id
        """,
        {"job_id": job_id, "ids": None if ids is None else list(ids)},
    )
    return sorted(row["id"] for row in await cursor.fetchall())
