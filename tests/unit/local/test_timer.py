"""NCRONTAB: six fields, seconds first."""

from datetime import UTC, datetime

import pytest

from local.host.timer import next_occurrence

NOON = datetime(2025, 3, 31, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("0 */5 * * * *", datetime(2025, 3, 31, 12, 5, tzinfo=UTC)),
        ("*/10 * * * * *", datetime(2025, 3, 31, 12, 0, 10, tzinfo=UTC)),
        ("30 0 0 1 * *", datetime(2025, 4, 1, 0, 0, 30, tzinfo=UTC)),
        ("0 15 2 * * Sat", datetime(2025, 4, 5, 2, 15, tzinfo=UTC)),
        ("0 30 9-17 * * 1-5", datetime(2025, 3, 31, 12, 30, tzinfo=UTC)),
        ("*/5 * * * *", datetime(2025, 3, 31, 12, 5, tzinfo=UTC)),
    ],
)
def test_the_next_run_follows_the_schedule(schedule: str, expected: datetime) -> None:
    assert next_occurrence(schedule, NOON) == expected


@pytest.mark.parametrize("schedule", ["", "* * * *", "0 0 25 * * *", "every day"])
def test_a_broken_schedule_is_refused(schedule: str) -> None:
    with pytest.raises(ValueError):
        next_occurrence(schedule, NOON)
