"""What becomes of a record that was read: older news never overwrites newer."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.sync import (
    LISTS_SETTLE,
    RUNGS,
    Fate,
    Held,
    content_hash,
    decide,
    encode_record,
    fingerprint_of,
    is_mass_absence,
    next_rung,
)

NOON = datetime(2025, 3, 31, 12, tzinfo=UTC)
EARLIER, LATER = NOON - timedelta(seconds=1), NOON + timedelta(seconds=1)
A, B = b"a" * 16, b"b" * 16


def held(
    content: bytes = A, updated: datetime | None = NOON, read_at: datetime = NOON, *, deleted: bool = False
) -> Held:
    return Held(content_hash=content, updated=updated, read_at=read_at, deleted_at=NOON if deleted else None)


@pytest.mark.parametrize(
    ("before", "content", "updated", "read_at", "authoritative", "fate"),
    [
        pytest.param(None, A, NOON, NOON, False, Fate.NEW, id="unknown"),
        pytest.param(held(), A, NOON, LATER, False, Fate.UNCHANGED, id="same"),
        pytest.param(held(), B, LATER, LATER, False, Fate.CHANGED, id="newer"),
        pytest.param(held(), B, EARLIER, LATER, False, Fate.STALE, id="older version from a lagging index"),
        pytest.param(held(), B, EARLIER, LATER, True, Fate.CHANGED, id="older version from the record itself"),
        pytest.param(held(), B, NOON, LATER, False, Fate.CHANGED, id="same time, read later"),
        pytest.param(held(), B, NOON, EARLIER, False, Fate.STALE, id="same time, read earlier"),
        pytest.param(held(), B, LATER, EARLIER, False, Fate.CHANGED, id="newer version, though read earlier"),
        pytest.param(held(deleted=True), A, NOON, LATER, False, Fate.CHANGED, id="back again"),
        pytest.param(held(deleted=True), A, NOON, EARLIER, False, Fate.STALE, id="read before it was deleted"),
        pytest.param(held(deleted=True), B, LATER, EARLIER, False, Fate.STALE, id="newer, but read before deletion"),
        pytest.param(held(updated=None), B, None, LATER, False, Fate.CHANGED, id="no times, read later"),
        pytest.param(held(updated=None), B, None, EARLIER, False, Fate.STALE, id="no times, read earlier"),
    ],
)
def test_the_fate_of_a_record(
    before: Held | None, content: bytes, updated: datetime | None, read_at: datetime, authoritative: bool, fate: Fate
) -> None:
    assert decide(before, content_hash=content, updated=updated, read_at=read_at, authoritative=authoritative) is fate


@pytest.mark.parametrize(
    ("updated", "after", "authoritative", "fate"),
    [
        pytest.param(NOON, timedelta(minutes=5), False, Fate.STALE, id="a list may lag"),
        pytest.param(NOON, timedelta(minutes=5), True, Fate.CHANGED, id="the record itself is there"),
        pytest.param(LATER, timedelta(minutes=5), False, Fate.CHANGED, id="changed since"),
        pytest.param(NOON, LISTS_SETTLE, False, Fate.CHANGED, id="gone for long"),
    ],
)
def test_whether_what_can_be_asked_for_is_back(
    updated: datetime, after: timedelta, authoritative: bool, fate: Fate
) -> None:
    given_back = {"content_hash": A, "updated": updated, "read_at": NOON + after, "authoritative": authoritative}

    assert decide(held(deleted=True), **given_back, askable=True) is fate
    assert decide(held(deleted=True), **given_back) is Fate.CHANGED


VERSIONS = st.lists(st.integers(0, 5), min_size=1, max_size=8)


@given(VERSIONS, st.randoms(use_true_random=False))
def test_any_order_of_readings_ends_with_the_newest_version(offsets: list[int], shuffle: st.DataObject) -> None:
    readings = [
        (NOON + timedelta(seconds=offset), NOON + timedelta(minutes=1, milliseconds=position))
        for position, offset in enumerate(sorted(offsets))
    ]
    newest = readings[-1]
    shuffled = list(readings)
    shuffle.shuffle(shuffled)  # type: ignore[attr-defined]
    stored: Held | None = None

    for updated, read_at in shuffled:
        content = content_hash(encode_record({"updated": updated.isoformat(), "read": read_at.isoformat()}))
        fate = decide(stored, content_hash=content, updated=updated, read_at=read_at, authoritative=False)
        if fate in {Fate.NEW, Fate.CHANGED}:
            stored = Held(content_hash=content, updated=updated, read_at=read_at)

    assert stored is not None
    assert (stored.updated, stored.read_at) == newest


def test_the_order_of_fields_does_not_make_another_version() -> None:
    assert content_hash(encode_record({"a": 1, "b": [1, 2]})) == content_hash(encode_record({"b": [1, 2], "a": 1}))
    assert content_hash(encode_record({"a": 1})) != content_hash(encode_record({"a": "1"}))


def test_a_fingerprint_tells_versions_apart() -> None:
    versions = [{"id": "1", "at": 1}, {"id": "1", "at": 2}, {"id": "2", "at": 1}, {"id": "1"}]
    assert len({fingerprint_of(content_hash(encode_record(version))) for version in versions}) == 4


@pytest.mark.parametrize(
    ("absent", "known", "suspicious"), [(20, 20, False), (21, 84, False), (22, 84, True), (400, 2_000, False)]
)
def test_much_missing_at_once_is_suspicious(absent: int, known: int, suspicious: bool) -> None:
    assert is_mass_absence(absent, known) is suspicious


def test_the_ladder_is_climbed_after_three_failures_of_a_kind() -> None:
    assert next_rung(0, 2) == 0
    assert next_rung(0, 3) == 1
    assert next_rung(len(RUNGS) - 1, 9) == len(RUNGS) - 1
