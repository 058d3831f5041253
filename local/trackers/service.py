"""What all simulated trackers share: authentication, latency, rate limits, faults on demand, and a log of calls.

A service subclasses Tracker, adds its routes and the shape of its refusals. `/_control` calls steer a service that runs
in another process.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Hashable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from email.utils import format_datetime
from typing import ClassVar, Self

import orjson
from aiohttp import web

from local.trackers._control import steer
from local.trackers._hooks import HookError, Hooks
from local.trackers.world import World

_MOST_RENDERED = 200_000

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Fault:
    """Something that goes wrong with the next `times` requests to paths with `path` in them, after `after` of them."""

    # status, reset, slow, truncated, expired, maintenance, limited
    kind: str
    times: int = 1
    path: str = ""
    after: int = 0
    status: int = 500
    body: str = ""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    seconds: float = 0.0


@dataclass(frozen=True)
class Call:
    method: str
    path: str
    query: str


class Tracker:
    """A tracker over HTTP, on a free port of loopback. Use it as an async context manager."""

    source: ClassVar[str]
    kind_of_hooks: ClassVar[type[Hooks]]

    def __init__(self, world: World, *, token: str = "valid-token", latency: float = 0.0) -> None:
        self.world = world
        self.token = token
        self.latency = latency
        self.expired = False
        self.faults: list[Fault] = []
        self.calls: deque[Call] = deque(maxlen=100_000)
        self._under_way = 0
        # How many calls were under way at once, since the calls were counted last.
        self.most_at_once = 0
        # Requests allowed before the tracker says "limited" once per window; None: no limit.
        self.quota: int | None = None
        self.limited_seconds = 1.0
        # Seconds by which the clock in its answers is ahead of the one that stamps its records.
        self.skew = 0.0
        self.before_request: Callable[[Call], None] | None = None
        self._runner: web.AppRunner | None = None
        self._kept: dict[Hashable, orjson.Fragment] = {}
        self._kept_state: object = None
        self.url = ""
        self.hooks = self.kind_of_hooks(self)

    # For subclasses

    def rendered(self, version: object, how: Hashable, render: Callable[[], object]) -> orjson.Fragment:
        """A version of something as JSON, kept while the world stays the same: a real tracker has it at hand, too."""
        if self._kept_state != self.world.state or len(self._kept) > _MOST_RENDERED:
            self._kept, self._kept_state = {}, self.world.state
        key = (id(version), how)
        if key not in self._kept:
            self._kept[key] = orjson.Fragment(orjson.dumps(render()))
        return self._kept[key]

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Add the tracker's API."""
        raise NotImplementedError

    def authorized(self, request: web.Request) -> bool:
        """Whether the request carries this tracker's valid credentials."""
        return request.headers.get("Authorization") == f"Bearer {self.token}"

    def open_to_all(self, request: web.Request) -> bool:
        """Calls that need no credentials, such as token endpoints."""
        return False

    def authorize(self) -> Mapping[str, str]:
        """Let somebody authorize an app, and tell the credentials that brings; nothing where there are no apps."""
        return {}

    def unauthorized(self, request: web.Request) -> web.Response:
        """The refusal of missing or wrong credentials."""
        return json_response({"message": "Unauthorized"}, status=401)

    def token_expired(self, request: web.Request) -> web.Response:
        """The refusal of an expired token."""
        return self.unauthorized(request)

    def limited(self, request: web.Request, seconds: float) -> web.Response:
        """The refusal of a call over the rate limit, with the tracker's own headers."""
        return json_response({"message": "Too many requests"}, status=429, headers={"Retry-After": f"{seconds:.0f}"})

    def maintenance(self, request: web.Request) -> web.Response:
        """The maintenance page."""
        page = "<html><head><title>Maintenance</title></head><body>We will be back soon.</body></html>"
        return web.Response(text=page, status=503, content_type="text/html")

    def quota_headers(self) -> Mapping[str, str]:
        """Headers about the rate limit that every answer carries."""
        return {}

    # Running

    def application(self) -> web.Application:
        app = web.Application(middlewares=[self._around])
        app.router.add_post("/_control/{action}", self._control)
        app.router.add_get("/_control/calls", self._show_calls)
        app.router.add_get("/_control/deliveries", self._show_deliveries)
        self.add_routes(app.router)
        self.hooks.add_routes(app.router)
        return app

    async def start(self, port: int = 0) -> None:
        self._runner = web.AppRunner(self.application(), access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        await self.hooks.stop()
        if self._runner:
            await self._runner.cleanup()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def count(self, path: str = "") -> int:
        """How many calls were made to paths that contain `path`."""
        return sum(path in call.path for call in self.calls)

    @web.middleware
    async def _around(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path.startswith("/_control"):
            return await handler(request)
        call = Call(request.method, request.path, request.query_string)
        self.calls.append(call)
        if self.before_request:
            self.before_request(call)
        self._under_way += 1
        self.most_at_once = max(self.most_at_once, self._under_way)
        try:
            response = await self._late(request, handler)
        finally:
            self._under_way -= 1
        clock = self.world.now + timedelta(seconds=self.skew)
        response.headers.setdefault("Date", format_datetime(clock, usegmt=True))
        response.headers.update(self.quota_headers())
        return response

    async def _late(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        began = asyncio.get_running_loop().time()
        response = await self._respond(request, handler)
        # What the simulation itself takes is part of it: a tracker of 50 ms answers after 50 ms.
        left = self.latency - (asyncio.get_running_loop().time() - began)
        if left > 0:
            await asyncio.sleep(left)
        return response

    async def _respond(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        fault = self._due_fault(request)
        if fault is not None and (failed := await self._fail(fault, request)) is not None:
            return failed
        if (refusal := self._refuse(request)) is not None:
            return refusal
        if self.quota is not None:
            if self.quota <= 0:
                asyncio.get_running_loop().call_later(self.limited_seconds, self._refill, 10)
                return self.limited(request, self.limited_seconds)
            self.quota -= 1
        response = await handler(request)
        if fault is not None and fault.kind == "truncated" and isinstance(response, web.Response):
            body = bytes(response.body or b"")  # type: ignore[arg-type]
            return web.Response(body=body[: len(body) * 2 // 3], content_type="application/json")
        return response

    def _refuse(self, request: web.Request) -> web.Response | None:
        if self.open_to_all(request) or self.hooks.is_owner(request):
            return None
        if self.expired:
            return self.token_expired(request)
        if not self.authorized(request):
            return self.unauthorized(request)
        return self.hooks.refused(request) if self.hooks.is_about(request) else None

    def _refill(self, calls: int) -> None:
        if self.quota is not None and self.quota <= 0:
            self.quota = calls

    def _due_fault(self, request: web.Request) -> Fault | None:
        for fault in self.faults:
            if fault.path not in request.path:
                continue
            if fault.after:
                fault.after -= 1
                continue
            fault.times -= 1
            if fault.times <= 0:
                self.faults.remove(fault)
            return fault
        return None

    async def _fail(self, fault: Fault, request: web.Request) -> web.StreamResponse | None:
        match fault.kind:
            case "status":
                return web.Response(
                    text=fault.body, status=fault.status, headers={"Content-Type": "application/json", **fault.headers}
                )
            case "reset":
                if request.transport:
                    request.transport.abort()
                return web.Response(status=500)
            case "slow":
                await asyncio.sleep(fault.seconds)
            case "expired":
                self.expired = True
            case "maintenance":
                return self.maintenance(request)
            case "limited":
                return self.limited(request, fault.seconds)
            case _:
                pass
        return None

    async def _control(self, request: web.Request) -> web.Response:
        try:
            told = steer(self, request.match_info["action"], orjson.loads(await request.read() or b"{}"))
        except (HookError, TypeError, LookupError) as error:
            return json_response({"message": str(error)}, status=422)
        if told is None:
            raise web.HTTPNotFound
        return json_response({"now": self.world.now.isoformat(), **told})

    async def _show_deliveries(self, request: web.Request) -> web.Response:
        return json_response({"under_way": self.hooks.under_way, "sent": [each.told() for each in self.hooks.sent]})

    async def _show_calls(self, request: web.Request) -> web.Response:
        by_path = Counter(call.path for call in self.calls)
        most, self.most_at_once = self.most_at_once, 0
        return json_response({"total": len(self.calls), "by_path": by_path, "most_at_once": most})


def json_response(data: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """An answer with JSON; faster than aiohttp's own."""
    return web.Response(body=orjson.dumps(data), status=status, headers=headers, content_type="application/json")
