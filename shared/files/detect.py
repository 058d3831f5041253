"""Decide from the first bytes of a file what it is and how it is to be read."""

import codecs
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from charset_normalizer import from_bytes

from shared.domain.errors import FileRefusedError
from shared.domain.issue import ISSUE_FIELDS, PROJECT_FIELDS
from shared.domain.job import ImportOptions, Kind
from shared.files.csv_shape import find_shape
from shared.files.dates import is_numeric_ambiguous
from shared.files.flatten import cell_at
from shared.files.json_shape import find_json_shape
from shared.files.layout import DATE_FIELDS, RESERVED_COLUMNS, Format, Layout
from shared.files.preset import Preset, normalize_header
from shared.files.presets import recognize
from shared.files.recode import looks_like_utf8

HEAD_BYTES = 1024 * 1024
_REFUSED = (
    (b"PK\x03\x04", "zip", "This is a ZIP archive or an Excel workbook", "In Excel, save it as CSV UTF-8"),
    (b"\x1f\x8b", "gzip", "The file is compressed with gzip", "Unpack it first"),
    (b"%PDF", "pdf", "This is a PDF", "Export the data as CSV or JSON"),
    (b"\xd0\xcf\x11\xe0", "xls", "This is an old Excel workbook", "In Excel, save it as CSV UTF-8"),
    (b"version https://git-lfs", "git_lfs", "This is a Git LFS pointer, not the file itself", "Run git lfs pull first"),
)
# What a file is read as whose letters turn up late: Western exports are hardly ever anything else.
_LATE_ENCODING = "cp1252"
# Not the end of an offset such as +02:00.
_NO_ZONE = re.compile(r"(?<![+-]\d)\d:\d\d(?::\d\d(?:[.,]\d+)?)?(?:\s*[ap]\.?m\.?)?\s*\Z", re.IGNORECASE)
_ROUNDED = re.compile(r"\d(?:[.,]\d+)?E\+\d{2,}")
_HUMP = re.compile(r"[a-z][A-Z]")
_ASCII = 'a1,;\t|"\r\n{}'


def detect(head: bytes, *, name: str, size: int, options: ImportOptions) -> Layout:
    """The layout of a file by its first bytes (the whole of a small file); raises FileRefusedError with a reason word.

    `name` only serves messages: endings lie. Of a UTF-16 file or a JSON array the layout is that of the rewritten copy,
    except for `rewrite`, which says that the copy has to be made.
    """
    if not head.strip():
        raise FileRefusedError("empty", f"{name} is empty", hint="Export it again")
    _refuse_what_is_no_text(head)
    whole = len(head) >= size
    encoding, warnings = _encoding(head, options, whole=whole)
    text = _decode(head, encoding, whole=whole)
    if text.lstrip()[:1] in {"{", "["}:
        marked = head.startswith(codecs.BOM_UTF8)
        return _json_layout(text, encoding, options, warnings, whole=whole, marked=marked)
    return _csv_layout(head, text, encoding, options, warnings, whole=whole)


def _refuse_what_is_no_text(head: bytes) -> None:
    for magic, reason, detail, hint in _REFUSED:
        if head.startswith(magic):
            raise FileRefusedError(reason, detail, hint=hint)
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:200].lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<rss")):
        raise FileRefusedError(
            "html", "This is a web page or XML, perhaps a login page", hint="Sign in and download the export again"
        )
    if _utf16(head) is None:
        control = sum(head[:4096].count(byte) for byte in (*range(1, 9), *range(14, 27), 28, 29, 30, 31))
        if control > len(head[:4096]) // 50 or head[:4096].count(0) > len(head[:4096]) // 10:
            raise FileRefusedError("binary", "This is a binary file", hint="Export the data as CSV or JSON")


def _utf16(head: bytes) -> str | None:
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16-le" if head.startswith(codecs.BOM_UTF16_LE) else "utf-16-be"
    sample = head[:2048]
    half = max(1, len(sample) // 2)
    # Text of Latin letters has a zero in nearly every second byte.
    if len(sample) >= 8 and sample[1::2].count(0) > half * 0.8 and sample[0::2].count(0) < half * 0.1:
        return "utf-16-le"
    if len(sample) >= 8 and sample[0::2].count(0) > half * 0.8 and sample[1::2].count(0) < half * 0.1:
        return "utf-16-be"
    return None


def _encoding(head: bytes, options: ImportOptions, *, whole: bool) -> tuple[str, list[str]]:
    """(encoding, warnings)."""
    if options.encoding:
        try:
            chosen = codecs.lookup(options.encoding).name
            _refuse_what_is_no_alphabet(chosen)
        except (LookupError, UnicodeError, TypeError, AssertionError) as error:
            raise FileRefusedError(
                "encoding", f"There is no encoding named {options.encoding}", hint="Try utf-8, utf-16 or windows-1252"
            ) from error
        if chosen.startswith(("utf-16", "utf-32")):
            return (_utf16(head) or "utf-16-le"), []
        return chosen, []
    if found := _utf16(head):
        return found, []
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head, final=whole)
    except UnicodeDecodeError:
        return _single_byte(head)
    return "utf-8", []


