"""Records of trackers on their way into their tables: many new ones as lines for COPY, others as one JSON array."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from operator import attrgetter, itemgetter
from types import NoneType
from typing import Any, NamedTuple

import orjson

from shared.domain.nul import NUL, NUL_IN_JSON, storable
from shared.domain.stream import Stream
from shared.store.copying import BETWEEN, NULL, QUOTE

TABLES: Mapping[Stream, str] = {
    **{stream: stream.value for stream in Stream},
    Stream.HISTORY: "issue_history",
    Stream.USERS: "people",
}


class Row(NamedTuple):
    """A record on its way into its table; `values` are the fields of its model, `payload` is JSON."""

    external_id: str
    values: Mapping[str, Any]
    payload: bytes
    content_hash: bytes
    scope: str


def as_json(rows: Sequence[Row], tail: Mapping[str, str]) -> str:
    """Rows for jsonb_populate_recordset; `tail` are columns they all share. NULs, which trackers allow, are gone."""
    return storable(orjson.dumps([_complete(row, tail) for row in rows])).decode()


def as_lines(rows: Sequence[Row], columns: Sequence[str], tail: Mapping[str, str]) -> bytes | None:
    """Rows as COPY takes them: `columns` of their values, then payload, content_hash, scope and `tail`.

    In the order of their ids, so that two pages never wait for each other. None where a text holds a control character
    that would have to be taken out or escaped.
    """
    rows = sorted(rows, key=attrgetter("external_id"))
    # Column by column: a call for every field would cost more than the server saves.
    take = itemgetter(*columns)
    fields = list(zip(*(take(row.values) for row in rows), strict=True))
    heads = [BETWEEN.join(texts) for texts in zip(*map(_texts, fields), strict=True)]
    nulls = sum(values.count(None) for values in fields)
    if not _is_plain("".join([*heads, *{row.scope for row in rows}]), len(rows) * (len(columns) - 1), nulls):
        return None
    end = "".join(f"{BETWEEN}{value}" for value in tail.values())
    pieces: list[bytes] = []
    for row, head in zip(rows, heads, strict=True):
        behind = f"{BETWEEN}\\x{row.content_hash.hex()}{BETWEEN}{row.scope}{end}{QUOTE}\n"
        pieces += (f"{QUOTE}{head}{BETWEEN}".encode(), row.payload, behind.encode())
    lines = b"".join(pieces)
    return None if NUL_IN_JSON in lines else lines


def _is_plain(text: str, gaps: int, nulls: int) -> bool:
    """Whether there are no control characters in it but ours; JSON has none."""
    return text.count(QUOTE) == 2 * gaps and text.count(NULL) == nulls and NUL not in text


def _texts(values: Sequence[Any]) -> Sequence[str]:
    kinds = set(map(type, values)) - {NoneType}
    # Enumerations are texts as well.
    if all(issubclass(kind, str) for kind in kinds):
        return [NULL if value is None else value for value in values]
    if kinds <= {datetime, date}:
        # All at once takes a sixth of the time; there is no comma and no "null" in a time.
        return orjson.dumps(values).decode()[1:-1].replace('"', "").replace("null", NULL).split(",")
    write = _json if kinds <= {tuple, list, dict} else str
    return [NULL if value is None else write(value) for value in values]


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()


def _complete(row: Row, tail: Mapping[str, str]) -> dict[str, Any]:
    return {
        **row.values,
        **tail,
        "payload": orjson.Fragment(row.payload),
        "content_hash": f"\\x{row.content_hash.hex()}",
        "scope": row.scope,
    }
