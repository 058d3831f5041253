"""From the bytes of a record to a row of the table, or to the reasons why not. Compiled once from a Layout."""
# What JSON holds is known only at run time.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import orjson

from shared.domain.issue import ISSUE_FIELDS, PROJECT_FIELDS
from shared.domain.job import Kind
from shared.domain.rejection import Problem
from shared.files import fields
from shared.files.addresses import without_credentials
from shared.files.cells import Places
from shared.files.columns import Columns, Wanted
from shared.files.converters import converters
from shared.files.cut import ASCII_COMPATIBLE
from shared.files.derive import Derive
from shared.files.fields import Cell, Convert, FieldError
from shared.files.identity import identity_finder
from shared.files.layout import DATE_FIELDS, RESERVED_COLUMNS, Format, Layout
from shared.files.lines import Record, csv_records, decode_lines, dialect, json_records
from shared.files.payload import jsonb, payload_names, printable, with_lists, without_nul
from shared.files.presets import PRESETS
from shared.files.recode import recode_cell, recode_row
from shared.files.remarks import Remarks

_SHOWN_CHARS = 200
MAX_RECORD_BYTES = 16 * 1024 * 1024
_NO_ID = "missing_id"
# Joins records that are decoded together; a record that holds it is read singly.
_BETWEEN = b"\x1e"
# With one of these in it, a cell has to be parsed.
_ODD_IN_ID = re.compile(rb'["\\\0]')
# Fewer records than this are read one by one: going by columns has a price of its own.
_TOGETHER = 16
# Records read at a time: few enough to stay in the processor's cache, which is worth a quarter.
_SLICE = 256


class NormalizedRecord(NamedTuple):
    """A record that may be stored: `values` are COPY texts in the order of the table's fields, `payload` is JSON."""

    row: int
    external_id: str
    values: tuple[str | None, ...]
    payload: bytes
    rejection_id: int | None


class BrokenRecord(NamedTuple):
    """A record that may not, with every problem found; `payload` is what came: cells in header order, or the object."""

    row: int
    external_id: str | None
    problems: tuple[Problem, ...]
    payload: Any
    rejection_id: int | None


