"""What is kept of a record beside its fields: the payload in the table, and what a rejection shows."""
# What JSON holds is known only at run time.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Sequence
from typing import Any

import orjson


def payload_names(header: tuple[str, ...]) -> tuple[list[str], dict[str, list[int]]]:
    """Names for the payload, unnamed columns numbered, and the positions of each name that occurs more than once."""
    names = [name.strip() or f"column {number}" for number, name in enumerate(header, 1)]
    positions: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        positions.setdefault(name, []).append(index)
    return names, {name: found for name, found in positions.items() if len(found) > 1}


def with_lists(names: Sequence[str], repeated: dict[str, list[int]], cells: Sequence[str]) -> dict[str, Any]:
    """The cells by name; a name that occurs more than once holds the list of its filled cells."""
    record: dict[str, Any] = dict(zip(names, cells, strict=False))
    for name, indices in repeated.items():
        record[name] = [cells[index] for index in indices if index < len(cells) and cells[index]]
    return record


def jsonb(record: dict[str, Any]) -> bytes:
    """JSON that PostgreSQL takes as jsonb: it knows no NUL."""
    text = orjson.dumps(record)
    return orjson.dumps(without_nul(record)) if b"\\u0000" in text else text


def without_nul(value: Any) -> Any:
    """The same value with the NULs left out of its texts."""
    match value:
        case str():
            return value.replace("\0", "")
        case list():
            return [without_nul(item) for item in value]
        case dict():
            return {key.replace("\0", ""): without_nul(item) for key, item in value.items()}
        case _:
            return value


def printable(value: str | None) -> str | None:
    r"""Text that any database and terminal takes: bytes that were no text become \xNN."""
    if value is None or value.isascii():
        return value
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
