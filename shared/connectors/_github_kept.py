"""Answers kept in memory with their ETag, so that what did not change costs nothing of GitHub's rate limit.

https://docs.github.com/en/rest/using-the-rest-api/best-practices-for-using-the-rest-api#use-conditional-requests-if-appropriate
"""

import zlib
from dataclasses import dataclass, replace

import httpx
import orjson

from shared.connectors._http import Answer

# Of packed JSON: enough for what seldom changes of some eighty repositories. A worker may hold many connections.
_MOST_BYTES = 2 * 1024 * 1024
_MOST_OF_ONE = 256 * 1024


@dataclass(frozen=True)
class _Kept:
    etag: str
    packed: bytes
    # Everything but the data.
    answer: Answer


class KeptAnswers:
    """The answers of one connection. When it is full what is kept stays: everything is asked for in turns."""

    def __init__(self, most_bytes: int = _MOST_BYTES) -> None:
        self._kept: dict[str, _Kept] = {}
        self._free = most_bytes

    def etag_of(self, name: str) -> str | None:
        """What to ask with; None where nothing is kept."""
        kept = self._kept.get(name)
        return kept.etag if kept else None

    def settle(self, name: str, answer: Answer) -> Answer:
        """The answer with its data: from memory if it says "not modified", else kept for the next time."""
        kept = self._kept.get(name)
        if answer.status == 304 and kept:
            data = orjson.loads(zlib.decompress(kept.packed))
            headers = httpx.Headers({**kept.answer.headers, **answer.headers})
            return replace(kept.answer, data=data, read_at=answer.read_at, headers=headers)
        self._forget(name)
        etag = answer.headers.get("etag")
        # Statistics that GitHub is still computing come with another status.
        if etag and answer.status == 200:
            packed = zlib.compress(orjson.dumps(answer.data), 1)
            if len(packed) <= min(self._free, _MOST_OF_ONE):
                self._free -= len(packed)
                self._kept[name] = _Kept(etag, packed, replace(answer, data=None))
        return answer

    def _forget(self, name: str) -> None:
        kept = self._kept.pop(name, None)
        self._free += len(kept.packed) if kept else 0
