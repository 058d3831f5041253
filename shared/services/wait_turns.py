"""Who waits for whom at a source: how long "later" is, and what each kind of work leaves of a quota to others."""

from datetime import datetime, timedelta

from shared.connectors._protocol import PartKind, Quota
from shared.domain.errors import SourceError, Trouble
from shared.store.sync_ledger import StoredPart

# Where a source says "later" without saying when.
_DEFAULT_WAIT = timedelta(seconds=60)
# A source that names a time beyond this is asked again then; a wrong clock must not stop a connection for good.
_LONGEST_WAIT = timedelta(hours=24)
# Quotas that are full again so soon are left to themselves.
_SHORT = timedelta(seconds=60)
_LEFT_BY_CENSUS = 0.2
_LEFT_BY_BACKFILL = 0.15
_LEFT_BY_INCREMENTAL = 0.05


def wait_until(error: SourceError, now: datetime) -> datetime:
    """Until when to keep off a source that said "later"."""
    return min(error.retry_at or now + _DEFAULT_WAIT, now + _LONGEST_WAIT)


def unexpected(error: Exception) -> SourceError:
    """An error nobody foresaw, as the class of trouble it most likely is."""
    return SourceError(Trouble.SCHEMA_CHANGED, f"{type(error).__name__} while reading an answer; the logs know more")


def hold_until(part: StoredPart, quota: Quota | None, now: datetime) -> datetime | None:
    """When a part may go on that must leave what is left of the quota to more urgent work; None: now.

    What the source says is left counts for the whole account, whichever job, worker or connection used the rest.
    Previews and named issues take all; then come incremental windows, first readings, and the census.
    """
    if quota is None or not quota.limit or quota.remaining is None or quota.resets_at is None:
        return None
    scarce = quota.remaining < quota.limit * _left_by(part)
    return min(quota.resets_at, now + _LONGEST_WAIT) if scarce and quota.resets_at - now > _SHORT else None


def _left_by(part: StoredPart) -> float:
    match part.kind:
        case PartKind.KEYS:
            return 0
        case PartKind.CENSUS:
            return _LEFT_BY_CENSUS
        case PartKind.WINDOW if part.since is None:
            return _LEFT_BY_BACKFILL
        case _:
            return _LEFT_BY_INCREMENTAL
