"""Encoded queries of ServiceNow: what may stand in a filter, how times are written, and where a walk goes on.

A walk reads rows by `sys_id`, which never changes, so that nothing can slide out of it. Row rights are applied
after the limit: a page that is short or even empty says nothing, only the count made before the rights does.
https://www.servicenow.com/docs/r/api-reference/rest-apis/c_TableAPI.html (sysparm_limit)
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from shared.domain.errors import SourceError, Trouble

FEWEST_ROWS = 25
_KEY = re.compile(r"[\w.-]+")
_ID_DIGITS = 32
_LAST_ID = 16**_ID_DIGITS - 1
_COLUMN = r"[a-z][a-z0-9_]*(?:\.[a-z][a-z0-9_]*)*"
# https://www.servicenow.com/docs/r/platform-user-interface/c_EncodedQueryStrings.html
_WORDS = (
    "ISEMPTY ISNOTEMPTY EMPTYSTRING ANYTHING NSAMEAS SAMEAS BETWEEN NOTON ON DATEPART RELATIVEGT RELATIVEGE RELATIVELT "
    "RELATIVELE RELATIVEEE DYNAMIC GT_OR_EQUALS_FIELD LT_OR_EQUALS_FIELD GT_FIELD LT_FIELD INSTANCEOF MORETHAN "
    "LESSTHAN MATCH_PAT MATCH_RGX NOTLIKE LIKE STARTSWITH ENDSWITH CONTAINS IN"
)
_CONDITION = re.compile(
    rf"(?:OR)?(?P<column>{_COLUMN})"
    rf"(?:>=|<=|!=|=|>|<|NOT IN|NOT LIKE|DOES NOT CONTAIN|{_WORDS.replace(' ', '|')})"
)
_BETWEEN_CONDITIONS = re.compile(r"(?<!\^)\^(?!\^)")
# The farthest west that a clock is: a time written this much too early is never read as one that is too late.
_FARTHEST_WEST = timedelta(hours=12)
_NEAR = timedelta(hours=3)


def filter_columns(query: str) -> list[str]:
    """The columns a filter names. ValueError if it has a part that could be ignored or would undo ours."""
    columns: list[str] = []
    for position, condition in enumerate(_BETWEEN_CONDITIONS.split(query) if query else ()):
        if condition.startswith(("NQ", "ORDERBY", "GROUPBY")):
            raise ValueError(f"{condition[:40]!r}: a filter cannot hold ^NQ, ORDERBY or GROUPBY; use ^OR")
        match = _CONDITION.match(condition)
        if match is None or (position == 0 and condition.startswith("OR")):
            raise ValueError(f"{condition[:40]!r} is not a column, an operator and a value")
        columns.append(match["column"])
    return columns


def parse_time(text: str) -> datetime | None:
    """A stored time: UTC without a zone. The same page, section Data formats."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC) if text else None


def readable_time(text: str) -> datetime | None:
    """A stored time, or None where there is none to be read."""
    try:
        return parse_time(text)
    except ValueError:
        return None


def parse_zone(name: str) -> tzinfo | None:
    """The time zone of this name, or None if there is none."""
    try:
        return ZoneInfo(name) if name else None
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


def to_literal(moment: datetime, zone: tzinfo | None) -> str:
    """A time for a query, as a session in `zone` reads it; never one that would be read as later than `moment`.

    Around a change of the clocks the same words can mean two times, so they are chosen early enough for both. Where the
    zone is not known they are early enough for every zone.
    """
    if zone is None:
        return _words(moment.astimezone(UTC) - _FARTHEST_WEST)
    before, after = ((moment + step).astimezone(zone).utcoffset() or timedelta() for step in (-_NEAR, _NEAR))
    return _words((moment - abs(after - before)).astimezone(zone))


def is_utc(zone: tzinfo | None) -> bool:
    """Whether the zone's clock is UTC's all the year."""
    return zone is not None and all(zone.utcoffset(datetime(2024, month, 1)) == timedelta() for month in (1, 7))  # noqa: DTZ001


def _words(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}"


def join(*conditions: str) -> str:
    """Conditions that must all hold."""
    return "^".join(filter(None, conditions))


def one_of(column: str, values: Iterable[str]) -> str:
    return f"{column}IN{','.join(values)}"


