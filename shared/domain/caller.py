"""Who calls, and what they may do."""

from enum import StrEnum

from pydantic import BaseModel, ConfigDict


class Role(StrEnum):
    READER = "reader"
    OPERATOR = "operator"  # imports and syncs
    ADMIN = "admin"  # connections, keys, the pipeline


_RANK = {Role.READER: 0, Role.OPERATOR: 1, Role.ADMIN: 2}


class Caller(BaseModel):
    """An authenticated caller. `id` is stable (`key:<id>`, `entra:<tid>:<oid>`); limits and audit are kept by it."""

    model_config = ConfigDict(frozen=True)

    id: str
    name: str
    role: Role

    def may(self, needed: Role) -> bool:
        """Whether this caller's role includes the one needed; admin includes operator includes reader."""
        return _RANK[self.role] >= _RANK[needed]
