"""How late a source may show a change, where that figure comes from, and how late it was seen to."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from shared.services.open_connector import index_lag
from shared.store import coverage
from shared.store.connections import StoredConnection
from shared.store.database import Connection


class IndexLag(BaseModel):
    """How late the source may show a change in its lists, and how late it was seen to."""

    model_config = ConfigDict(frozen=True)

    seconds: float = Field(description="By how much windows are held back")
    origin: str = Field(
        description="`setting` of this connection (`index_lag_seconds`), or `default`: what is known of the source",
        examples=["default"],
    )
    observed_seconds: float | None = Field(
        default=None,
        description="The largest that syncs of this connection met: a change was not shown for at least so long. "
        "Empty where all came in time, or nothing was synced yet",
    )
    observed_at: datetime | None = None
    observed_in: str | None = Field(default=None, examples=["issues of HARBOR"])
    advice: str | None = Field(
        default=None, description="What to do, where windows are held back by less than was seen"
    )


async def find_index_lag(connection: Connection, stored: StoredConnection) -> IndexLag:
    """The index lag of a connection."""
    setting = stored.settings.get("index_lag_seconds")
    seconds = index_lag(stored.source, setting).total_seconds()
    lag = IndexLag(seconds=seconds, origin="default" if setting is None else "setting")
    observed = await coverage.find_largest_lag(connection, stored.id)
    if observed is None:
        return lag
    late: float = round(observed["seconds"], 1)
    where = f"{observed['stream']} of {observed['scope_name']}"
    advice = (
        f"The {where} showed a change only after {late:.0f} s or more, windows are held back by {seconds:.0f} s: raise"
        " index_lag_seconds, and sync with `census` for what may have been missed"
    )
    told = {"observed_seconds": late, "observed_at": observed["at"], "observed_in": where}
    return lag.model_copy(update={**told, "advice": advice if late > seconds else None})