def ranges(parts: int) -> list[dict[str, str]]:
    """Cut all ids into so many ranges, at most 16; the outer two are open, because not every sys_id is hexadecimal."""
    bounds = [f"{16 * each // parts:x}" for each in range(1, parts)]
    return [
        {name: bound for name, bound in (("from", low), ("below", high)) if bound}
        for low, high in zip(["", *bounds], [*bounds, ""], strict=True)
    ]


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a walk is: rows up to id `after` are read. `to` bounds the next request while it feels its way through
    rows that are hidden from this account.
    """

    limit: int
    after: str = ""
    to: str = ""
    step: str = "rows"

    @classmethod
    def parse(cls, position: Mapping[str, Any] | None, limit: int) -> "Place":
        return cls(**position) if position else cls(limit=limit)

    def position(self) -> dict[str, Any]:
        return asdict(self)

    def condition(self, part: Mapping[str, Any]) -> str:
        """The range of ids to ask for, inside that of the part."""
        return join(
            f"sys_id>{self.after}" if self.after else "",
            f"sys_id<={self.to}" if self.to else "",
            f"sys_id>={part['from']}" if "from" in part and not self.after else "",
            f"sys_id<{part['below']}" if "below" in part else "",
        )


@dataclass(frozen=True)
class Asked:
    """Names of records to read: our ids, or the numbers people use."""

    ids: tuple[str, ...]
    keys: tuple[str, ...]

    @classmethod
    def parse(cls, query: Mapping[str, Any]) -> "Asked":
        ids, keys = list(query.get("ids", ())), list(query.get("keys", ()))
        for issue in query.get("issues", ()):
            (ids if issue.get("id") else keys).append(issue.get("id") or issue.get("key") or "")
        return cls(tuple(map(str, ids)), tuple(map(str, keys)))

    def condition(self, key: str) -> str:
        """A name that could not be one is left out, so that it cannot become a condition of its own."""
        ids, keys = ([name for name in names if _KEY.fullmatch(name)] for names in (self.ids, self.keys))
        by_key = [one_of(key, keys)] if key and keys else []
        # Without any name the condition must find nothing; one that is empty would be ignored.
        by_id = [one_of("sys_id", ids or ["-"])] if ids or not by_key else []
        return "^OR".join([*by_id, *by_key])


def next_place(place: Place, part: Mapping[str, Any], ids: Sequence[str], total: int) -> Place | None:
    """Where to go on after a page that showed `ids` of `total` rows in the range; None at the end of the walk.

    An answer proves that nothing is left in its range when the range holds clearly fewer rows than the limit; clearly,
    because rows are counted and read one after the other, and some may be added in between. A page on which every row
    is hidden gives no id to go on from: the range is narrowed until it proves itself empty, then passed over. Offsets
    are never used, since a hidden row that goes away would shift the others.
    """
    if total > place.limit - place.limit // 10:
        return replace(place, after=ids[-1], to="") if ids else _narrowed(place, part, total)
    if not place.to:
        return None
    passed = _number(place.to)
    width = passed - _number(place.after or part.get("from", ""))
    # Ids made elsewhere can lie close together: widths that fit them would never cross the rest.
    beyond = passed + (width if total > place.limit // 4 else 4 * width)
    return replace(place, after=place.to, to=_id(beyond) if beyond < _end(part) else "")


def _narrowed(place: Place, part: Mapping[str, Any], total: int) -> Place:
    low = _number(place.after or part.get("from", ""))
    span = (_number(place.to) if place.to else _end(part)) - low
    if span < 2:
        detail = (
            f"All {total} rows after {place.after!r} are hidden from this account, and their ids are not hexadecimal"
        )
        raise SourceError(Trouble.PERMISSION_DENIED, detail, hint="Give the account the right to read them")
    return replace(place, to=_id(low + max(1, span * place.limit // (2 * total))))


def _end(part: Mapping[str, Any]) -> int:
    return _number(part["below"]) if "below" in part else _LAST_ID


def _number(sys_id: str) -> int:
    """The number an id stands for among all ids; one that is not hexadecimal counts as the last."""
    try:
        return int(sys_id.ljust(_ID_DIGITS, "0")[:_ID_DIGITS], 16)
    except ValueError:
        return _LAST_ID


def _id(number: int) -> str:
    return f"{number:0{_ID_DIGITS}x}"
