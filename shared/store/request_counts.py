"""Requests counted per client and window, for the rate limit all instances share."""

from datetime import datetime

from shared.store.database import Connection


async def add_one(connection: Connection, client: str, *, window_start: datetime) -> int:
    """Count one more request and return how many that makes in its window."""
    cursor = await connection.execute(
        """
        insert into request_counts (client, window_start, requests)
        values (%(client)s, %(window_start)s, 1)
            on conflict (client, window_start) do update
           set requests = request_counts.requests + 1
        returning requests
        """,
        {"client": client, "window_start": window_start},
    )
    row = await cursor.fetchone()
    return row["requests"] if row else 0


async def purge(connection: Connection, *, before: datetime) -> int:
    """Forget windows that began before a time; returns how many."""
    cursor = await connection.execute("delete from request_counts where window_start < %(before)s", {"before": before})
    return cursor.rowcount
