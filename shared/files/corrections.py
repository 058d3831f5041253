"""Rejected records on their way out to be mended, and back in.

A spreadsheet runs a cell that begins like a formula, so such cells leave with an apostrophe in front; on the way back
one apostrophe is taken off again, and every record returns as it was. Our own columns come first, because a row may
have more cells than the header.
"""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from shared.domain.rejection import Problem
from shared.files.layout import RESERVED_COLUMNS, Format, Layout
from shared.files.reader import Reader

# Plain numbers such as -5 cannot act and stay as they are.
_ACTIVE = re.compile(r"'*[=+\-@\t\r]")
_NUMBER = re.compile(r"[+-]?\d+(?:[.,]\d+)?")
_ID = "_rejection_id"


class Rejected(NamedTuple):
    """A rejection as a file shows it."""

    id: int
    row: int
    problems: Sequence[Problem]
    payload: Sequence[str] | Mapping[str, Any]


def csv_header(header: Sequence[str]) -> bytes:
    """The first line of a download; `header` is that of the file the records came in."""
    return _line([*RESERVED_COLUMNS, *_without_reserved(header, header)])


def csv_rows(header: Sequence[str], records: Iterable[Rejected]) -> bytes:
    """Lines of a download; `header` names the columns, or the keys to show of JSON objects."""
    out: list[bytes] = []
    for record in records:
        cells = [str(record.id), str(record.row), *_explain(record.problems)]
        if isinstance(record.payload, Mapping):
            cells += [_cell(record.payload.get(key)) for key in header]
        else:
            cells += _without_reserved(header, record.payload)
        out.append(_line(cells))
    return b"".join(out)


def json_columns(records: Iterable[Rejected]) -> list[str]:
    """Every key of the objects, in the order they first appear."""
    keys = {key: None for record in records if isinstance(record.payload, Mapping) for key in record.payload}
    return [key for key in keys if key not in RESERVED_COLUMNS]


def json_lines(header: Sequence[str], records: Iterable[Rejected]) -> bytes:
    """The same download as newline-delimited JSON, in which nested values keep their shape."""
    out: list[bytes] = []
    for record in records:
        reason, hint = _explain(record.problems)
        told = {_ID: record.id, "_row": record.row, "_reason": reason, "_hint": hint}
        out.append(orjson.dumps(told | _as_object(header, record.payload)) + b"\n")
    return b"".join(out)


def rebuild(layout: Layout, records: Iterable[Rejected], *, first: bool) -> bytes:
    """The stored records in the shape of the file they came in, each with the id of its rejection."""
    if layout.format is Format.NDJSON:
        return b"".join(orjson.dumps({_ID: record.id} | _as_object((), record.payload)) + b"\n" for record in records)
    out = [_line([_ID, *_without_reserved(layout.header, layout.header)], safe=False)] if first else []
    for record in records:
        cells = record.payload if not isinstance(record.payload, Mapping) else [*record.payload.values()]
        out.append(_line([str(record.id), *_without_reserved(layout.header, cells)], safe=False))
    return b"".join(out)


def read_corrections(chunks: Iterable[bytes], layout: Layout, *, as_json: bool) -> Iterator[bytes]:
    """A mended CSV without our columns but the id, and without the apostrophes; `as_json` for records that were JSON.

    `chunks` begin behind the header.
    """
    header = [_undo(name) for name in layout.header]
    at = header.index(_ID) if _ID in header else None
    names = _without_reserved(header, header)
    if not as_json:
        yield _line([_ID, *names], safe=False)
    for record in Reader(layout).records(chunks, layout.first_row):
        if not record.content:
            continue
        cells = [_undo(cell) for cell in record.content]
        identity = cells[at] if at is not None and at < len(cells) else ""
        kept = _without_reserved(header, cells)
        if as_json:
            yield orjson.dumps({_ID: identity} | _to_object(names, kept)) + b"\n"
        else:
            yield _line([identity, *kept], safe=False)


def _explain(problems: Sequence[Problem]) -> tuple[str, str]:
    reasons = [f"{problem.column}: {problem.reason}" if problem.column else problem.reason for problem in problems]
    return "; ".join(reasons), "; ".join(dict.fromkeys(problem.hint for problem in problems))


def _without_reserved(header: Sequence[str], cells: Sequence[str]) -> list[str]:
    if not any(name.strip() in RESERVED_COLUMNS for name in header):
        return list(cells)
    return [
        cell
        for index, cell in enumerate(cells)
        if index >= len(header) or header[index].strip() not in RESERVED_COLUMNS
    ]


def _as_object(header: Sequence[str], payload: Sequence[str] | Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(payload, Mapping):
        return {key: value for key, value in payload.items() if key not in RESERVED_COLUMNS}
    return _to_object(_without_reserved(header, header), _without_reserved(header, payload))


def _to_object(names: Sequence[str], cells: Sequence[str]) -> dict[str, Any]:
    """A row as an object: repeated columns become lists, cells that hold JSON are read, empty ones are left out."""
    found: dict[str, list[Any]] = {}
    for index, cell in enumerate(cells):
        if cell:
            name = names[index] if index < len(names) and names[index] else f"column {index + 1}"
            found.setdefault(name, []).append(_value(cell))
    return {name: values[0] if len(values) == 1 else values for name, values in found.items()}


def _value(cell: str) -> Any:
    if cell[0] in "[{":
        try:
            return orjson.loads(cell)
        except orjson.JSONDecodeError:
            return _text(cell)
    return _text(cell)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _text(cell: str) -> str:
    """Text without the halves of characters that bytes of another encoding leave behind."""
    return cell.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _safe(cell: str) -> str:
    return f"'{cell}" if _ACTIVE.match(cell) and not _NUMBER.fullmatch(cell) else cell


def _undo(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and _ACTIVE.match(cell) else cell


def _line(cells: Sequence[str], *, safe: bool = True) -> bytes:
    out = io.StringIO(newline="")
    csv.writer(out).writerow([_safe(cell) for cell in cells] if safe else cells)
    return out.getvalue().encode("utf-8", "surrogateescape")
