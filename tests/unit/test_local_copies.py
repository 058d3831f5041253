"""What a worker keeps of the files it has read."""

import shutil
import tempfile
from io import BytesIO
from types import SimpleNamespace

import pytest

from shared.local_copies import LocalCopies, Version

FILE = Version("uploads", "a.csv", '"1"')


def read(copies: LocalCopies, version: Version, offset: int, length: int | None = None) -> bytes | None:
    copy = copies.find(version, offset)
    return b"".join(copy.read(offset, length)) if copy else None


def test_what_was_read_to_its_end_is_at_hand() -> None:
    copies = LocalCopies()

    passed = list(copies.keep(FILE, [b"id,title\n", b"1,Leak\n"], start=10, size=16))

    assert passed == [b"id,title\n", b"1,Leak\n"]
    assert read(copies, FILE, 10) == b"id,title\n1,Leak\n"
    assert read(copies, FILE, 19, 6) == b"1,Leak"
    assert read(copies, FILE, 19, 600) == b"1,Leak\n"
    assert read(copies, FILE, 99) == b""


def test_what_lies_before_the_copy_or_is_another_version_is_not() -> None:
    copies = LocalCopies()
    list(copies.keep(FILE, [b"1,Leak\n"], start=10, size=7))

    assert read(copies, FILE, 9) is None
    assert read(copies, Version("uploads", "a.csv", '"2"'), 10) is None
    assert read(copies, Version("files", "a.csv", '"1"'), 10) is None


def test_a_reading_that_breaks_off_leaves_nothing() -> None:
    copies = LocalCopies()
    reading = copies.keep(FILE, [b"1", b"2"], start=0, size=2)

    next(reading)
    reading.close()

    assert read(copies, FILE, 0) is None


def test_a_copy_is_forgotten_while_it_is_read_without_harm() -> None:
    copies = LocalCopies()
    list(copies.keep(FILE, [b"1,Leak\n"], start=0, size=7))
    copy = copies.find(FILE, 0)

    copies.forget(["a.csv", None])

    assert read(copies, FILE, 0) is None
    assert copy is not None
    assert b"".join(copy.read(2, None)) == b"Leak\n"


def test_only_the_latest_few_are_kept() -> None:
    copies = LocalCopies()
    versions = [Version("uploads", f"{number}.csv", '"1"') for number in range(10)]

    for version in versions:
        list(copies.keep(version, [b"x"], start=0, size=1))

    assert [read(copies, version, 0) for version in versions] == [None] * 4 + [b"x"] * 6


def test_without_room_on_the_disk_the_bytes_pass_and_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    copies = LocalCopies()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=100))

    passed = list(copies.keep(FILE, [b"x" * 60], start=0, size=60))

    assert passed == [b"x" * 60]
    assert read(copies, FILE, 0) is None


def test_a_disk_that_fills_up_costs_the_copy_only(monkeypatch: pytest.MonkeyPatch) -> None:
    class FullDisk(BytesIO):
        def write(self, _: object) -> int:
            raise OSError(28, "No space left on device")

    copies = LocalCopies()
    monkeypatch.setattr(tempfile, "TemporaryFile", FullDisk)

    passed = list(copies.keep(FILE, [b"1", b"2"], start=0, size=2))

    assert passed == [b"1", b"2"]
    assert read(copies, FILE, 0) is None
