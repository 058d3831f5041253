"""JSON that trackers send: whole answers, and lists of records of which each is read when its turn comes.

A page of large records takes many times its text once it is read, and has left the processor's caches before it is
worked on; read one by one, each record is worked on while it is at hand, and makes room for the next.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, cast, overload

import msgspec
import orjson

from shared.domain.nul import NUL_IN_JSON, without_nul


def from_json(content: bytes) -> Any:
    """The value of a JSON text. Text that was cut in the middle of a character costs that character, not the page.

    Names, records and messages alike end in a database that knows no NUL, so they have none. Raises ValueError for what
    is no JSON.
    """
    value = _parse(content)
    return without_nul(value) if NUL_IN_JSON in content else value


def _parse(content: bytes) -> Any:
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        with suppress(RecursionError):
            return _mended(json.loads(content.decode(errors="replace"), parse_constant=lambda _: None))
        raise


def _mended(value: Any) -> Any:
    match value:
        case str():
            return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        case list():
            return [_mended(each) for each in cast("list[Any]", value)]
        case dict():
            return {_mended(name): _mended(each) for name, each in cast("dict[str, Any]", value).items()}
        case _:
            return value


class Unread[T](Sequence[T]):
    """Records as JSON text; each is read, and made what `make` makes of it, whenever it is asked for."""

    def __init__(self, texts: Sequence[msgspec.Raw], make: Callable[[Any], T]) -> None:
        self._texts = texts
        self._make = make

    def __len__(self) -> int:
        return len(self._texts)

    def __iter__(self) -> Iterator[T]:
        return (self._make(from_json(bytes(text))) for text in self._texts)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> "Unread[T]": ...
    def __getitem__(self, index: int | slice) -> "T | Unread[T]":
        if isinstance(index, slice):
            return Unread(self._texts[index], self._make)
        return self._make(from_json(bytes(self._texts[index])))
