"""Copy a file into a form in which every record is found by its bytes: UTF-8, and JSON one object a line."""
# What JSON holds is known only at run time.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import codecs
import math
from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Any

import ijson  # pyright: ignore[reportMissingTypeStubs]
import orjson

from shared.domain.errors import FileRefusedError
from shared.files.depth import JsonStream
from shared.files.layout import Format, Layout

_OUT_BYTES = 1024 * 1024


def rewrite(chunks: Iterable[bytes], layout: Layout) -> Iterator[bytes]:
    """The rewritten file. Raises FileRefusedError if a JSON document breaks off or text is no UTF-16."""
    text = _to_utf8(chunks, layout.original_encoding)
    if layout.format is Format.NDJSON and layout.json_prefix is not None:
        return _to_lines(text, layout.json_prefix)
    return text


def _to_utf8(chunks: Iterable[bytes], encoding: str) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder(encoding)("surrogateescape" if encoding == "utf-8" else "replace")
    first = True
    for chunk in chunks:
        text = decoder.decode(chunk)
        if first and text:
            text, first = text.removeprefix("\ufeff"), False
        yield text.encode("utf-8", "surrogateescape")
    yield decoder.decode(b"", final=True).encode("utf-8", "surrogateescape")


def _to_lines(chunks: Iterable[bytes], prefix: str) -> Iterator[bytes]:
    out = bytearray()
    count = 0
    try:
        for item in ijson.items(JsonStream(chunks), prefix):
            count += 1
            # What is no object is passed on as it is, so that it becomes a rejection with its row.
            out += _line(item)
            if len(out) > _OUT_BYTES:
                yield bytes(out)
                out.clear()
    except ijson.JSONError as error:
        if "premature EOF" not in str(error):
            raise FileRefusedError(
                "invalid_json",
                f"The JSON is broken behind record {count}",
                hint="Check it with a JSON validator",
            ) from error
        raise FileRefusedError(
            "truncated", f"The JSON breaks off behind record {count}", hint="The file was cut off; export it again"
        ) from error
    yield bytes(out)


def _line(item: Any) -> bytes:
    try:
        return orjson.dumps(item, default=_float) + b"\n"
    except orjson.JSONEncodeError:
        return _tamed_line(item)


def _float(value: Decimal) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(value)
    return number


def _tamed_line(item: Any) -> bytes:
    """A record with numbers no computer word holds, which become text; or a mark where it is nested too deep."""
    try:
        return orjson.dumps(_tame(item)) + b"\n"
    except (orjson.JSONEncodeError, RecursionError):
        return b'"a record that cannot be written as JSON"\n'


def _tame(value: Any) -> Any:
    match value:
        case dict():
            return {key: _tame(inner) for key, inner in value.items()}
        case list():
            return [_tame(inner) for inner in value]
        case Decimal():
            return float(value) if math.isfinite(float(value)) else str(value)
        case int() if not -(2**63) <= value < 2**64:
            return str(value)
        case _:
            return value
