"""Whole examples for the OpenAPI document, put together from those of the fields."""

from collections.abc import Iterator, Mapping
from typing import Any

# For fields that say nothing themselves, by their name; the second table is for names that mean several things.
_BY_NAME: dict[str, Any] = {
    "account": "Ada Vale",
    "advice": "Make a new token and store it with the connection",
    "assignee": "Ada Vale",
    "author": "Ada Vale",
    "base_url": "https://petrel.atlassian.net",
    "body": "Seen again this morning",
    "comment": "Looked at it on site",
    "components": ["conveyor"],
    "created_by": "key:bootstrap",
    "cron": "*/15 * * * *",
    "delimiter": ";",
    "deployment": "Cloud",
    "description": "The dock planner stops while a plan is saved",
    "detail": "The source answered 403 Forbidden",
    "encoding": "windows-1252",
    "extensions": [".csv"],
    "external_id": "PETREL-17",
    "failure_class": "AUTH_EXPIRED",
    "file": "external_id,title\r\nPETREL-17,Crash while saving\r\n",
    "header": ["Issue key", "Summary"],
    "import_source": "petrel-bugs",
    "key": "PETREL-17",
    "labels": ["q2"],
    "keys": ["PETREL-17"],
    "level": "warning",
    "links": {"status": {"method": "GET", "href": "/api/import/status/0b3e8c1e-58a5-4f0e-9d0b-0a4f6c1f2d11"}},
    "mapping": {"external_id": "Ticket no", "title": "Subject"},
    "message": "The connection was tested",
    "name": "Petrel",
    "next_cursor": "WzQ3MTFd",
    "origin": "api",
    "owner": "harbour-team",
    "parent": "PETREL-3",
    "paused_reason": "The token has expired",
    "payload": {"Issue key": "PETREL-17", "Summary": "Crash while saving"},
    "priority": "High",
    "project": "Petrel",
    "reporter": "Ivo Lind",
    "reason": "Three syncs in a row failed",
    "repository_url": "https://github.com/petrel/app",
    "requested_by": "key:0b3e8c1e-58a5-4f0e-9d0b-0a4f6c1f2d11",
    "resolution": "Fixed",
    "scope": "PETREL",
    "scope_name": "Petrel",
    "scopes": ["PETREL"],
    "severity": "high",
    "slug": "petrel",
    "source": "jira",
    "sprint": "Spring 2",
    "stack_trace": "ValueError: no such dock\n  at Dock.find (dock.py:17)",
    "state": "active",
    "status": "In Progress",
    "status_category": "in_progress",
    "stream": "issues",
    "time_zone": "Europe/Berlin",
    "title": "Crash while saving",
    "type": "Bug",
    "upload_url": "https://petrel.blob.core.windows.net/uploads/petrel-bugs/0b3e8c1e/bugs.csv?sig=…",
    "url": "https://petrel.atlassian.net/browse/PETREL-17",
    "warnings": ["Times without a zone are read as UTC"],
}
_JOB_ID = "0b3e8c1e-58a5-4f0e-9d0b-0a4f6c1f2d11"
_COUNTS = {
    "rows": 5120,
    "created": 118,
    "updated": 40,
    "unchanged": 4950,
    "stale": 2,
    "skipped": 0,
    "duplicates": 6,
    "rejected": 4,
}
_JOB: dict[str, Any] = {
    "state": "completed",
    "source": "bugzilla",
    "priority": "normal",
    "percent": 100,
    "counts": _COUNTS,
    "options": {"kind": "issues", "duplicates": "update", "atomic": False},
    "file_bytes": 2310044,
    "rows_total": 5120,
    "batches": {"total": 1, "done": 1, "failed": 0},
    "seconds": 0.8,
    "rows_per_second": 6400.0,
    "estimated_seconds_left": None,
    "attempt": 1,
    "retry_at": None,
    "cancel_requested": False,
    "error": None,
    "parent_id": None,
    "upload_expires_at": None,
}
_UPLOAD = {"file": "external_id,title\r\nPETREL-17,Crash while saving\r\n", "import_source": "petrel-bugs"}
_BY_SCHEMA: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("Body_import_import_file", "Body_import_preview", "Body_import_execute"), _UPLOAD),
    "Body_rejections_replay": {"date_order": "dmy"},
    "Connected": {"origin": "api"},
    "DismissRequest": {"ids": [4711, 4712]},
    "IssueDetails": {"deleted_at": None, "absence": None},
    "IssueRow": {"deleted_at": None, "absence": None},
    **dict.fromkeys(("JobView", "JobDetails"), _JOB),
    "PipelineState": {"paused": True},
    "Preview": {
        "counts": _COUNTS,
        "exact": True,
        "rows_examined": 5120,
        "sample": [{"external_id": "PETREL-17", "title": "Crash while saving", "status_category": "open"}],
        "problems": [],
        "seconds": 0.4,
    },
    "Rejection": {"payload": ["PETREL-17", ""], "state": "open", "replay_job_id": None},
    "RejectionList": {"by_state": {"open": 4, "replayed": 0, "dismissed": 0}},
    "RetryRequest": {"job_ids": [_JOB_ID]},
    "StatsView": {
        "jobs": {"queued": 0, "processing": 1, "retrying": 0, "completed": 41, "failed": 2, "cancelled": 0},
        "paused": False,
        "concurrency": 3,
        "running": 1,
        "queued": 0,
        "failed": 2,
        "rejections_open": 4,
    },
    "Tool": {"source": "csv", "title": "CSV", "description": "Exports of trackers and spreadsheets"},
    "TrackerImport": {"connection": "petrel", "keys": ["PETREL-17", "PETREL-18"]},
    "UploadOptions": {"duplicates": "update"},
}
_FORMATS = {"date-time": "2025-03-31T14:05:00Z", "date": "2025-03-31", "uuid": _JOB_ID}
_NOTHING_KNOWN = "text"  # better is an example of the field's own, or one for its name above
_TYPES: dict[str, Any] = {"integer": 3, "number": 1.5, "boolean": True, "null": None}


