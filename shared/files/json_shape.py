"""Find where the records of a JSON document lie and which paths they have."""
# What JSON holds is known only at run time.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import ijson  # pyright: ignore[reportMissingTypeStubs]

from shared.domain.errors import FileRefusedError
from shared.files.depth import JsonStream
from shared.files.flatten import paths
from shared.files.lines import loads
from shared.files.preset import normalize_header

_SAMPLE_RECORDS = 50
# Trackers leave out what is empty, so that a key may first appear late.
_MOST_RECORDS = 2_000
# Where exports put their array, tried in this order before any other key.
_USUAL_KEYS = ("records", "issues", "data", "items", "result", "results", "values", "incidents", "errors", "projects")

_IDS = frozenset({"id", "key", "number", "external id", "iid"})
_TITLES = frozenset({"title", "summary", "short description", "fields"})
_TELLTALE = _IDS | _TITLES | {"name"}


@dataclass(frozen=True)
class JsonShape:
    """`prefix` is ijson's address of the array's items, None for newline-delimited JSON; `sample` holds the first."""

    prefix: str | None
    paths: list[str]
    sample: list[dict[str, Any]]


def find_json_shape(text: str, *, whole: bool) -> JsonShape:
    """Raises FileRefusedError if there is no array of objects to be found."""
    # Not splitlines: U+2028 and its like are text in JSON.
    lines = [line for line in text.split("\n") if line.strip()]
    complete = lines if whole else lines[:-1] or lines
    if _is_line_by_line(complete):
        return _shape(None, _objects(complete[:_MOST_RECORDS]))
    prefix = _record_prefix(text) if whole else None
    if prefix is None:
        prefix = "item" if text.lstrip().startswith("[") else _list_prefix(text, whole=whole)
    sample = list(_items(text, prefix))
    if not sample:
        raise FileRefusedError("no_records", "The JSON holds no list of records", hint="See /api/import/schema")
    return _shape(prefix, sample)


def _record_prefix(text: str) -> str | None:
    """The address of the only record of a document: the empty one if it is a record itself, or that of its one object.

    Answers about a single record wrap it: `{"result": {…}}`.
    """
    document = loads(text.encode())
    if not isinstance(document, dict):
        return None
    if _is_record(document):
        return "" if _records_within(document) is None else None
    inner = {key: value for key, value in document.items() if isinstance(value, dict)}
    key = next(iter(inner), "")
    found = inner.get(key, {})
    alone = len(inner) == 1 and "." not in key
    return key if alone and _is_issue(found) and _records_within(found) is None else None


def _is_line_by_line(lines: list[str]) -> bool:
    """Whether most of the first lines are objects; of a single one, whether it is a record and not an envelope."""
    sample = lines[:_SAMPLE_RECORDS]
    if not sample or not sample[0].lstrip().startswith("{"):
        return False
    objects = [record for record in _objects(sample) if isinstance(record, dict)]
    if len(sample) > 1:
        return isinstance(loads(sample[0].encode()), dict) or len(objects) * 2 >= len(sample)
    return bool(objects) and _is_record(objects[0]) and _records_within(objects[0]) is None


def _is_record(document: Any) -> bool:
    """Whether an object is a record rather than an envelope: it has what identifies a record."""
    return isinstance(document, dict) and len(_TELLTALE & {normalize_header(key) for key in document}) > 1


def _is_issue(names: Iterable[str]) -> bool:
    """Whether something with these keys is an issue, not only something that has a name."""
    normal = {normalize_header(name) for name in names}
    return bool(_TITLES & normal and _IDS & normal)


def _records_within(document: dict[str, Any]) -> str | None:
    """The usual name under which an object holds a list of records: then it is their envelope, whatever else it has."""
    lists = {key: value for key, value in document.items() if isinstance(value, list) and value}
    return next((key for key in _USUAL_KEYS if key in lists and _is_record(lists[key][0])), None)


def _objects(lines: list[str]) -> Iterator[Any]:
    return (loads(line.encode()) for line in lines)


def _list_prefix(text: str, *, whole: bool) -> str:
    """The address of the array of records: one of the usual names, or the only one there is."""
    found, error = _lists(text)
    usual = [prefix for prefix in found if prefix.split(".")[-2] in _USUAL_KEYS]
    # Of `issues` and `issues.data` the outer one holds the records.
    best = min(usual, key=lambda prefix: prefix.count("."), default=None)
    if best is None and len(found) != 1:
        if not found and whole and error:
            raise _broken(error)
        several = f"The JSON has {len(found)} lists of objects, so it is not clear which holds the records"
        raise FileRefusedError(
            "no_records",
            several if found else "The JSON holds no list of records",
            hint="Put the records in one array, or one object a line; see /api/import/schema",
        )
    return best or found[0]


def _broken(error: str) -> FileRefusedError:
    if "premature EOF" in error:
        return FileRefusedError("truncated", "The JSON breaks off", hint="The file was cut off; export it again")
    return FileRefusedError(
        "invalid_json", f"This is no JSON: {error}", hint="Check it with a JSON validator, or export it again"
    )


def _lists(text: str) -> tuple[list[str], str]:
    """Addresses of the lists of objects in a document, and what broke its reading off.

    Those within other lists are none of records, nor are those within an issue, such as its labels.
    """
    found: dict[str, None] = {}
    keys: dict[str, set[str]] = {}
    error = ""
    try:
        for prefix, event, value in ijson.parse(JsonStream([text.encode()])):
            if event == "map_key" and ".item" not in prefix:
                keys.setdefault(prefix, set()).add(value)
            elif event == "start_map" and prefix.endswith(".item") and prefix.count(".item") == 1:
                found[prefix] = None
    except ijson.JSONError as failure:
        # The head of a large file ends in the middle.
        error = str(failure).split("\n", 1)[0].strip()
    issues = [f"{prefix}." for prefix, names in keys.items() if prefix and _is_issue(names)]
    return [prefix for prefix in found if not prefix.startswith(tuple(issues))], error


def _items(text: str, prefix: str) -> Iterator[Any]:
    try:
        for number, item in enumerate(ijson.items(JsonStream([text.encode()]), prefix)):
            yield item
            if number >= _MOST_RECORDS:
                return
    except ijson.JSONError:
        return


def _shape(prefix: str | None, records: Iterable[Any]) -> JsonShape:
    sample = [record for record in records if isinstance(record, dict)]
    found: dict[str, None] = {}
    for record in sample:
        found.update(dict.fromkeys(paths(record)))
    return JsonShape(prefix, list(found), sample)