def _refuse_what_is_no_alphabet(encoding: str) -> None:
    """Raise LookupError for codecs that do not write letters one by one as ASCII does, such as base64 or EBCDIC."""
    codecs.getincrementaldecoder(encoding)("replace").decode(b"\xff")
    if not encoding.startswith(("utf-16", "utf-32", "utf-8")) and _ASCII.encode(encoding) != _ASCII.encode():
        raise LookupError(encoding)


def _single_byte(head: bytes) -> tuple[str, list[str]]:
    if looks_like_utf8(head):
        return "utf-8", ["Some bytes are no UTF-8; the rows that hold them are rejected"]
    sample = b"\n".join(line for line in head.splitlines() if not line.isascii())[:65536]
    best = from_bytes(sample, cp_isolation=["cp1252", "cp1250", "cp1251", "iso8859_15", "mac_roman"]).best()
    # Western exports are Windows-1252 so much more often that a close guess at a neighbour is not worth following.
    chosen = "cp1251" if best is not None and best.encoding == "cp1251" else "cp1252"
    return chosen, [f"The file is no UTF-8 and was read as {chosen}; set encoding if letters look wrong"]


def _decode(head: bytes, encoding: str, *, whole: bool) -> str:
    text = codecs.getincrementaldecoder(encoding)("replace").decode(head, final=whole)
    return text.removeprefix("\ufeff")


def _json_layout(
    text: str, encoding: str, options: ImportOptions, warnings: list[str], *, whole: bool, marked: bool
) -> Layout:
    shape = find_json_shape(text, whole=whole)
    preset = recognize(shape.paths)
    columns = _choose_columns(shape.paths, preset, options)
    _require(columns, options.kind, shape.paths)
    if not whole:
        columns = _unseen(preset, options.kind, shape.paths) | columns
    dates = [date for field in DATE_FIELDS for path in columns.get(field, ()) for date in _texts(shape.sample, path)]
    date_order = options.date_order or preset.date_order
    return Layout(
        format=Format.NDJSON,
        kind=options.kind,
        preset=preset.name,
        source=_source(preset, "json"),
        columns=columns,
        date_order=date_order,
        ambiguous_dates=date_order is None and any(map(is_numeric_ambiguous, dates)),
        rewrite=shape.prefix is not None or encoding != "utf-8" or marked,
        original_encoding=encoding,
        json_prefix=shape.prefix,
        warnings=(*warnings, *_zone_warning(dates)),
    )


def _texts(sample: Sequence[dict[str, Any]], path: str) -> Iterator[str]:
    return (cell for record in sample if isinstance(cell := cell_at(record, path), str) and cell)