def add_examples(document: dict[str, Any]) -> None:
    """Give every body of a request and of a good answer an example, where it has none."""
    schemas = document["components"]["schemas"]
    for body in _bodies(document):
        if "example" not in body and "schema" in body:
            body["example"] = _example(body["schema"], schemas)


def _bodies(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for operations in document["paths"].values():
        for operation in operations.values():
            yield from operation.get("requestBody", {}).get("content", {}).values()
            for status, response in operation["responses"].items():
                if status.startswith("2"):
                    yield from response.get("content", {}).values()


def _example(schema: Mapping[str, Any], schemas: Mapping[str, Any], name: str = "") -> Any:
    """The schema's own example, else one made of what it consists of."""
    if "example" in schema or schema.get("examples"):
        return schema.get("example", schema.get("examples", [None])[0])
    if "$ref" in schema:
        return _of_component(schema["$ref"].rsplit("/", 1)[-1], schemas, name)
    choices = next((schema[choice] for choice in ("anyOf", "oneOf", "allOf") if choice in schema), None)
    if choices:
        return _example(choices[0], schemas, name)
    if schema.get("type") == "object" or "properties" in schema:
        return _of_object(schema, schemas, {}, name)
    if schema.get("type") == "array" and not isinstance(_BY_NAME.get(name), list):
        return [_example(schema["items"], schemas, name)]
    return _of_value(schema, name)


def _of_component(component: str, schemas: Mapping[str, Any], name: str) -> Any:
    schema = schemas[component]
    if "properties" in schema:
        return _of_object(schema, schemas, _BY_SCHEMA.get(component, {}), name)
    return _example(schema, schemas, name)


def _of_object(schema: Mapping[str, Any], schemas: Mapping[str, Any], known: Mapping[str, Any], name: str) -> Any:
    if "properties" not in schema:
        found = _BY_NAME.get(name)
        if isinstance(found, dict):
            return found
        inner = schema.get("additionalProperties")
        return {name or "status": _example(inner, schemas)} if isinstance(inner, dict) and inner else {}
    required = schema.get("required", ())
    return {
        field: known[field] if field in known else _example(inner, schemas, field)
        for field, inner in schema["properties"].items()
        # Where somebody chose what to show, the rest is left out if it may be.
        if not known or field in known or field in required
    }


def _of_value(schema: Mapping[str, Any], name: str) -> Any:
    if "enum" in schema or "const" in schema:
        return schema.get("const", schema.get("enum", [None])[0])
    if schema.get("type") not in {"string", "array"}:
        return schema.get("default", _TYPES.get(schema.get("type", "null")))
    if schema.get("format") in _FORMATS:
        return _FORMATS[schema["format"]]
    return schema.get("default") or _BY_NAME.get(name, _NOTHING_KNOWN)
