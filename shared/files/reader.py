"""From the bytes of a record to a row of the table, or to the reasons why not. Compiled once from a Layout."""
# What JSON holds is known only at run time.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import orjson

from shared.domain.issue import ISSUE_FIELDS, PROJECT_FIELDS, is_known_status, severity_of, status_category
from shared.domain.job import Kind
from shared.domain.rejection import Problem
from shared.files import fields
from shared.files.addresses import repository_identity, without_credentials
from shared.files.columns import Columns, Wanted
from shared.files.cut import ASCII_COMPATIBLE
from shared.files.dates import DateReader
from shared.files.fields import Cell, Convert, FieldError
from shared.files.flatten import cell_at
from shared.files.layout import RESERVED_COLUMNS, Format, Layout
from shared.files.lines import Record, csv_records, decode_lines, dialect, json_records
from shared.files.payload import jsonb, payload_names, printable, with_lists, without_nul
from shared.files.presets import PRESETS, Preset

_SHOWN_CHARS = 200
MAX_RECORD_BYTES = 16 * 1024 * 1024
_NO_ID = "missing_id"
# Joins records that are decoded together; a record that holds it is read singly.
_BETWEEN = b"\x1e"
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
        self._columns = self._find_columns()
        self._identity = self._compile_identity()
        converters = _converters(layout, self._preset)
        self._wanted = [
            Wanted(self._position[field], field, columns, converters[field])
            for field, columns in self._columns.items()
            if columns and field != "external_id"
        ]
        self._blank: list[str | None] = ["[]" if name in {"labels", "components"} else None for name in self._fields]
        self._names, self._repeated = payload_names(layout.header)
        self._reserved = [name for name in RESERVED_COLUMNS if name in self._names]
        self._rejection_column = _index_of(layout.header, "_rejection_id")
        self._derive = self._derive_issue if layout.kind is Kind.ISSUES else self._derive_project
        self._categories: dict[str, str] = {}
        self._severities: dict[str, str | None] = {}
        by_columns = self._csv and not self._reserved and layout.encoding in ASCII_COMPATIBLE
        self._by_columns = Columns(self._blank, self._wanted, self._preset.nothing) if by_columns else None

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

    def is_valid(self, raw: bytes) -> bool:
        """Whether normalize would accept this record."""
        good, _ = self.normalize([raw], [0])
        return bool(good)

    @property
    def layout(self) -> Layout:
        """What this reader was compiled from."""
        return self._layout

    @property
    def identity_column(self) -> int | None:
        """The only CSV column the id is read from, if there is just one."""
        columns = self._columns["external_id"]
        single = self._csv and self._layout.kind is Kind.ISSUES and len(columns) == 1
        return columns[0] if single else None

    def identity_in_cell(self, cell: bytes) -> str | None:
        """The external id in the raw bytes of its cell, as `identity` gives it for the parsed record."""
        text = cell.decode(self._layout.encoding, "surrogateescape")
        if '"' in text or "\\" in text or "\0" in text:
            lines = decode_lines(cell.splitlines(keepends=True), self._layout.encoding)
            text = "".join(next(csv.reader(lines, **dialect(self._layout)), [""])[:1])
        try:
            found = fields.identity(text)
        except FieldError:
            return None
        return None if found in self._preset.nothing else found

    def sample(self, values: Sequence[str | None]) -> dict[str, Any]:
        """A normalized record as a person wants to see it: field → value, JSON decoded."""
        decoded = {"labels", "components", "environment"}
        return {
            field: orjson.loads(value) if value is not None and field in decoded else value
            for field, value in zip(self._fields, values, strict=True)
        }

    def _find_columns(self) -> dict[str, tuple[Any, ...]]:
        if self._csv:
            return {field: self._layout.indices(field) for field in self._fields}
        return {field: self._layout.columns.get(field, ()) for field in self._fields}

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

    def _cell(self, content: Any, columns: tuple[Any, ...]) -> Cell:
        if not self._csv:
            cells = [cell for path in columns if (cell := cell_at(content, path))]
            return cells[0] if cells else ""
        if len(columns) == 1:
            return content[columns[0]] if columns[0] < len(content) else ""
        return [content[index] for index in columns if index < len(content)]

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
        self._derive(values, problems)
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
            problems.append(self._problem("external_id", error, self._cell(content, self._columns["external_id"])))
        if self._csv and len(content) < len(self._layout.header):
            content += [""] * (len(self._layout.header) - len(content))
        for position, field, columns, convert in self._wanted:
            cell = self._cell(content, columns)
            if cell and (value := self._convert(field, convert, cell, problems)) is not None:
                values[position] = value
        self._derive(values, problems)
        rejection_id = self._rejection_id(content)
        if problems:
            return BrokenRecord(row, values[0], tuple(problems), self._shown(content), rejection_id)
        return NormalizedRecord(row, values[0] or "", tuple(values), self._payload(content), rejection_id)

    def _convert(self, field: str, convert: Convert, cell: Cell, problems: list[Problem]) -> str | None:
        if isinstance(cell, str) and cell in self._preset.nothing:
            return None
        try:
            return convert(cell)
        except FieldError as error:
            problems.append(self._problem(field, error, cell))
            return None

    def _derive_issue(self, values: list[str | None], problems: list[Problem]) -> None:
        at = self._position
        if values[at["title"]] is None and not any(problem.code.startswith("title") for problem in problems):
            problems.append(self._missing("title", "missing_title", "The title is empty"))
        status, priority = values[at["status"]], values[at["priority"]]
        category = self._categories.get(status or "")
        if category is None:
            category = self._categories[status or ""] = status_category(status or "")
        if values[at["resolved_at"]] and (not status or not is_known_status(status)):
            category = "done"
        values[at["status_category"]] = category
        word = values[at["severity"]] or priority
        if word is not None:
            if word not in self._severities:
                self._severities[word] = severity_of(word)
            values[at["severity"]] = self._severities[word]
        if values[at["key"]] is None:
            values[at["key"]] = values[0]

    def _derive_project(self, values: list[str | None], problems: list[Problem]) -> None:
        if values[self._position["name"]] is None:
            problems.append(self._missing("name", "missing_name", "The project has no name"))

    def _compile_identity(self) -> Callable[[Any], str | None]:
        columns = self._columns["external_id"]
        if self._layout.kind is Kind.PROJECTS:
            return self._project_identity
        if not self._csv:
            return lambda content: fields.identity(self._cell(content, columns)) if content else None
        nothing = self._preset.nothing

        def find(content: Any) -> str | None:
            for index in columns:
                if index < len(content) and content[index] and (found := fields.identity(content[index])):
                    return None if found in nothing else found
            return None

        return find

    def _project_identity(self, content: Any) -> str | None:
        """A project is known by its repository and its name, however the address was spelled."""
        if not content:
            return None
        name = fields.text(fields.MAX_WORD_CHARS)(self._cell(content, self._columns["name"]))
        address = self._cell(content, self._columns["repository_url"])
        repository = repository_identity(address if isinstance(address, str) else "")
        return fields.identity(f"{repository}#{name}" if repository else name) if name else None

    def _unreadable(self, raw: bytes, content: Any) -> Problem | None:
        if len(raw) > MAX_RECORD_BYTES:
            return Problem(
                code="too_large", reason=f"The record is larger than {MAX_RECORD_BYTES} bytes", hint="Shorten its texts"
            )
        if not self._csv:
            if content is None:
                return Problem(code="invalid_json", reason="Not a JSON object", hint="Write one object a line")
            return None
        if not raw.isascii():
            try:
                raw.decode(self._layout.encoding)
            except UnicodeDecodeError as error:
                return Problem(
                    code="invalid_encoding",
                    reason=f"The bytes {error.object[error.start : error.end].hex(' ')} are no {self._layout.encoding}",
                    hint="Save the file as UTF-8, or name its encoding",
                )
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
        column = self._column_name(field)
        hint = f"Fill the column {column}" if column else f"Map a column to {field}"
        return Problem(code=code, column=column, reason=reason, hint=hint)

    def _problem(self, field: str, error: FieldError, cell: Cell) -> Problem:
        shown = cell if isinstance(cell, str) else ", ".join(cell)
        return Problem(
            code=f"{field}_{error.code}" if field == "title" else error.code,
            column=self._column_name(field),
            value=printable(shown[:_SHOWN_CHARS]),
            reason=str(error),
            hint=error.hint,
        )

    def _column_name(self, field: str) -> str | None:
        columns = self._columns[field]
        if not columns:
            return None
        return self._layout.header[columns[0]] if self._csv else columns[0]


def _converters(layout: Layout, preset: Preset) -> dict[str, Convert]:
    dates = DateReader(layout.date_order)
    word, body = fields.text(fields.MAX_WORD_CHARS), fields.text(fields.MAX_TEXT_CHARS)
    point = fields.timestamp(dates)
    address = fields.text(fields.MAX_TITLE_CHARS * 2)
    return {
        **dict.fromkeys((*ISSUE_FIELDS, *PROJECT_FIELDS), word),
        "title": fields.text(fields.MAX_TITLE_CHARS),
        "description": body,
        "stack_trace": body,
        "labels": fields.items(preset.separators.get("labels")),
        "components": fields.items(preset.separators.get("components")),
        "environment": fields.details,
        "url": fields.link,
        "repository_url": lambda cell: without_credentials(address(cell) or "") or None,
        "due_on": fields.day(dates),
        "story_points": fields.number,
        "estimate_seconds": fields.seconds,
        "source_created_at": point,
        "source_updated_at": point,
        "resolved_at": point,
    }


def _index_of(header: tuple[str, ...], name: str) -> int | None:
    return next((index for index, column in enumerate(header) if column.strip() == name), None)
