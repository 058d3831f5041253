"""Read the dates trackers and spreadsheets write, and find out which part of 03/04/2025 is the day.

A time without a zone counts as UTC: exports that leave the zone out do not say it anywhere else either.
"""

import re
import unicodedata
from datetime import UTC, datetime, timedelta, timezone

from shared.domain.job import DateOrder

_CACHE_ENTRIES = 20_000
_MAX_CHARS = 100
_NOON = 12
_MONTHS_IN_YEAR = 12
_CENTURY_BREAK = 70
_EPOCH = re.compile(r"\d{10}(?:\.\d{1,6})?|\d{13}", re.ASCII)
_YEAR_FIRST = re.compile(r"(\d{4})([-/.])(\d{1,2})\2(\d{1,2})", re.ASCII)
_YEAR_LAST = re.compile(r"(\d{1,2})([-/.])(\d{1,2})\2(\d{4}|\d{2})", re.ASCII)
_CENSUS = re.compile(r"\s*(\d{1,2})([-/])(\d{1,2})\2(?:\d{4}|\d{2})(?!\d)", re.ASCII)
_PARTS = re.compile(
    r"""(?P<date>.+?)
        (?:(?:,?\s+(?:(?:at|um|a|as|a\ las)\s+)?|t)
           (?P<hour>\d{1,2}):(?P<minute>\d\d)(?::(?P<second>\d\d)(?:[.,](?P<fraction>\d+))?)?
           \s*(?P<half>[ap])?(?(half)\.?\s?m\.?)
           \s*(?P<zone>z|[a-z]{2,4}|(?:gmt|utc)?[+-]\d\d(?::?\d\d)?)?
           (?:\s*\(.*\))?
        )?""",
    re.ASCII | re.VERBOSE,
)
_NAMED = re.compile(r"[a-z0-9\s,./-]+", re.ASCII)
_TOKEN = re.compile(r"\d+|[a-z]+", re.ASCII)
# English, German, Spanish, French, Portuguese; as they look without accents.
_MONTH_NAMES = (
    "january jan januar janner enero ene janvier janv janeiro",
    "february feb februar febrero fevrier fevr fev fevereiro",
    "march mar marz maerz mrz marzo mars marco",
    "april apr abril abr avril avr",
    "may mai mayo maio",
    "june jun juni junio juin junho",
    "july jul juli julio juillet juil julho",
    "august aug agosto ago aout aou",
    "september sep sept septiembre setiembre set septembre setembro",
    "october oct oktober okt octubre octobre outubro out",
    "november nov noviembre novembre novembro",
    "december dec dezember dez diciembre dic decembre dezembro",
)
_MONTHS = {name: month for month, names in enumerate(_MONTH_NAMES, 1) for name in names.split()}
_WEEKDAY_NAMES = (
    "mon tue tues wed thu thur thurs fri sat sun monday tuesday wednesday thursday friday saturday sunday "
    "mo di mi do fr sa so montag dienstag mittwoch donnerstag freitag samstag sonnabend sonntag "
    "lun mar mie jue vie sab dom lunes martes miercoles jueves viernes sabado domingo "
    "mer jeu ven sam dim lundi mardi mercredi jeudi vendredi samedi dimanche "
    "seg ter qua qui sex segunda terca quarta quinta sexta"
)
_WEEKDAYS = frozenset(_WEEKDAY_NAMES.split())
_FILLERS = frozenset({"de", "del", "of", "the", "le", "el", "den", "der", "st", "nd", "rd", "th", "er", "o", "feira"})
_ZONES = {
    "z": 0,
    "utc": 0,
    "gmt": 0,
    "ut": 0,
    "est": -5,
    "edt": -4,
    "cst": -6,
    "cdt": -5,
    "mst": -7,
    "mdt": -6,
    "pst": -8,
    "pdt": -7,
    "cet": 1,
    "cest": 2,
}
_IN_UTC = re.compile(
    r"((\d{4}-\d\d-\d\d)T(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{6}|\.\d{3})?)(?:Z|\+00:00)", re.ASCII
)


