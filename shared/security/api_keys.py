"""API keys: how they are made, recognized and compared. The database knows them by hash alone.

A key is 256 random bits, so a plain SHA-256 protects it: there is no dictionary to try, and a slow hash would only slow
every request down. A fixed prefix lets secret scanners and our own redaction find a key that leaked.
"""

import hashlib
import hmac
import secrets

KEY_PREFIX = "trib_"
_RANDOM_BYTES = 32
_SHOWN_CHARACTERS = 6


def generate_key() -> str:
    """A new secret; shown to its owner once and never stored."""
    return KEY_PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)


def hash_key(key: str) -> bytes:
    """What the database keeps of a key, and finds it by."""
    return hashlib.sha256(key.encode()).digest()


def shown_part(key: str) -> str:
    """The beginning of a key, enough to tell one's keys apart and of no use to anyone else."""
    return key[: len(KEY_PREFIX) + _SHOWN_CHARACTERS]


def is_same_key(sent: str, expected: str) -> bool:
    """Compare two secrets in a time that says nothing about either, not even its length; an empty one fits nothing."""
    return bool(expected) and hmac.compare_digest(hash_key(sent), hash_key(expected))
