"""Who did what to what."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, Field

from functions.api import paging
from functions.api.auth import GuardedRoute, needs
from functions.api.context import InContext
from functions.api.models import Word
from functions.api.openapi import problems
from shared.domain.audit import AuditEntry
from shared.domain.caller import Caller, Role
from shared.services.read_audit import read_audit

router = APIRouter(prefix="/api/audit", route_class=GuardedRoute, tags=["audit"])


class AuditPage(BaseModel):
    """Entries, newest first."""

    items: list[AuditEntry]
    next_cursor: str | None = Field(description="Give it as `cursor` for the next page; absent on the last")


@router.get("", summary="The audit log", responses=problems(422))
async def listed(
    context: InContext,
    _caller: Annotated[Caller, Depends(needs(Role.ADMIN))],
    subject: Annotated[
        Word | None,
        Query(description="Only what was done to this", examples=["job:0b3e8c1e-58a5-4f0e-9d0b-0a4f6c1f2d11"]),
    ] = None,
    cursor: paging.Cursor = None,
    limit: paging.Limit = 50,
) -> AuditPage:
    """Every change with its actor, before and after; entries are never altered or removed."""
    found = await read_audit(
        context.runtime.database, subject=subject, before_id=paging.decode_id(cursor), limit=limit + 1
    )
    page = found[:limit]
    return AuditPage(items=page, next_cursor=paging.encode(page[-1].id) if len(found) > limit else None)