class DateReader:
    """Reads the dates of one file. `order` says how 03/04/2025 is meant; None where nobody knows."""

    def __init__(self, order: DateOrder | None) -> None:
        self._order = order
        self._timestamps: dict[str, str] = {}
        self._dates: dict[str, str] = {}

    def timestamp(self, text: str) -> str:
        """The moment as ISO 8601 with offset; raises ValueError with a sentence for people."""
        # Most files are written by machines: what PostgreSQL reads as it stands is only checked, and days repeat.
        exact = _IN_UTC.fullmatch(text)
        if exact:
            self.date(exact[2])
            return f"{exact[1]}+00:00"
        found = self._timestamps.get(text)
        if found is None:
            found = _in_utc(self._parse(text))
            _remember(self._timestamps, text, found)
        return found

    def date(self, text: str) -> str:
        """The day as it was written, whatever zone stands behind it; raises ValueError with a sentence for people."""
        found = self._dates.get(text)
        if found is None:
            found = self._parse(text).date().isoformat()
            _remember(self._dates, text, found)
        return found

    def _parse(self, text: str) -> datetime:
        # Without the dash, fromisoformat would take thirteen digits of milliseconds for a date of its basic format.
        if text[4:5] == "-":
            try:
                return datetime.fromisoformat(text)
            except ValueError:
                pass  # the patterns below know more, and why it is wrong
        if len(text) > _MAX_CHARS:
            raise ValueError("Not a date I know")
        plain = _without_accents(text)
        if _EPOCH.fullmatch(plain):
            seconds = int(plain) / 1000 if len(plain) == len("1741791840000") and "." not in plain else float(plain)
            return datetime.fromtimestamp(seconds, UTC)
        match = _PARTS.fullmatch(plain)
        if match is None:
            raise ValueError("Not a date I know")
        year, month, day = self._day(match["date"], text.strip())
        return _moment(year, month, day, match)

    def _day(self, date: str, shown: str) -> tuple[int, int, int]:
        if match := _YEAR_FIRST.fullmatch(date):
            return int(match[1]), int(match[3]), int(match[4])
        if match := _YEAR_LAST.fullmatch(date):
            first, second, year = int(match[1]), int(match[3]), _year(match[4])
            order = DateOrder.DMY if match[2] == "." else self._order or _order_of(first, second, shown)
            return (year, second, first) if order is DateOrder.DMY else (year, first, second)
        return _named_day(date)


class OrderCensus:
    """Decides over all values of a file whether its numeric dates begin with the day or with the month."""

    def __init__(self) -> None:
        self._day_first: str | None = None
        self._month_first: str | None = None
        self._balance = 0  # values that begin with the day, less those that begin with the month
        self._undecided: str | None = None

    def see(self, text: str) -> None:
        """Count a value in, if it is a numeric date that begins with the day or the month."""
        match = _CENSUS.match(text)
        if match is None:
            return
        first, second = int(match[1]), int(match[3])
        if first > _MONTHS_IN_YEAR >= second:
            self._day_first = self._day_first or match[0].strip()
            self._balance += 1
        elif second > _MONTHS_IN_YEAR >= first:
            self._month_first = self._month_first or match[0].strip()
            self._balance -= 1
        elif first != second and first <= _MONTHS_IN_YEAR:
            self._undecided = self._undecided or match[0].strip()

    def verdict(self) -> tuple[DateOrder | None, str | None]:
        """(the order, a warning); no order where no value tells, the more frequent one where they contradict."""
        if self._day_first and self._month_first:
            order = DateOrder.DMY if self._balance >= 0 else DateOrder.MDY
            return order, (
                f"Some dates begin with the day ({self._day_first}) and some with the month ({self._month_first}); "
                f"all are read as {order}, and those that cannot be are rejected; date_order chooses the other way"
            )
        if self._day_first:
            return DateOrder.DMY, None
        if self._month_first:
            return DateOrder.MDY, None
        if self._undecided:
            return None, (
                f"Dates such as {self._undecided} may begin with the day or the month, and no value of the file tells; "
                "set the option date_order to dmy or mdy"
            )
        return None, None


