"""ServiceNow: incidents and other task tables over the Table API.

Rows are walked by `sys_id`; what a page shows is what is left after row rights, so only counts tell where a walk ends
(see `_servicenow_query`). Times in queries are read in the account's time zone (see `_servicenow_instance`).
https://www.servicenow.com/docs/r/api-reference/rest-apis/c_TableAPI.html
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, ClassVar, cast

import httpx

from shared.connectors._json import Unread
from shared.connectors._protocol import (
    EVERYTHING,
    Absence,
    Children,
    Choice,
    ConnectorCredentials,
    ConnectorSettings,
    Gap,
    Gone,
    Hooks,
    KeyForm,
    Page,
    Part,
    PartKind,
    Probe,
    Quota,
    Scope,
    Sent,
    StreamTraits,
    Walk,
)
from shared.connectors._servicenow_checks import check_families, check_filter, check_mapping
from shared.connectors._servicenow_hooks import HOOKS
from shared.connectors._servicenow_instance import REFUSED, Instance
from shared.connectors._servicenow_query import (
    Asked,
    Place,
    is_utc,
    join,
    one_of,
    ranges,
)
from shared.connectors._servicenow_records import stored, to_comment, to_issue, to_person, without_journals
from shared.connectors._servicenow_session import Rows, Session
from shared.connectors._servicenow_settings import ServiceNowCredentials, ServiceNowSettings
from shared.connectors._servicenow_walk import JOURNAL_FIELDS, ROWS_A_PAGE, Reading, RowWalk, changed, journal
from shared.domain.errors import SourceError, Trouble
from shared.domain.stream import Record, Stream

_ISSUES_A_PAGE = 500
_IDS_A_QUERY = 100
_MANY_ROWS = 5_000
# More names than this make addresses that servers refuse.
_MOST_NAMES = 50
_COMMENTS_AN_ISSUE = 3
_USER_FIELDS = "sys_id,user_name,name,email,active,time_zone,sys_created_on,sys_updated_on"
_WITHOUT = {
    "sys_journal_field": "no comments and work notes",
    "sys_user": "no users, and the account's time zone is not known",
    "sys_audit_delete": "deletions are found by the census only",
    "sys_db_object": "rows of tables that extend a chosen one bring no comments",
}


class ServiceNowConnector:
    """One instance, read as one account."""

    source: ClassVar[str] = "servicenow"
    title: ClassVar[str] = "ServiceNow"
    Settings: ClassVar[type[ConnectorSettings]] = ServiceNowSettings
    Credentials: ClassVar[type[ConnectorCredentials]] = ServiceNowCredentials
    streams: ClassVar[Mapping[Stream, StreamTraits]] = {
        Stream.ISSUES: StreamTraits(walk=Walk.WINDOW, census=True),
        Stream.COMMENTS: StreamTraits(walk=Walk.WINDOW),
        Stream.USERS: StreamTraits(walk=Walk.WINDOW, per_scope=False),
    }
    # A row gets its time of change before the business rules run, and is seen when they are done.
    index_lag: ClassVar[timedelta] = timedelta(seconds=60)
    keys_per_part: ClassVar[int] = _IDS_A_QUERY
    keys_need_scope: ClassVar[bool] = True
    key_form: ClassVar[KeyForm | None] = None
    hooks: ClassVar[Hooks] = HOOKS

    def __init__(
        self, client: httpx.AsyncClient, base_url: str, settings: ConnectorSettings, credentials: ConnectorCredentials
    ) -> None:
        self._settings = cast("ServiceNowSettings", settings)
        self._base_url = base_url
        known = cast("ServiceNowCredentials", credentials)
        self._session = Session(client, base_url, known, settings.concurrency)
        self._instance = Instance(self._session, known.login, self._settings.time_zone)
        self._walk = RowWalk(self._session, self._instance)

    @property
    def requests(self) -> int:
        return self._session.requests

    @property
    def quota(self) -> Quota | None:
        return self._session.quota

    async def now(self) -> datetime:
        *others, last = self._settings.tables
        for table in others:
            try:
                return await self._time_at(table)
            except SourceError as error:
                # A table that is refused is a gap; the clock is the same for all.
                if error.trouble not in REFUSED:
                    raise
        return await self._time_at(last)

    async def _time_at(self, table: str) -> datetime:
        answer = (await self._session.rows(table, fields="sys_id", limit=1)).answer
        if answer.server_time is None:
            raise SourceError(Trouble.PAYLOAD_INVALID, "The answer does not say what time it is", status=answer.status)
        return answer.server_time

    async def check(self) -> Probe:
        account = await self._instance.account()
        zone = await self._instance.zone()
        asked = [*self._settings.tables, "sys_journal_field", "sys_user", "sys_audit_delete", "sys_db_object"]
        probes = dict(zip(asked, await asyncio.gather(*map(self._probe, asked)), strict=True))
        seen = {table: found for table, found in probes.items() if isinstance(found, Rows)}
        read = [table for table in self._settings.tables if table in seen]
        await check_filter(self._instance, self._settings.query, read)
        check_mapping(self._settings.fields.values(), [seen[table] for table in read])
        warnings = [
            f"{table} has {found.total} rows, and the first {_IDS_A_QUERY} of them are hidden from this account"
            for table, found in seen.items()
            if found.total and not found.rows
        ]
        if not is_utc(zone):
            reads = f"are in {zone}" if zone else "may be in any zone, so that each sync reads half a day twice"
            warnings.append(f"Times in this account's queries {reads}; UTC is safer: set it in the user record")
        return Probe(
            account=f"{account.name} ({account.login})" if account.name else account.login or "OAuth client",
            deployment="cloud" if httpx.URL(self._base_url).host.endswith(".service-now.com") else "own domain",
            time_zone=str(zone) if zone else None,
            server_time=next((found.answer.server_time for found in seen.values()), None),
            granted=tuple(seen),
            missing=tuple(
                f"{table}: {_WITHOUT.get(table, 'none of its rows')}" for table in asked if table not in seen
            ),
            quota=self.quota,
            counts={table: seen[table].total for table in read},
            warnings=tuple(warnings),
        )

    async def _probe(self, table: str) -> Rows | SourceError:
        chosen = table in self._settings.tables
        fields = ",".join(["sys_id", *(self._settings.fields.values() if chosen else ())])
        query = self._settings.query if chosen else ""
        try:
            return await self._session.rows(table, query=query, fields=fields, limit=_IDS_A_QUERY)
        except SourceError as error:
            if error.trouble not in REFUSED:
                raise
            return error

    async def discover(self, kind: str) -> list[Choice]:
        """Task tables as `projects`, and active `users`."""
        if kind == "projects":
            found = await self._instance.children_of("task")
            return [Choice(id=name, name=label or name, description=name) for name, label in sorted(found.items())]
        if kind == "users":
            query = join("active=true", "ORDERBYname")
            rows = (await self._session.rows("sys_user", query=query, fields=_USER_FIELDS, limit=ROWS_A_PAGE)).rows
            return [
                Choice(id=sys_id, name=stored(row, "name") or sys_id, description=stored(row, "user_name"))
                for row in rows
                if (sys_id := stored(row, "sys_id"))
            ]
        return []

    async def scopes(self) -> tuple[list[Scope], list[Gap]]:
        tables = self._settings.tables
        *of_tables, of_journal, of_users = await asyncio.gather(
            *map(self._look_at, tables), self._probe("sys_journal_field"), self._probe("sys_user")
        )
        read = [table for table, found in zip(tables, of_tables, strict=True) if isinstance(found, Rows)]
        gaps = [
            _gap(stream, table, found)
            for table, found in zip(tables, of_tables, strict=True)
            if isinstance(found, SourceError)
            for stream in (Stream.ISSUES, Stream.COMMENTS)
        ]
        if isinstance(of_journal, SourceError):
            gaps += [_gap(Stream.COMMENTS, table, of_journal) for table in read]
        if isinstance(of_users, SourceError):
            gaps.append(_gap(Stream.USERS, EVERYTHING, of_users))
        await check_filter(self._instance, self._settings.query, read)
        await check_families(self._instance, read)
        check_mapping(self._settings.fields.values(), [found for found in of_tables if isinstance(found, Rows)])
        return [Scope(table, table) for table in read], [gap for gap in gaps if self._wants(gap.stream)]

    async def _look_at(self, table: str) -> Rows | SourceError:
        """Probe a chosen table; its family is asked for at once, and kept: every round of waiting delays a sync."""
        found = await self._probe(table)
        if isinstance(found, Rows):
            await self._instance.family(table)
        return found

    def _wants(self, stream: Stream) -> bool:
        return not self._settings.streams or stream in self._settings.streams

    async def split(self, part: Part) -> list[Part]:
        """Ranges of ids, which are random from end to end."""
        if part.since or part.query or part.kind not in {PartKind.WINDOW, PartKind.CENSUS}:
            return [part]
        reading = await self._reading(part)
        count = (await self._session.rows(reading.table, query=reading.query, fields="sys_id", limit=1)).total
        if count <= _MANY_ROWS:
            return [part]
        pieces = 4 if count <= 4 * _MANY_ROWS else 8 if count <= 16 * _MANY_ROWS else 16
        return [replace(part, query=piece) for piece in ranges(pieces)]

    async def fetch(self, part: Part, position: Mapping[str, Any] | None, *, most: int | None = None) -> Page:
        if part.kind is PartKind.KEYS:
            return await self._named(part, with_children=most is None)
        reading = await self._reading(part)
        place = Place.parse(position, reading.limit)
        if place.step == "deletions":
            return await self._deletions(part, place)
        found, onward = await self._walk.step(
            reading, part.query, replace(place, limit=min(place.limit, most or place.limit))
        )
        entries = reading.table == "sys_journal_field"
        rows = await self._entries_of(part.scope, found.rows) if entries else found.rows
        page = Page(
            read_at=found.answer.read_at,
            next=onward.position() if onward else None,
            records=Unread(found.texts, partial(self._sent, part))
            if reading.wide
            else [self._sent(part, row) for row in rows],
        )
        if part.kind is PartKind.CENSUS:
            seen = [(stored(row, "sys_id"), changed(row, reading)) for row in found.rows]
            return replace(page, records=(), seen=seen)
        if part.stream is Stream.COMMENTS and not entries:
            threads = await self._threads(part.scope, [stored(row, "sys_id") for row in found.rows])
            return replace(page, records=threads[0], complete=threads[1])
        if part.stream is Stream.ISSUES and part.since and not onward and most is None:
            last = await self._deletions(part, Place(limit=ROWS_A_PAGE, step="deletions"), read_at=page.read_at)
            return replace(page, next=last.next, gone=last.gone, gaps=last.gaps)
        return page

    def _sent(self, part: Part, row: dict[str, Any]) -> Sent:
        return Sent(part.stream, without_journals(row) if part.stream is Stream.ISSUES else row, part.scope)

    async def _reading(self, part: Part) -> Reading:
        """What the walk of a part asks for.

        Journal entries know the table of their issue, not its columns. Where a filter chooses issues, or a table has
        too many children to name, the issues that changed are walked and their whole threads read: every entry changes
        its issue, and one that only now meets the filter brings its older entries along.
        """
        if part.stream is Stream.USERS:
            return Reading(table="sys_user", fields=_USER_FIELDS, since=part.since)
        issues = Reading(table=part.scope, query=self._settings.query, since=part.since)
        if part.kind is PartKind.CENSUS:
            return replace(issues, fields="sys_id,sys_updated_on")
        if part.stream is Stream.ISSUES:
            return replace(issues, wide=True, limit=_ISSUES_A_PAGE)
        family = await self._instance.family(part.scope)
        if self._settings.query or len(family) > _MOST_NAMES:
            return replace(issues, fields="sys_id,sys_updated_on", limit=_IDS_A_QUERY)
        # What was written through the parent table may be filed under its name.
        return replace(journal(one_of("name", sorted({*family, "task"}))), since=part.since)

    async def _entries_of(self, table: str, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Journal entries of the issues of a table; of those that are filed elsewhere the instance is asked."""
        family = await self._instance.family(table)
        strays = {stored(row, "element_id") for row in rows if stored(row, "name") not in family}
        foreign = strays - await self._existing(table, sorted(strays))
        return [row for row in rows if stored(row, "element_id") not in foreign]

    async def _deletions(self, part: Part, place: Place, *, read_at: datetime | None = None) -> Page:
        """What the instance noted as deleted; a refusal is shown, and leaves deletions to the census.

        Only audited tables are noted, and a dictionary attribute can switch it off.
        https://www.servicenow.com/docs/r/platform-administration/table-administration-and-data-management/c_DictionaryAttributes.html
        """
        family = await self._instance.family(part.scope)
        names = family if len(family) <= _MOST_NAMES else (part.scope,)
        fields = "sys_id,documentkey,sys_created_on"
        notes = Reading(table="sys_audit_delete", query=one_of("tablename", names), fields=fields, since=part.since)
        scope = f"{part.scope}:deletions"
        try:
            found, onward = await self._walk.step(notes, {}, place)
        except SourceError as error:
            if error.trouble not in REFUSED or read_at is None:
                raise
            return Page(read_at=read_at, gaps=[_gap(Stream.ISSUES, scope, error)])
        if found.total and not found.rows and not place.after:
            detail = "Notes of deletions exist, but row rights hide them from this account"
            gap = Gap(Stream.ISSUES, scope, Trouble.PERMISSION_DENIED, detail, found.answer.status)
            return Page(read_at=found.answer.read_at, gaps=[gap])
        gone = {key for row in found.rows if (key := stored(row, "documentkey"))}
        # Deleted records can be brought back.
        gone -= await self._existing(part.scope, sorted(gone))
        return Page(
            read_at=found.answer.read_at,
            next=onward.position() if onward else None,
            gone=[Gone(Stream.ISSUES, sys_id, Absence.DELETED) for sys_id in sorted(gone)],
        )

    async def _existing(self, table: str, ids: Sequence[str]) -> set[str]:
        batches = [ids[start : start + _IDS_A_QUERY] for start in range(0, len(ids), _IDS_A_QUERY)]
        found = await asyncio.gather(
            *(
                self._session.rows(table, query=one_of("sys_id", batch), fields="sys_id", limit=_IDS_A_QUERY)
                for batch in batches
            )
        )
        return {stored(row, "sys_id") for answer in found for row in answer.rows}

    async def _named(self, part: Part, *, with_children: bool) -> Page:
        """Records by id or number, with their journals; what does not come is deleted, hidden, or filtered out."""
        asked = Asked.parse(part.query)
        table, key = {
            Stream.ISSUES: (part.scope, "number"),
            Stream.COMMENTS: ("sys_journal_field", ""),
            Stream.USERS: ("sys_user", "user_name"),
        }[part.stream]
        issues = part.stream is Stream.ISSUES
        fields = "" if issues else _USER_FIELDS if table == "sys_user" else JOURNAL_FIELDS
        query = join(self._settings.query if issues else "", asked.condition(key))
        found = await self._session.rows(table, query=query, fields=fields, limit=ROWS_A_PAGE, labels=issues)
        records = [self._sent(part, row) for row in found.rows]
        page = Page(read_at=found.answer.read_at, gone=await self._missing(part, asked, key, found.rows, table))
        if not (issues and with_children and self._wants(Stream.COMMENTS)):
            return replace(page, records=records)
        try:
            journal, complete = await self._threads(part.scope, [stored(row, "sys_id") for row in found.rows])
        except SourceError as error:
            if error.trouble not in REFUSED:
                raise
            return replace(page, records=records, gaps=[_gap(Stream.COMMENTS, part.scope, error)])
        return replace(page, records=[*records, *journal], complete=complete)

    async def _missing(
        self, part: Part, asked: Asked, key: str, rows: Sequence[Mapping[str, Any]], table: str
    ) -> list[Gone]:
        ids = set(asked.ids) - {stored(row, "sys_id") for row in rows}
        keys = set(asked.keys) - {stored(row, key) for row in rows}
        outside: dict[str, str] = {}
        if part.stream is Stream.ISSUES and self._settings.query and (ids or keys):
            query = Asked(tuple(sorted(ids)), tuple(sorted(keys))).condition(key)
            found = await self._session.rows(table, query=query, fields=f"sys_id,{key}", limit=ROWS_A_PAGE)
            outside = {stored(row, "sys_id"): stored(row, key) for row in found.rows}
        unknown = (ids | keys) - outside.keys() - set(outside.values())
        return [
            *(Gone(part.stream, sys_id, Absence.MOVED) for sys_id in sorted(outside)),
            *(Gone(part.stream, name, Absence.DELETED_OR_HIDDEN) for name in sorted(unknown)),
        ]

    async def _threads(self, scope: str, issues: Sequence[str]) -> tuple[list[Sent], list[Children]]:
        """All journal entries of these issues; complete unless row rights may have hidden some of them."""
        entries: dict[str, dict[str, Any]] = {}
        place: Place | None = Place(limit=ROWS_A_PAGE) if issues else None
        total = 0
        while place:
            found, place = await self._walk.step(journal(one_of("element_id", issues)), {}, place)
            total = total or found.total
            entries |= {stored(row, "sys_id"): row for row in found.rows}
        of_issue: dict[str, set[str]] = {issue: set() for issue in issues}
        for sys_id, row in entries.items():
            of_issue.setdefault(stored(row, "element_id"), set()).add(sys_id)
        known = issues if len(entries) >= total else ()
        complete = [Children(Stream.COMMENTS, issue, frozenset(of_issue[issue])) for issue in known]
        return [Sent(Stream.COMMENTS, row, scope) for row in entries.values()], complete

    def normalize(self, sent: Sent) -> Record:
        if sent.stream is Stream.ISSUES:
            return to_issue(sent, self._base_url, self._settings.fields)
        return to_comment(sent) if sent.stream is Stream.COMMENTS else to_person(sent)

    def estimate_calls(self, issues: int) -> int:
        pages = issues // _ISSUES_A_PAGE + 1
        comments = issues // _IDS_A_QUERY * 2 if self._settings.query else issues * _COMMENTS_AN_ISSUE // ROWS_A_PAGE
        return pages + (comments + 1 if self._wants(Stream.COMMENTS) else 0) + len(self._settings.tables) + 4


def _gap(stream: Stream, scope: str, error: SourceError) -> Gap:
    return Gap(stream, scope, error.trouble, error.detail, error.status)


CONNECTOR = ServiceNowConnector
