"""One converter per kind of field: the text a tracker wrote → the text PostgreSQL's COPY takes, or a FieldError.

Nothing a converter lets through may make a COPY fail later, for then a whole batch would fall over one cell.
"""

import math
import re
from collections.abc import Callable, Sequence
from decimal import Decimal, InvalidOperation

import orjson

from shared.domain.markdown import html_to_markdown, wiki_to_markdown
from shared.files.dates import DateReader
from shared.files.preset import Markup

Cell = str | list[str]
Convert = Callable[[Cell], str | None]

MAX_ID_BYTES = 1_000  # an index key of PostgreSQL holds 2.7 kB, and the label takes part of it
MAX_TITLE_CHARS = 1_000
MAX_WORD_CHARS = 500
MAX_TEXT_CHARS = 1_000_000
_MAX_ITEMS = 1_000
_MAX_NUMBER = Decimal("1e12")
_DECIMALS = 10
_MAX_NUMBER_CHARS = 100  # the search for spans takes time with the square of the length
_SECONDS = {"w": 5 * 8 * 3600, "d": 8 * 3600, "h": 3600, "m": 60, "s": 1}
_INVISIBLE = " \t\r\n\v\f\xa0\u200b\u2060\ufeff"
_HTML = re.compile(r"</(?:p|div|ul|ol|table|pre|a|b|i|strong|em|span|code|blockquote|h[1-6])>|<br ?/?>", re.IGNORECASE)
_WEB = re.compile(r"https?://[^\s/?#]", re.IGNORECASE)
_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*([wdhms])", re.IGNORECASE)


class FieldError(ValueError):
    """A value that cannot be stored: a stable code, what is wrong and how to mend it."""

    def __init__(self, code: str, reason: str, hint: str) -> None:
        self.code = code
        self.hint = hint
        super().__init__(reason)


def text(limit: int) -> Convert:
    """Free text up to a number of characters."""

    def convert(cell: Cell) -> str | None:
        value = cell if isinstance(cell, str) else ", ".join(part for part in cell if part.strip())
        if len(value) > limit:
            raise FieldError("too_long", f"{len(value)} characters, more than {limit}", "Shorten the text")
        value = value.strip()
        return (value if value.isascii() else value.strip(_INVISIBLE)) or None

    return convert


def latest(convert: Convert) -> Convert:
    """Of a repeated column the last value: an issue's sprints are listed in the order it went through them."""
    return lambda cell: convert(_last(cell))


def person(cell: Cell) -> str | None:
    """Who it is by name: of `Ada Vale <ada@vale.example>` the part before the address."""
    names = [_without_address(name.strip()) for name in ([cell] if isinstance(cell, str) else cell)]
    return text(MAX_WORD_CHARS)(names)


def described(markup: Markup | None) -> Convert:
    """A long text as Markdown, whatever its tracker writes."""
    body = text(MAX_TEXT_CHARS)
    if markup is None:
        return body

    def convert(cell: Cell) -> str | None:
        value = body(cell)
        if value is None:
            return None
        if markup is Markup.WIKI:
            return wiki_to_markdown(value) or None
        return html_to_markdown(value) or None if _HTML.search(value) else value

    return convert


def identity(cell: Cell) -> str | None:
    """The external id; limited by what an index can hold."""
    value = (cell if isinstance(cell, str) else ", ".join(cell)).strip()
    if len(value) > MAX_ID_BYTES // 4 and len(value.encode()) > MAX_ID_BYTES:
        raise FieldError("too_long", f"The id is longer than {MAX_ID_BYTES} bytes", "Map external_id to another column")
    if "\x1f" in value:
        raise FieldError("invalid_id", "The id holds control characters", "Export the file again")
    return value or None


