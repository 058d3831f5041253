"""What an export looks like: by which headers it is recognized, and which of its columns fill our fields.

Header names are compared as normalize_header leaves them; of JSON they are dotted paths, lists and objects reduced to
names by the reader. `status_category` is in no preset, because it always follows from the status.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from shared.domain.job import DateOrder

_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_GAP = re.compile(r"[\s_-]+")
_QUOTES = str.maketrans("", "", '\ufeff"“”')


class Markup(StrEnum):
    """How a tracker writes its descriptions."""

    WIKI = "wiki"
    HTML = "html"


@dataclass(frozen=True)
class Preset:
    """One export format. It is recognized if all headers of one of its signatures are there."""

    name: str
    source: str
    signatures: tuple[frozenset[str], ...]
    columns: Mapping[str, tuple[str, ...]]  # our field → its column, the preferred name first
    lists: frozenset[str] = frozenset({"labels", "components"})  # fields read from every column that fits
    fallback: bool = True  # other fields are read from the next column that fits where the preferred one is empty
    separators: Mapping[str, str] = field(default_factory=dict[str, str])
    nothing: frozenset[str] = frozenset()  # values that stand for an empty cell
    date_order: DateOrder | None = None
    markup: Markup | None = None  # what descriptions are written in, unless it is Markdown or plain text
    marks: Mapping[str, str] = field(default_factory=dict[str, str])  # path of JSON → the type of a record that has it
    caps: tuple[int, ...] = ()  # numbers of rows at which the tracker cuts its exports off


def normalize_header(text: str) -> str:
    """`createdAt`, `Created_At` and ` "created at"` are one name: `created at`. Dots stay, they are JSON paths."""
    spaced = _HUMP.sub(" ", text.translate(_QUOTES).strip().strip("'"))
    return _GAP.sub(" ", spaced).strip().lower()


def signatures(*groups: str) -> tuple[frozenset[str], ...]:
    return tuple(frozenset(split(group)) for group in groups)


def split(names: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in names.split("|"))


def columns(**names: str) -> dict[str, tuple[str, ...]]:
    return {name: split(candidates) for name, candidates in names.items()}
