"""Errors as clients see them: one table from error class to status, one shape (RFC 9457), nothing about our insides."""

import logging
import math
from collections.abc import Mapping, MutableMapping, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match, Route

from shared.domain.complaints import complaint
from shared.domain.errors import (
    ConflictError,
    FileRefusedError,
    InvalidRequestError,
    NotAllowedError,
    NotAuthenticatedError,
    NotFoundError,
    SourceError,
    TooLargeError,
    TooManyRequestsError,
    TributaryError,
    UnavailableError,
)

log = logging.getLogger(__name__)

# The only table of its kind; a subclass without a row shares that of its parent.
STATUS: dict[type[TributaryError], HTTPStatus] = {
    InvalidRequestError: HTTPStatus.UNPROCESSABLE_ENTITY,
    NotAuthenticatedError: HTTPStatus.UNAUTHORIZED,
    NotAllowedError: HTTPStatus.FORBIDDEN,
    NotFoundError: HTTPStatus.NOT_FOUND,
    ConflictError: HTTPStatus.CONFLICT,
    TooLargeError: HTTPStatus.CONTENT_TOO_LARGE,
    TooManyRequestsError: HTTPStatus.TOO_MANY_REQUESTS,
    UnavailableError: HTTPStatus.SERVICE_UNAVAILABLE,
    SourceError: HTTPStatus.BAD_GATEWAY,
    TributaryError: HTTPStatus.INTERNAL_SERVER_ERROR,
}
# What the framework refuses by itself, in our words.
_FRAMEWORK_CODES = {
    400: "malformed_request",
    404: NotFoundError.code,
    405: "method_not_allowed",
    413: TooLargeError.code,
    415: "unsupported_media_type",
}
LARGE_FILE_HINT = "Ask POST /api/import/uploads for an address and send the file there; it may be of any size"
PROBLEM_TYPE = "urn:problem-type:tributary:"
MEDIA_TYPE = "application/problem+json"
_RETRY_UNAVAILABLE_SECONDS = 5


class Problem(BaseModel):
    """What went wrong and what to do about it (RFC 9457)."""

    model_config = ConfigDict(json_schema_extra={"additionalProperties": False})

    type: str = Field(description="Stable name of the kind of problem", examples=[f"{PROBLEM_TYPE}not_found"])
    title: str = Field(description="The kind of problem in words", examples=["Not Found"])
    status: int = Field(ge=400, le=599, examples=[404])
    detail: str = Field(description="What is wrong with this request", examples=["There is no job with this id"])
    code: str = Field(description="The last part of `type`, for programs", examples=["not_found"])
    hint: str | None = Field(None, description="What to do", examples=["Ended jobs are removed after some days"])
    reason: str | None = Field(
        None, description="Of a refused file or a source that failed: a stable word", examples=["truncated"]
    )
    fields: dict[str, str] | None = Field(None, description="Parts of the request and what is wrong with each")
    instance: str = Field(description="Path of the request", examples=["/api/import/status/…"])
    trace_id: str = Field(description="Finds this request in the logs", examples=["4bf92f3577b34da6a3ce929d0e0e4736"])


def status_of(error: TributaryError) -> HTTPStatus:
    """The status of an error class, or of the nearest parent that has one."""
    return next(STATUS[each] for each in type(error).__mro__ if each in STATUS)


def register(app: FastAPI, routes: Sequence[BaseRoute]) -> None:
    """Answer every error of an app with a problem; `routes` are all it serves."""

    @app.exception_handler(TributaryError)
    async def known(request: Request, error: TributaryError) -> Response:
        return answer(request.scope, error)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        return answer(
            request.scope, InvalidRequestError("The request does not fit the schema", fields=_fields(error.errors()))
        )

    @app.exception_handler(HTTPException)
    async def framework(request: Request, error: HTTPException) -> Response:
        code = _FRAMEWORK_CODES.get(error.status_code, InvalidRequestError.code)
        hint = LARGE_FILE_HINT if error.status_code == HTTPStatus.CONTENT_TOO_LARGE else None
        problem = _problem(request.scope, HTTPStatus(error.status_code), code, str(error.detail), hint=hint)
        headers = dict(error.headers or {})
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            # The framework names the methods of the first route that fits, and a path may have several.
            headers["Allow"] = ", ".join(sorted(_methods_at(request.scope, routes)))
        return respond(problem, headers)


def answer(scope: Mapping[str, Any], error: Exception) -> Response:
    """The response to an error; one that nobody foresaw is logged and told apart by its trace id alone."""
    if not isinstance(error, TributaryError):
        log.error("Request failed", exc_info=error, extra={"action": "request_failed", "path": scope["path"]})
        error = TributaryError("Something went wrong here; the logs know it by this trace_id")
    status = status_of(error)
    problem = _problem(
        scope,
        status,
        error.code,
        error.detail,
        hint=error.hint or None,
        reason=_reason(error),
        fields=error.fields or None,
    )
    headers: dict[str, str] = {}
    if status is HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, TooManyRequestsError):
        headers["Retry-After"] = str(error.retry_after)
    elif isinstance(error, SourceError) and error.retry_at is not None:
        wait = (error.retry_at - datetime.now(UTC)).total_seconds()
        headers["Retry-After"] = str(max(1, math.ceil(wait)))
    elif error.retryable:
        headers["Retry-After"] = str(_RETRY_UNAVAILABLE_SECONDS)
    return respond(problem, headers)


def _reason(error: TributaryError) -> str | None:
    if isinstance(error, FileRefusedError):
        return error.reason
    return error.trouble if isinstance(error, SourceError) else None


def respond(problem: Problem, headers: Mapping[str, str] | None = None) -> Response:
    """A problem as a response."""
    content = orjson.dumps(problem.model_dump(exclude_none=True))
    return Response(content, problem.status, dict(headers or {}), MEDIA_TYPE)


def _problem(
    scope: Mapping[str, Any],
    status: HTTPStatus,
    code: str,
    detail: str,
    *,
    hint: str | None = None,
    reason: str | None = None,
    fields: dict[str, str] | None = None,
) -> Problem:
    return Problem(
        type=PROBLEM_TYPE + code,
        title=status.phrase,
        status=status,
        detail=detail,
        code=code,
        hint=hint,
        reason=reason,
        fields=fields,
        instance=scope["path"].encode("utf-8", "replace").decode(),
        trace_id=scope["state"].get("trace_id", ""),
    )


def _methods_at(scope: MutableMapping[str, Any], routes: Sequence[BaseRoute]) -> set[str]:
    fitting = [route for route in routes if isinstance(route, Route) and route.matches(scope)[0] is not Match.NONE]
    # A word in a path stands before the parameter that would take it too.
    return {method for route in fitting if route.path == fitting[0].path for method in route.methods or ()}


def _fields(errors: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Where → what; what was sent is not repeated, because it may be a secret."""
    return {_place(error): complaint(error) for error in errors}


def _place(error: Mapping[str, Any]) -> str:
    # Of a body that is not JSON the place is a number of characters.
    return "body" if error["type"] == "json_invalid" else ".".join(map(str, error["loc"][1:])) or "body"
