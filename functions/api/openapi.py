"""The parts of the OpenAPI document that FastAPI does not write by itself: problems, headers, the description."""

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from functions.api.errors import MEDIA_TYPE, PROBLEM_TYPE, Problem
from functions.api.examples import add_examples

_EXAMPLES: dict[int, tuple[str, str, str]] = {  # status → code, detail, hint
    400: ("malformed_request", "There was an error parsing the body", "Send multipart/form-data with a boundary"),
    401: ("not_authenticated", "No credentials were sent", "Send an access token or an API key as X-API-Key"),
    403: (
        "not_allowed",
        "This call needs the role operator, and nightly export has the role reader",
        "Ask an administrator for a key or an app role that has it",
    ),
    404: ("not_found", "There is no job with this id", "Ended jobs are removed after some days"),
    409: ("conflict", "The job has ended already: it is completed", ""),
    413: (
        "too_large",
        "The body is larger than this call accepts",
        "Ask POST /api/import/uploads for an address and send the file there; it may be of any size",
    ),
    422: ("invalid_request", "The request does not fit the schema", ""),
    429: ("too_many_requests", "More than 100 requests in a minute: try again in 17 s", ""),
    500: ("internal_error", "Something went wrong here; the logs know it by this trace_id", ""),
    502: ("source_error", "The source answered 401 Unauthorized", "Check the address, the account and the token"),
    503: ("database_unavailable", "The database does not answer", ""),
}
_WHEN = {
    400: "The body cannot be parsed",
    401: "No valid credentials",
    403: "The caller lacks the role",
    404: "There is no such thing",
    409: "The present state of things does not allow it",
    413: "The body is too large",
    422: "A part of the request is not understood, or a file is refused",
    429: "Too many requests in this minute",
    500: "A fault of ours",
    502: "The tracker refused or failed; `reason` is the class of trouble",
    503: "A part we need is out of reach for now",
}
_RETRY_AFTER = {"Retry-After": {"description": "Seconds to wait", "schema": {"type": "integer"}}}
# What is wrong with a record is a Problem too, so that errors have the name RFC 9457 gives them.
_PROBLEM = "ProblemDetails"
_TRUTH = ["true", "false", "1", "0", "yes", "no", "on", "off", "y", "n", "t", "f"]
_ALWAYS = (401, 403, 429, 500, 503)

DESCRIPTION = """
Brings issues, defects, incidents and errors from files and trackers into one PostgreSQL database.

**Import a file** with one call, `POST /api/import`, and follow its job at `GET /api/import/status/{job_id}`. Larger
files than 50 MB go straight to the storage: `POST /api/import/uploads` gives an address for them.

**Connect a tracker** with `POST /api/integrations`, test it at `POST /api/integrations/{slug}/test`, and it is synced
from then on.

**Credentials**: an Entra ID access token as `Authorization: Bearer …`, or an API key as `X-API-Key`. Roles include each
other: *reader* sees, *operator* imports and syncs, *admin* manages connections, keys and the pipeline.

**Limits**: 100 requests a minute for each caller; the headers `RateLimit-Limit`, `RateLimit-Remaining` and
`RateLimit-Reset` tell what is left.

**Errors** are problems in the sense of RFC 9457 (`application/problem+json`) with a stable `code`, mostly with a `hint`
that says what to do, and always with the `trace_id` by which the logs know the request.

**Links** in an answer name what can be done next.
""".strip()


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The documented errors of a call: these, and those every call may have."""
    return {status: _response(status) for status in sorted({*statuses, *_ALWAYS})}


def _response(status: int) -> dict[str, Any]:
    code, detail, hint = _EXAMPLES[status]
    example = {
        "type": PROBLEM_TYPE + code,
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
        **({"hint": hint} if hint else {}),
        "instance": "/api/import",
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
    }
    schema = {"$ref": f"#/components/schemas/{_PROBLEM}"}
    described: dict[str, Any] = {
        "description": _WHEN[status],
        "content": {MEDIA_TYPE: {"schema": schema, "example": example}},
    }
    if status in {429, 503}:
        described["headers"] = _RETRY_AFTER
    return described


def describe(app: FastAPI) -> dict[str, Any]:
    """The whole document, made once."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title,
            version=app.version,
            description=app.description,
            routes=app.routes,
            tags=app.openapi_tags,
        )
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        schemas[_PROBLEM] = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        _allow_blank_fields(schemas)
        _add_json_import(document, schemas)
        add_examples(document)
        app.openapi_schema = document
    return app.openapi_schema


def _add_json_import(document: dict[str, Any], schemas: dict[str, Any]) -> None:
    """`POST /api/import` takes a form with a file, or JSON that names a connection."""
    operation = document["paths"]["/api/import"]["post"]
    operation["summary"] = "Import a file, or from a connection"
    schema = {"$ref": "#/components/schemas/TrackerImport"}
    if "TrackerImport" in schemas:
        operation["requestBody"]["content"]["application/json"] = {"schema": schema}
        operation["responses"] |= {str(status): _response(status) for status in (404, 409)}


def _allow_blank_fields(schemas: dict[str, Any]) -> None:
    """A browser sends the fields of a form that were left blank as empty texts; they count as left out."""
    for name, schema in schemas.items():
        for field in schema.get("properties", {}).values() if name.startswith("Body_") else ():
            if {"type": "null"} in field.get("anyOf", ()):
                field["anyOf"].append({"type": "string", "maxLength": 0})
            if {"type": "boolean"} in field.get("anyOf", ()):
                # In a form it is a text, and these are understood.
                field["anyOf"].append({"type": "string", "enum": _TRUTH})
