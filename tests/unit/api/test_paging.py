"""Cursors come back as they were given, and nothing else does."""

from datetime import UTC, datetime
from uuid import UUID

import pytest

from shared.domain.errors import InvalidRequestError
from tests.support.api import paging

AT = datetime(2025, 3, 31, 14, 5, 0, 123456, tzinfo=UTC)
JOB = UUID("0b3e8c1e-58a5-4f0e-9d0b-0a4f6c1f2d11")


def test_a_cursor_leads_back_to_its_position() -> None:
    assert paging.decode_time_and_id(paging.encode(AT.isoformat(), JOB)) == (AT, JOB)
    assert paging.decode_id(paging.encode(4711)) == 4711


@pytest.mark.parametrize(
    "cursor", ["", "x", "===", "é", paging.encode(), paging.encode(-1), paging.encode("1"), paging.encode(1, 2, 3)]
)
def test_what_is_no_cursor_is_refused(cursor: str) -> None:
    for decode in (paging.decode_id, paging.decode_time_and_id):
        with pytest.raises(InvalidRequestError):
            decode(cursor)
