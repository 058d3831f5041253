"""Who leaves what of a quota to whom, and how long "later" is."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from shared.connectors._protocol import PartKind, Quota
from shared.domain.errors import SourceError, Trouble
from shared.domain.stream import Stream
from shared.services.wait_turns import hold_until, wait_until
from shared.store.sync_ledger import StoredPart

NOW = datetime(2025, 5, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def part(kind: PartKind, since: datetime | None = None) -> StoredPart:
    return StoredPart(
        job_id=uuid4(),
        number=0,
        window_id=None,
        kind=kind,
        stream=Stream.ISSUES,
        scope="1",
        scope_name="HARBOR",
        since=since,
        query={},
        position=None,
        state="waiting",
        claimed_attempt=1,
        claimed_lane=0,
        attempts=0,
        retry_at=None,
        pages=0,
        gaps=0,
        counts={},
        read_from=None,
        error=None,
    )


@pytest.mark.parametrize(
    ("kind", "since", "least"),
    [
        pytest.param(PartKind.KEYS, None, 0, id="named issues"),
        pytest.param(PartKind.WINDOW, NOW, 50, id="incremental"),
        pytest.param(PartKind.SNAPSHOT, None, 50, id="lists"),
        pytest.param(PartKind.WINDOW, None, 150, id="first reading"),
        pytest.param(PartKind.CENSUS, None, 200, id="census"),
    ],
)
def test_each_kind_of_work_leaves_something_to_more_urgent_work(
    kind: PartKind, since: datetime | None, least: int
) -> None:
    enough = Quota(limit=1_000, remaining=least, resets_at=NOW + HOUR)
    scarce = Quota(limit=1_000, remaining=max(least - 1, 0), resets_at=NOW + HOUR)

    assert hold_until(part(kind, since), enough, NOW) is None
    assert hold_until(part(kind, since), scarce, NOW) == (NOW + HOUR if least else None)


@pytest.mark.parametrize(
    "quota",
    [
        None,
        Quota(limit=40, remaining=0, resets_at=NOW + timedelta(seconds=1)),
        Quota(limit=1_000, remaining=0, resets_at=NOW - HOUR),
        Quota(limit=1_000, remaining=0),
        Quota(limit=None, remaining=0, resets_at=NOW + HOUR),
    ],
    ids=["not told", "soon full again", "full again", "nobody knows when", "of nobody knows how much"],
)
def test_nobody_waits_for_a_quota_that_says_too_little(quota: Quota | None) -> None:
    assert hold_until(part(PartKind.CENSUS), quota, NOW) is None


@pytest.mark.parametrize(
    ("retry_at", "expected"),
    [(None, timedelta(seconds=60)), (NOW + HOUR, HOUR), (NOW + timedelta(days=900), timedelta(days=1))],
    ids=["no time", "a time", "a wrong clock"],
)
def test_later_is_a_minute_unless_said_and_a_day_at_most(retry_at: datetime | None, expected: timedelta) -> None:
    assert wait_until(SourceError(Trouble.RATE_LIMIT, "Later", retry_at=retry_at), NOW) == NOW + expected
