"""Copies of files this worker has read from end to end, on its temporary disk.

A file is read once to plan it and then, range by range, to load it. What is still at hand needs no second transfer;
what is not (another worker, a restart, too little room) is simply read from the store again.
"""

import logging
import os
import shutil
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

log = logging.getLogger(__name__)

# A job has two: its file and the index of it.
_MOST_COPIES = 6
# Of the room that is free on the temporary disk, a copy may take this much.
_SHARE = 0.5
_SLICE_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Version:
    """One version of a blob; without etag the one that this worker wrote."""

    container: str
    name: str
    etag: str | None = None


@dataclass(frozen=True)
class LocalCopy:
    """The bytes of a version from `start` to its end. Its file has no name and is gone when nobody holds it."""

    file: BinaryIO
    start: int
    end: int

    def read(self, offset: int, length: int | None) -> Iterator[bytes]:
        """The bytes of a range; what lies behind the end is empty."""
        end = self.end if length is None else min(self.end, offset + length)
        while offset < end:
            # Several threads read at once, so the position of the file is left alone.
            chunk = os.pread(self.file.fileno(), min(_SLICE_BYTES, end - offset), offset - self.start)
            offset += len(chunk)
            yield chunk


class LocalCopies:
    """The copies of one process, the latest few of them."""

    def __init__(self) -> None:
        self._held: OrderedDict[Version, LocalCopy] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, version: Version, offset: int) -> LocalCopy | None:
        """A copy that reaches from `offset` to the end."""
        with self._lock:
            copy = self._held.get(version)
        return copy if copy and copy.start <= offset else None

    def keep(self, version: Version, chunks: Iterable[bytes], *, start: int, size: int) -> Iterator[bytes]:
        """Pass chunks on and keep them, if there is room for `size` bytes; a stream that breaks off leaves nothing."""
        if not self._make_room(size):
            yield from chunks
            return
        # Nameless, so that a killed worker leaves nothing behind.
        file: BinaryIO | None = tempfile.TemporaryFile()  # noqa: SIM115  # read from until the copy is forgotten
        end = start
        for chunk in chunks:
            file = _append(file, chunk)
            end += len(chunk)
            yield chunk
        if file is not None:
            with self._lock:
                self._held[version] = LocalCopy(file, start, end)

    def forget(self, names: Collection[str | None]) -> None:
        """Let go of blobs; readings that are under way end undisturbed."""
        with self._lock:
            for version in [each for each in self._held if each.name in names]:
                del self._held[version]

    def _make_room(self, size: int) -> bool:
        while True:
            with self._lock:
                fits = size <= shutil.disk_usage(tempfile.gettempdir()).free * _SHARE
                if (fits and len(self._held) < _MOST_COPIES) or not self._held:
                    return fits
                self._held.popitem(last=False)


def _append(file: BinaryIO | None, chunk: bytes) -> BinaryIO | None:
    """The file with the chunk in it; None once the disk has refused one."""
    if file is None:
        return None
    try:
        file.write(chunk)
        file.flush()
    except OSError:
        log.warning("No local copy: the temporary disk refuses it", extra={"action": "copy_refused"})
        return None
    return file
