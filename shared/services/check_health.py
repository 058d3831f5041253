"""Whether everything answers that requests need."""

from shared.blobs import Blobs
from shared.store import pipeline
from shared.store.database import Database


async def check_ready(database: Database, blobs: Blobs) -> None:
    """Raise an UnavailableError that names the part which does not answer."""
    async with database.connection() as connection:
        await pipeline.is_paused(connection)
    await blobs.ready()
