"""What a first import is said to take."""

from datetime import UTC, datetime, timedelta

import pytest

from shared.connectors._protocol import Quota
from shared.services.probe_connection import estimate_seconds

NOW = datetime(2025, 3, 3, 9, tzinfo=UTC)


def quota(*, limit: int = 5_000, remaining: int | None = 5_000, left: timedelta = timedelta(minutes=40)) -> Quota:
    return Quota(limit=limit, remaining=remaining, resets_at=NOW + left)


@pytest.mark.parametrize(
    ("calls", "limits", "seconds"),
    [
        pytest.param(1_000, None, 200, id="no limit is known"),
        pytest.param(1_000, quota(), 200, id="within the limit"),
        pytest.param(1_000, quota(remaining=None), 200, id="nobody says what is left"),
        pytest.param(6_000, quota(), 40 * 60, id="the rest in the next hour"),
        pytest.param(14_000, quota(remaining=1_000), 40 * 60 + 2 * 3_600, id="three hours more"),
        pytest.param(1_000, quota(limit=40, remaining=39, left=timedelta(seconds=1)), 200, id="slower than its limit"),
    ],
)
def test_waits_for_the_limit_are_part_of_the_time(calls: int, limits: Quota | None, seconds: int) -> None:
    assert estimate_seconds(calls, per_call=0.4, at_once=2, quota=limits, now=NOW) == seconds
