"""API keys: made, listed and revoked by administrators."""

from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel, Field

from functions.api.auth import GuardedRoute, needs
from functions.api.context import InContext
from functions.api.models import Link, Links, Moment, Word
from functions.api.openapi import problems
from shared.domain.api_key import APIKey
from shared.domain.caller import Caller, Role
from shared.services.manage_api_keys import create_api_key, list_api_keys, revoke_api_key

router = APIRouter(prefix="/api/keys", route_class=GuardedRoute, tags=["keys"])

Admin = Annotated[Caller, Depends(needs(Role.ADMIN))]


class KeyRequest(BaseModel):
    """A key to make."""

    name: Word = Field(description="What the key is for", examples=["nightly export"])
    role: Role = Field(examples=[Role.OPERATOR])
    expires_at: Moment | None = Field(None, description="By default never", examples=["2027-01-01T00:00:00Z"])


class NewKey(APIKey):
    """A key with its secret, which cannot be read again."""

    secret: str = Field(description="Send it as X-API-Key", examples=["trib_4fJq2c…"])
    links: Links


class KeyList(BaseModel):
    """Every key, newest first."""

    items: list[APIKey]


@router.post(
    "",
    status_code=201,
    summary="Make a key",
    responses={
        201: {"headers": {"Location": {"description": "The key", "schema": {"type": "string"}}}},
        **problems(400, 422),
    },
)
async def create(context: InContext, caller: Admin, response: Response, body: KeyRequest) -> NewKey:
    """The secret is in this answer and nowhere else."""
    key, secret = await create_api_key(
        context.runtime.database,
        caller,
        name=body.name,
        role=body.role,
        expires_at=body.expires_at,
        now=datetime.now(UTC),
    )
    response.headers["Location"] = f"/api/keys/{key.id}"
    return NewKey(**key.model_dump(), secret=secret, links={"keys": Link(method="GET", href="/api/keys")})


@router.get("", summary="Keys", responses=problems())
async def listed(context: InContext, _caller: Admin) -> KeyList:
    """Every key without its secret, revoked ones too."""
    return KeyList(items=await list_api_keys(context.runtime.database))


@router.delete("/{key_id}", summary="Revoke a key", responses=problems(404, 422))
async def revoke(context: InContext, caller: Admin, key_id: UUID) -> APIKey:
    """From the next request on the key opens nothing. Revoking it again changes nothing."""
    return await revoke_api_key(context.runtime.database, caller, key_id, now=datetime.now(UTC))
