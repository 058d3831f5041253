"""What an instance says of itself: the account and its time zone, tables and their children, columns."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import tzinfo

from shared.connectors._kept import Kept
from shared.connectors._servicenow_query import is_utc, join, one_of, parse_zone, readable_time, to_literal
from shared.connectors._servicenow_records import stored
from shared.connectors._servicenow_session import Session
from shared.domain.errors import SourceError, Trouble

REFUSED = frozenset({Trouble.PERMISSION_DENIED, Trouble.NOT_FOUND})
_UTC = parse_zone("UTC")
_MOST_ROWS = 10_000
_MOST_LEVELS = 8
_SECONDS_A_ZONE_IS_KEPT = 60
_SECONDS_A_FAMILY_IS_KEPT = 600
_ALWAYS_THERE = frozenset(
    {"sys_id", "sys_class_name", "sys_mod_count", "sys_tags"}
    | {f"sys_{act}_{what}" for act in ("created", "updated") for what in ("on", "by")}
)


@dataclass(frozen=True, kw_only=True)
class Account:
    """The account in whose name requests are made; empty strings where it may not read its own row."""

    sys_id: str = ""
    login: str = ""
    name: str = ""
    zone_name: str = ""
    updated_on: str = ""


class Instance:
    """Answers are kept for a while; that about the time zone not for long, since a wrong one loses rows."""

    def __init__(self, session: Session, login: str, zone_name: str) -> None:
        self._session = session
        self._login = login
        self._zone_name = zone_name
        self._zone = Kept(self._find_zone, seconds=_SECONDS_A_ZONE_IS_KEPT)
        self._families: dict[str, Kept[tuple[str, ...]]] = {}

    async def account(self) -> Account:
        """Who the instance takes us for, asked now."""
        # Who a client's own token stands for, only the instance knows.
        who = f"user_name={self._login}" if self._login else "sys_id=javascript:gs.getUserID()"
        fields = "sys_id,user_name,name,time_zone,sys_updated_on"
        try:
            found = (await self._session.rows("sys_user", query=who, fields=fields, limit=2)).rows
        except SourceError as error:
            if error.trouble not in REFUSED:
                raise
            found = []
        # More than one row: the condition was ignored, and neither need be the account's.
        row = found[0] if len(found) == 1 else {}
        return Account(
            sys_id=stored(row, "sys_id"),
            login=stored(row, "user_name") or self._login,
            name=stored(row, "name"),
            zone_name=stored(row, "time_zone"),
            updated_on=stored(row, "sys_updated_on"),
        )

    async def zone(self) -> tzinfo | None:
        """The time zone in which this account's queries are read, proved where it can be; None: unknown."""
        return parse_zone(self._zone_name) or await self._zone.get()

    async def _find_zone(self) -> tzinfo | None:
        """Ask for the account's own row by its time of change, as each zone writes it: what finds it is right.

        Reports differ on whether a time without a zone is read in the account's zone or in UTC, so neither is believed.
        https://www.servicenow.com/community/united-kingdom-snug/soap-web-service-and-time-zones-examples/ba-p/2270667
        https://github.com/ansible-collections/servicenow.itsm/pull/517
        """
        account = await self.account()
        named = parse_zone(account.zone_name or await self._default_zone())
        changed = readable_time(account.updated_on)
        if is_utc(named) or changed is None:
            return named if is_utc(named) else None
        for zone in (named, _UTC):
            if zone is None:
                continue
            at = to_literal(changed, zone)
            query = join(f"sys_id={account.sys_id}", f"sys_updated_on>={at}", f"sys_updated_on<={at}")
            if (await self._session.rows("sys_user", query=query, fields="sys_id", limit=1)).total:
                return zone
        return None

    async def _default_zone(self) -> str:
        """The zone of accounts that name none; it may be set nowhere.

        https://www.servicenow.com/docs/r/platform-administration/time-configuration/t_SetASystemTimeZone.html
        """
        try:
            found = await self._session.rows(
                "sys_properties", query="name=glide.sys.default.tz", fields="value", limit=1
            )
        except SourceError as error:
            if error.trouble not in REFUSED:
                raise
            return ""
        return stored(found.rows[0], "value") if found.total == 1 and found.rows else ""

    async def family(self, table: str) -> tuple[str, ...]:
        """The table and all that extend it: rows of a child are rows of the table, but filed under the child's name."""
        if table not in self._families:
            self._families[table] = Kept(lambda: self._ask_family(table), seconds=_SECONDS_A_FAMILY_IS_KEPT)
        return await self._families[table].get()

    async def _ask_family(self, table: str) -> tuple[str, ...]:
        return tuple(sorted({table, *(await self.children_of(table))}))

    async def children_of(self, table: str) -> dict[str, str]:
        """Tables that extend this one, at any depth, with their labels; none where that may not be read."""
        found: dict[str, str] = {}
        level: Sequence[str] = [table]
        for _ in range(_MOST_LEVELS):
            try:
                query = one_of("super_class.name", level)
                rows = (
                    await self._session.rows("sys_db_object", query=query, fields="name,label", limit=_MOST_ROWS)
                ).rows
            except SourceError as error:
                if error.trouble not in REFUSED:
                    raise
                break
            labels = {stored(row, "name"): stored(row, "label") for row in rows if stored(row, "name")}
            level = sorted(labels.keys() - found.keys() - {table})
            found |= {name: labels[name] for name in level}
            if not level:
                break
        return found

    async def unknown_columns(self, table: str, columns: Iterable[str]) -> list[str]:
        """Those of the columns that the table does not have; `a.b` is column b of what column a refers to.

        The instance runs a query without the conditions it does not understand, and answers with every row.
        https://www.servicenow.com/docs/r/api-reference/rest-apis/c_TableAPI.html (sysparm_query)
        """
        paths = {column: column.partition(".") for column in columns}
        asked = {head for head, _, _ in paths.values()} - _ALWAYS_THERE
        query = join(one_of("name", await self._ancestors(table)), one_of("element", sorted(asked)))
        rows = (await self._session.rows("sys_dictionary", query=query, fields="element,reference", limit=1_000)).rows
        refers = {stored(row, "element"): stored(row, "reference") for row in rows} if asked else {}
        unknown = [column for column, (head, _, _) in paths.items() if head in asked and head not in refers]
        for column, (head, _, rest) in paths.items():
            if rest and column not in unknown:
                reference = stored(refers, head)
                if not reference or await self.unknown_columns(reference, [rest]):
                    unknown.append(column)
        return unknown

    async def _ancestors(self, table: str) -> list[str]:
        fields = ["name", *(f"{'super_class.' * depth}name" for depth in range(1, _MOST_LEVELS))]
        query = f"name={table}"
        try:
            found = await self._session.rows("sys_db_object", query=query, fields=",".join(fields), limit=1)
        except SourceError as error:
            if error.trouble not in REFUSED:
                raise
            return [table, "task"]
        return [name for field in fields if (name := stored(found.rows[0], field))] if found.rows else [table, "task"]
