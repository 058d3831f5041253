"""The tables of all streams of trackers: ask what is held, add, replace, mark as gone. A page is one transaction."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any, NamedTuple
from uuid import UUID

from psycopg import sql
from psycopg.errors import UniqueViolation

from shared.domain.stream import MODELS, Stream
from shared.domain.sync import Held
from shared.store import gone
from shared.store.copying import NULL, copy_into
from shared.store.database import Connection
from shared.store.gone import GoneIssue, Link
from shared.store.look_ups import MINE
from shared.store.stream_rows import TABLES, Row, as_json, as_lines

# What is not compared when the changes of an issue are told field by field.
_UNTOLD = [
    *("payload", "content_hash", "read_at", "job_id", "created_at", "updated_at", "deleted_at", "absence", "scope"),
    *("import_source", "external_id", "source_updated_at"),
]


# The columns behind those of a model, in the order of COPY lines.
_BEHIND = ("payload", "content_hash", "scope", "import_source", "job_id", "read_at")
# Fewer rows are sooner sent than a COPY is begun.
_ENOUGH_TO_COPY = 50


class _Statements(NamedTuple):
    hold: sql.Composed
    lock: sql.Composed
    copy: sql.Composed
    add: sql.Composed
    replace: sql.Composed
    mark_unseen: sql.Composed
    count_unseen: sql.Composed


def columns_of(stream: Stream) -> list[str]:
    """The columns a stream's table has of its model."""
    return [name for name in MODELS[stream].model_fields if name != "sprint_ids"]


def _plain_columns(stream: Stream) -> list[str]:
    return [name for name in columns_of(stream) if name != "payload"]


@cache
def _statements(stream: Stream) -> _Statements:
    table = sql.Identifier(TABLES[stream])
    names = [*_plain_columns(stream), *_BEHIND]
    columns = sql.SQL(", ").join(map(sql.Identifier, names))
    incoming = sql.SQL("jsonb_populate_recordset(null::{}, %(rows)s::jsonb)").format(table)
    unseen = _unseen(table)
    return _Statements(
        hold=_HOLD.format(mine=MINE, table=table, lock=sql.SQL("")),
        lock=_HOLD.format(mine=MINE, table=table, lock=sql.SQL("for update")),
        copy=copy_into(table, columns, null=NULL),
        # In the order in which a COPY comes.
        add=sql.SQL(
            """
            insert into {table} ({columns}) select {columns} from {incoming} order by external_id collate "C"
                on conflict do nothing returning external_id
            """
        ).format(table=table, columns=columns, incoming=incoming),
        replace=_replace(table, names, incoming, told=stream is Stream.ISSUES),
        mark_unseen=sql.SQL(
            """
            update {} set deleted_at = now(), updated_at = now(), absence = 'deleted', read_at = %(read_at)s,
                          job_id = %(job_id)s
             where import_source = %(source)s and deleted_at is null and (read_at is null or read_at <= %(read_at)s)
               and scope = %(scope)s and {}
            """
        ).format(table, unseen),
        count_unseen=sql.SQL(
            """
            select count(*) as known,
                   count(*) filter (where (read_at is null or read_at <= %(read_at)s) and {}) as absent
              from {} where import_source = %(source)s and deleted_at is null and scope = %(scope)s
            """
        ).format(unseen, table),
    )


_HOLD = sql.SQL(
    """
    select held.* from {mine} cross join unnest(%(ids)s::text[]) as asked(id) cross join lateral (
        select external_id, content_hash, source_updated_at, read_at, deleted_at
          from {table} where import_source = mine.source and external_id = asked.id limit 1 {lock}) held
    """
)
_KEPT = sql.SQL(
    """
    select held.external_id, to_jsonb(held) as held from {mine}
     cross join unnest(%(ids)s::text[]) as asked(id) cross join lateral (
        select * from issues where import_source = mine.source and external_id = asked.id limit 1) held
    """
).format(mine=MINE)