def _unseen(preset: Preset, kind: Kind, seen: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Columns for the fields that no record at the beginning of a JSON file had; later ones may.

    Only names we can be sure of: our own, and those of values within objects, which trackers leave out when empty.
    """
    humps = any(_HUMP.search(path) for path in seen)
    found: dict[str, tuple[str, ...]] = {}
    for field in ISSUE_FIELDS if kind is Kind.ISSUES else PROJECT_FIELDS:
        names = preset.columns.get(field, ())
        sure = names[:1] if preset.name == "template" else tuple(name for name in names if "." in name)
        if sure:
            found[field] = tuple(_spelled(name, humps=humps) for name in sure)
    return found


def _spelled(name: str, *, humps: bool) -> str:
    first, *rest = name.split(" ")
    return first + "".join(word.capitalize() for word in rest) if humps else "_".join((first, *rest))


def _is_undecided(head: bytes, encoding: str, options: ImportOptions, *, whole: bool) -> bool:
    """Whether the beginning is plain ASCII, so that it does not tell what the letters behind it are written in."""
    return encoding == "utf-8" and not options.encoding and not whole and head.isascii()


def _csv_layout(
    head: bytes, text: str, encoding: str, options: ImportOptions, warnings: list[str], *, whole: bool
) -> Layout:
    wide = encoding.startswith("utf-16")
    read_as = "utf-8" if wide else encoding
    shape = find_shape(text.encode() if wide else head, read_as, delimiter=options.delimiter)
    preset = recognize(shape.header)
    columns = _choose_columns(shape.header, preset, options)
    _require(columns, options.kind, shape.header)
    layout = Layout(
        format=Format.CSV,
        kind=options.kind,
        encoding=read_as,
        other_encoding=_LATE_ENCODING if _is_undecided(head, encoding, options, whole=whole) else None,
        delimiter=shape.delimiter,
        escaped=shape.escaped,
        header=tuple(shape.header),
        data_offset=shape.data_offset,
        first_row=shape.first_row,
        preset=preset.name,
        source=_source(preset, "csv"),
        columns=columns,
        date_order=options.date_order or preset.date_order,
        rewrite=wide,
        original_encoding=encoding,
        warnings=(*warnings, *shape.warnings, *(["NUL bytes were left out"] if "\0" in text else [])),
    )
    columns = [index for field in DATE_FIELDS for index in layout.indices(field)]
    dates = [row[index] for row in shape.sample for index in columns if index < len(row) and row[index]]
    # GitLab's headers say it: Created At (UTC).
    silent = [index for index in columns if "utc" not in shape.header[index].lower()]
    unzoned = [row[index] for row in shape.sample for index in silent if index < len(row)]
    # Columns that are empty so far may turn out to hold anything.
    doubtful = any(map(is_numeric_ambiguous, dates)) if dates else bool(columns)
    return layout.model_copy(
        update={
            "ambiguous_dates": doubtful and layout.date_order is None,
            "warnings": (*layout.warnings, *_zone_warning(unzoned), *_rounded_ids(layout, shape.sample)),
        }
    )


def _rounded_ids(layout: Layout, sample: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """A warning if a spreadsheet has made powers of ten of long ids: different records then share one."""
    columns = layout.indices("external_id")
    ids = (row[index] for row in sample for index in columns if index < len(row))
    rounded = next((text for text in ids if _ROUNDED.fullmatch(text.strip())), None)
    if rounded is None:
        return ()
    return (f"Ids such as {rounded} were rounded by a spreadsheet; export again and open the column as text",)


def _zone_warning(dates: Sequence[str]) -> tuple[str, ...]:
    return ("Times without a zone are read as UTC",) if any(map(_NO_ZONE.search, dates)) else ()


def _source(preset: Preset, otherwise: str) -> str:
    return otherwise if preset.name in {"generic", "template"} else preset.source


def _choose_columns(header: Sequence[str], preset: Preset, options: ImportOptions) -> dict[str, tuple[str, ...]]:
    """Field → columns: what the caller mapped, else what the preset knows.

    A list takes every column that fits, other fields the first of them that is filled; of an export we do not know,
    only the best, but for the id.
    """
    known = ISSUE_FIELDS if options.kind is Kind.ISSUES else PROJECT_FIELDS
    spelled: dict[str, str] = {}
    for name in header:
        if name.strip() not in RESERVED_COLUMNS:
            spelled.setdefault(normalize_header(name), name)
    chosen: dict[str, tuple[str, ...]] = {}
    for field in known:
        candidates = [spelled[name] for name in preset.columns.get(field, ()) if name in spelled]
        if candidates:
            every = preset.fallback or field in preset.lists or field == "external_id"
            chosen[field] = tuple(dict.fromkeys(candidates if every else candidates[:1]))
    chosen.update(_mapped(options.mapping, known, header, spelled))
    return chosen


def _mapped(
    mapping: Mapping[str, str], known: Sequence[str], header: Sequence[str], spelled: Mapping[str, str]
) -> dict[str, tuple[str, ...]]:
    chosen: dict[str, tuple[str, ...]] = {}
    for field, column in mapping.items():
        if field not in known:
            raise FileRefusedError(
                "mapping", f"There is no field named {field}", hint="Fields are: " + ", ".join(known)
            )
        found = column if column in header else spelled.get(normalize_header(column))
        if found is None:
            raise FileRefusedError(
                "mapping", f"{field} is mapped to {column}, and there is no such column", hint=_columns_there(header)
            )
        chosen[field] = (found,)
    return chosen


def _require(columns: Mapping[str, tuple[str, ...]], kind: Kind, header: Sequence[str]) -> None:
    needed = {"external_id": "id", "title": "title"} if kind is Kind.ISSUES else {"name": "name"}
    for field, word in needed.items():
        if not columns.get(field):
            raise FileRefusedError(
                f"no_{word}_column",
                f"No column holds the {word} ({field})",
                hint=f'Name one with mapping {{"{field}": "…"}}. {_columns_there(header)}',
            )


def _columns_there(header: Sequence[str]) -> str:
    return "Columns are: " + ", ".join(list(dict.fromkeys(header))[:60])
