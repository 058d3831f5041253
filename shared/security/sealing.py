"""Secrets at rest: envelope encryption, bound to where they belong.

Every secret has a data key of its own (AES-256-GCM, associated data = connection and field), and the data key is
wrapped by a master key: one of a key ring, or an RSA key that never leaves Key Vault. A sealed secret that is copied to
another row or field cannot be opened. Rotation wraps the data keys anew and leaves the secrets alone.
"""

import base64
import os
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from shared.domain.errors import ConflictError, MisconfiguredError

_KEY_BYTES = 32
_NONCE_BYTES = 12


class UnsealError(ConflictError):
    """A stored secret cannot be opened with the keys at hand."""

    code = "credentials_unreadable"


class MasterKeys(Protocol):
    """Wraps and unwraps data keys."""

    @property
    def current(self) -> str:
        """Id of the key that wraps now."""
        ...

    def wrap(self, data_key: bytes) -> bytes:
        """Wrap with the current key."""
        ...

    def unwrap(self, key_id: str, wrapped: bytes) -> bytes:
        """Unwrap with the key of this id; UnsealError if that is not possible."""
        ...

    def require(self, key_id: str) -> None:
        """UnsealError if a key of this id cannot be at hand; asks nobody."""
        ...


class KeyRing:
    """Master keys from a setting, `id:base64`, comma-separated; the first wraps, all unwrap."""

    def __init__(self, text: str) -> None:
        self._keys: dict[str, AESGCM] = {}
        for entry in filter(None, (part.strip() for part in text.split(","))):
            key_id, _, encoded = entry.partition(":")
            try:
                key = base64.b64decode(encoded, validate=True)
            except ValueError:
                key = b""
            if not key_id or len(key) != _KEY_BYTES:
                raise MisconfiguredError(
                    "CREDENTIAL_ENCRYPTION_KEY has an entry that is not `id:base64 of 32 bytes`",
                    hint="Make one with: openssl rand -base64 32",
                )
            self._keys[key_id] = AESGCM(key)
        if not self._keys:
            raise MisconfiguredError(
                "There is no key to seal credentials with",
                hint="Set CREDENTIAL_ENCRYPTION_KEY or CREDENTIAL_KEY_VAULT_KEY",
            )
        self.current = next(iter(self._keys))

    def wrap(self, data_key: bytes) -> bytes:
        """Wrap with the first key of the ring."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._keys[self.current].encrypt(nonce, data_key, self.current.encode())

    def unwrap(self, key_id: str, wrapped: bytes) -> bytes:
        """Unwrap with any key of the ring."""
        self.require(key_id)
        try:
            return self._keys[key_id].decrypt(wrapped[:_NONCE_BYTES], wrapped[_NONCE_BYTES:], key_id.encode())
        except InvalidTag as error:
            raise UnsealError(
                "The master key does not fit these credentials", hint="Save the credentials again"
            ) from error

    def require(self, key_id: str) -> None:
        """UnsealError if the ring has no such key."""
        if key_id not in self._keys:
            raise UnsealError(
                f"The key {key_id!r} that sealed these credentials is not in the key ring",
                hint="Put it back behind the new one in CREDENTIAL_ENCRYPTION_KEY, or save the credentials again",
            )


class Sealer:
    """Seals and opens the secrets of connections. Keys are made when first needed: files need none."""

    def __init__(self, make_keys: Callable[[], MasterKeys]) -> None:
        self._make_keys = make_keys

    @cached_property
    def keys(self) -> MasterKeys:
        """The master keys; MisconfiguredError if none are set, or one is none."""
        return self._make_keys()

    def seal(self, secret: str, *, owner: str, field: str) -> dict[str, str]:
        """The secret as it may be stored: JSON with the id of the key that wraps its data key."""
        data_key, nonce = AESGCM.generate_key(_KEY_BYTES * 8), os.urandom(_NONCE_BYTES)
        sealed = AESGCM(data_key).encrypt(nonce, secret.encode(), _bound_to(owner, field))
        return {
            "key": self.keys.current,
            "wrapped": _encode(self.keys.wrap(data_key)),
            "nonce": _encode(nonce),
            "sealed": _encode(sealed),
        }

    def open(self, stored: Mapping[str, Any], *, owner: str, field: str) -> str:
        """The secret; UnsealError if it was sealed for another place, was changed, or its key is gone."""
        data_key = self.keys.unwrap(stored["key"], base64.b64decode(stored["wrapped"]))
        try:
            opened = AESGCM(data_key).decrypt(
                base64.b64decode(stored["nonce"]), base64.b64decode(stored["sealed"]), _bound_to(owner, field)
            )
        except InvalidTag as error:
            raise UnsealError(
                f"The stored {field} does not belong to this connection or was changed",
                hint="Save the credentials again",
            ) from error
        return opened.decode()

    def rewrap(self, stored: Mapping[str, Any]) -> dict[str, Any] | None:
        """The same secret under the current master key; None if it is already."""
        if stored["key"] == self.keys.current:
            return None
        data_key = self.keys.unwrap(stored["key"], base64.b64decode(stored["wrapped"]))
        return {**stored, "key": self.keys.current, "wrapped": _encode(self.keys.wrap(data_key))}


def _bound_to(owner: str, field: str) -> bytes:
    return f"tributary:{owner}:{field}".encode()


def _encode(value: bytes) -> str:
    return base64.b64encode(value).decode()
