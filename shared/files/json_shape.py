"""Find where the records of a JSON document lie and which paths they have."""
# What JSON holds is known only at run time.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import ijson  # pyright: ignore[reportMissingTypeStubs]

from shared.domain.errors import FileRefusedError
from shared.files.depth import JsonStream
from shared.files.flatten import paths
from shared.files.lines import loads
from shared.files.presets import normalize_header

_SAMPLE_RECORDS = 50
# Where exports put their array, tried in this order before any other key.
_USUAL_KEYS = ("records", "issues", "data", "items", "result", "results", "values", "incidents", "errors", "projects")

_TELLTALE = frozenset(
    {"id", "key", "number", "external id", "iid", "title", "summary", "short description", "name", "fields"}
)


@dataclass(frozen=True)
class JsonShape:
    """`prefix` is ijson's address of the array's items, None for newline-delimited JSON."""

    prefix: str | None
    paths: list[str]


def find_json_shape(text: str, *, whole: bool) -> JsonShape:
    """Raises FileRefusedError if there is no array of objects to be found."""
    # Not splitlines: U+2028 and its like are text in JSON.
    lines = [line for line in text.split("\n") if line.strip()]
    complete = lines if whole else lines[:-1] or lines
    if _is_line_by_line(complete):
        return JsonShape(None, _paths_of(_objects(complete)))
    prefix = _whole_prefix(text) if whole else None
    if prefix is None:
        prefix = "item" if text.lstrip().startswith("[") else _prefix(text)
    sample = list(_items(text, prefix))
    if not sample:
        raise FileRefusedError("no_records", "The JSON holds no list of objects", hint="See /api/import/schema")
    return JsonShape(prefix, _paths_of(sample))


def _whole_prefix(text: str) -> str | None:
    """The empty address of a document that is one record itself."""
    return "" if text.lstrip().startswith("{") and _is_record(text) else None


def _is_line_by_line(lines: list[str]) -> bool:
    """Whether most of the first lines are objects; of a single one, whether it is a record and not an envelope."""
    sample = lines[:_SAMPLE_RECORDS]
    if not sample or not sample[0].lstrip().startswith("{"):
        return False
    objects = [record for record in _objects(sample) if isinstance(record, dict)]
    if len(sample) > 1:
        return isinstance(loads(sample[0].encode()), dict) or len(objects) * 2 >= len(sample)
    return bool(objects) and (_is_record(sample[0]) or not _lists(sample[0]))


def _is_record(text: str) -> bool:
    """Whether a document is one record rather than an envelope: it has what identifies a record."""
    document = loads(text.encode())
    return isinstance(document, dict) and len(_TELLTALE & {normalize_header(key) for key in document}) > 1


def _objects(lines: list[str]) -> Iterator[Any]:
    return (loads(line.encode()) for line in lines)


def _prefix(text: str) -> str:
    """The address of the array of records: one of the usual names, or the only one there is."""
    found = _lists(text)
    usual = [prefix for prefix in found if prefix.split(".")[-2] in _USUAL_KEYS]
    # Of `issues` and `issues.data` the outer one holds the records.
    best = min(usual, key=lambda prefix: prefix.count("."), default=None)
    if best is None and len(found) != 1:
        raise FileRefusedError(
            "no_records",
            f"The JSON has {len(found)} lists of objects, so it is not clear which holds the records",
            hint="Put the records in one array, or one object a line; see /api/import/schema",
        )
    return best or found[0]


def _lists(text: str) -> list[str]:
    """Addresses of the lists of objects in a document, but for those within other lists."""
    found: dict[str, None] = {}
    try:
        for prefix, event, _ in ijson.parse(JsonStream([text.encode()])):
            if event == "start_map" and prefix.endswith(".item") and prefix.count(".item") == 1:
                found[prefix] = None
    except ijson.JSONError:
        # The head of a large file ends in the middle.
        pass
    return list(found)


def _items(text: str, prefix: str) -> Iterator[Any]:
    try:
        for number, item in enumerate(ijson.items(JsonStream([text.encode()]), prefix)):
            yield item
            if number >= _SAMPLE_RECORDS:
                return
    except ijson.JSONError:
        return


def _paths_of(records: Any) -> list[str]:
    found: dict[str, None] = {}
    for record in records:
        if isinstance(record, dict):
            found.update(dict.fromkeys(paths(record)))
    return list(found)
