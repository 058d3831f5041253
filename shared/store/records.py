"""The write path of every stream that has a table of its own: ask which records are new or changed, add, merge.

Unchanged records never reach the table: a hash of the record as it came is compared first, and the ones it knows cost
a look-up in the primary key and no write. New ones are COPYed straight into the table, changed ones are staged and
merged.
"""

from collections.abc import AsyncIterable, Sequence
from typing import NamedTuple, Protocol
from uuid import UUID

from psycopg import sql
from psycopg.errors import UniqueViolation

from shared.domain.issue import ISSUE_FIELDS, PROJECT_FIELDS
from shared.domain.job import Kind
from shared.store.copying import BETWEEN, DELIMITER, QUOTE, copy_into, quotable
from shared.store.database import Connection
from shared.store.look_ups import MINE


class Differences(NamedTuple):
    """Records the database does not hold as they came: positions in the question, counted from 0."""

    new: list[int]
    changed: list[int]


class Merged(NamedTuple):
    """What became of changed records."""

    updated: int = 0
    unchanged: int = 0
    stale: int = 0


class Row(Protocol):
    """A normalized record: `values` are COPY texts or None in the order of the table's fields, `payload` is JSON."""

    @property
    def values(self) -> tuple[str | None, ...]: ...
    @property
    def payload(self) -> bytes: ...


def copy_lines(records: Sequence[Row], hashes: Sequence[bytes], job_id: UUID, source: str) -> bytes:
    """Encode records for COPY with their payload, source, job and hash; every field stands between quotes."""
    before_payload = BETWEEN.encode()
    behind_payload = f"{BETWEEN}{quotable(source)}{BETWEEN}{job_id}{BETWEEN}\\x".encode()
    begin, end = QUOTE.encode(), f"{QUOTE}\n".encode()
    pieces: list[bytes] = []
    for record, content_hash in zip(records, hashes, strict=True):
        text = BETWEEN.join([value or "" for value in record.values])
        if text.count(QUOTE) != 2 * len(record.values) - 2:
            text = BETWEEN.join([quotable(value or "") for value in record.values])
        # JSON text holds no control characters.
        pieces += (
            begin,
            text.encode(),
            before_payload,
            record.payload,
            behind_payload,
            content_hash.hex().encode(),
            end,
        )
    return b"".join(pieces)


