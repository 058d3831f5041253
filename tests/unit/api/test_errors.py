"""The table of errors, and the shape of a problem."""

import json
from typing import Any

import pytest

from shared.domain import errors as domain
from shared.domain.errors import FileRefusedError, TooManyRequestsError, TributaryError
from tests.support.api import answer, status_of

SCOPE: dict[str, Any] = {"path": "/api/import", "state": {"trace_id": "4bf92f3577b34da6a3ce929d0e0e4736"}}
EXPECTED = {
    "TributaryError": 500,
    "InvalidRequestError": 422,
    "FileRefusedError": 422,
    "NotAuthenticatedError": 401,
    "NotAllowedError": 403,
    "NotFoundError": 404,
    "ConflictError": 409,
    "TooLargeError": 413,
    "TooManyRequestsError": 429,
    "MisconfiguredError": 500,
    "SourceError": 502,
    "UnavailableError": 503,
    "DatabaseUnavailableError": 503,
    "StorageUnavailableError": 503,
}


def every_error() -> dict[str, type[TributaryError]]:
    found = {name: each for name, each in vars(domain).items() if isinstance(each, type)}
    return {name: each for name, each in found.items() if issubclass(each, TributaryError)}


def test_every_error_has_its_status() -> None:
    statuses = {name: int(status_of(each.__new__(each))) for name, each in every_error().items()}

    assert statuses == EXPECTED


def test_a_problem_says_what_is_wrong_and_what_to_do() -> None:
    response = answer(SCOPE, FileRefusedError("truncated", "It breaks off", hint="Export it again"))

    assert response.media_type == "application/problem+json"
    assert json.loads(response.body) == {
        "type": "urn:problem-type:tributary:file_refused",
        "title": "Unprocessable Content",
        "status": 422,
        "detail": "It breaks off",
        "code": "file_refused",
        "hint": "Export it again",
        "reason": "truncated",
        "instance": "/api/import",
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
    }


@pytest.mark.parametrize(
    ("error", "seconds"),
    [(TooManyRequestsError("Slower", retry_after=17), "17"), (domain.UnavailableError(), "5")],
    ids=["limit", "unavailable"],
)
def test_an_error_that_passes_says_when_to_come_back(error: TributaryError, seconds: str) -> None:
    assert answer(SCOPE, error).headers["Retry-After"] == seconds


def test_an_error_nobody_foresaw_shows_nothing_of_itself() -> None:
    response = answer(SCOPE, ValueError("password=hunter2"))

    assert response.status_code == 500
    assert b"hunter2" not in response.body
