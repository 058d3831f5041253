"""Who calls, whether they may, and how often: decided before the body of a request is looked at."""

from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import Request, Response, Security
from fastapi.routing import APIRoute
from fastapi.security import APIKeyHeader, HTTPBearer

from functions.api.context import context_of
from functions.runtime import Runtime
from shared.domain.caller import Caller, Role
from shared.domain.errors import NotAllowedError, NotAuthenticatedError
from shared.services.authenticate import authenticate
from shared.services.limit_requests import limit_requests

_BEARER = HTTPBearer(
    auto_error=False, scheme_name="token", description="An Entra ID access token, or an API key in its place"
)
_API_KEY = APIKeyHeader(name="X-API-Key", auto_error=False, scheme_name="api_key", description="An API key")


class Needs:
    """A dependency that gives the caller, who has at least this role."""

    def __init__(self, role: Role) -> None:
        self.role = role

    async def __call__(
        self,
        request: Request,
        _token: Annotated[object, Security(_BEARER)] = None,
        _key: Annotated[object, Security(_API_KEY)] = None,
    ) -> Caller:
        """The caller; the security schemes are parameters only to be in the OpenAPI document."""
        caller: Caller = request.state.caller
        return caller


def needs(role: Role) -> Needs:
    """Let only callers of a role through, or of a higher one."""
    return Needs(role)


class GuardedRoute(APIRoute):
    """Checks the caller first: nobody unknown makes us read a body, or learns what would be wrong with it."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The route's handler behind its guard."""
        handle = super().get_route_handler()
        needed = [each.call.role for each in self.dependant.dependencies if isinstance(each.call, Needs)]

        async def guarded(request: Request) -> Response:
            for role in needed:
                request.state.caller = await _authorize(request, role)
            return await handle(request)

        return guarded


async def _authorize(request: Request, role: Role) -> Caller:
    runtime = context_of(request).runtime
    caller = await _authenticate(request, runtime)
    await _count(request, runtime, caller, limit=runtime.settings.requests_per_minute)
    if not caller.may(role):
        raise NotAllowedError(
            f"This call needs the role {role}, and {caller.name} has the role {caller.role}",
            hint="Ask an administrator for a key or an app role that has it",
        )
    return caller


async def _authenticate(request: Request, runtime: Runtime) -> Caller:
    try:
        return await authenticate(
            runtime.database,
            runtime.verifier,
            authorization=request.headers.get("authorization"),
            api_key=request.headers.get("x-api-key"),
            now=datetime.now(UTC),
            bootstrap_key=runtime.settings.bootstrap_api_key.get_secret_value(),
        )
    except (NotAuthenticatedError, NotAllowedError):
        # Guessing keys is limited too, by the address it comes from.
        await count_address(request, "address", limit=runtime.settings.requests_per_minute)
        raise


async def count_address(request: Request, what: str, *, limit: int) -> None:
    """Count a request of somebody unknown by the address it comes from."""
    unknown = Caller(id=f"{what}:{_address(request)}", name="unknown", role=Role.READER)
    await _count(request, context_of(request).runtime, unknown, limit=limit)


async def _count(request: Request, runtime: Runtime, caller: Caller, *, limit: int) -> None:
    request.state.allowance = await limit_requests(runtime.database, caller, limit=limit, now=datetime.now(UTC))


def _address(request: Request) -> str:
    """The client's address as the platform's front end appended it; what a client wrote itself stands before that."""
    forwarded = request.headers.get("x-forwarded-for", "").rsplit(",", 1)[-1].strip()
    if forwarded.startswith("["):  # IPv6 with a port
        forwarded = forwarded[1:].split("]")[0]
    elif forwarded.count(":") == 1:  # IPv4 with a port
        forwarded = forwarded.split(":")[0]
    return forwarded[:64] or (request.client.host if request.client else "unknown")
