"""Records with sensible values; a test states only what matters to it."""

import json
from hashlib import blake2b
from typing import NamedTuple
from uuid import UUID

from shared.domain.issue import ISSUE_FIELDS
from shared.store.records import copy_lines

JOB_ID = UUID("00000000-0000-4000-8000-00000000000a")


class Issue(NamedTuple):
    """A normalized issue as the write path takes it."""

    values: tuple[str | None, ...]
    payload: bytes


def issue_values(external_id: str, **over: str | None) -> Issue:
    """One normalized issue; `payload` may be given as JSON text."""
    values: dict[str, str | None] = {
        "external_id": external_id,
        "key": external_id,
        "title": f"Title of {external_id}",
        "status": "Open",
        "status_category": "open",
        "labels": "[]",
        "components": "[]",
        "source_updated_at": "2025-03-01T10:00:00+00:00",
        **over,
    }
    values.setdefault("payload", json.dumps({"Summary": values["title"], "Status": values["status"]}))
    return Issue(tuple(values.get(field) for field in ISSUE_FIELDS), (values["payload"] or "").encode())


def hash_of(issue: Issue) -> bytes:
    """A stand-in for the hash of the record as it came."""
    return blake2b(repr(issue).encode(), digest_size=16).digest()


def issue_lines(*issues: Issue, source: str = "shop", job_id: UUID = JOB_ID) -> bytes:
    """COPY lines of issues."""
    return copy_lines(issues, [hash_of(issue) for issue in issues], job_id, source)
