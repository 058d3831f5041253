"""Sealed credentials: only the right key, connection and field open them."""

import base64
import os

import pytest

from shared.domain.errors import MisconfiguredError
from shared.security.sealing import KeyRing, Sealer, UnsealError

OLD = f"old:{base64.b64encode(b'o' * 32).decode()}"
NEW = f"new:{base64.b64encode(b'n' * 32).decode()}"


def sealer(*keys: str) -> Sealer:
    return Sealer(lambda: KeyRing(",".join(keys)))


def test_a_secret_comes_back_where_it_was_sealed_for() -> None:
    stored = sealer(OLD).seal("s3cret", owner="a", field="token")

    assert sealer(OLD).open(stored, owner="a", field="token") == "s3cret"
    assert "s3cret" not in str(stored)


@pytest.mark.parametrize(("owner", "field"), [("b", "token"), ("a", "password")], ids=["connection", "field"])
def test_a_secret_copied_elsewhere_is_refused(owner: str, field: str) -> None:
    stored = sealer(OLD).seal("s3cret", owner="a", field="token")

    with pytest.raises(UnsealError, match="does not belong"):
        sealer(OLD).open(stored, owner=owner, field=field)


def test_a_changed_secret_is_refused() -> None:
    stored = sealer(OLD).seal("s3cret", owner="a", field="token")
    flipped = bytearray(base64.b64decode(stored["sealed"]))
    flipped[0] ^= 1

    with pytest.raises(UnsealError):
        sealer(OLD).open({**stored, "sealed": base64.b64encode(flipped).decode()}, owner="a", field="token")


def test_rotation_needs_the_old_key_once_and_never_again() -> None:
    stored = sealer(OLD).seal("s3cret", owner="a", field="token")

    rotated = sealer(NEW, OLD).rewrap(stored)

    assert rotated is not None
    assert rotated["sealed"] == stored["sealed"]
    assert sealer(NEW).open(rotated, owner="a", field="token") == "s3cret"
    assert sealer(NEW).rewrap(rotated) is None


def test_a_missing_key_is_named() -> None:
    stored = sealer(OLD).seal("s3cret", owner="a", field="token")

    with pytest.raises(UnsealError, match="'old'"):
        sealer(NEW).open(stored, owner="a", field="token")


@pytest.mark.parametrize(
    "text", ["", "id-without-key", f"short:{base64.b64encode(os.urandom(16)).decode()}", "bad:%%%"], ids=str
)
def test_a_broken_key_ring_is_refused(text: str) -> None:
    with pytest.raises(MisconfiguredError):
        KeyRing(text)
