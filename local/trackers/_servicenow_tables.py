"""Tables of a simulated ServiceNow instance, and encoded queries over them.

Rows stay objects of the world until they are shown; a field is a function of the object that gives (value, label).
"""

import operator
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from hashlib import md5
from typing import Any, Protocol

Field = Callable[[Any], tuple[str, str]]
_NEVER_IN_AN_ID = "~"
_TO_THE_SECOND = len("2025-03-31 14:05:00")
_OPERATORS = (">=", "<=", "!=", "=", ">", "<", "NOT IN", "IN", "ISEMPTY", "ISNOTEMPTY", "STARTSWITH", "LIKE")
_CONDITION = re.compile(rf"([a-z][a-z0-9_.]*?)({'|'.join(_OPERATORS)})(.*)", re.DOTALL)
_DATE_GENERATE = re.compile(r"javascript:gs\.dateGenerate\('([^']*)',\s*'([^']*)'\)")
_RANGES = frozenset({">=", "<=", ">", "<", "STARTSWITH", "LIKE"})


@lru_cache(maxsize=1_000_000)
def sys_id(kind: str, number: int) -> str:
    """Spread over all ids, as real ones are."""
    return md5(f"{kind}:{number}".encode(), usedforsecurity=False).hexdigest()


def stamp(moment: datetime | None) -> str:
    return str(moment.astimezone(UTC))[:_TO_THE_SECOND] if moment else ""


class Row(Protocol):
    """What every row knows without being shown."""

    @property
    def sys_id(self) -> str: ...

    @property
    def hidden(self) -> bool: ...


@dataclass(frozen=True)
class Entry:
    """A row of which nothing but its fields is known."""

    sys_id: str
    values: Mapping[str, str]
    hidden: bool = False


def entry_fields(names: Iterable[str]) -> dict[str, Field]:
    return {name: lambda row, name=name: (row.values[name], row.values[name]) for name in names}


@dataclass
class Table:
    """A table: its columns, and how its rows, in order of sys_id, are got. Rows of one state are kept."""

    name: str
    fields: Mapping[str, Field]
    rows: Callable[[], Sequence[Any]]
    # Rows as they are at this moment, by id, where lists may lag behind.
    by_id: Callable[[str], Any] | None = None
    times: frozenset[str] = frozenset({"sys_updated_on", "sys_created_on"})
    _held: dict[object, tuple[Sequence[Any], list[str]]] = field(default_factory=dict[Any, Any])

    def select(self, query: "Query", state: object) -> "Selection":
        """The rows of a query. Those of its conditions but the range of ids are kept while the table stays the same."""
        if self.by_id and query.named_ids is not None:
            found = sorted((row for row in map(self.by_id, query.named_ids) if row), key=lambda row: row.sys_id)
            rows = [row for row in found if query.holds(row, self.fields)]
            return Selection(rows, 0, len(rows))
        key = (state, query.text)
        if key not in self._held:
            if len(self._held) > 16:
                self._held.clear()
            rows = [row for row in self.rows() if query.holds(row, self.fields)]
            if query.order and query.order != "sys_id":
                rows.sort(key=lambda row: self.fields[query.order](row)[0])
            self._held[key] = (rows, [row.sys_id for row in rows])
        rows, ids = self._held[key]
        if query.order and query.order != "sys_id":
            return Selection(rows, 0, len(rows))
        return Selection(rows, *query.bounds(ids))


@dataclass(frozen=True)
class Selection:
    rows: Sequence[Any]
    start: int
    end: int

    @property
    def total(self) -> int:
        return max(self.end - self.start, 0)

    def page(self, offset: int, limit: int) -> Sequence[Any]:
        return self.rows[self.start + offset : min(self.start + offset + limit, max(self.end, self.start))]


@dataclass
class Query:
    """A parsed encoded query: all groups must hold, each by one of its conditions. What is invalid is not there."""

    text: str = ""
    order: str = ""
    groups: list[list[tuple[str, str, str]]] = field(default_factory=list[list[tuple[str, str, str]]])
    low: tuple[str, bool] = ("", True)
    high: tuple[str, bool] = (_NEVER_IN_AN_ID, True)
    named_ids: list[str] | None = None

    def bounds(self, ids: list[str]) -> tuple[int, int]:
        find_low = bisect_left if self.low[1] else bisect_right
        find_high = bisect_right if self.high[1] else bisect_left
        return find_low(ids, self.low[0]), find_high(ids, self.high[0])

    def holds(self, row: Row, fields: Mapping[str, Field]) -> bool:
        return all(
            any(_COMPARE[how](fields[column](row)[0], wanted) for column, how, wanted in group) for group in self.groups
        )


@dataclass(frozen=True, kw_only=True)
class Reader:
    """How a session reads queries: its user, its zone, and columns it may not use for ranges and order."""

    user_id: str
    user_name: str
    zone: tzinfo
    no_range: frozenset[str] = frozenset()

    def parse(self, text: str, table: Table) -> Query:
        query = Query()
        kept: list[str] = []
        for part in re.split(r"(?<!\^)\^(?!\^)", text):
            if part.startswith("ORDERBY"):
                column = part.removeprefix("ORDERBY")
                query.order = "" if column in self.no_range or column not in table.fields else column
                continue
            alternative = part.startswith("OR")
            match = _CONDITION.fullmatch(part.removeprefix("OR") if alternative else part)
            if match is None or match[1] not in table.fields:
                continue
            column, how, wanted = match[1], match[2], match[3]
            if column in table.times:
                wanted = self._moment(wanted)
            if how in _RANGES and column in self.no_range:
                continue
            if column == "sys_id" and how in _RANGES - {"STARTSWITH", "LIKE"} and not alternative:
                _bound(query, how, wanted)
                continue
            wanted = self._value(wanted)
            if alternative and query.groups:
                query.groups[-1].append((column, how, wanted))
            else:
                query.groups.append([(column, how, wanted)])
            kept.append(f"{alternative}{column}{how}{wanted}")
        query.text = "^".join([*kept, query.order])
        for group in query.groups:
            if len(group) == 1 and group[0][0] == "sys_id" and group[0][1] in {"=", "IN"}:
                query.named_ids = group[0][2].split(",")
        return query

    def _value(self, text: str) -> str:
        return text.replace("javascript:gs.getUserID()", self.user_id).replace(
            "javascript:gs.getUserName()", self.user_name
        )

    def _moment(self, text: str) -> str:
        if generated := _DATE_GENERATE.fullmatch(text):
            text = f"{generated[1]} {generated[2]}"
        # Words that stand for two moments mean the later one, as in Java.
        return stamp(datetime.fromisoformat(text).replace(tzinfo=self.zone, fold=1)) if text else ""


def _bound(query: Query, how: str, wanted: str) -> None:
    if how in {">", ">="}:
        query.low = max(query.low, (wanted, how == ">="), key=lambda bound: (bound[0], not bound[1]))
    else:
        query.high = min(query.high, (wanted, how == "<="))


_COMPARE: dict[str, Callable[[str, str], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
    "IN": lambda value, wanted: value in wanted.split(","),
    "NOT IN": lambda value, wanted: value not in wanted.split(","),
    "ISEMPTY": lambda value, _: not value,
    "ISNOTEMPTY": lambda value, _: bool(value),
    "STARTSWITH": str.startswith,
    "LIKE": operator.contains,
}
