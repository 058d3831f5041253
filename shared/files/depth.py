"""Refuse JSON that is nested absurdly deep before a parser sees it.

ijson keeps the whole path of every open bracket, so a hundred kilobytes of brackets would fill gigabytes.
"""

from collections.abc import Iterable

from shared.domain.errors import FileRefusedError

# Far beyond any record; what lies between this and what can be stored is rejected record by record.
MAX_DEPTH = 1_000
_UNIMPORTANT = bytes(set(range(256)) - set(b'"[]{}'))


class JsonStream:
    """An iterator of bytes as the file object ijson wants, which raises FileRefusedError where JSON gets too deep."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._rest = b""
        self._depth = 0
        self._in_string = 0
        self._held = b""  # a backslash whose other half is still to come

    def read(self, size: int) -> bytes:
        """At most `size` bytes; none at the end."""
        if not self._rest:
            self._rest = next((chunk for chunk in self._chunks if chunk), b"")
            self._watch(self._rest)
        taken, self._rest = self._rest[:size], self._rest[size:]
        return taken

    def _watch(self, chunk: bytes) -> None:
        text = self._held + chunk
        self._held = b""
        if b"\\" in text:
            text = text.replace(b"\\\\", b"")
            if text.endswith(b"\\"):
                text, self._held = text[:-1], b"\\"
            text = text.replace(b'\\"', b"")
        # Two quotes with nothing between them change nothing about what stands around them.
        parts = text.translate(None, _UNIMPORTANT).replace(b'""', b"").split(b'"')
        bare = b"".join(parts[self._in_string :: 2])
        self._in_string ^= (len(parts) - 1) & 1
        opened = bare.count(b"[") + bare.count(b"{")
        if self._depth + opened > MAX_DEPTH:
            self._walk(bare)
        else:
            self._depth += opened - bare.count(b"]") - bare.count(b"}")

    def _walk(self, bare: bytes) -> None:
        for byte in bare:
            self._depth += 1 if byte in b"[{" else -1
            if self._depth > MAX_DEPTH:
                raise FileRefusedError(
                    "too_deep", f"The JSON is nested deeper than {MAX_DEPTH} levels", hint="Export flat records"
                )
