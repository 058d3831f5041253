"""What is gone: tombstones, set and taken back. Children of an issue go and come back with it, at the same moment.

Rows are looked up by key and locked in the order of their keys, so that their places in the table stay, then written by
their places: a join with what is to be written would be the planner's to choose.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any, NamedTuple

from psycopg import sql

from shared.domain.stream import Stream
from shared.store.database import Connection
from shared.store.look_ups import MINE, equals
from shared.store.stream_rows import TABLES

Reading = Mapping[str, Any]
"""Of a reading: `source`, `job_id`, and `read_at`, when it began."""


class Link(NamedTuple):
    """A column by which children know their issue."""

    stream: Stream
    column: str


_LINKS = (
    Link(Stream.COMMENTS, "issue_id"),
    Link(Stream.COMMENTS, "issue_key"),
    Link(Stream.WORKLOGS, "issue_id"),
    Link(Stream.HISTORY, "issue_id"),
)
CHILDREN = frozenset(link.stream for link in _LINKS)
"""Streams whose records belong to an issue."""


class GoneIssue(NamedTuple):
    """An issue that is gone."""

    external_id: str
    key: str | None
    deleted_at: datetime


async def mark_gone(
    connection: Connection, stream: Stream, ids: Sequence[str], absence: str, reading: Reading
) -> Counter[Stream]:
    """Mark records as gone unless a reading that began later saw them, and what belongs to them; returns how many."""
    cursor = await connection.execute(_find(stream), {**reading, "ids": sorted(ids)})
    rows = await cursor.fetchall()
    marked = Counter({stream: await _mark(connection, stream, rows, absence, reading)})
    if stream is Stream.ISSUES and rows:
        marked += await follow(connection, [row["external_id"] for row in rows], reading)
    return marked


async def mark_children(
    connection: Connection, link: Link, issues: Sequence[str], ids: Sequence[str], reading: Reading
) -> int:
    """Mark the children of some issues as deleted, except those named; returns how many."""
    values = {**reading, "issues": sorted(issues), "ids": list(ids)}
    cursor = await connection.execute(_find_others(link), values)
    return await _mark(connection, link.stream, await cursor.fetchall(), "deleted", reading)


async def follow(connection: Connection, issues: Collection[str], reading: Reading) -> Counter[Stream]:
    """Mark the children of issues that are gone as gone with them; returns how many.

    Those the same job missed before it asked for their issue are taken for gone with it.
    """
    marked: Counter[Stream] = Counter()
    values = {**reading, "issues": sorted(issues)}
    for link in _LINKS if issues else ():
        cursor = await connection.execute(_find_left_behind(link), values)
        alike: dict[tuple[str, datetime], list[Mapping[str, Any]]] = defaultdict(list)
        for row in await cursor.fetchall():
            alike[row["absence"], row["deleted_at"]].append(row)
        for (absence, deleted_at), rows in alike.items():
            marked[link.stream] += await _mark(connection, link.stream, rows, absence, reading, deleted_at=deleted_at)
    return marked


async def follow_all(connection: Connection, reading: Reading) -> Counter[Stream]:
    """Mark whatever of a source belongs to an issue that is gone, and is still there; returns how many."""
    cursor = await connection.execute(
        """
        select external_id from issues i
         where import_source = %(source)s and deleted_at is not null
           and (exists (select from comments c where c.import_source = i.import_source
                           and c.issue_id = i.external_id and c.deleted_at is null)
             or exists (select from comments c where c.import_source = i.import_source and c.issue_key = i.key
                           and c.issue_id is null and c.scope = i.scope and c.deleted_at is null)
             or exists (select from worklogs w where w.import_source = i.import_source
                           and w.issue_id = i.external_id and w.deleted_at is null)
             or exists (select from issue_history h where h.import_source = i.import_source
                           and h.issue_id = i.external_id and h.deleted_at is null))
        """,
        reading,
    )
    return await follow(connection, [row["external_id"] for row in await cursor.fetchall()], reading)


async def bring_back(connection: Connection, issues: Sequence[GoneIssue], reading: Reading) -> None:
    """Take the tombstones off the children that went with issues that are back; what went before them stays gone."""
    for link in _LINKS if issues else ():
        named = {issue.external_id if link.column == "issue_id" else issue.key or "": issue for issue in issues}
        parents = sorted(named)
        values = {**reading, "issues": parents, "moments": [named[each].deleted_at for each in parents]}
        cursor = await connection.execute(_find_gone_with(link), values)
        if places := [row["place"] for row in await cursor.fetchall()]:
            await connection.execute(_restore(link.stream), {**reading, "places": places})


async def find_gone_issues(connection: Connection, source: str, column: str, names: Iterable[str]) -> list[GoneIssue]:
    """Which of these issues are gone, by `external_id` or `key`; they stay so until the end of the transaction."""
    cursor = await connection.execute(_find_gone_issues(column), {"source": source, "names": sorted(names)})
    return [GoneIssue(**row) for row in await cursor.fetchall()]


async def _mark(
    connection: Connection,
    stream: Stream,
    rows: Sequence[Mapping[str, Any]],
    absence: str,
    reading: Reading,
    *,
    deleted_at: datetime | None = None,
) -> int:
    if not rows:
        return 0
    values = {"places": [row["place"] for row in rows], "absence": absence, "deleted_at": deleted_at}
    return (await connection.execute(_set_gone(stream), {**reading, **values})).rowcount


def _table(stream: Stream) -> sql.Identifier:
    return sql.Identifier(TABLES[stream])


def _belongs(link: Link, to: str) -> sql.Composed:
    """A child of an issue; where it knows the issue's id, the key says nothing."""
    condition = "{} and coalesce(issue_id, '') = ''" if link.column == "issue_key" else "{}"
    return sql.SQL(condition).format(equals(link.column, to))


