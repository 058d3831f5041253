"""The FastAPI application behind every HTTP trigger."""

import sys
from collections.abc import MutableMapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Any
from uuid import uuid4

from fastapi import FastAPI
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from functions.api import (
    audit,
    docs,
    errors,
    health,
    imports,
    integrations,
    issues,
    keys,
    openapi,
    pipeline,
    rejections,
    tracker_imports,
    webhooks,
)
from shared.settings import Settings
from shared.telemetry import log_context

# What a form adds to the file it carries.
_FORM_BYTES = 64 * 1024
_TRACE_PARENT_PARTS = 4
_TAGS = [
    {"name": "import", "description": "Files in, jobs and their progress."},
    {"name": "rejections", "description": "Records that could not be stored: look, mend, replay, dismiss."},
    {"name": "integrations", "description": "Connections to trackers: register, test, sync, schedule, watch."},
    {"name": "webhooks", "description": "What trackers send as it happens."},
    {"name": "issues", "description": "Normalized issues and repositories."},
    {"name": "pipeline", "description": "All jobs, the dead-letter queue, pause and resume."},
    {"name": "keys", "description": "API keys."},
    {"name": "audit", "description": "Who did what."},
    {"name": "health", "description": "Whether the service works."},
]


def create_app(settings: Settings) -> FastAPI:
    """The application; each request brings its Context in the scope's state."""
    app = FastAPI(
        title="Tributary",
        version=_version(),
        description=openapi.DESCRIPTION,
        openapi_tags=_TAGS,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: f"{route.tags[0]}_{route.name}" if route.tags else route.name,
    )
    areas = [tracker_imports.json_router, tracker_imports.router]
    areas += [area.router for area in (imports, rejections, integrations, issues, webhooks, pipeline, keys, audit)]
    areas.append(health.router)
    areas.append(issues.repositories)
    areas.append(docs.router(app, anonymous=settings.environment == "local"))
    for router in areas:
        app.include_router(router)
    app.openapi = lambda: openapi.describe(app)
    errors.register(app, [route for router in areas for route in router.routes])
    app.add_middleware(Envelope, most_bytes=settings.max_request_bytes + _FORM_BYTES)
    return app


class Envelope:
    """Around every request: its trace id, the size limit, headers, and a problem where something broke."""

    def __init__(self, app: ASGIApp, most_bytes: int) -> None:
        self._app = app
        self._most_bytes = most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        headers = Headers(scope=scope)
        state["trace_id"] = _trace_id(headers)
        out = _Sender(send, state)
        with log_context(trace_id=state["trace_id"]):
            try:
                await self._app(scope, self._limited(headers, receive), out)
            except Exception as error:
                if out.started:
                    raise
                await errors.answer(scope, error)(scope, receive, out)

    def _limited(self, headers: Headers, receive: Receive) -> Receive:
        """`receive` that refuses a body over the limit, by its announced length before anything of it is read."""
        announced = headers.get("content-length", "")
        received = int(announced) if announced.isdecimal() else 0

        async def limited() -> Message:
            nonlocal received
            if received > self._most_bytes:
                raise HTTPException(413, f"The body is larger than {self._most_bytes} bytes")
            message = await receive()
            if not announced:
                received += len(message.get("body", b""))
                if received > self._most_bytes:
                    raise HTTPException(413, f"The body is larger than {self._most_bytes} bytes")
            return message

        return limited


class _Sender:
    """Adds our headers to a response."""

    def __init__(self, send: Send, state: MutableMapping[str, Any]) -> None:
        self._send = send
        self._state = state
        self.started = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            headers = MutableHeaders(scope=message)
            headers["X-Content-Type-Options"] = "nosniff"
            headers["X-Trace-Id"] = self._state["trace_id"]
            headers.setdefault("Cache-Control", "no-store")
            if allowance := self._state.get("allowance"):
                headers["RateLimit-Limit"] = str(allowance.limit)
                headers["RateLimit-Remaining"] = str(allowance.remaining)
                headers["RateLimit-Reset"] = str(allowance.resets_in)
        await self._send(message)


def _trace_id(headers: Headers) -> str:
    """The trace this request belongs to: of the span at work, of the caller, or a new one."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is not None:
        context = trace.get_current_span().get_span_context()
        if context.is_valid:
            return f"{context.trace_id:032x}"
    parts = headers.get("traceparent", "").split("-")
    if len(parts) == _TRACE_PARENT_PARTS and len(parts[1]) == 32:
        with suppress(ValueError):
            return f"{int(parts[1], 16):032x}"
    return uuid4().hex


def _version() -> str:
    try:
        return version("tributary")
    except PackageNotFoundError:  # a function app is a folder, not an installed package
        return "0.1.0"
