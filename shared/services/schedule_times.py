"""When a schedule runs next."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from croniter import CroniterBadDateError, croniter

from shared.domain.errors import InvalidRequestError

_FIELDS = 5


def next_run(cron: str, time_zone: str, after: datetime) -> datetime:
    """The first time after a moment that a cron line names, read in a time zone. InvalidRequestError if it is wrong.

    Across a change of clocks a run at a fixed hour stays at that hour; one in the hour that is left out moves to the
    next one, and one in the hour that comes twice runs once.
    """
    try:
        zone = ZoneInfo(time_zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise InvalidRequestError(
            f"There is no time zone {time_zone!r}",
            hint="Use a name such as Europe/Berlin",
            fields={"time_zone": "unknown"},
        ) from error
    if len(cron.split()) != _FIELDS or not croniter.is_valid(cron):
        raise InvalidRequestError(
            f"{cron!r} is not a cron line",
            hint="Five fields: minute hour day month weekday",
            fields={"cron": "not valid"},
        )
    try:
        found: datetime = croniter(cron, after.astimezone(zone)).get_next(datetime)
    except CroniterBadDateError as error:
        raise InvalidRequestError(
            f"{cron!r} names no day that ever comes", hint="Such as 30 February", fields={"cron": "never runs"}
        ) from error
    return found.astimezone(UTC)
