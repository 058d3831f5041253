"""Health: whether the process lives, for anybody; whether its parts answer, for readers."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends
from pydantic import BaseModel

from functions.api.auth import GuardedRoute, needs
from functions.api.context import InContext
from functions.api.openapi import problems
from shared.domain.caller import Caller, Role
from shared.services.check_health import check_ready

router = APIRouter(prefix="/api/health", route_class=GuardedRoute, tags=["health"])


class Alive(BaseModel):
    """The process answers."""

    status: Literal["alive"] = "alive"


class Ready(BaseModel):
    """Database and storage answer."""

    status: Literal["ready"] = "ready"
    database: Literal["ready"] = "ready"
    storage: Literal["ready"] = "ready"


@router.get("/live", summary="Is the process alive?", responses={500: problems()[500]})
async def live() -> Alive:
    """Answers as long as the process does; asks nobody else and needs no credentials."""
    return Alive()


@router.get("/ready", summary="Can requests be served?", responses=problems())
async def ready(context: InContext, _caller: Annotated[Caller, Depends(needs(Role.READER))]) -> Ready:
    """Asks database and storage; a problem with status 503 names the one that does not answer."""
    await check_ready(context.runtime.database, context.runtime.blobs)
    return Ready()