def items(separator: str | None) -> Convert:
    """A list of words, from repeated columns, a JSON list or one cell with separators → JSON array."""

    def convert(cell: Cell) -> str | None:
        found: Sequence[str] = [cell] if isinstance(cell, str) else cell
        if separator:
            found = [part for value in found for part in value.split(separator)]
        words = list(dict.fromkeys(word.strip() for word in found if word.strip()))
        if len(words) > _MAX_ITEMS:
            raise FieldError("too_many_items", f"{len(words)} values, more than {_MAX_ITEMS}", "Split the record")
        return orjson.dumps(words).decode() if words else None

    return convert


def timestamp(dates: DateReader) -> Convert:
    """A point in time."""

    def convert(cell: Cell) -> str | None:
        value = _last(cell)
        try:
            return dates.timestamp(value) if value else None
        except ValueError as error:
            raise FieldError(
                "invalid_date", str(error), "Write it as 2025-03-31T14:05:00Z, or set date_order"
            ) from error

    return convert


def day(dates: DateReader) -> Convert:
    """A calendar day."""

    def convert(cell: Cell) -> str | None:
        value = _last(cell)
        try:
            return dates.date(value) if value else None
        except ValueError as error:
            raise FieldError("invalid_date", str(error), "Write it as 2025-03-31, or set date_order") from error

    return convert


def number(cell: Cell) -> str | None:
    """A plain decimal number; a comma counts as decimal point."""
    value = _figure(cell)
    if not value:
        return None
    try:
        parsed = Decimal(value.replace(",", "."))
    except InvalidOperation as error:
        raise _not_a_number() from error
    if not parsed.is_finite() or abs(parsed) > _MAX_NUMBER:
        raise _out_of_range()
    # A tiny exponent would become more digits than a numeric holds.
    digits = -int(parsed.as_tuple().exponent)
    return f"{round(parsed, _DECIMALS) if digits > _DECIMALS else parsed:f}"


def seconds(cell: Cell) -> str | None:
    """A span of time: seconds, or Jira's `1w 2d 3h 4m` (a day has 8 hours, a week 5 days)."""
    value = _figure(cell)
    if not value:
        return None
    spans = _SPAN.findall(value)
    if spans and not _SPAN.sub("", value).strip():
        total = sum(Decimal(amount) * _SECONDS[unit.lower()] for amount, unit in spans)
        if total > _MAX_NUMBER:
            raise _out_of_range()
        return str(round(total))
    return str(math.floor(Decimal(number(value) or "0")))


def link(cell: Cell) -> str | None:
    """An http or https address."""
    value = _last(cell)
    if not value:
        return None
    if not _WEB.match(value):
        raise FieldError("invalid_url", "Not a web address", "Start it with https://")
    if len(value) > MAX_TITLE_CHARS * 2:
        raise FieldError("too_long", "The address is longer than 2000 characters", "Leave the column empty")
    return value


def details(cell: Cell) -> str | None:
    """The environment: a JSON object as it is, any other text under `description`."""
    value = _last(cell)
    if not value:
        return None
    if value.startswith("{"):
        try:
            # jsonb takes no \u0000.
            return orjson.dumps(orjson.loads(value.replace("\\u0000", ""))).decode()
        except (ValueError, TypeError):  # looks like JSON and is none, or is too deep: kept as the text it is
            return orjson.dumps({"description": value}).decode()
    return orjson.dumps({"description": value}).decode()


def _without_address(name: str) -> str:
    if not name.endswith(">"):
        return name
    before, _, address = name[:-1].rpartition("<")
    before = before.rstrip()
    return before if before and before[-1] not in "<>" and address and ">" not in address else name


def _figure(cell: Cell) -> str:
    value = _last(cell)
    if len(value) > _MAX_NUMBER_CHARS:
        raise _not_a_number()
    return value


def _not_a_number() -> FieldError:
    return FieldError("invalid_number", "Not a number", "Write digits, such as 3 or 2.5")


def _out_of_range() -> FieldError:
    return FieldError("invalid_number", "A number out of range", "Write a number below a trillion")


def _last(cell: Cell) -> str:
    """Of a repeated column the last value that is not blank."""
    if isinstance(cell, str):
        return cell.strip()
    return next((value.strip() for value in reversed(cell) if value.strip()), "")
