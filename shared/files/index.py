"""The index of a batch: where each record lies, which row it is, whose it is and what it hashes to.

Written while a file is planned and read when a batch is loaded, so that a record the database holds already is never
read twice.
"""

import struct
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import accumulate

import orjson

HASH_BYTES = 16
_HEAD = struct.Struct("<II")


def record_hash(key: bytes, raw: bytes) -> bytes:
    """Hash of a record as it came, without its line end, under the key of its layout."""
    return sha256(key + raw.rstrip(b"\r\n")).digest()[:HASH_BYTES]


@dataclass
class BatchIndex:
    """Records side by side. `lengths` are bytes, `rows` spreadsheet rows; an id is None where none can be read."""

    lengths: array[int] = field(default_factory=lambda: array("I"))
    rows: array[int] = field(default_factory=lambda: array("Q"))
    ids: list[str | None] = field(default_factory=list[str | None])
    hashes: bytearray | bytes = field(default_factory=bytearray)
    _ends: array[int] | None = field(default=None, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.ids)

    def hash_at(self, position: int) -> bytes:
        """Hash of one record."""
        return bytes(self.hashes[position * HASH_BYTES : (position + 1) * HASH_BYTES])

    def hashes_at(self, positions: Sequence[int]) -> bytes:
        """Hashes of records at ascending positions, one behind the other."""
        hashes = bytes(self.hashes)
        if len(positions) == len(self):
            return hashes
        # Nearly all are wanted, so what lies between gaps is taken at once.
        wanted = set(positions)
        gaps = [position for position in range(len(self)) if position not in wanted]
        starts, ends = [0, *(gap + 1 for gap in gaps)], [*gaps, len(self)]
        return b"".join([hashes[a * HASH_BYTES : b * HASH_BYTES] for a, b in zip(starts, ends, strict=True)])

    def to_bytes(self) -> bytes:
        """Pack for storage."""
        ids = orjson.dumps(self.ids)
        head = _HEAD.pack(len(self.ids), len(ids))
        return b"".join((head, self.lengths.tobytes(), self.rows.tobytes(), self.hashes, ids))

    @classmethod
    def from_bytes(cls, packed: bytes) -> "BatchIndex":
        """Unpack what to_bytes made."""
        count, ids_bytes = _HEAD.unpack_from(packed)
        at = _HEAD.size
        lengths, rows = array("I"), array("Q")
        lengths.frombytes(packed[at : at + count * lengths.itemsize])
        at += count * lengths.itemsize
        rows.frombytes(packed[at : at + count * rows.itemsize])
        at += count * rows.itemsize
        hashes = packed[at : at + count * HASH_BYTES]
        at += count * HASH_BYTES
        return cls(lengths, rows, orjson.loads(packed[at : at + ids_bytes]), hashes)

    def cut(self, content: bytes, positions: Sequence[int]) -> list[bytes]:
        """The raw records at some positions of the batch's bytes."""
        if self._ends is None:
            self._ends = array("Q", accumulate(self.lengths))
        ends, lengths = self._ends, self.lengths
        return [content[ends[position] - lengths[position] : ends[position]] for position in positions]
