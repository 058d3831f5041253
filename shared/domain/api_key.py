"""API keys as their administrators see them."""

from datetime import datetime
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from shared.domain.caller import Role


class APIKey(BaseModel):
    """A key without its secret."""

    model_config = ConfigDict(frozen=True)

    id: UUID
    name: str = Field(description="What the key is for", examples=["nightly export"])
    role: Role
    prefix: str = Field(description="The beginning of the secret, to tell keys apart", examples=["trib_4fJq2c"])
    created_by: str
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    last_used_at: datetime | None = Field(default=None, description="Exact to about a minute")

    def is_valid(self, now: datetime) -> bool:
        """Whether the key opens anything: neither revoked nor past its day."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)