@cache
def _find(stream: Stream) -> sql.Composed:
    return sql.SQL(
        """
        select held.* from {mine} cross join unnest(%(ids)s::text[]) as asked(id) cross join lateral (
            select ctid::text as place, external_id from {}
             where import_source = mine.source and external_id = asked.id
               and deleted_at is null and (read_at is null or read_at <= %(read_at)s) limit 1 for update) held
        """
    ).format(_table(stream), mine=MINE)


@cache
def _find_others(link: Link) -> sql.Composed:
    return sql.SQL(
        """
        select child.* from {mine} cross join unnest(%(issues)s::text[]) as asked(id) cross join lateral (
            select ctid::text as place from {}
             where import_source = mine.source and {} and external_id <> all(%(ids)s)
               and deleted_at is null and (read_at is null or read_at <= %(read_at)s) offset 0 for update) child
        """
    ).format(_table(link.stream), _belongs(link, "asked.id"), mine=MINE)


@cache
def _find_left_behind(link: Link) -> sql.Composed:
    return sql.SQL(
        """
        select child.place, issue.deleted_at, issue.absence
          from {mine} cross join unnest(%(issues)s::text[]) as asked(id)
         cross join lateral (
            select {} as name, scope, deleted_at, absence from issues
             where import_source = mine.source and external_id = asked.id and deleted_at is not null limit 1) issue
         cross join lateral (
            select ctid::text as place from {} held
             where import_source = mine.source and {}{}
               and (deleted_at is null or job_id = %(job_id)s and deleted_at <> issue.deleted_at)
            offset 0 for update) child
        """
    ).format(
        sql.Identifier("external_id" if link.column == "issue_id" else "key"),
        _table(link.stream),
        _belongs(link, "issue.name"),
        # A repository that is gone may have left its name to another.
        sql.SQL(" and held.scope = issue.scope" if link.column == "issue_key" else ""),
        mine=MINE,
    )


@cache
def _find_gone_with(link: Link) -> sql.Composed:
    return sql.SQL(
        """
        select child.*
          from {mine} cross join unnest(%(issues)s::text[], %(moments)s::timestamptz[]) as back(id, gone_at)
         cross join lateral (
            select ctid::text as place from {}
             where import_source = mine.source and {} and deleted_at = back.gone_at offset 0 for update) child
        """
    ).format(_table(link.stream), _belongs(link, "back.id"), mine=MINE)


@cache
def _find_gone_issues(column: str) -> sql.Composed:
    # Mostly none is gone, and then no name is looked up. The order is that of an index, or the table would be read.
    return sql.SQL(
        """
        select held.*
          from {mine} cross join lateral (
            select from issues where import_source = mine.source and deleted_at is not null
             order by import_source, key limit 1) any_gone
         cross join unnest(%(names)s::text[]) as asked(name) cross join lateral (
            select external_id, key, deleted_at from issues
             where import_source = mine.source and {} = asked.name and deleted_at is not null limit 1 for share) held
        """
    ).format(sql.Identifier(column), mine=MINE)


@cache
def _set_gone(stream: Stream) -> sql.Composed:
    return sql.SQL(
        """
        update {} set deleted_at = coalesce(%(deleted_at)s, now()), updated_at = now(), absence = %(absence)s,
                      read_at = greatest(read_at, %(read_at)s), job_id = %(job_id)s
         where ctid = any(%(places)s::tid[])
        """
    ).format(_table(stream))


@cache
def _restore(stream: Stream) -> sql.Composed:
    # The job did not see them itself: one that compares what it saw with the table must not take them for seen.
    return sql.SQL(
        """
        update {} set deleted_at = null, absence = null, updated_at = now()
         where ctid = any(%(places)s::tid[])
        """
    ).format(_table(stream))
