"""The HTTP triggers, one per area, so that the platform's telemetry tells the areas apart.

All serve the same application. Their auth level is anonymous because our own tokens and keys decide, and they take
every method because the application answers those that make no sense.
"""

from functools import cache

import azure.durable_functions as df
import azure.functions as func
from fastapi import FastAPI

from functions.api.context import Context
from functions.durable import starter
from functions.runtime import runtime
from shared.settings import settings

bp = df.Blueprint()
_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


@bp.route(route="import/{*rest}", methods=_METHODS, auth_level=func.AuthLevel.ANONYMOUS)
@bp.durable_client_input(client_name="client")
async def api_import(
    req: func.HttpRequest, context: func.Context, client: df.DurableFunctionsClient
) -> func.HttpResponse:
    """Files, jobs and rejections."""
    return await _serve(req, context, client)


@bp.route(route="pipeline/{*rest}", methods=_METHODS, auth_level=func.AuthLevel.ANONYMOUS)
@bp.durable_client_input(client_name="client")
async def api_pipeline(
    req: func.HttpRequest, context: func.Context, client: df.DurableFunctionsClient
) -> func.HttpResponse:
    """All jobs, dead letters, pause and resume."""
    return await _serve(req, context, client)


@bp.route(route="integrations/{*rest}", methods=_METHODS, auth_level=func.AuthLevel.ANONYMOUS)
@bp.durable_client_input(client_name="client")
async def api_integrations(
    req: func.HttpRequest, context: func.Context, client: df.DurableFunctionsClient
) -> func.HttpResponse:
    """Connections to trackers."""
    return await _serve(req, context, client)


@bp.route(route="webhooks/{*rest}", methods=_METHODS, auth_level=func.AuthLevel.ANONYMOUS)
@bp.durable_client_input(client_name="client")
async def api_webhooks(
    req: func.HttpRequest, context: func.Context, client: df.DurableFunctionsClient
) -> func.HttpResponse:
    """Deliveries of trackers."""
    return await _serve(req, context, client)


@bp.route(route="issues/{*rest}", methods=_METHODS, auth_level=func.AuthLevel.ANONYMOUS)
async def api_issues(req: func.HttpRequest, context: func.Context) -> func.HttpResponse:
    """Normalized issues."""
    return await _serve(req, context)


@bp.route(route="repositories/{*rest}", methods=_METHODS, auth_level=func.AuthLevel.ANONYMOUS)
async def api_repositories(req: func.HttpRequest, context: func.Context) -> func.HttpResponse:
    """Synced repositories."""
    return await _serve(req, context)


@bp.route(route="keys/{*rest}", methods=_METHODS, auth_level=func.AuthLevel.ANONYMOUS)
async def api_keys(req: func.HttpRequest, context: func.Context) -> func.HttpResponse:
    """API keys."""
    return await _serve(req, context)


@bp.route(route="audit/{*rest}", methods=_METHODS, auth_level=func.AuthLevel.ANONYMOUS)
async def api_audit(req: func.HttpRequest, context: func.Context) -> func.HttpResponse:
    """The audit log."""
    return await _serve(req, context)


@bp.route(route="health/{*rest}", methods=_METHODS, auth_level=func.AuthLevel.ANONYMOUS)
async def api_health(req: func.HttpRequest, context: func.Context) -> func.HttpResponse:
    """Liveness and readiness."""
    return await _serve(req, context)


@bp.route(route="docs/{*rest}", methods=_METHODS, auth_level=func.AuthLevel.ANONYMOUS)
async def api_docs(req: func.HttpRequest, context: func.Context) -> func.HttpResponse:
    """The documentation page."""
    return await _serve(req, context)


@bp.route(route="openapi.json", methods=_METHODS, auth_level=func.AuthLevel.ANONYMOUS)
async def api_openapi(req: func.HttpRequest, context: func.Context) -> func.HttpResponse:
    """The OpenAPI document."""
    return await _serve(req, context)


async def _serve(
    req: func.HttpRequest, context: func.Context, client: df.DurableFunctionsClient | None = None
) -> func.HttpResponse:
    # One middleware per request: its state is copied into the scope, and is how the durable client gets there.
    middleware = func.AsgiMiddleware(_app())
    middleware.state = {"context": Context(await runtime(), starter(client) if client else None)}
    return await middleware.handle_async(req, context)


@cache
def _app() -> FastAPI:
    from functions.api.app import create_app

    return create_app(settings())
