"""The predefined record: what a file has to look like so that nothing needs to be mapped."""

from typing import Any

from shared.domain.issue import ISSUE_FIELDS, PROJECT_FIELDS, Severity
from shared.domain.job import Kind
from shared.files.fields import MAX_ID_BYTES, MAX_TEXT_CHARS, MAX_TITLE_CHARS, MAX_WORD_CHARS

# Made by the import; a file that has them is not obeyed.
_DERIVED = frozenset({"status_category", "payload"})
_REQUIRED = {Kind.ISSUES: ("external_id", "title"), Kind.PROJECTS: ("name",)}

_WORD: dict[str, Any] = {"type": ["string", "null"], "maxLength": MAX_WORD_CHARS}
_TEXT: dict[str, Any] = {"type": ["string", "null"], "maxLength": MAX_TEXT_CHARS}
_WORDS: dict[str, Any] = {"type": ["array", "null"], "items": {"type": "string"}}
_TIME: dict[str, Any] = {"type": ["string", "null"], "format": "date-time"}
_LINK: dict[str, Any] = {"type": ["string", "null"], "format": "uri", "maxLength": 2 * MAX_TITLE_CHARS}
_SPECIAL: dict[str, dict[str, Any]] = {
    "external_id": {
        "type": "string",
        "minLength": 1,
        "maxLength": MAX_ID_BYTES,
        "description": "What the source knows the record by; the same id is the same record at the next import",
        "examples": ["PETREL-17"],
    },
    "title": {"type": "string", "minLength": 1, "maxLength": MAX_TITLE_CHARS, "examples": ["Crash while saving"]},
    "name": {"type": "string", "minLength": 1, "maxLength": MAX_WORD_CHARS, "examples": ["Dockside"]},
    "description": {**_TEXT, "description": "Markdown"},
    "stack_trace": _TEXT,
    "severity": {
        "type": ["string", "null"],
        "description": f"One of {', '.join(Severity)}, or a tracker's word for it; left out, priority decides",
        "examples": ["high"],
    },
    "labels": _WORDS,
    "components": _WORDS,
    "environment": {
        "type": ["object", "string", "null"],
        "description": "Where it happened: browser, build, machine",
        "examples": [{"browser": "firefox", "build": "2025.3"}],
    },
    "url": _LINK,
    "repository_url": _LINK,
    "due_on": {"type": ["string", "null"], "format": "date", "examples": ["2025-03-31"]},
    "story_points": {"type": ["number", "null"]},
    "estimate_seconds": {"type": ["integer", "string", "null"], "examples": [7200, "2h"]},
    "source_created_at": _TIME,
    "source_updated_at": {**_TIME, "description": "Of two versions of a record the later one stays"},
    "resolved_at": _TIME,
}


def record_schema(kind: Kind) -> dict[str, Any]:
    """JSON Schema of one record; other properties are allowed, and kept in the payload."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Issue" if kind is Kind.ISSUES else "Project",
        "description": "One record of a JSON array, one line of newline-delimited JSON, or one row of a CSV",
        "type": "object",
        "required": list(_REQUIRED[kind]),
        "properties": {field: _SPECIAL.get(field, _WORD) for field in _fields(kind)},
        "additionalProperties": True,
    }


def csv_template(kind: Kind) -> str:
    """The header line of a CSV that needs no mapping."""
    return ",".join(_fields(kind)) + "\r\n"


def _fields(kind: Kind) -> list[str]:
    every = ISSUE_FIELDS if kind is Kind.ISSUES else PROJECT_FIELDS
    return [field for field in every if field not in _DERIVED]
