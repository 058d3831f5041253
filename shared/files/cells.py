"""Where in a record the cell of a field is: of several columns that fit, the first that is filled, or all of a list."""
# What JSON holds is known only at run time.
# pyright: reportUnknownArgumentType=false

from collections.abc import Iterator, Sequence
from typing import Any

from shared.files.fields import Cell
from shared.files.flatten import cell_at
from shared.files.layout import Format, Layout


class Places:
    """The columns of one field, the preferred one first; in a CSV several columns may have one name."""

    def __init__(self, layout: Layout, field: str, *, every: bool, nothing: frozenset[str]) -> None:
        self._columns = layout.columns.get(field, ())
        self._csv = layout.format is Format.CSV
        self.indices: tuple[int, ...] = layout.indices(field) if self._csv else ()
        self._repeats = [layout.header.count(column) for column in self._columns] if self._csv else []
        self._every = every
        self._nothing = nothing

    def __bool__(self) -> bool:
        return bool(self._columns)

    def cell(self, content: Any) -> Cell:
        """What a record has for the field; an empty text if nothing."""
        if not self._csv:
            return self._choose([cell_at(content, path) for path in self._columns])
        return self.choose([content[index] for index in self.indices if index < len(content)])

    def choose(self, cells: Sequence[str]) -> Cell:
        """What counts of the cells at `indices`."""
        return cells[0] if len(cells) == len(self.indices) == 1 else self._choose(self._grouped(cells))

    def name(self, content: Any = None) -> str | None:
        """The column a record's cell comes from, or would be looked for first."""
        if content is None or len(self._columns) < 2:
            return self._columns[0] if self._columns else None
        if self._csv:
            cells = self._grouped([content[index] for index in self.indices if index < len(content)])
        else:
            cells = [cell_at(content, path) for path in self._columns]
        pairs = zip(self._columns, cells, strict=False)
        return next((column for column, cell in pairs if self._is_filled(cell)), self._columns[0])

    def _choose(self, cells: Sequence[Cell]) -> Cell:
        if self._every and len(self._columns) > 1:
            return [part for cell in cells for part in _parts(cell)]
        return next((cell for cell in cells if self._is_filled(cell)), "")

    def _grouped(self, cells: Sequence[str]) -> list[Cell]:
        """The cells by the name of their column."""
        rest: Iterator[str] = iter(cells)
        groups = [[cell for _, cell in zip(range(count), rest, strict=False)] for count in self._repeats]
        return [
            group[0] if len(group) == 1 == count else group for group, count in zip(groups, self._repeats, strict=True)
        ]

    def _is_filled(self, cell: Cell) -> bool:
        return any(part.strip() and part not in self._nothing for part in _parts(cell))


def _parts(cell: Cell) -> Sequence[str]:
    return [cell] if isinstance(cell, str) else cell
