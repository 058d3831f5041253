"""How many requests a client may make: fixed windows of one minute, counted in the database for all instances."""

import math
from dataclasses import dataclass
from datetime import datetime, timedelta

WINDOW = timedelta(minutes=1)


@dataclass(frozen=True)
class Allowance:
    """What a client has left in its window, after the request at hand."""

    limit: int
    used: int
    resets_in: int  # seconds, at least 1

    @property
    def exceeded(self) -> bool:
        return self.used > self.limit

    @property
    def remaining(self) -> int:
        return max(self.limit - self.used, 0)


def window_start(now: datetime) -> datetime:
    """The beginning of the minute; every instance with a sane clock finds the same one."""
    return now.replace(second=0, microsecond=0)


def allowance(used: int, *, limit: int, now: datetime) -> Allowance:
    """The allowance after `used` requests in the present window."""
    left = window_start(now) + WINDOW - now
    return Allowance(limit=limit, used=used, resets_in=max(math.ceil(left.total_seconds()), 1))
