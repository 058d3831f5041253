"""PostgreSQL knows no NUL, in texts or in JSON, and trackers and files allow it."""

from typing import Any, cast

import orjson

NUL, NUL_IN_JSON = "\x00", b"\\u0000"


def without_nul(value: Any) -> Any:
    """The same value with the NULs left out of its texts."""
    match value:
        case str():
            return value.replace(NUL, "")
        case list():
            return [without_nul(each) for each in cast("list[Any]", value)]
        case dict():
            named = cast("dict[str, Any]", value)
            return {name.replace(NUL, ""): without_nul(each) for name, each in named.items()}
        case _:
            return value


def storable(encoded: bytes) -> bytes:
    """JSON that a column of it takes."""
    return orjson.dumps(without_nul(orjson.loads(encoded))) if NUL_IN_JSON in encoded else encoded
