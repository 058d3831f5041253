"""What a secret looks like in a text, and how to take it out.

Nothing that is logged or shown needs the whole of a credential, so a false alarm costs a word and a miss costs a key.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

REDACTED = "[redacted]"
# Longer texts are payloads by mistake; the bound also keeps the search quick whatever somebody sends.
_LONGEST = 20_000

_SECRET_NAME = re.compile(
    r"authorization|x[-_]api[-_]key|api[-_]?key|password|passwd|secret|credential|connection[-_]?string|cookie|"
    r"(?:^|[-_])(?:token|sig|signature)$",
    re.IGNORECASE,
)
# Each pattern keeps its first group, so that one still sees what kind of thing was there.
_SECRETS = (
    re.compile(
        r"(\b(?:proxy-)?authorization[\"']?\s*[:=]\s*[\"']?(?:(?:bearer|basic|token)\s+)?)[^\s\"',;}]+", re.IGNORECASE
    ),
    re.compile(r"(\bx-(?:api|functions)-key[\"']?\s*[:=]\s*[\"']?)[^\s\"',;}]+", re.IGNORECASE),
    re.compile(r"(\bbearer\s+)[\w.~+/=-]{8,}", re.IGNORECASE),
    re.compile(r"(\btrib_)[\w-]{8,}"),
    re.compile(r"(\b)eyJ[\w-]{4,}\.[\w-]+(?:\.[\w-]*)?"),
    re.compile(r"((?:[?&;]|\b)(?:sig|code)=)[^\s&\"'<>]{8,}", re.IGNORECASE),
    re.compile(r"((?:account|sharedaccess|shared_access)_?(?:key|signature)=)[^\s;\"']+", re.IGNORECASE),
    re.compile(r"(\b[a-z][a-z0-9+.-]{0,20}://[^\s:/@]{0,100}:)[^\s@]{1,4000}(?=@)", re.IGNORECASE),
    re.compile(
        r"(\b(?:password|passwd|pwd|client_secret|access_token|refresh_token)[\"']?\s*[:=]\s*[\"']?)[^\s&\"',;}]+",
        re.IGNORECASE,
    ),
)


def redact(text: str) -> str:
    """The text without the keys, tokens, signatures and passwords in it; a very long one is cut."""
    if len(text) > _LONGEST:
        text = f"{text[:_LONGEST]} [cut]"
    for pattern in _SECRETS:
        text = pattern.sub(rf"\g<1>{REDACTED}", text)
    return text


def redact_value(name: str, value: Any) -> Any:
    """A value without secrets, whatever its depth; a name such as `password` hides all of its value."""
    if value and _SECRET_NAME.search(name):
        return REDACTED
    match value:
        case None | bool() | int() | float():
            return value
        case bytes() | bytearray():
            return f"{len(value)} bytes"
        case Mapping():
            return _redact_mapping(value)  # pyright: ignore[reportUnknownArgumentType]  # a pattern forgets the Any inside
        case list() | tuple() | set() | frozenset():
            return _redact_items(value)  # pyright: ignore[reportUnknownArgumentType]
        case _:
            return redact(str(value))


def _redact_mapping(values: Mapping[Any, Any]) -> dict[str, Any]:
    return {str(key): redact_value(str(key), value) for key, value in values.items()}


def _redact_items(values: Iterable[Any]) -> list[Any]:
    return [redact_value("", value) for value in values]
