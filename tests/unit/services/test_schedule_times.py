"""Cron lines in time zones, also when the clocks change."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

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


def test_a_fixed_hour_that_comes_twice_runs_once() -> None:
    first = next_run("30 2 * * *", "Europe/Berlin", datetime(2025, 10, 25, 12, tzinfo=UTC))
    second = next_run("30 2 * * *", "Europe/Berlin", first)

    assert second == datetime(2025, 10, 27, 1, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("zone", "day"),
    [
        ("Europe/Berlin", datetime(2025, 3, 29, 20, tzinfo=UTC)),
        ("Europe/Berlin", datetime(2025, 10, 25, 20, tzinfo=UTC)),
        ("America/Los_Angeles", datetime(2025, 3, 9, 4, tzinfo=UTC)),
        ("America/Los_Angeles", datetime(2025, 11, 2, 4, tzinfo=UTC)),
    ],
)
@pytest.mark.parametrize(("cron", "minutes"), [("*/15 * * * *", 15), ("0 * * * *", 60)])
def test_runs_of_every_hour_go_on_through_a_change_of_clocks(cron: str, minutes: int, zone: str, day: datetime) -> None:
    runs = [day]
    while runs[-1] < day + timedelta(hours=12):
        runs.append(next_run(cron, zone, runs[-1]))

    assert {later - earlier for earlier, later in pairwise(runs)} == {timedelta(minutes=minutes)}


def test_half_an_hour_of_change_loses_no_run() -> None:
    before = datetime(2025, 4, 5, 14, 15, tzinfo=UTC)  # Lord Howe turns its clocks back by half an hour at 15:00

    assert next_run("*/15 * * * *", "Australia/Lord_Howe", before) == datetime(2025, 4, 5, 14, 30, tzinfo=UTC)
    assert next_run("0 * * * *", "Australia/Lord_Howe", before) == datetime(2025, 4, 5, 15, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("cron", "zone"),
    [
        ("* * * *", "UTC"),
        ("61 * * * *", "UTC"),
        ("@daily", "UTC"),
        ("0 0 * * * *", "UTC"),
        ("* * * * *", "Mars/Olympus"),
        ("0 0 30 2 *", "UTC"),
    ],
)
def test_nonsense_is_refused(cron: str, zone: str) -> None:
    with pytest.raises(InvalidRequestError):
        next_run(cron, zone, datetime(2025, 3, 31, tzinfo=UTC))
