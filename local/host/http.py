"""HTTP: routes, keys and limits of the real host, and its `/admin` calls. Listens on loopback only."""

import asyncio
import hmac
import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import nullcontext, suppress
from io import BytesIO
from typing import Any
from urllib.parse import unquote_to_bytes

from aiohttp import web
from azure_functions_runtime.bindings.datumdef import Datum
from multidict import CIMultiDict, CIMultiDictProxy

from local.host.background import Background
from local.host.config import HostConfig
from local.host.routes import RouteTable
from local.host.worker import Function, FunctionFailedError
from local.host.workers import Workers

BODY_LIMIT = 104_857_600
# Larger bodies, or those of unknown size, are taken in one at a time: memory must not grow with the number of clients.
LARGE_BODY = 8 * 1024 * 1024
HOP_BY_HOP = {"connection", "content-length", "keep-alive", "transfer-encoding", "upgrade"}

Fire = Callable[[str], Awaitable[None]]


class HttpListener:
    """Serves HTTP-triggered functions; `fire` holds, by function name, how to run the others by hand."""

    def __init__(self, workers: Workers, config: HostConfig, fire: Mapping[str, Fire], background: Background) -> None:
        self._workers = workers
        self._config = config
        self._fire = fire
        self._background = background
        self._routes = RouteTable(workers.triggered_by("httpTrigger"), config.route_prefix)
        self._large_body = asyncio.Lock()

    def application(self) -> web.Application:
        app = web.Application(client_max_size=0)
        app.router.add_get("/admin/host/status", self._status)
        app.router.add_post("/admin/functions/{name}", self._run_by_hand)
        app.router.add_route("*", "/{path:.*}", self._serve)
        return app

    async def _status(self, request: web.Request) -> web.Response:
        self._require_admin(request)
        return web.json_response({"state": "Running", "functions": [f.name for f in self._workers.functions]})

    async def _run_by_hand(self, request: web.Request) -> web.Response:
        self._require_admin(request)
        fire = self._fire.get(request.match_info["name"])
        if fire is None:
            raise web.HTTPNotFound(text="No function of that name can be run by hand")
        body = await _read_body(request, LARGE_BODY)
        self._background.start(_run(fire, _manual_input(body)))
        return web.Response(status=202)

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        if "%00" in request.rel_url.raw_path:
            raise web.HTTPBadRequest
        found = self._routes.find(request.method, request.rel_url.raw_path)
        if found is None:
            raise web.HTTPNotFound
        function, parameters = found
        self._require_key(request, function)
        async with self._large_body if _is_large(request) else nullcontext():
            body = await _read_body(request, BODY_LIMIT)
            return await self._answer(request, function, parameters, body)

    async def _answer(
        self, request: web.Request, function: Function, parameters: dict[str, str], body: bytes
    ) -> web.Response:
        trace_parent = request.headers.get("traceparent", "")
        try:
            result = await self._workers.invoke(
                function, _request_datum(request, parameters, body), trace_parent=trace_parent
            )
        except FunctionFailedError:
            return web.Response(status=500)
        return _response(result)

    def _require_key(self, request: web.Request, function: Function) -> None:
        level = str(function.trigger.get("authLevel", "function")).lower()
        if level != "anonymous" and not self._has_master_key(request):
            raise web.HTTPUnauthorized

    def _require_admin(self, request: web.Request) -> None:
        if request.remote not in {"127.0.0.1", "::1"} or not self._has_master_key(request):
            raise web.HTTPUnauthorized

    def _has_master_key(self, request: web.Request) -> bool:
        given = request.headers.get("x-functions-key") or request.query.get("code") or ""
        expected = self._config.master_key
        return bool(expected) and hmac.compare_digest(given.encode(), expected.encode())


async def _run(fire: Fire, value: str) -> None:
    with suppress(FunctionFailedError):  # logged where it was raised
        await fire(value)


def _manual_input(body: bytes) -> str:
    try:
        return str(json.loads(body or b"{}").get("input") or "")
    except (ValueError, AttributeError):
        raise web.HTTPBadRequest(text='Expected a JSON object such as {"input": "..."}') from None


def _is_large(request: web.Request) -> bool:
    return request.body_exists and (request.content_length or LARGE_BODY) >= LARGE_BODY


async def _read_body(request: web.Request, limit: int) -> bytes:
    """The whole body; the buffer is handed over without a copy, and aiohttp keeps none."""
    if (request.content_length or 0) > limit:
        raise web.HTTPRequestEntityTooLarge(max_size=limit, actual_size=request.content_length or 0)
    buffer = BytesIO()
    async for chunk in request.content.iter_any():
        if buffer.tell() + len(chunk) > limit:
            raise web.HTTPRequestEntityTooLarge(max_size=limit, actual_size=buffer.tell() + len(chunk))
        buffer.write(chunk)
    return buffer.getvalue()


def _request_datum(request: web.Request, parameters: Mapping[str, str], body: bytes) -> Datum:
    return Datum(
        {
            "method": Datum(request.method, "string"),
            "url": Datum(_url(request), "string"),
            "headers": {name: Datum(value, "string") for name, value in _joined(request.headers).items()},
            "params": {name: Datum(value, "string") for name, value in parameters.items()},
            "query": {name: Datum(value, "string") for name, value in _joined(request.query).items()},
            "body": Datum(body, "bytes"),
        },
        "http",
    )


def _url(request: web.Request) -> str:
    """The address as the client wrote it; escapes that are no UTF-8 are taken literally, as the real host does."""
    path = request.rel_url.raw_path
    try:
        unquote_to_bytes(path).decode()
    except UnicodeDecodeError:
        path = path.replace("%", "%25")
    query = request.rel_url.raw_query_string
    return f"{request.scheme}://{request.host}{path}" + (f"?{query}" if query else "")


def _joined(values: Any) -> dict[str, str]:
    """One value per name: the worker's protocol has maps, so the host joins what is repeated."""
    joined: dict[str, str] = {}
    for name, value in values.items():
        key = name.lower() if isinstance(values, CIMultiDictProxy) else name
        joined[key] = f"{joined[key]},{value}" if key in joined else value
    return joined


def _response(result: Datum | None) -> web.Response:
    if result is None:
        return web.Response(status=204)
    if result.type != "http":
        return web.Response(text=str(result.value))
    value = result.value
    headers = CIMultiDict((name, h.value) for name, h in value["headers"].items() if name.lower() not in HOP_BY_HOP)
    for cookies in value["cookies"] or ():
        for morsel in cookies.values():
            headers.add("Set-Cookie", morsel.OutputString())
    return web.Response(status=int(value["status_code"].value), headers=headers, body=value["body"].value)