class Mirror:
    """One table that mirrors a stream of records, such as `issues`; statements are composed once per table."""

    def __init__(self, table: str, fields: Sequence[str]) -> None:
        self.fields = tuple(fields)
        self._columns = (*fields, "payload", "import_source", "job_id", "content_hash")
        name = sql.Identifier(table)
        columns = _names(self._columns)
        self._copy = copy_into(name, columns)
        self._find_differences = sql.SQL(
            """
            select array_agg(position - 1) filter (where held.external_id is null) as new,
                   array_agg(position - 1) filter (where held.external_id is not null) as changed
              from {mine}
             cross join unnest(string_to_array(%(ids)s, %(separator)s)) with ordinality as asked(external_id, position)
              left join lateral (
                   select external_id, content_hash, deleted_at from {table}
                    where import_source = mine.source and external_id = asked.external_id limit 1) held on true
             where held.deleted_at is not null
                or held.content_hash is distinct from
                   substring(%(hashes)s::bytea from (position::integer - 1) * %(width)s + 1 for %(width)s)
            """
        ).format(mine=MINE, table=name)
        self._create_incoming = sql.SQL(
            # Not told of it, the server would compress every row of 2-8 kB, for the moment that it lies here.
            "create temp table incoming (like {} including defaults) with (toast_tuple_target = 8160) on commit drop"
        ).format(name)
        self._copy_incoming = copy_into(sql.Identifier("incoming"), columns)
        self._add_incoming = sql.SQL(
            """
            with added as (
                insert into {table} ({columns}) select {columns} from incoming on conflict do nothing
                returning external_id
            )
            delete from incoming using added where incoming.external_id = added.external_id
            """
        ).format(table=name, columns=columns)
        changes = self._compose_changes()
        self._merge = self._compose_merge(name, table, changes)
        self._assess = sql.SQL(
            """
            with compared as (
                select coalesce(news.source_updated_at < held.source_updated_at, false) as older,
                       held.deleted_at is not null
                       or coalesce(nullif({changes}, '{{}}'), record_diff(held.payload, news.payload)) <> '{{}}'
                       as different
                  from incoming news
                  join {table} held using (import_source, external_id)
            )
            select count(*) filter (where not older and different) as updated,
                   count(*) filter (where not older and not different) as unchanged,
                   count(*) filter (where older) as stale
              from compared
            """
        ).format(changes=changes, table=name)

    def _compose_changes(self) -> sql.Composed:
        compared = [field for field in self.fields if field != "external_id"]
        # Cheaper by far than comparing two jsonb objects; a side that is empty is left out.
        return sql.SQL("jsonb_strip_nulls(jsonb_build_object({}))").format(
            sql.SQL(", ").join(
                sql.SQL(
                    "{label}, case when held.{field} is distinct from news.{field}"
                    " then jsonb_build_object('from', held.{field}, 'to', news.{field}) end"
                ).format(label=sql.Literal(field), field=sql.Identifier(field))
                for field in compared
            )
        )

    def _compose_merge(self, name: sql.Identifier, table: str, changes: sql.Composed) -> sql.Composed:
        written = [column for column in self._columns if column not in {"external_id", "import_source"}]
        log = (
            sql.SQL(
                """
            , logged as (
                insert into issue_changes (import_source, external_id, job_id, changes)
                select import_source, external_id, job_id, changes from compared where not older and changes <> '{{}}'
            )
            """
            ).format()
            if table == "issues"
            else sql.SQL("")
        )
        return sql.SQL(
            """
            with compared as (
                select news.import_source, news.external_id, news.job_id, news, held.deleted_at is not null as deleted,
                       coalesce(news.source_updated_at < held.source_updated_at, false) as older,
                       coalesce(nullif({changes}, '{{}}'), record_diff(held.payload, news.payload)) as changes
                  from incoming news
                  join {table} held using (import_source, external_id)
                   for update of held
            ), written as (
                update {table} held
                   set ({columns}) = row({values}), updated_at = now(), deleted_at = null
                  from compared
                 where held.import_source = compared.import_source and held.external_id = compared.external_id
                   and not compared.older and (compared.changes <> '{{}}' or compared.deleted)
            ), rehashed as (
                update {table} held set content_hash = (compared.news).content_hash
                  from compared
                 where held.import_source = compared.import_source and held.external_id = compared.external_id
                   and not compared.older and compared.changes = '{{}}' and not compared.deleted
            ){log}
            select count(*) filter (where not older and (changes <> '{{}}' or deleted)) as updated,
                   count(*) filter (where not older and changes = '{{}}' and not deleted) as unchanged,
                   count(*) filter (where older) as stale
              from compared
            """
        ).format(
            changes=changes,
            table=name,
            columns=_names(written),
            values=sql.SQL(", ").join(
                sql.SQL("(compared.news).{}").format(sql.Identifier(column)) for column in written
            ),
            log=log,
        )

    async def find_differences(
        self, connection: Connection, source: str, ids: Sequence[str], hashes: bytes
    ) -> Differences:
        """Which of these records are new, and which are held in another form or deleted.

        `hashes` are the records' hashes one behind the other. Question and answer are single values, because one value
        per record would cost the client more than the look-up costs the server.
        """
        if not ids:
            return Differences([], [])
        cursor = await connection.execute(
            self._find_differences,
            {
                "source": source,
                "ids": DELIMITER.join(ids),
                "separator": DELIMITER,
                "hashes": hashes,
                "width": len(hashes) // len(ids),
            },
            binary=True,
        )
        row = await cursor.fetchone() or {"new": None, "changed": None}
        return Differences(row["new"] or [], row["changed"] or [])

    async def add(self, connection: Connection, lines: AsyncIterable[bytes]) -> bool:
        """COPY new records straight into the table; False, and nothing stored, if one was stored meanwhile."""
        try:
            async with connection.transaction(), connection.cursor().copy(self._copy) as copy:
                async for some in lines:
                    await copy.write(some)
        except UniqueViolation:
            return False
        return True

    async def merge(self, connection: Connection, lines: bytes, *, may_create: bool = False) -> tuple[int, Merged]:
        """Store records the table knows in another form; returns how many were created, and the fate of the others.

        Older news never overwrites newer; what changed is written to `issue_changes`. With `may_create` some of the
        records may be new after all. Call inside a transaction.
        """
        await connection.execute(self._create_incoming)
        await _copy(connection, self._copy_incoming, lines)
        created = 0
        if may_create:
            added = await connection.execute(self._add_incoming)
            created = added.rowcount
        await _prefer_look_ups(connection)
        cursor = await connection.execute(self._merge)
        row = await cursor.fetchone()
        await connection.execute("drop table incoming")
        return created, Merged(**row) if row else Merged()

    async def assess(self, connection: Connection, lines: bytes) -> Merged:
        """What merge would make of records the table knows in another form; nothing is stored."""
        await connection.execute(self._create_incoming)
        await _copy(connection, self._copy_incoming, lines)
        await _prefer_look_ups(connection)
        cursor = await connection.execute(self._assess)
        row = await cursor.fetchone()
        await connection.execute("drop table incoming")
        return Merged(**row) if row else Merged()


async def _prefer_look_ups(connection: Connection) -> None:
    """For the rest of the transaction: a hash join would read the whole table to find a few thousand rows."""
    await connection.execute(
        "select set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true)"
    )


async def _copy(connection: Connection, statement: sql.Composed, lines: bytes) -> None:
    async with connection.cursor().copy(statement) as copy:
        await copy.write(lines)


def _names(columns: Sequence[str]) -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier(column) for column in columns)


MIRRORS = {Kind.ISSUES: Mirror("issues", ISSUE_FIELDS), Kind.PROJECTS: Mirror("projects", PROJECT_FIELDS)}