class Reader:
    """Reads the records of one file."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._csv = layout.format is Format.CSV
        self._fields = ISSUE_FIELDS if layout.kind is Kind.ISSUES else PROJECT_FIELDS
        self._position = {field: position for position, field in enumerate(self._fields)}
        self._preset = next(preset for preset in PRESETS if preset.name == layout.preset)
        self.remarks = Remarks()
        self._columns = self._find_columns()
        self._identity = identity_finder(layout, self._columns, self._preset.nothing)
        convert = converters(layout, self._preset)
        self._wanted = [
            (self._position[field], field, places, convert[field])
            for field, places in self._columns.items()
            if places and field != "external_id"
        ]
        self._blank: list[str | None] = ["[]" if name in {"labels", "components"} else None for name in self._fields]
        self._names, self._repeated = payload_names(layout.header)
        self._reserved = [name for name in RESERVED_COLUMNS if name in self._names]
        self._rejection_column = _index_of(layout.header, "_rejection_id")
        self._derive = Derive(self._preset.source)
        self._complete = self._complete_issue if layout.kind is Kind.ISSUES else self._complete_project
        by_columns = self._csv and not self._reserved and layout.encoding in ASCII_COMPATIBLE
        self._by_columns = self._compile_columns() if by_columns else None

    def records(self, chunks: Iterable[bytes], first_row: int) -> Iterator[Record]:
        """Cut a stream that starts at a record into records."""
        if self._csv:
            return csv_records(chunks, self._layout, first_row)
        return json_records(chunks, first_row)

    def identity(self, content: Any) -> str | None:
        """The external id of a record's content, as `normalize` gives it; None where there is none or it is broken."""
        try:
            return self._identity(content)
        except FieldError:
            return None

    def normalize(
        self, raws: Sequence[bytes], rows: Sequence[int]
    ) -> tuple[list[NormalizedRecord], list[BrokenRecord]]:
        """Turn raw records into rows of the table; every record ends in one of the two lists."""
        good: list[NormalizedRecord] = []
        broken: list[BrokenRecord] = []
        for start in range(0, len(raws), _SLICE):
            for result in self._read_slice(raws[start : start + _SLICE], rows[start : start + _SLICE]):
                if isinstance(result, NormalizedRecord):
                    good.append(result)
                else:
                    broken.append(result)
        return good, broken

    def _read_slice(self, raws: Sequence[bytes], rows: Sequence[int]) -> Iterator[NormalizedRecord | BrokenRecord]:
        if self._by_columns and len(raws) >= _TOGETHER and (records := self._plain_cells(raws)):
            return self._read_together(self._by_columns, rows, raws, records)
        return (self._read(*each) for each in zip(rows, raws, self._contents(raws), strict=True))

    @property
    def layout(self) -> Layout:
        """What this reader was compiled from."""
        return self._layout

    @property
    def identity_column(self) -> int | None:
        """The only CSV column the id is read from, if there is just one."""
        indices = self._columns["external_id"].indices
        single = self._csv and self._layout.kind is Kind.ISSUES and len(indices) == 1
        return indices[0] if single else None

    def identities_in_cells(self, cells: Sequence[bytes]) -> list[str | None]:
        """The external ids in the raw bytes of their cells, as `identity` gives them for the parsed records."""
        joined = _BETWEEN.join(cells)
        if _ODD_IN_ID.search(joined) or joined.count(_BETWEEN) >= len(cells) or not joined.isascii():
            return list(map(self._identity_in_cell, cells))
        nothing, identity = self._preset.nothing, fields.identity
        try:
            found = map(identity, joined.decode("ascii").split(_BETWEEN.decode()))
            return [None if each in nothing else each for each in found]
        except FieldError:
            return list(map(self._identity_in_cell, cells))

    def _identity_in_cell(self, cell: bytes) -> str | None:
        text = cell.decode(self._layout.encoding, "surrogateescape")
        if _ODD_IN_ID.search(cell):
            lines = decode_lines(cell.splitlines(keepends=True), self._layout.encoding)
            text = "".join(next(csv.reader(lines, **dialect(self._layout)), [""])[:1])
        try:
            found = fields.identity(recode_cell(text, self._layout.other_encoding))
        except FieldError:
            return None
        return None if found in self._preset.nothing else found

    def dates(self, content: Any) -> Iterator[str]:
        """The cells of a record that hold dates, as they came."""
        for field in DATE_FIELDS:
            if content and (places := self._columns.get(field)):
                cell = places.cell(content)
                yield from [cell] if isinstance(cell, str) else cell

    def sample(self, values: Sequence[str | None]) -> dict[str, Any]:
        """A normalized record as a person wants to see it: field → value, JSON decoded."""
        decoded = {"labels", "components", "environment"}
        return {
            field: orjson.loads(value) if value is not None and field in decoded else value
            for field, value in zip(self._fields, values, strict=True)
        }

    def _find_columns(self) -> dict[str, Places]:
        lists, nothing = self._preset.lists, self._preset.nothing
        return {field: Places(self._layout, field, every=field in lists, nothing=nothing) for field in self._fields}

    def _contents(self, raws: Sequence[bytes]) -> Iterator[Any]:
        if not self._csv:
            # Blank lines travel with the record behind them.
            yield from (record.content for record in json_records(raws, 1) if record.content != [])
            return
        # A record may be handed over whole: its line ends stand in quotes, but for the last, and for blank lines above.
        lines = decode_lines([raw.lstrip(b"\r\n") for raw in raws], self._layout.encoding)
        yield from self._rows(raws, lines)

    def _rows(self, raws: Sequence[bytes], lines: list[str]) -> Iterator[list[str]]:
        """The cells of each record; all at once, and singly only where lines of empty cells stand above one."""
        try:
            rows = [cells for cells in csv.reader(lines, **dialect(self._layout)) if cells]
        except csv.Error:
            rows = []
        if len(rows) == len(raws):
            yield from rows
            return
        for raw in raws:
            single = decode_lines(raw.splitlines(keepends=True), self._layout.encoding)
            yield [cells for cells in csv.reader(single, **dialect(self._layout)) if cells][-1]

    def _compile_columns(self) -> Columns:
        """What reads slices of records by columns; of several columns the one that counts is chosen first."""

        def chosen(places: Places, convert: Convert) -> Convert:
            return lambda cells: convert(places.choose(cells)) if isinstance(cells, list) else convert(cells)

        wanted = [
            Wanted(position, field, places.indices, convert if len(places.indices) == 1 else chosen(places, convert))
            for position, field, places, convert in self._wanted
        ]
        return Columns(self._blank, wanted, self._preset.nothing)

    def _plain_cells(self, raws: Sequence[bytes]) -> list[list[str]]:
        """The cells of records in which nothing is odd but perhaps a value; empty if one must be looked at closely."""
        if max(map(len, raws)) > MAX_RECORD_BYTES:
            return []
        try:
            text = _BETWEEN.join([raw.lstrip(b"\r\n") for raw in raws]).decode(self._layout.encoding)
            lines = text.replace("\0", "").split(_BETWEEN.decode())
            records = [cells for cells in csv.reader(lines, **dialect(self._layout)) if cells]
        except (UnicodeDecodeError, csv.Error):
            return []
        return records if len(records) == len(raws) == len(lines) else []

    def _read_together(
        self, by_columns: Columns, rows: Sequence[int], raws: Sequence[bytes], records: list[list[str]]
    ) -> Iterator[NormalizedRecord | BrokenRecord]:
        width = len(self._layout.header)
        even = [position for position, cells in enumerate(records) if len(cells) == width]
        values_of, odd = by_columns.convert([records[position] for position in even])
        read = {
            position: values
            for index, (position, values) in enumerate(zip(even, values_of, strict=True))
            if index not in odd
        }
        for position, cells in enumerate(records):
            yield self._finish(rows[position], cells, read.get(position)) or self._read(
                rows[position], raws[position], cells
            )

    def _finish(self, row: int, cells: list[str], values: list[str | None] | None) -> NormalizedRecord | None:
        """The record of converted values; None if it has to be read singly."""
        if values is None:
            return None
        problems: list[Problem] = []
        try:
            values[0] = self._identity(cells)
        except FieldError:
            return None
        self._complete(cells, values, problems)
        if problems or values[0] is None:
            return None
        return NormalizedRecord(row, values[0], tuple(values), self._payload(cells), None)

    def _read(self, row: int, raw: bytes, content: Any) -> NormalizedRecord | BrokenRecord:
        problem = self._unreadable(raw, content)
        if problem is None:
            try:
                return self._record(row, content)
            except orjson.JSONEncodeError:
                problem = Problem(code="too_deep", reason="The record is nested too deep", hint="Flatten it")
                content = None
        identity = self.identity(content) if content else None
        rejection_id = self._rejection_id(content) if content else None
        payload = {"_raw": raw.decode(errors="replace").replace("\0", "")} if content is None else self._shown(content)
        return BrokenRecord(row, printable(identity), (problem,), payload, rejection_id)

    def _record(self, row: int, content: Any) -> NormalizedRecord | BrokenRecord:
        values = self._blank.copy()
        problems: list[Problem] = []
        try:
            values[0] = self._identity(content)
            if values[0] is None:
                problems.append(self._missing("external_id", _NO_ID, "The record has no id"))
        except FieldError as error:
            problems.append(self._problem("external_id", error, self._columns["external_id"].cell(content), content))
        if self._csv and len(content) < len(self._layout.header):
            self.remarks.short += 1
            content += [""] * (len(self._layout.header) - len(content))
        for position, field, places, convert in self._wanted:
            cell = places.cell(content)
            if cell and (value := self._convert(field, convert, cell, content, problems)) is not None:
                values[position] = value
        self._complete(content, values, problems)
        rejection_id = self._rejection_id(content)
        if problems:
            return BrokenRecord(row, values[0], tuple(problems), self._shown(content), rejection_id)
        return NormalizedRecord(row, values[0] or "", tuple(values), self._payload(content), rejection_id)

    def _convert(self, field: str, convert: Convert, cell: Cell, content: Any, problems: list[Problem]) -> str | None:
        if isinstance(cell, str) and cell in self._preset.nothing:
            return None
        try:
            return convert(cell)
        except FieldError as error:
            problems.append(self._problem(field, error, cell, content))
            return None

    def _complete_issue(self, content: Any, values: list[str | None], problems: list[Problem]) -> None:
        at = self._position
        if values[at["title"]] is None and not any(problem.code.startswith("title") for problem in problems):
            problems.append(self._missing("title", "missing_title", "The title is empty"))
        if values[at["type"]] is None and self._preset.marks and not self._csv:
            values[at["type"]] = next((kind for path, kind in self._preset.marks.items() if content.get(path)), None)
        self._derive(values)

    def _complete_project(self, _: Any, values: list[str | None], problems: list[Problem]) -> None:
        if values[self._position["name"]] is None:
            problems.append(self._missing("name", "missing_name", "The project has no name"))

    def _unreadable(self, raw: bytes, content: Any) -> Problem | None:
        if len(raw) > MAX_RECORD_BYTES:
            return Problem(
                code="too_large", reason=f"The record is larger than {MAX_RECORD_BYTES} bytes", hint="Shorten its texts"
            )
        if not self._csv:
            if content is not None:
                return None
            no_json = Problem(code="invalid_json", reason="Not a JSON object", hint="Write one object a line")
            return self._undecodable(raw) or no_json
        if not raw.isascii() and (problem := self._undecodable(raw)) and not self._recode(raw, content):
            return problem
        return self._too_wide(content)

    def _undecodable(self, raw: bytes) -> Problem | None:
        try:
            raw.decode(self._layout.encoding)
        except UnicodeDecodeError as error:
            return Problem(
                code="invalid_encoding",
                reason=f"The bytes {error.object[error.start : error.end].hex(' ')} are no {self._layout.encoding}",
                hint="Save the file as UTF-8, or name its encoding",
            )
        return None

    def _recode(self, raw: bytes, content: list[str]) -> bool:
        """Read the cells of a row that is not in the file's encoding, if another may be tried; whether that worked."""
        other = self._layout.other_encoding
        found = recode_row(raw, content, other) if other else None
        if found is None:
            return False
        content[:] = found
        self.remarks.recoded += 1
        return True

    def _too_wide(self, content: list[str]) -> Problem | None:
        extra = content[len(self._layout.header) :]
        if any(cell.strip() for cell in extra):
            return Problem(
                code="too_many_cells",
                value=", ".join(extra)[:_SHOWN_CHARS],
                reason=f"The row has {len(content)} cells, the header {len(self._layout.header)}",
                hint="A cell with a delimiter or a quote in it must be quoted",
            )
        return None

    def _shown(self, content: Any) -> Any:
        return [printable(cell) for cell in content] if self._csv else without_nul(content)

    def _payload(self, content: Any) -> bytes:
        if not self._csv:
            record = {key: value for key, value in content.items() if key not in RESERVED_COLUMNS}
        elif not self._repeated:
            record = dict(zip(self._names, content, strict=False))
        else:
            record = with_lists(self._names, self._repeated, content)
        for name in self._reserved:
            record.pop(name, None)
        # Of a CSV the NULs are gone already.
        text = orjson.dumps(record) if self._csv else jsonb(record)
        return without_credentials(text.decode()).encode() if self._layout.kind is Kind.PROJECTS else text

    def _rejection_id(self, content: Any) -> int | None:
        if self._csv:
            index = self._rejection_column
            cell = content[index] if index is not None and index < len(content) else ""
        else:
            cell = str(content.get("_rejection_id", "")) if isinstance(content, dict) else ""
        return int(cell) if cell.isascii() and cell.isdigit() and len(cell) < len(str(2**63)) else None

    def _missing(self, field: str, code: str, reason: str) -> Problem:
        column = self._columns[field].name()
        hint = f"Fill the column {column}" if column else f"Map a column to {field}"
        return Problem(code=code, column=column, reason=reason, hint=hint)

    def _problem(self, field: str, error: FieldError, cell: Cell, content: Any) -> Problem:
        shown = cell if isinstance(cell, str) else ", ".join(cell)
        return Problem(
            code=f"{field}_{error.code}" if field == "title" else error.code,
            column=self._columns[field].name(content),
            value=printable(shown[:_SHOWN_CHARS]),
            reason=str(error),
            hint=error.hint,
        )


def _index_of(header: tuple[str, ...], name: str) -> int | None:
    return next((index for index, column in enumerate(header) if column.strip() == name), None)