def _replace(table: sql.Identifier, names: Sequence[str], incoming: sql.Composed, *, told: bool) -> sql.Composed:
    """Write another version of records; with `told`, what changed is told field by field."""
    log = """
            , told as (
                insert into issue_changes (import_source, external_id, job_id, changes)
                select import_source, external_id, job_id, changes from compared where changes <> '{}'
            )
            """
    changed = [name for name in names if name not in {"external_id", "import_source"}]
    return sql.SQL(
        """
        with compared as (
            select news.import_source, news.external_id, news.job_id,
                   record_diff(to_jsonb(held) - %(untold)s::text[], to_jsonb(news) - %(untold)s::text[]) as changes
              from {incoming} news join {table} held using (import_source, external_id)
        ), written as (
            update {table} held
               set ({changed}) = row({values}), updated_at = now(), deleted_at = null, absence = null
              from {incoming} news
             where held.import_source = news.import_source and held.external_id = news.external_id
        ){log}
        select count(*) from compared
        """
    ).format(
        table=table,
        incoming=incoming,
        changed=sql.SQL(", ").join(map(sql.Identifier, changed)),
        values=sql.SQL(", ").join(sql.SQL("news.{}").format(sql.Identifier(name)) for name in changed),
        log=sql.SQL(log if told else ""),
    )


def _unseen(table: sql.Identifier) -> sql.Composed:
    return sql.SQL(
        """
        not exists (select from seen_ids
                     where seen_ids.job_id = %(job_id)s and seen_ids.stream = %(stream)s
                       and seen_ids.external_id = {}.external_id)
        """
    ).format(table)


class Writer:
    """Writes what one reading brought, in the caller's transaction."""

    def __init__(self, connection: Connection, *, source: str, job_id: UUID, read_at: datetime) -> None:
        self._connection = connection
        self.read_at = read_at
        self._values: dict[str, Any] = {"source": source, "job_id": job_id, "read_at": read_at}
        self._tail = {"import_source": source, "job_id": str(job_id), "read_at": read_at.isoformat()}

    async def find_held(self, stream: Stream, ids: Sequence[str], *, lock: bool = False) -> dict[str, Held]:
        """What the table knows of these records, locked in the order of their ids if asked."""
        statements = _statements(stream)
        cursor = await self._connection.execute(
            statements.lock if lock else statements.hold, {**self._values, "ids": sorted(ids)}
        )
        return {
            row["external_id"]: Held(
                content_hash=row["content_hash"],
                updated=row["source_updated_at"],
                read_at=row["read_at"],
                deleted_at=row["deleted_at"],
            )
            for row in await cursor.fetchall()
        }

    async def add(self, stream: Stream, rows: Sequence[Row]) -> set[str]:
        """Insert new records; returns the ids of those nobody else inserted meanwhile."""
        if len(rows) >= _ENOUGH_TO_COPY and await self._copy(stream, rows):
            return {row.external_id for row in rows}
        if not rows:
            return set()
        cursor = await self._connection.execute(_statements(stream).add, {"rows": as_json(rows, self._tail)})
        return {row["external_id"] for row in await cursor.fetchall()}

    async def _copy(self, stream: Stream, rows: Sequence[Row]) -> bool:
        """COPY new records; False, and nothing stored, if one is there already or has to be mended first."""
        lines = as_lines(rows, _plain_columns(stream), self._tail)
        if lines is None:
            return False
        try:
            async with self._connection.transaction(), self._connection.cursor().copy(_statements(stream).copy) as copy:
                await copy.write(lines)
        except UniqueViolation:
            return False
        return True

    async def replace(self, stream: Stream, rows: Sequence[Row]) -> None:
        """Write another version of records that are there, also of deleted ones; what changed in issues is told."""
        if rows:
            told = {"rows": as_json(rows, self._tail), "untold": _UNTOLD}
            await self._connection.execute(_statements(stream).replace, told)

    async def mark_children_gone(self, link: Link, issues: Sequence[str], ids: Sequence[str]) -> int:
        """Mark the children of some issues as deleted, except those named; `link` says how they know their issue."""
        return await gone.mark_children(self._connection, link, issues, ids, self._values)

    async def mark_gone(self, stream: Stream, ids: Sequence[str], absence: str) -> Counter[Stream]:
        """Mark records, and the children of issues with them, as gone, unless a reading that began later saw them."""
        return await gone.mark_gone(self._connection, stream, ids, absence, self._values)

    async def find_gone_issues(self, column: str, names: Collection[str]) -> list[GoneIssue]:
        """Which of these issues are gone, by `external_id` or `key`."""
        return await gone.find_gone_issues(self._connection, self._values["source"], column, names)

    async def follow(self, issues: Collection[str]) -> None:
        """Mark the children of issues that are gone as gone with them."""
        await gone.follow(self._connection, issues, self._values)

    async def follow_all(self) -> Counter[Stream]:
        """Mark the children of all issues that are gone, where they are still there."""
        return await gone.follow_all(self._connection, self._values)

    async def bring_back(self, issues: Sequence[GoneIssue]) -> None:
        """Bring back the children that went with issues that are back."""
        await gone.bring_back(self._connection, issues, self._values)

    async def count_unseen(self, stream: Stream, scope: str) -> tuple[int, int]:
        """How many records mark_unseen would mark, and how many there are: (absent, known)."""
        cursor = await self._connection.execute(
            _statements(stream).count_unseen, {**self._values, "scope": scope, "stream": stream.value}
        )
        row = await cursor.fetchone() or {"known": 0, "absent": 0}
        return row["absent"], row["known"]

    async def mark_unseen(self, stream: Stream, scope: str) -> int:
        """Mark what the job did not see in a scope as deleted; `read_at` is when its reading began."""
        cursor = await self._connection.execute(
            _statements(stream).mark_unseen,
            {**self._values, "scope": scope, "stream": stream.value},
        )
        return cursor.rowcount

    async def link_sprints(self, sprints_of: Mapping[str, Sequence[str]], *, fresh: Collection[str]) -> None:
        """Replace the sprints of some issues; those of `fresh` ones have none yet."""
        source = self._values["source"]
        if known := [issue for issue in sprints_of if issue not in fresh]:
            await self._connection.execute(
                "delete from issue_sprints where import_source = %s and issue_id = any(%s)", (source, known)
            )
        pairs = [(issue, sprint) for issue, sprints in sprints_of.items() for sprint in sprints]
        if pairs:
            await self._connection.execute(
                """
                insert into issue_sprints (import_source, issue_id, sprint_id)
                select %s, unnest(%s::text[]), unnest(%s::text[]) on conflict do nothing
                """,
                (source, [issue for issue, _ in pairs], [sprint for _, sprint in pairs]),
            )

    async def find_kept(self, ids: Sequence[str], fields: Sequence[str], payload_keys: Sequence[str]) -> dict[str, Any]:
        """Values of issues that a partial reading does not bring: id → {field: value, "payload": {key: value}}."""
        cursor = await self._connection.execute(_KEPT, {**self._values, "ids": list(ids)})
        return {
            row["external_id"]: {
                **{field: row["held"][field] for field in fields},
                "payload": {key: row["held"]["payload"][key] for key in payload_keys if key in row["held"]["payload"]},
            }
            for row in await cursor.fetchall()
        }


