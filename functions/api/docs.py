"""The documentation page and the OpenAPI document. The page's files are served from here: it works without internet."""

from functools import cache
from importlib.resources import files

from fastapi import APIRouter, Depends, FastAPI, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, JSONResponse

from functions.api.auth import GuardedRoute, needs
from shared.domain.caller import Role
from shared.domain.errors import NotFoundError

_FILES = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon.png": "image/png",
}
_CACHED = {"Cache-Control": "private, max-age=86400"}


def router(app: FastAPI, *, anonymous: bool) -> APIRouter:
    """Routes of the documentation, for readers only unless `anonymous`."""
    routes = APIRouter(
        prefix="/api",
        route_class=GuardedRoute,
        include_in_schema=False,
        dependencies=[] if anonymous else [Depends(needs(Role.READER))],
    )

    @routes.get("/docs")
    async def page() -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url="/api/openapi.json",
            title=app.title,
            swagger_js_url="/api/docs/swagger-ui-bundle.js",
            swagger_css_url="/api/docs/swagger-ui.css",
            swagger_favicon_url="/api/docs/favicon.png",
            swagger_ui_parameters={"persistAuthorization": True, "displayRequestDuration": True},
        )

    @routes.get("/openapi.json")
    async def document() -> JSONResponse:
        return JSONResponse(app.openapi())

    @routes.get("/docs/{name}")
    async def file(name: str) -> Response:
        if name not in _FILES:
            raise NotFoundError("There is no such file")
        return Response(_read(name), media_type=_FILES[name], headers=_CACHED)

    return routes


@cache
def _read(name: str) -> bytes:
    return (files("fastapi_offline") / "static" / name).read_bytes()
