"""Keyset paging: a cursor names the last item of a page, and clients do not look inside."""

import base64
import binascii
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import orjson
from fastapi import Query

from shared.domain.errors import InvalidRequestError

Limit = Annotated[int, Query(ge=1, le=200, description="Most items of one page")]
Cursor = Annotated[
    str | None,
    Query(max_length=1_000, description="`next_cursor` of the page before; pages begin behind it"),
]


def encode(*position: object) -> str:
    """A cursor for a position."""
    return base64.urlsafe_b64encode(orjson.dumps(position, default=str)).decode().rstrip("=")


def decode_time_and_id(cursor: str | None) -> tuple[datetime, UUID] | None:
    """The position in a list ordered by time and id."""
    if cursor is None:
        return None
    try:
        time, identity = _decode(cursor)
        at = datetime.fromisoformat(time)
        return at.astimezone(), UUID(identity)
    except (ValueError, TypeError, AttributeError, OverflowError) as error:
        raise _refused() from error


def decode_time_and_text(cursor: str | None) -> tuple[datetime, str] | None:
    """The position in a list ordered by time and a text."""
    if cursor is None:
        return None
    try:
        time, text = _decode(cursor)
        at = datetime.fromisoformat(time).astimezone()
    except (ValueError, TypeError, AttributeError, OverflowError) as error:
        raise _refused() from error
    if not isinstance(text, str) or "\0" in text:
        raise _refused()
    return at, text


def decode_id(cursor: str | None) -> int | None:
    """The position in a list ordered by number."""
    if cursor is None:
        return None
    try:
        (identity,) = _decode(cursor)
    except (ValueError, TypeError) as error:
        raise _refused() from error
    if not isinstance(identity, int) or not 0 <= identity < 2**63:
        raise _refused()
    return identity


def decode_text(cursor: str | None) -> str:
    """The position in a list ordered by a text; empty for the start."""
    if cursor is None:
        return ""
    try:
        (text,) = _decode(cursor)
    except (ValueError, TypeError) as error:
        raise _refused() from error
    if not isinstance(text, str) or "\0" in text:
        raise _refused()
    return text


def decode_issue(cursor: str | None) -> tuple[datetime, str, str] | None:
    """The position in the list of issues: time of change, source, id."""
    if cursor is None:
        return None
    try:
        time, source, identity = _decode(cursor)
        at = datetime.fromisoformat(time)
    except (ValueError, TypeError, AttributeError) as error:
        raise _refused() from error
    if at.tzinfo is None or not isinstance(source, str) or not isinstance(identity, str) or "\0" in source + identity:
        raise _refused()
    return at, source, identity


def _decode(cursor: str) -> list[Any]:
    try:
        position = orjson.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
    except (binascii.Error, UnicodeEncodeError) as error:
        raise _refused() from error
    if not isinstance(position, list):
        raise _refused()
    return position


def _refused() -> InvalidRequestError:
    return InvalidRequestError(
        "The cursor is not one of ours",
        hint="Take next_cursor of the page before, as it is, or leave it out",
        fields={"cursor": "unknown"},
    )
