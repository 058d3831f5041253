"""The arithmetic of request limits."""

from datetime import UTC, datetime, timedelta

import pytest

from shared.security.rate_limit import allowance, window_start

NOON = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)


def test_a_window_is_a_calendar_minute() -> None:
    assert window_start(NOON + timedelta(seconds=59, microseconds=999_999)) == NOON
    assert window_start(NOON + timedelta(seconds=60)) == NOON + timedelta(minutes=1)


@pytest.mark.parametrize(
    ("used", "exceeded", "remaining"), [(1, False, 99), (100, False, 0), (101, True, 0), (5000, True, 0)]
)
def test_the_limit_itself_is_allowed(used: int, exceeded: bool, remaining: int) -> None:  # a table of cases
    left = allowance(used, limit=100, now=NOON)

    assert (left.exceeded, left.remaining) == (exceeded, remaining)


@pytest.mark.parametrize(("second", "resets_in"), [(0, 60), (0.5, 60), (1, 59), (59.2, 1), (59.999, 1)])
def test_reset_is_in_whole_seconds_and_never_too_early(second: float, resets_in: int) -> None:
    assert allowance(1, limit=100, now=NOON + timedelta(seconds=second)).resets_in == resets_in
