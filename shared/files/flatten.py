"""JSON objects as cells: a path such as `author.login` is a column, a list of objects is the list of their names."""
# What JSON holds is known only at run time.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Mapping
from typing import Any

from shared.domain.adf import adf_to_markdown
from shared.files.fields import Cell

# What stands for an object where a word is wanted, in the trackers' own spellings.
_NAMES = ("name", "login", "display_value", "displayName", "username", "slug", "title", "key", "value", "email")
_TAG = {"key", "value"}
_MAX_DEPTH = 3


def paths(record: Mapping[str, Any], prefix: str = "", depth: int = 0) -> list[str]:
    """Every path of an object, in order, objects within down to a depth."""
    found: list[str] = []
    for key, value in record.items():
        path = f"{prefix}{key}"
        found.append(path)
        if isinstance(value, dict) and depth < _MAX_DEPTH:
            found += paths(value, f"{path}.", depth + 1)
    return found


def cell_at(record: Mapping[str, Any], path: str) -> Cell:
    """The value under a path as a cell; an empty string where there is none."""
    value: Any = record.get(path)
    if value is None and "." in path:
        value = record
        for step in path.split("."):
            value = value.get(step) if isinstance(value, dict) else None
    return _cell(value)


def _cell(value: Any) -> Cell:
    match value:
        case None:
            return ""
        case str():
            return value.replace("\0", "")
        case bool():
            return "true" if value else "false"
        case list():
            return [word for item in value if (word := _word(item))]
        case dict():
            return _word(value)
        case _:
            return str(value)


def _word(value: Any) -> str:
    if isinstance(value, dict):
        if value.get("type") == "doc" and isinstance(value.get("content"), list):
            return adf_to_markdown(value)
        if value.keys() == _TAG:
            return f"{value['key']}: {value['value']}"
        return next(
            (str(value[name]) for name in _NAMES if isinstance(value.get(name), str | int) and value[name] != ""), ""
        )
    if isinstance(value, list):
        return ", ".join(_word(item) for item in value)
    return "" if value is None else str(value).replace("\0", "")
