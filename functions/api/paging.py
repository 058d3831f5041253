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
    Query(max_length=200, description="`next_cursor` of the page before; pages begin behind it"),
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
