"""Rules of a sync: what it is to do, and what becomes of a record that was read."""

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict, Field

from shared.domain.stream import Stream


class SyncMode(StrEnum):
    """How much of a source a sync reads."""

    INCREMENTAL = "incremental"  # what changed since the last one
    FULL = "full"  # everything again, and what is gone is found
    CENSUS = "census"  # only ids and times, to find what is gone or was missed
    KEYS = "keys"  # named issues


class NamedIssue(BaseModel):
    """Something a webhook told about, to be asked for again; its id or its key may be unknown."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str | None = None
    key: str | None = None
    scope: str | None = Field(default=None, description="Where it is, by id or name; none where its id says enough")
    stream: Stream = Stream.ISSUES
    alone: bool = Field(default=False, description="Asked for by itself: it failed together with others before")

    @property
    def name(self) -> str:
        """What tells it apart from others."""
        return self.id or self.key or ""


class SyncOptions(BaseModel):
    """What a sync job is asked to do; stored with the job, never holds a secret."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: SyncMode = SyncMode.INCREMENTAL
    streams: tuple[Stream, ...] = Field(default=(), description="Only these; empty for all of the connection")
    scopes: tuple[str, ...] = Field(default=(), description="Only these projects or repositories, by name or id")
    keys: tuple[str, ...] = Field(default=(), max_length=1_000, description="Issue keys, for mode `keys`")
    issues: tuple[NamedIssue, ...] = Field(default=(), description="What webhooks told about, for mode `keys`")
    since: datetime | None = Field(default=None, description="Read again what changed since then")
    census: bool = Field(default=False, description="Follow an incremental sync by a census")
    accept_absences: bool = Field(
        default=False, description="Mark as gone even when suspiciously many records are missing at once"
    )


OVERLAP = timedelta(seconds=60)
"""A window is read from a little before its begin, for changes whose time the source rounds down."""


class Fate(StrEnum):
    """What becomes of a record that was read."""

    NEW = "created"
    CHANGED = "updated"
    UNCHANGED = "unchanged"
    STALE = "stale"


@dataclass(frozen=True, kw_only=True)
class Held:
    """What the table knows of a record."""

    content_hash: bytes
    updated: datetime | None
    read_at: datetime | None
    deleted_at: datetime | None = None


LISTS_SETTLE = timedelta(hours=1)
"""What is gone for longer than this is not shown any more by a list that lags."""


def decide(
    held: Held | None,
    *,
    content_hash: bytes,
    updated: datetime | None,
    read_at: datetime,
    authoritative: bool,
    askable: bool = False,
) -> Fate:
    """Older news never overwrites newer, from whichever door it came.

    The source's own time of change decides first. Of two readings of one version the one that began later is right.
    `authoritative` readings go to the record itself, not to a search index that may lag: they may turn time back.
    Whether an `askable` record that has just gone is back, a list does not decide: a comparison asks for it by name.
    """
    if held is None:
        return Fate.NEW
    if content_hash == held.content_hash and not held.deleted_at:
        return Fate.UNCHANGED
    if updated and held.updated and updated != held.updated and not (authoritative and updated < held.updated):
        newer = updated > held.updated
    else:
        newer = held.read_at is None or read_at >= held.read_at
    if held.deleted_at and held.read_at:
        moved_on = bool(updated and held.updated and updated > held.updated)
        lags = askable and not authoritative and not moved_on and read_at < held.read_at + LISTS_SETTLE
        newer = newer and not lags and read_at >= held.read_at
    return Fate.CHANGED if newer else Fate.STALE


def encode_record(record: dict[str, Any]) -> bytes:
    """A record as JSON, written one way whatever the order of its fields."""
    return orjson.dumps(record, option=orjson.OPT_SORT_KEYS)


def content_hash(encoded: bytes) -> bytes:
    """Sixteen bytes that tell two versions of an encoded record apart."""
    return hashlib.blake2b(encoded, digest_size=16).digest()


def fingerprint_of(content_hash: bytes) -> int:
    """64 bits of a version's hash; a window's digest is their sum over all it saw, whatever their order."""
    return int.from_bytes(content_hash[:8])


# A tenth of a project may vanish in a clean-up; more than that at once is rather a lost permission.
_ABSENT_SHARE = 0.25
_ABSENT_FEW = 20


def is_mass_absence(absent: int, known: int) -> bool:
    """Whether so many records are missing at once that a person has to look before they are marked as gone."""
    return absent > max(_ABSENT_FEW, known * _ABSENT_SHARE)


RUNGS: tuple[timedelta, ...] = (
    timedelta(0),
    timedelta(hours=1),
    timedelta(hours=4),
    timedelta(hours=12),
    timedelta(hours=24),
)
"""The ladder of a failing schedule: least time between two runs, by rung."""
FAILURES_PER_RUNG = 3


def next_rung(rung: int, failures: int) -> int:
    """The rung after a failure, the `failures`-th in a row of its class."""
    return min(rung + 1, len(RUNGS) - 1) if failures >= FAILURES_PER_RUNG else rung