def is_numeric_ambiguous(text: str) -> bool:
    """Whether a value is of the form 03/04/2025 or 3-4-25, which countries read differently.

    With dots (03.04.2025) the day always comes first. A part above 12 settles its own value, but not its file's form.
    """
    return _CENSUS.match(text) is not None


def _remember(cache: dict[str, str], text: str, found: str) -> None:
    if len(cache) >= _CACHE_ENTRIES:
        cache.clear()
    cache[text] = found


def _in_utc(moment: datetime) -> str:
    if moment.tzinfo is None:
        return moment.isoformat() + "+00:00"
    try:
        return moment.astimezone(UTC).isoformat()
    except OverflowError as error:
        raise ValueError("Out of range: in UTC the year is not between 1 and 9999") from error


def _without_accents(text: str) -> str:
    """Lower case, accents and odd blanks gone: `12 Março 2025` → `12 marco 2025`."""
    if not text.isascii():
        text = "".join(char for char in unicodedata.normalize("NFKD", text) if not unicodedata.combining(char))
    return " ".join(text.lower().split())


def _order_of(first: int, second: int, shown: str) -> DateOrder:
    if first > _MONTHS_IN_YEAR or first == second:
        return DateOrder.DMY
    if second > _MONTHS_IN_YEAR:
        return DateOrder.MDY
    raise ValueError(f"Ambiguous: {shown} may begin with the day or the month; set date_order to dmy or mdy")


def _year(digits: str) -> int:
    year = int(digits)
    if len(digits) > 2:
        return year
    return 1900 + year if year >= _CENTURY_BREAK else 2000 + year


def _named_day(date: str) -> tuple[int, int, int]:
    """A date with the month's name, in any order a weekday may stand before."""
    tokens = _TOKEN.findall(date) if _NAMED.fullmatch(date) else []
    tokens = [token for token in tokens if token not in _FILLERS]
    # `mar` is a Tuesday in Spanish and a month: it is a weekday only with another word behind it.
    if len(tokens) == 4 and tokens[0] in _WEEKDAYS:
        del tokens[0]
    match tokens:
        case [day, name, year] if name in _MONTHS and day.isdigit() and year.isdigit():
            if len(day) == 4:
                day, year = year, day
        case [name, day, year] if name in _MONTHS and day.isdigit() and year.isdigit():
            pass
        case _:
            raise ValueError("Not a date I know")
    if len(day) > 2 or len(year) not in {2, 4}:
        raise ValueError("Not a date I know")
    return _year(year), _MONTHS[name], int(day)


def _moment(year: int, month: int, day: int, match: re.Match[str]) -> datetime:
    try:
        moment = datetime(year, month, day, tzinfo=UTC)
    except ValueError as error:
        raise ValueError(f"Day or month out of range: day {day}, month {month}, year {year}") from error
    if match["hour"] is None:
        return moment
    micros = int((match["fraction"] or "0")[:6].ljust(6, "0"))
    try:
        return moment.replace(
            hour=_hour(int(match["hour"]), match["half"]),
            minute=int(match["minute"]),
            second=int(match["second"] or 0),
            microsecond=micros,
            tzinfo=_zone(match["zone"]),
        )
    except ValueError as error:
        raise ValueError(f"Time or zone out of range: {match[0]}") from error


def _hour(hour: int, half: str | None) -> int:
    if half == "p" and hour < _NOON:
        return hour + _NOON
    if half == "a" and hour == _NOON:
        return 0
    if half == "a" and hour > _NOON:
        raise ValueError(hour)
    return hour


def _zone(name: str | None) -> timezone:
    if name is None:
        return UTC
    if name.isalpha():
        if name not in _ZONES:
            raise ValueError(name)
        return timezone(timedelta(hours=_ZONES[name]))
    digits = name.removeprefix("gmt").removeprefix("utc")
    sign = -1 if digits[0] == "-" else 1
    offset = digits[1:].replace(":", "").ljust(4, "0")
    if int(offset[2:]) > 59:
        raise ValueError(name)
    return timezone(sign * timedelta(hours=int(offset[:2]), minutes=int(offset[2:])))
