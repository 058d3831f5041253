"""What people see: the moment a value stands for, or a sentence that says why it stands for none."""

import re
from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.job import DateOrder
from shared.files.dates import DateReader, OrderCensus, is_numeric_ambiguous

AFTERNOON = "2025-03-12T15:04:00+00:00"
MIDNIGHT = "2025-03-12T00:00:00+00:00"
START, END = datetime(1970, 1, 1, tzinfo=UTC), datetime(2069, 12, 31, tzinfo=UTC)
moments = st.datetimes(min_value=START.replace(tzinfo=None), max_value=END.replace(tzinfo=None))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2025-03-12", MIDNIGHT),
        ("2025-03-12T15:04:00", AFTERNOON),
        ("2025-03-12 15:04", AFTERNOON),
        ("  2025-03-12 15:04  ", AFTERNOON),
        ("2025-03-12T15:04:00Z", AFTERNOON),
        ("2025-03-12t15:04:00z", AFTERNOON),
        ("2025-03-12T15:04:00.25Z", "2025-03-12T15:04:00.250000+00:00"),
        ("2025-03-12T15:04:00.123456789Z", "2025-03-12T15:04:00.123456+00:00"),
        ("2025-03-12T23:04:00+08:00", AFTERNOON),
        ("2025-03-12T23:04:00.000+0800", "2025-03-12T15:04:00+00:00"),
        ("2025-03-12 15:04:00 UTC", AFTERNOON),
        ("2025-03-12 10:04:00 -0500", AFTERNOON),
        ("2025-3-12 3:04 PM", AFTERNOON),
        ("2025/03/12 15:04:00", AFTERNOON),
        ("2025/03/12", MIDNIGHT),
        ("2009-07-22 15:27:25", "2009-07-22T15:27:25+00:00"),
        ("12/Mar/25 3:04 PM", AFTERNOON),
        ("12/Mar/25 15:04", AFTERNOON),
        ("12/mar/25 3:04 p. m.", AFTERNOON),
        ("12/Mar/25 12:00 AM", MIDNIGHT),
        ("12/Mar/25 12:00 PM", "2025-03-12T12:00:00+00:00"),
        ("12-Mar-2025", MIDNIGHT),
        ("12-MAR-25 03.04", None),
        ("21/abr/26", "2026-04-21T00:00:00+00:00"),
        ("04/ago/26", "2026-08-04T00:00:00+00:00"),
        ("12. März 2025 15:04", AFTERNOON),
        ("12. Mrz. 2025", MIDNIGHT),
        ("12 de marzo de 2025", MIDNIGHT),
        ("12 mars 2025 à 15:04", AFTERNOON),
        ("1er août 2025", "2025-08-01T00:00:00+00:00"),
        ("12 de março de 2025 às 15:04", AFTERNOON),
        ("mercredi 12 mars 2025", MIDNIGHT),
        ("mar 18 mar 2025", "2025-03-18T00:00:00+00:00"),
        ("March 12, 2025 at 3:04 PM", AFTERNOON),
        ("Mar 12, 2025, 3:04\u202fPM", AFTERNOON),
        ("March 12th, 2025", MIDNIGHT),
        ("2025 Mar 12", MIDNIGHT),
        ("Mon Feb 06 2023 05:00:00 GMT+0000 (GMT)", "2023-02-06T05:00:00+00:00"),
        ("Wed Mar 12 2025 16:04:00 GMT+0100 (Mitteleuropäische Normalzeit)", AFTERNOON),
        ("Wed, 12 Mar 2025 15:04:00 GMT", AFTERNOON),
        ("Wed, 12 Mar 2025 16:04:00 +0100", AFTERNOON),
        ("Wed, 12 Mar 2025 10:04:00 EST", AFTERNOON),
        ("12.03.2025", MIDNIGHT),
        ("12.03.2025 15:04:00", AFTERNOON),
        ("05.03.2025", "2025-03-05T00:00:00+00:00"),
        ("1741791840", AFTERNOON),
        ("1741791840123", "2025-03-12T15:04:00.123000+00:00"),
        # Read as the basic format of ISO 8601 these digits would be a day of the year 1712.
        ("1712010112345", "2024-04-01T22:21:52.345000+00:00"),
        ("31/12/69", "2069-12-31T00:00:00+00:00"),
        ("31/12/70", "1970-12-31T00:00:00+00:00"),
        ("0001-01-01", "0001-01-01T00:00:00+00:00"),
        ("9999-12-31T23:59:59Z", "9999-12-31T23:59:59+00:00"),
    ],
)
def test_reads_what_trackers_write(text: str, expected: str | None) -> None:
    reader = DateReader(None)
    if expected is None:
        with pytest.raises(ValueError, match="Not a date I know"):
            reader.timestamp(text)
    else:
        assert _same(reader.timestamp(text), expected)
        assert _same(reader.timestamp(text), expected)


