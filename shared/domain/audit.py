"""The audit log: who did what to what."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class AuditEntry(BaseModel):
    """One change; entries are never altered or removed."""

    model_config = ConfigDict(frozen=True)

    id: int
    actor: str = Field(description="Id of the caller", examples=["key:bootstrap"])
    action: str = Field(description="What was done", examples=["api_key.created"])
    subject: str = Field(description="To what it was done", examples=["job:0b3e8c1e-58a5-4f0e-9d0b-0a4f6c1f2d11"])
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None
    created_at: datetime
