"""Convert the cells of many CSV records at once, column by column.

A call for every cell is what a load would spend most of its time on; by columns, most cells cost one look-up. Nothing
is judged here: records in which any cell is broken are only named, and `Reader` reads them singly and says what is
wrong.
"""

from collections.abc import Collection, Sequence
from typing import NamedTuple

from shared.files.fields import Cell, Convert, FieldError

# Fields of few different values: what a cell came to is remembered.
_REPETITIVE = frozenset(
    {
        "type",
        "status",
        "priority",
        "severity",
        "assignee",
        "reporter",
        "labels",
        "components",
        "project",
        "sprint",
        "story_points",
    }
)
_MEMO_CELLS = 4096
# Stands for a cell that is broken. Should a good one come to the same, its record is merely read singly, too.
_BROKEN = "\x1d"


class Wanted(NamedTuple):
    """A field, its place among the values of a record, the columns of the file it is read from, and how."""

    position: int
    field: str
    columns: tuple[int, ...]
    convert: Convert


class Columns:
    """Converts slices of records that are all as wide as the header."""

    def __init__(self, blank: Sequence[str | None], wanted: Sequence[Wanted], nothing: Collection[str]) -> None:
        self._blank = blank
        self._rules = [
            (each.position, each.columns, (_Memo if each.field in _REPETITIVE else _Rule)(each.convert, nothing))
            for each in wanted
        ]

    def convert(self, records: Sequence[Sequence[str]]) -> tuple[list[list[str | None]], set[int]]:
        """The values of each record, and the positions of the records that have to be read singly."""
        if not records:
            return [], set()
        cells = list(zip(*records, strict=True))
        converted: list[Sequence[str | None]] = [[value] * len(records) for value in self._blank]
        broken: set[int] = set()
        for position, columns, rule in self._rules:
            if len(columns) == 1:
                values = rule.apply(cells[columns[0]])
            else:
                values = rule.apply_lists([cells[column] for column in columns])
            if rule.failed:
                rule.failed = False
                broken.update(index for index, value in enumerate(values) if value == _BROKEN)
            default = self._blank[position]
            converted[position] = values if default is None else [value or default for value in values]
        return list(map(list, zip(*converted, strict=True))), broken


class _Rule:
    """A converter that marks the cells it refuses; `failed` says that there were some."""

    def __init__(self, convert: Convert, nothing: Collection[str]) -> None:
        self.failed = False
        self._convert = convert
        self._nothing = nothing

    def apply(self, cells: Sequence[str]) -> list[str | None]:
        """Values of a column."""
        one = self._one
        return [one(cell) if cell else None for cell in cells]

    def apply_lists(self, columns: Sequence[Sequence[str]]) -> list[str | None]:
        """Values of several columns that are one field."""
        return [self._one(list(cells)) for cells in zip(*columns, strict=True)]

    def _one(self, cell: Cell) -> str | None:
        if isinstance(cell, str) and cell in self._nothing:
            return None
        try:
            return self._convert(cell)
        except FieldError:
            self.failed = True
            return _BROKEN


class _Memo(_Rule):
    """A rule that remembers what cells came to, broken ones excepted."""

    def __init__(self, convert: Convert, nothing: Collection[str]) -> None:
        super().__init__(convert, nothing)
        self._known = _Known(self._one)

    def apply(self, cells: Sequence[str]) -> list[str | None]:
        return list(map(self._known.__getitem__, cells))


class _Known(dict[str, str | None]):
    def __init__(self, convert: Convert) -> None:
        super().__init__({"": None})
        self._convert = convert

    def __missing__(self, cell: str) -> str | None:
        value = self._convert(cell)
        if len(self) < _MEMO_CELLS and value != _BROKEN:
            self[cell] = value
        return value
