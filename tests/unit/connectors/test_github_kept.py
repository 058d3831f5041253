"""Answers kept with their ETag: in bounded memory, and never instead of a new one."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from shared.connectors._github_kept import KeptAnswers
from shared.connectors._http import Answer

MOMENT = datetime(2026, 2, 1, tzinfo=UTC)


def answer(data: Any, *, status: int = 200, etag: str | None = 'W/"1"', read_at: datetime = MOMENT) -> Answer:
    headers = httpx.Headers({"etag": etag} if etag else {})
    links = {"next": {"url": "https://api.example/2"}} if status == 200 else {}
    return Answer(status=status, headers=headers, data=data, read_at=read_at, url="https://api.example", links=links)


def test_not_modified_is_what_was_kept_read_now() -> None:
    kept = KeptAnswers()
    kept.settle("list", answer([{"id": 1}]))
    later = MOMENT + timedelta(hours=1)

    again = kept.settle("list", answer(None, status=304, read_at=later))

    assert (kept.etag_of("list"), again.status) == ('W/"1"', 200)
    assert (again.data, again.read_at, again.link("next")) == ([{"id": 1}], later, "https://api.example/2")


def test_what_changed_takes_the_place_of_what_was() -> None:
    kept = KeptAnswers()
    kept.settle("list", answer([1]))

    kept.settle("list", answer([2], etag='W/"2"'))

    assert kept.etag_of("list") == 'W/"2"'
    assert kept.settle("list", answer(None, status=304)).data == [2]


def test_statistics_that_are_not_ready_are_not_kept() -> None:
    kept = KeptAnswers()

    kept.settle("activity", answer({}, status=202))
    kept.settle("plain", answer([], etag=None))

    assert (kept.etag_of("activity"), kept.etag_of("plain")) == (None, None)


def test_memory_is_bounded_and_freed() -> None:
    kept = KeptAnswers(most_bytes=200)
    for number in range(100):
        kept.settle(str(number), answer([number] * 10))
    full = [number for number in range(100) if kept.etag_of(str(number))]

    for number in (0, 1):
        kept.settle(str(number), answer(None, etag=None))
    kept.settle("99", answer([99] * 10))

    assert full == list(range(len(full)))
    assert 0 < len(full) < 20
    assert kept.etag_of("99")
