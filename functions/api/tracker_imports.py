"""Imports from connected trackers, beside those of files: preview, execute, and `POST /api/import` with JSON."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.routing import Match
from starlette.types import Scope

from functions.api.auth import GuardedRoute, needs
from functions.api.context import Context, InContext
from functions.api.forms import IdempotencyKey
from functions.api.models import Accepted, ChangedSince, Name, accepted
from functions.api.openapi import problems
from shared.connectors import connectors
from shared.domain.caller import Caller, Role
from shared.domain.errors import InvalidRequestError
from shared.domain.job import Priority
from shared.domain.stream import Stream
from shared.domain.sync import SyncMode, SyncOptions
from shared.services.accept_sync import accept_sync
from shared.services.manage_connections import find_view
from shared.services.preview_source import SourcePreview, preview_source

Operator = Annotated[Caller, Depends(needs(Role.OPERATOR))]
_LOCATION: dict[str, Any] = {
    "headers": {"Location": {"description": "Where to follow the job", "schema": {"type": "string"}}}
}
ConnectionSlug = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$", examples=["petrel"])]


class TrackerImport(BaseModel):
    """An import from a connection."""

    model_config = ConfigDict(extra="forbid")

    connection: ConnectionSlug = Field(description="Slug of a tested connection")
    keys: list[Annotated[Name, Field(examples=["PETREL-17"])]] = Field(
        default=[], max_length=1_000, description="Only these issues"
    )
    mode: Literal["incremental", "full"] = Field(default="incremental", description="Without keys")
    since: ChangedSince | None = Field(default=None, description="Read again what changed since then")
    streams: list[Stream] = Field(default=[], max_length=20, description="Only these; by default all")
    scopes: list[Name] = Field(default=[], max_length=200, description="Only these projects or repositories")
    priority: Priority = Priority.NORMAL


class SourcePreviewRequest(BaseModel):
    """What to look at."""

    model_config = ConfigDict(extra="forbid")

    connection: ConnectionSlug
    scopes: list[Name] = Field(default=[], max_length=200, description="Only these projects or repositories")


class JsonRoute(GuardedRoute):
    """Takes only requests with a JSON body, so that a form to the same path reaches the route behind."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """No match for another content type."""
        headers: Mapping[bytes, bytes] = dict(scope.get("headers", ()))
        if not headers.get(b"content-type", b"").startswith(b"application/json"):
            return Match.NONE, {}
        return super().matches(scope)


json_router = APIRouter(prefix="/api/import", route_class=JsonRoute, tags=["import"])
router = APIRouter(prefix="/api/import", route_class=GuardedRoute, tags=["import"])


# Not in the document by itself: it has one operation for a path, and openapi.py adds this body to that of the form.
@json_router.post("", status_code=202, include_in_schema=False)
async def import_from_connection(
    context: InContext,
    caller: Operator,
    response: Response,
    body: TrackerImport,
    idempotency_key: IdempotencyKey = None,
) -> Accepted:
    """Queue an import from a connection."""
    return await _accept(context, caller, response, body, idempotency_key)


async def _preview(context: Context, source: str, body: SourcePreviewRequest) -> SourcePreview:
    await _require_source(context, body.connection, source)
    return await preview_source(
        context.runtime.database, context.runtime.connectors, body.connection, tuple(body.scopes)
    )


async def _require_source(context: Context, slug: str, source: str) -> None:
    view, _ = await find_view(context.runtime.database, slug)
    if view.source != source:
        raise InvalidRequestError(
            f"The connection {slug!r} is one to {view.source}", hint=f"Call /api/import/{view.source}/…"
        )


async def _accept(
    context: Context, caller: Caller, response: Response, body: TrackerImport, idempotency_key: str | None
) -> Accepted:
    options = SyncOptions(
        mode=SyncMode.KEYS if body.keys else SyncMode(body.mode),
        keys=tuple(body.keys),
        since=body.since,
        streams=tuple(body.streams),
        scopes=tuple(body.scopes),
    )
    job = await accept_sync(
        context.runtime.database,
        caller,
        body.connection,
        options,
        priority=body.priority,
        idempotency_key=idempotency_key,
    )
    await context.dispatch()
    answer = accepted(job)
    response.headers["Location"] = answer.links["status"].href
    return answer


def _add_routes(source: str, title: str) -> None:
    """The two calls of a source; their paths are literal, so that files keep theirs."""

    async def preview(context: InContext, _caller: Operator, body: SourcePreviewRequest) -> SourcePreview:
        return await _preview(context, source, body)

    async def execute(
        context: InContext,
        caller: Operator,
        response: Response,
        body: TrackerImport,
        idempotency_key: IdempotencyKey = None,
    ) -> Accepted:
        await _require_source(context, body.connection, source)
        return await _accept(context, caller, response, body, idempotency_key)

    router.add_api_route(
        f"/{source}/preview",
        preview,
        methods=["POST"],
        name=f"preview_{source}",
        summary=f"See what an import from {title} would do",
        description="Reads one small page and compares it with what is stored, without storing anything.",
        responses=problems(400, 404, 409, 422, 502),
    )
    router.add_api_route(
        f"/{source}/execute",
        execute,
        methods=["POST"],
        status_code=202,
        name=f"execute_{source}",
        summary=f"Import from {title}",
        description="Queues a sync of the connection, or an import of the issues whose keys are given.",
        responses={202: _LOCATION, **problems(400, 404, 409, 422)},
    )


for _source, _connector in sorted(connectors().items()):
    _add_routes(_source, _connector.title)