@pytest.mark.parametrize(
    ("order", "text", "expected"),
    [
        (DateOrder.DMY, "03/04/2025", "2025-04-03"),
        (DateOrder.MDY, "03/04/2025", "2025-03-04"),
        (DateOrder.DMY, "3-4-25", "2025-04-03"),
        (DateOrder.MDY, "8/12/2025 7:00:00 AM", "2025-08-12"),
        (DateOrder.MDY, "03.04.2025", "2025-04-03"),
        (None, "03.04.2025", "2025-04-03"),
        (None, "31/03/2025", "2025-03-31"),
        (None, "03/31/2025 17:00", "2025-03-31"),
        (None, "03-31-2025 17:00:00", "2025-03-31"),
        (None, "29/2/2016 01:16", "2016-02-29"),
        (None, "04/04/2025", "2025-04-04"),
    ],
)
def test_reads_numeric_dates_in_the_order_of_the_file(order: DateOrder | None, text: str, expected: str) -> None:
    assert DateReader(order).date(text) == expected


def test_a_day_is_the_one_written_and_a_moment_the_one_meant() -> None:
    reader = DateReader(None)
    assert reader.date("2025-03-12T01:00:00+08:00") == "2025-03-12"
    assert _same(reader.timestamp("2025-03-12T01:00:00+08:00"), "2025-03-11T17:00:00+00:00")