async def empty_payloads(connection: Connection, source: str, *, before: datetime, limit: int = 10_000) -> int:
    """Empty the payloads of records that have not changed since; their columns stay. Returns how many."""
    emptied = 0
    for table in TABLES.values():
        name = sql.Identifier(table)
        cursor = await connection.execute(
            sql.SQL(
                """
                update {} set payload = '{{}}'
                 where (import_source, external_id) in (
                       select import_source, external_id from {}
                        where import_source = %s and updated_at < %s and payload <> '{{}}' limit %s)
                """
            ).format(name, name),
            (source, before, limit),
        )
        emptied += cursor.rowcount
    return emptied


async def count_by_scope(connection: Connection, source: str) -> dict[str, int]:
    """How many issues of a source are there, by scope."""
    cursor = await connection.execute(
        """
        select scope, count(*) as issues from issues
         where import_source = %s and deleted_at is null and scope is not null group by scope
        """,
        (source,),
    )
    return {row["scope"]: row["issues"] for row in await cursor.fetchall()}


async def mark_scope_gone(connection: Connection, source: str, job_id: UUID, scope: str, absence: str) -> int:
    """Mark every issue of a scope as gone; what belongs to them is left to `follow_all`."""
    cursor = await connection.execute(
        """
        update issues set deleted_at = now(), updated_at = now(), absence = %s, read_at = now(), job_id = %s
         where import_source = %s and scope = %s and deleted_at is null
        """,
        (absence, job_id, source, scope),
    )
    return cursor.rowcount
