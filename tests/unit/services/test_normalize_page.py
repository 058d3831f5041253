"""A page in our words, where it shows a record more than once."""

from datetime import UTC, datetime, timedelta

import pytest

from shared.connectors._protocol import Page, Sent
from shared.domain.issue import StatusCategory
from shared.domain.stream import Issue, Stream
from shared.services.normalize_page import normalize_page

NOON = datetime(2025, 3, 31, 12, tzinfo=UTC)


def normalize(sent: Sent) -> Issue:
    return Issue(
        external_id=sent.raw["id"],
        title=sent.raw["title"],
        status_category=StatusCategory.OPEN,
        source_updated_at=sent.raw["updated"],
        payload=sent.raw,
    )


def shown(title: str, updated: datetime | None) -> Sent:
    return Sent(Stream.ISSUES, {"id": "1", "title": title, "updated": updated}, "HARBOR")


@pytest.mark.parametrize(
    ("first", "second", "kept"),
    [
        (NOON, NOON + timedelta(seconds=1), "second"),
        (NOON, NOON - timedelta(seconds=1), "first"),
        (NOON, NOON, "second"),
        (NOON, None, "second"),
        (None, None, "second"),
    ],
)
async def test_of_two_versions_on_a_page_the_newer_counts_or_else_the_last(
    first: datetime | None, second: datetime | None, kept: str
) -> None:
    page = Page(read_at=NOON, next=None, records=[shown("first", first), shown("second", second)])

    normalized = await normalize_page(normalize, page, first_row=1)

    (only,) = normalized.records[Stream.ISSUES].values()
    assert only.row.values["title"] == kept
    assert normalized.refused == []