@pytest.mark.parametrize(
    ("order", "text", "sentence"),
    [
        (None, "03/04/2025", "set date_order to dmy or mdy"),
        (None, "3-4-25 10:00", "Ambiguous: 3-4-25 10:00"),
        (DateOrder.DMY, "04/13/2025", "Day or month out of range: day 4, month 13"),
        (DateOrder.MDY, "13/04/2025", "out of range"),
        (None, "13/14/2025", "out of range"),
        (None, "2025-02-30", "out of range"),
        (None, "2025-13-01T00:00:00Z", "out of range"),
        (None, "0000-01-01", "out of range"),
        (None, "31/Feb/25 3:04 PM", "out of range"),
        (None, "2025-03-12 25:00", "Time or zone out of range"),
        (None, "12/Mar/25 15:04 AM", "Time or zone out of range"),
        (None, "2025-03-12 15:04 XYZ", "Time or zone out of range"),
        (None, "9999-12-31T23:59:59-08:00", "Out of range"),
        (None, "0001-01-01T00:00:00+08:00", "Out of range"),
        (None, "yesterday", "Not a date I know"),
        (None, "12345", "Not a date I know"),
        (None, "12/03-2025", "Not a date I know"),
        (None, "12 Foo 2025", "Not a date I know"),
        (None, "12 Mar 202", "Not a date I know"),
        (None, "", "Not a date I know"),
        (None, "2" * 5_000, "Not a date I know"),
        (None, "12 March 2025 " + "(" * 5_000, "Not a date I know"),
    ],
)
def test_says_why_a_value_is_no_date(order: DateOrder | None, text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        DateReader(order).timestamp(text)


@pytest.mark.parametrize(
    "pattern",
    [
        "%Y-%m-%d %H:%M:%S",
        "%Y-%m-%dT%H:%M:%SZ",
        "%Y/%m/%d %H:%M:%S",
        "%d/%b/%y %I:%M:%S %p",
        "%B %d, %Y %H:%M:%S",
        "%a %b %d %Y %H:%M:%S GMT+0000 (UTC)",
        "%d.%m.%Y %H:%M:%S",
        "%d.%m.%y %I:%M:%S%p",
    ],
)
@given(moment=moments)
def test_reads_back_every_moment_written_in_a_format(pattern: str, moment: datetime) -> None:
    whole = moment.replace(microsecond=0, tzinfo=UTC)
    assert _same(DateReader(None).timestamp(whole.strftime(pattern)), whole.isoformat())


@given(moment=moments, order=st.sampled_from(DateOrder))
def test_reads_back_numeric_dates_in_either_order(moment: datetime, order: DateOrder) -> None:
    text = moment.strftime("%d/%m/%Y" if order is DateOrder.DMY else "%m/%d/%Y")
    assert DateReader(order).date(text) == moment.date().isoformat()


@given(moment=moments, minutes=st.integers(-14 * 60, 14 * 60))
def test_reads_back_any_zone(moment: datetime, minutes: int) -> None:
    there = moment.replace(microsecond=0, tzinfo=timezone(timedelta(minutes=minutes)))
    expected = there.astimezone(UTC).isoformat()
    assert _same(DateReader(None).timestamp(there.isoformat()), expected)
    assert DateReader(None).timestamp(format_datetime(there)) == expected


@given(text=st.text(alphabet=st.characters(codec="utf-8"), max_size=60) | st.from_regex(r"[0-9/.:TZ +-]{1,30}"))
def test_any_text_is_a_date_or_a_value_error(text: str) -> None:
    try:
        found = DateReader(None).timestamp(text)
    except ValueError:
        return
    assert datetime.fromisoformat(found).tzinfo is not None


@pytest.mark.parametrize(
    ("values", "order", "warning"),
    [
        (["03/04/2025", "13/04/2025 10:00"], DateOrder.DMY, None),
        (["03/04/2025", "4-13-25"], DateOrder.MDY, None),
        (["2025-03-04", "12/Mar/25", "03.04.2025", "words", ""], None, None),
        (["05/05/2025"], None, None),
        (["99/99/2025"], None, None),
    ],
)
def test_census_finds_the_order(values: list[str], order: DateOrder | None, warning: str | None) -> None:
    assert _verdict(values) == (order, warning)


def test_census_warns_where_no_value_tells() -> None:
    order, warning = _verdict(["03/04/2025", "05/06/2025"])
    assert order is None
    assert warning is not None
    assert "03/04/2025" in warning
    assert "date_order" in warning


def test_census_follows_the_majority_where_values_contradict_each_other_and_says_so() -> None:
    order, warning = _verdict(["13/04/2025", "14/04/2025", "03/04/2025", "04/13/2025"])
    assert order is DateOrder.DMY
    assert warning is not None
    assert "13/04/2025" in warning
    assert "04/13/2025" in warning
    assert "date_order" in warning


@pytest.mark.parametrize("text", ["03/04/2025", "3-4-25", "13/04/2025 10:00", " 03/04/2025 "])
def test_slashes_and_dashes_may_be_read_in_two_ways(text: str) -> None:
    assert is_numeric_ambiguous(text)


@pytest.mark.parametrize("text", ["03.04.2025", "2025-03-04", "12/Mar/25", "03/04/20251", "3/4", "", "1741791840"])
def test_other_values_may_not(text: str) -> None:
    assert not is_numeric_ambiguous(text)


def test_an_offset_postgresql_refuses_becomes_utc() -> None:
    assert DateReader(None).timestamp("2025-03-12T15:04:00+20:00") == "2025-03-11T19:04:00+00:00"


def test_many_different_values_stay_right() -> None:
    reader = DateReader(None)
    start = datetime(2025, 1, 1, tzinfo=UTC)
    for minutes in range(45_000):
        moment = start + timedelta(minutes=minutes)
        assert reader.timestamp(f"{moment:%Y-%m-%d %H:%M}") == moment.isoformat()
    assert reader.timestamp("2025-01-01 00:00") == start.isoformat()


def _same(found: str, expected: str) -> bool:
    """The same moment, both with an offset, however it is spelled."""
    return datetime.fromisoformat(found) == datetime.fromisoformat(expected).astimezone(UTC)


def _verdict(values: list[str]) -> tuple[DateOrder | None, str | None]:
    census = OrderCensus()
    for value in values:
        census.see(value)
    return census.verdict()
