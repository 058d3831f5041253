"""The rate limit, applied to one request."""

from datetime import datetime

from shared.domain.caller import Caller
from shared.domain.errors import TooManyRequestsError
from shared.security.rate_limit import Allowance, allowance, window_start
from shared.store import request_counts
from shared.store.database import Database


async def limit_requests(database: Database, caller: Caller, *, limit: int, now: datetime) -> Allowance:
    """Count a request of a caller; TooManyRequestsError if it is one too many for this minute."""
    async with database.connection() as connection:
        used = await request_counts.add_one(connection, caller.id, window_start=window_start(now))
    left = allowance(used, limit=limit, now=now)
    if left.exceeded:
        raise TooManyRequestsError(
            f"More than {limit} requests in a minute: try again in {left.resets_in} s", retry_after=left.resets_in
        )
    return left
