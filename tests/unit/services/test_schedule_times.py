"""Cron lines in time zones, also when the clocks change."""

from datetime import UTC, datetime

import pytest

from shared.domain.errors import InvalidRequestError
from shared.services.schedule_times import next_run


@pytest.mark.parametrize(
    ("cron", "zone", "after", "expected"),
    [
        pytest.param("*/15 * * * *", "UTC", (2025, 3, 31, 12, 1), (2025, 3, 31, 12, 15), id="every quarter"),
        pytest.param("0 6 * * *", "Europe/Berlin", (2025, 1, 10, 12), (2025, 1, 11, 5), id="winter"),
        pytest.param("0 6 * * *", "Europe/Berlin", (2025, 7, 10, 12), (2025, 7, 11, 4), id="summer"),
        pytest.param(
            "30 2 * * *", "Europe/Berlin", (2025, 10, 25, 12), (2025, 10, 26, 0, 30), id="hour that comes twice"
        ),
    ],
)
def test_the_next_run(cron: str, zone: str, after: tuple[int, ...], expected: tuple[int, ...]) -> None:
    assert next_run(cron, zone, datetime(*after, tzinfo=UTC)) == datetime(*expected, tzinfo=UTC)  # type: ignore[misc,arg-type]


def test_a_run_in_the_hour_that_is_left_out_is_not_lost() -> None:
    run = next_run("30 2 * * *", "Europe/Berlin", datetime(2025, 3, 29, 12, tzinfo=UTC))

    assert datetime(2025, 3, 30, tzinfo=UTC) < run < datetime(2025, 3, 30, 3, tzinfo=UTC)


@pytest.mark.parametrize(
    ("cron", "zone"),
    [
        ("* * * *", "UTC"),
        ("61 * * * *", "UTC"),
        ("@daily", "UTC"),
        ("0 0 * * * *", "UTC"),
        ("* * * * *", "Mars/Olympus"),
    ],
)
def test_nonsense_is_refused(cron: str, zone: str) -> None:
    with pytest.raises(InvalidRequestError):
        next_run(cron, zone, datetime(2025, 3, 31, tzinfo=UTC))
