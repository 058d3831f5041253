"""When a schedule runs next."""

from datetime import UTC, datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from croniter import CroniterBadDateError, croniter

from shared.domain.errors import InvalidRequestError

_FIELDS = 5
# What croniter takes for a number of its own choice, another one every time.
_BY_CHANCE = "rRhH"


def next_run(cron: str, time_zone: str, after: datetime) -> datetime:
    """The first time after a moment that a cron line names, read in a time zone. InvalidRequestError if it is wrong.

    Across a change of clocks a run at a fixed hour stays at that hour; one in the hour that is left out moves to the
    next one, and one in the hour that comes twice runs once. Runs of every hour go on through both.
    """
    try:
        zone = ZoneInfo(time_zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise InvalidRequestError(
            f"There is no time zone {time_zone!r}",
            hint="Use a name such as Europe/Berlin",
            fields={"time_zone": "unknown"},
        ) from error
    fields = cron.split()
    if len(fields) != _FIELDS or any(each[0] in _BY_CHANCE for each in fields) or not croniter.is_valid(cron):
        raise InvalidRequestError(
            f"{cron!r} is not a cron line",
            hint="Five fields: minute hour day month weekday",
            fields={"cron": "not valid"},
        )
    try:
        return _next_by_clock(cron, zone, after) if cron.split()[1][0] == "*" else _next_by_wall(cron, zone, after)
    except CroniterBadDateError as error:
        raise InvalidRequestError(
            f"{cron!r} names a day that never comes", hint="Look at its day and month", fields={"cron": "never comes"}
        ) from error


def _next_by_wall(cron: str, zone: tzinfo, after: datetime) -> datetime:
    """Of a fixed hour: what clocks on the wall show; the first time, if they show it twice."""
    wall = after.astimezone(zone).replace(tzinfo=None)
    while True:
        wall = croniter(cron, wall).get_next(datetime)
        found = wall.replace(tzinfo=zone).astimezone(UTC)
        if found > after:
            return found


def _next_by_clock(cron: str, zone: tzinfo, after: datetime) -> datetime:
    """Of every hour, or every few: clocks that do not change, and from a change on as they are set then."""
    offset = _offset(zone, after)
    while True:
        found: datetime = croniter(cron, after.astimezone(timezone(offset))).get_next(datetime)
        if _offset(zone, found) == offset:
            return found.astimezone(UTC)
        change = _find_change(zone, after, found)
        after, offset = change - timedelta(seconds=1), _offset(zone, change)


def _offset(zone: tzinfo, moment: datetime) -> timedelta:
    return moment.astimezone(zone).utcoffset() or timedelta(0)


def _find_change(zone: tzinfo, before: datetime, behind: datetime) -> datetime:
    """The first full second at which clocks show another offset than they did before."""
    early, late = int(before.timestamp()), int(behind.timestamp())
    while late - early > 1:
        middle = (early + late) // 2
        same = _offset(zone, datetime.fromtimestamp(middle, UTC)) == _offset(zone, before)
        early, late = (middle, late) if same else (early, middle)
    return datetime.fromtimestamp(late, UTC)
